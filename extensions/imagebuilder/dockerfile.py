"""A Dockerfile of what was recorded of an image: its packages, from their sources again.

Best effort, and the file says so: packages of apt, pip and conda with their versions are installed anew, files that
were made or changed by hand are named in comments, for no Dockerfile has them. Names and versions come from files of
somebody's container: what is not spelled like a package is left out, so that nothing of it becomes a command.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from extensions.imagebuilder.changes import Changes, Package

_APT = re.compile(r"[a-z0-9][a-z0-9.+-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~:-]{0,127}")
_PREFIX = re.compile(r"(?:[A-Za-z0-9._+-]+/)*[A-Za-z0-9._+-]+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
FILES_MOST = 50


def dockerfile(parent: str, changes: Changes, *, name: str = "") -> str:
    """The text; ends with a newline."""
    lines = [
        f"# What was recorded of {name}."
        if _IMAGE.fullmatch(name)
        else "# What was recorded of a saved image.",
        "# Best effort: packages are fetched again and may be newer or gone; files made by hand are only named.",
        f"FROM {parent}" if _IMAGE.fullmatch(parent) else "FROM scratch  # the parent has no name here",
        "USER root",
    ]
    added = changes.packages_added
    lines += _apt(one for one in added if one.manager == "apt")
    lines += _pip(one for one in added if one.manager == "pip")
    lines += _conda(one for one in added if one.manager == "conda")
    apart = (
        "/site-packages/",
        "/dist-packages/",
        "/conda-meta/",
        "usr/",
        "var/lib/dpkg/",
        "var/cache/",
        "var/log/",
    )
    by_hand = [
        path
        for path in (*changes.added, *changes.changed)
        if not any(part in f"/{path}" or path.startswith(part) for part in apart)
    ]
    if by_hand:
        lines += ["", f"# Files made or changed besides packages: {len(by_hand)}. The largest:"]
        lines += [f"#   /{_plain(path)}" for path in by_hand[:FILES_MOST]]
    if changes.deleted:
        lines += ["", f"# Deleted: {len(changes.deleted)}."]
        lines += [f"#   /{_plain(path)}" for path in list(changes.deleted)[:FILES_MOST]]
    return "\n".join(lines) + "\n"


def _plain(path: str) -> str:
    """A path as it may stand in a comment: no control character ends the line, no backslash joins the next."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() and sign != "\\" else "?" for sign in text)[:300]


def _apt(packages: Iterable[Package]) -> list[str]:
    # Without versions: an archive keeps the newest alone.
    names = sorted({one.name for one in packages if _APT.fullmatch(one.name)})
    if not names:
        return []
    return [
        "",
        "RUN apt-get update && apt-get install -y --no-install-recommends \\",
        *(f"      {name} \\" for name in names),
        "    && rm -rf /var/lib/apt/lists/*",
    ]


def _pip(packages: Iterable[Package]) -> list[str]:
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for one in packages:
        if _NAME.fullmatch(one.name) and _VERSION.fullmatch(one.version) and _PREFIX.fullmatch(one.prefix):
            by_prefix[one.prefix].append(f"{one.name}=={one.version}")
    lines: list[str] = []
    for prefix, names in sorted(by_prefix.items()):
        root = prefix.partition("/lib/python")[0]
        python = (
            f"/{root}/bin/python" if "/lib/python" in prefix and not root.endswith(".local") else "python3"
        )
        lines += ["", f"# into /{prefix}", f"RUN {python} -m pip install --no-cache-dir \\"]
        lines += [f"      {name} \\" for name in sorted(names)[:-1]]
        lines += [f"      {sorted(names)[-1]}"]
    return lines


def _conda(packages: Iterable[Package]) -> list[str]:
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for one in packages:
        version = one.version.partition("=")[0]
        if _NAME.fullmatch(one.name) and _VERSION.fullmatch(version) and _PREFIX.fullmatch(one.prefix):
            by_prefix[one.prefix].append(f"{one.name}={version}")
    lines: list[str] = []
    for prefix, names in sorted(by_prefix.items()):
        lines += ["", f"RUN conda install -y -p /{prefix} \\"]
        lines += [f"      {name} \\" for name in sorted(names)[:-1]]
        lines += [f"      {sorted(names)[-1]}"]
    return lines
