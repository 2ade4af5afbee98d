"""Which code a process has in memory: a hash of what an upgrade changes.

The zygote works it out before it imports anything, the hub at every start of a node: when they differ,
the code on disk is newer than the zygote's, and the node is started plainly.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGES = (
    "jupyter_server",
    "jupyterlab",
    "jupyterlab_server",
    "jupyterhub",
    "tornado",
    "traitlets",
    "jupyter_server_proxy",
)


@cache
def stamped_files() -> tuple[str, ...]:
    """Our node code, and one file of each package that changes with its version."""
    ours = Path(__file__).parents[1]
    files = sorted(str(file) for folder in ("node", "process") for file in (ours / folder).glob("*.py"))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in spec.submodule_search_locations or () if spec else ():
            files += [os.path.join(place, "__init__.py"), os.path.join(place, "_version.py")]
    return tuple(files)


def stamp_of(files: Iterable[str]) -> str:
    """A hash over names, sizes and times of change; a file that is missing counts as such."""
    digest = hashlib.sha256(f"{sys.executable} {sys.version} {sys.prefix}".encode())
    for file in files:
        try:
            stat = os.stat(file)
            digest.update(f"\0{file}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
        except OSError:
            digest.update(f"\0{file}\0-".encode())
    return digest.hexdigest()


def code_stamp() -> str:
    """The stamp of the code that is on disk now. About twenty calls of ``stat``."""
    return stamp_of(stamped_files())
