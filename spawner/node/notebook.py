"""Writing outputs into a notebook file that a person may be editing: find the cell, change nothing else.

A cell is found by its id (notebook format 4.5); a file from before there were ids by its code, where that stands
once. A cell that is not there (any more) gets nothing. The file is replaced whole, and only if it is still the one
that was read: who saved in between wins, and it is read and merged again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.node.plain_files import plain


@dataclass(frozen=True)
class Result:
    """What one execution of a cell came to so far.

    Attributes
    ----------
    key
        Of whoever asks.
    cell_id, code
        Which cell.
    count
        Its execution count; ``None`` = as it is in the file.
    outputs
        As the notebook format has them.
    done_at
        When it ended, seconds since 1970; ``None`` = it still runs.
    """

    key: str
    cell_id: str
    code: str
    count: int | None
    outputs: list[dict[str, Any]]
    done_at: float | None = None


@dataclass(frozen=True)
class Merged:
    """What became of results.

    Attributes
    ----------
    found
        Keys of those whose cell is in the file.
    text
        The new file; ``None`` = nothing to write.
    before
        The file as it was read, and its stamp.
    """

    found: frozenset[str]
    text: str | None
    before: str
    stamp: tuple[int, ...]


def stamp_of(path: Path) -> tuple[int, ...]:
    """Changes whenever the file does.

    Raises
    ------
    OSError
        When it is not there.
    """
    stat = os.stat(path)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def merge(path: Path, results: Iterable[Result], *, ours: tuple[int, ...] | None, saved_at: float) -> Merged:
    """Read a notebook and put results into it, in memory. Blocks.

    Parameters
    ----------
    path
        The file.
    results
        What to put in.
    ours
        Stamp of the file as we wrote it last: then nobody has saved since.
    saved_at
        When somebody else saved it last, as far as known before.

    Raises
    ------
    OSError, ValueError
        When it cannot be read, or is no notebook just now.
    """
    stamp = stamp_of(path)
    with open(path, encoding="utf-8", opener=plain) as file:
        before = file.read()
    notebook = json.loads(before)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"{path.name} is no notebook of format 4")
    if stamp != ours:
        saved_at = stamp[2] / 1e9
    found: set[str] = set()
    changed = False
    for result in results:
        cell = _cell_of(notebook["cells"], result)
        if cell is None:
            continue
        found.add(result.key)
        if result.done_at is not None and saved_at > result.done_at:
            continue  # a page that had it all saved the file since
        if cell.get("outputs") != result.outputs or (
            result.count is not None and cell.get("execution_count") != result.count
        ):
            cell["outputs"] = result.outputs
            if result.count is not None:
                cell["execution_count"] = result.count
            changed = True
    text = None
    if changed:
        text = (
            json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"
        )
    return Merged(frozenset(found), text, before, stamp)


def _cell_of(cells: list[Any], result: Result) -> dict[str, Any] | None:
    code = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    for cell in code:
        if cell.get("id") == result.cell_id:
            return cell
    alike = [cell for cell in code if "id" not in cell and _source(cell) == result.code]
    return alike[0] if len(alike) == 1 else None


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def prepare(path: Path, text: str) -> Path:
    """Write the new file beside the old one, as accessible as that. Blocks.

    Into a file that did not exist before, under a name that nobody knows before: in a folder where others may
    write, too, one that lies there already could be a link to anywhere.

    Raises
    ------
    OSError
        When there is no room, or the directory cannot be written.
    """
    mode = os.stat(path).st_mode & 0o7777
    handle, name = tempfile.mkstemp(".galilean~", f".{path.stem[:40]}.", path.parent)
    beside = Path(name)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def replace(path: Path, beside: Path, stamp: tuple[int, ...]) -> tuple[int, ...] | None:
    """Put the new file in the place of the one that was read; the new stamp, ``None`` when it has changed.

    Without a pause between the last look and the replacement: on the loop that also saves for pages.
    """
    try:
        if stamp_of(path) != stamp:
            beside.unlink(missing_ok=True)
            return None
        os.replace(beside, path)
        return stamp_of(path)
    except FileNotFoundError:
        beside.unlink(missing_ok=True)
        return None
