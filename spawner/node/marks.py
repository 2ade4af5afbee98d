"""How a process of a cluster is recognised, whoever started it and whatever became of its directory.

Everything a node starts inherits the variables of :mod:`spawner.node.place`, so ``/proc/<pid>/environ``
tells. A node that was forked shows its parent's environment there: it holds a small file in memory
instead, which ``/proc/<pid>/fd`` shows under its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spawner.node.place import DIRECTORY, RANK, RUN

MEMORY_FILE = "/memfd:galilean-node (deleted)"


@dataclass(frozen=True)
class Mark:
    """Which node of which run, and in which directory its cluster lives."""

    directory: str
    user: str
    server: str
    run: str
    rank: int


def node_mark(environ: Mapping[str, str]) -> bytes:
    """The content of the memory file."""
    return json.dumps(
        {
            "directory": environ[DIRECTORY],
            "user": environ.get("JUPYTERHUB_USER", ""),
            "server": environ.get("JUPYTERHUB_SERVER_NAME", ""),
            "run": environ.get(RUN, ""),
            "rank": int(environ.get(RANK, "0")),
        }
    ).encode()


def read_mark(content: bytes) -> Mark | None:
    """A mark from the memory file; ``None`` for anything else."""
    try:
        return Mark(**json.loads(content))
    except (ValueError, TypeError):
        return None


def environment_mark(environ: bytes) -> Mark | None:
    """A mark from ``/proc/<pid>/environ``; ``None`` when the process is not of a cluster."""
    if DIRECTORY.encode() not in environ:
        return None
    pairs = (item.partition(b"=") for item in environ.split(b"\0"))
    values = {
        name.decode(errors="replace"): value.decode(errors="surrogateescape") for name, _, value in pairs
    }
    if DIRECTORY not in values:
        return None
    try:
        return read_mark(node_mark(values))
    except ValueError:
        return None


def wanted_run(directory: Path) -> str | None:
    """The run that the cluster's directory says is to be; ``None`` when there is none (any more)."""
    try:
        said = json.loads((directory / "run.json").read_bytes())
    except (OSError, ValueError):
        return None
    return None if said.get("removing") else said.get("run")
