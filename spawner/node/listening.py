"""Who listens at a port of this node: the person's own program, the node itself, somebody else, nobody.

A port is reached only at the loopback address, never by a name, so nothing can resolve elsewhere. On the
container backends the loopback is the node's own; on the process backend it is the machine's, with the
hub's ports and other people's nodes on it. There a port counts only when a process of this very node
listens (:mod:`spawner.node.marks`). Reading ``/proc`` costs about a millisecond; a verdict is kept as long
as the same socket listens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from spawner.node.marks import environment_mark
from spawner.node.place import DIRECTORY, RANK, RUN

PORT_FIRST, PORT_LAST = 1024, 65535
_LISTEN = "0A"
#: Addresses as ``/proc/net`` writes them → where a client reaches them.
_REACHED = {
    "00000000": "127.0.0.1",
    "0100007F": "127.0.0.1",
    "0" * 32: "127.0.0.1",  # dual, as is usual; an own look at V6ONLY there is none
    "00000000000000000000000001000000": "[::1]",
    # Addresses of IPv4 at a socket of both protocols, as Java has them.
    "0000000000000000FFFF000000000000": "127.0.0.1",
    "0000000000000000FFFF00000100007F": "127.0.0.1",
}


class Who(Enum):
    """Whose a port is."""

    NOBODY = "nobody"
    PERSON = "person"
    NODE = "node"
    OTHER = "other"


@dataclass(frozen=True)
class Listener:
    """A listening socket: where it is reached, and its inode."""

    address: str
    inode: str


def listeners(tables: Iterator[str], port: int) -> Iterator[Listener]:
    """The sockets that listen at a port on the loopback, from the lines of ``/proc/net/tcp`` and ``tcp6``."""
    wanted = f":{port:04X}"
    for line in tables:
        parts = line.split()
        if len(parts) > 9 and parts[3] == _LISTEN and parts[1].endswith(wanted):
            address = _REACHED.get(parts[1].partition(":")[0])
            if address:
                yield Listener(address, parts[9])


class Ports:
    """Says for this node whose a port is.

    Parameters
    ----------
    environ
        The node's.
    proc
        Where the kernel tells about processes.
    """

    def __init__(self, environ: Mapping[str, str], proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._directory = environ.get(DIRECTORY, "")
        self._run, self._rank = environ.get(RUN, ""), int(environ.get(RANK, "0"))
        self._known: dict[tuple[int, str], Who] = {}

    def look(self, port: int) -> tuple[Who, str]:
        """Whose the port is, and the numeric address at which it is reached."""
        if not PORT_FIRST <= port <= PORT_LAST:
            return Who.OTHER, ""
        found = list(listeners(self._tables(), port))
        if not found:
            return Who.NOBODY, ""
        for listener in found:
            who = self._whose(port, listener)
            if who is not Who.PERSON:
                return who, ""
        return Who.PERSON, found[0].address

    def _tables(self) -> Iterator[str]:
        for name in ("tcp", "tcp6"):
            try:
                with open(self._proc / "self/net" / name) as table:
                    yield from table
            except FileNotFoundError:  # no IPv6 here
                continue

    def _whose(self, port: int, listener: Listener) -> Who:
        key = (port, listener.inode)
        if key not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[key] = self._ask(f"socket:[{listener.inode}]")
        return self._known[key]

    def _ask(self, socket: str) -> Who:
        if self._holds("self", socket):
            return Who.NODE
        if not self._directory:
            return Who.PERSON  # the container's own network: nobody else can be there
        for entry in os.scandir(self._proc):
            if entry.name.isdigit() and self._holds(entry.name, socket) and self._is_ours(entry.name):
                return Who.PERSON
        return Who.OTHER

    def _holds(self, process: str, socket: str) -> bool:
        folder = self._proc / process / "fd"
        try:
            return any(_target(folder / name) == socket for name in os.listdir(folder))
        except OSError:
            return False

    def _is_ours(self, process: str) -> bool:
        try:
            mark = environment_mark((self._proc / process / "environ").read_bytes())
        except OSError:
            return False
        return mark is not None and (mark.directory, mark.run, mark.rank) == (
            self._directory, self._run, self._rank,
        )  # fmt: skip


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
