"""Which notebook a project begins with: what JupyterLab opens the first time, so that nobody meets emptiness.

The one that its author named as the first file; else the first that the README names; else the product's own welcome;
else the first by name, be it the only one. Only files at the top count. A notebook that is also there in the reader's
language, as ``name.zh_CN.ipynb`` beside ``name.ipynb``, is opened in it.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

from galilean.errors import UserError
from services.catalog.preview import FIRST
from services.catalog.starter import NAME
from services.files.root import LIST_MOST, Entry, Root

ENDING = ".ipynb"
README_BYTES = 64 * 1024


def first_notebook(names: Collection[str], *, chosen: str = "", readme: str = "", language: str = "") -> str:
    """The name of the notebook to begin with; empty = there is none.

    Parameters
    ----------
    names
        Of the files at the top.
    chosen
        The file that the author wants shown first.
    readme
        The text of the README.
    language
        Of the reader.
    """
    found = sorted(
        name
        for name in names
        if name.endswith(ENDING)
        and not name.startswith(".")
        and name.isprintable()
        and len(name) > len(ENDING)
    )
    if not found:
        return ""
    if chosen in found:
        first = chosen
    elif named := [(place, name) for name in found if (place := _place(readme, name)) >= 0]:
        first = min(named)[1]
    else:
        first = NAME if NAME in found else found[0]
    spoken = f"{first.removesuffix(ENDING)}.{language}{ENDING}"
    return spoken if language and spoken in found else first


def _place(text: str, name: str) -> int:
    """Where a name stands in a text, as it is or as an address; -1 = nowhere."""
    places = [place for form in (name, quote(name)) if (place := text.find(form)) >= 0]
    return min(places) if places else -1


def notebook_of(files: Root, *, chosen: str = "", language: str = "") -> str:
    """The same of a project's files. Blocks.

    Raises
    ------
    UserError
        503 when the disk does not answer as it should.
    """
    found = _files(files, ENDING)
    readme = _files(files, "readme") if len(found) > 1 else []
    return first_notebook(
        [entry.path for entry in found], chosen=chosen, readme=_readme(files, readme), language=language
    )


def _files(files: Root, contains: str) -> list[Entry]:
    listed = files.list(contains=contains, limit=LIST_MOST).entries
    return [entry for entry in listed if entry.kind == "file"]


def _readme(files: Root, entries: list[Entry]) -> str:
    by_name = {entry.path.lower(): entry.path for entry in entries}
    path = next((by_name[name] for name in FIRST if name in by_name), None)
    if path is None:
        return ""
    try:
        with files.open(path) as readme:
            return readme.read(README_BYTES).decode("utf-8", "replace")
    except UserError:  # taken away meanwhile
        return ""
