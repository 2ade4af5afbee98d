"""What still runs in a node although nobody may be there (BX-15): the node's own word.

Four things count. *Kernels* that execute. *Cells* that wait their turn, or whose output is still to be written
(:mod:`spawner.node.headless`). *Terminals* with a command in the foreground. Other *processes*: what was sent
into the background or detached, what another node's ``mpirun`` or ssh started here, and what a kernel started,
as long as it does something.

What only waits for a person does not count: shells, editors, pagers, an ssh client (the other node tells of
itself). Nor do helpers of the Jupyter server, such as language servers. A program that a kernel started, and a
kernel that executes nothing, count while they use the processor or move data: pools of idle workers stay
around for hours, and threads go on after their cell. The same holds for what is on a desktop: panels, settings
and windows wait there for a person all day long.

This is told, not proven; people's programs can make it look as they like. It lets *automatic when done* wait,
and the hard maximum ends that.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.node.place import RANK, RUN, Place

PROC = Path("/proc")
#: How often processes are looked at while something runs or somebody is there, and otherwise.
LOOK_SECONDS = 15.0
QUIET_LOOK_SECONDS = 60.0
#: Less than this is waiting: a share of one processor, and bytes read and written in a second.
ACTIVE_SHARE = 0.05
ACTIVE_BYTES = 256 * 1024

SHELLS = frozenset({"bash", "sh", "dash", "zsh", "fish", "csh", "tcsh", "ksh", "ash"})
WAITING = SHELLS | frozenset(
    {
        "less", "more", "man", "vi", "vim", "nvim", "nano", "emacs", "pico", "ed", "mc", "top", "htop", "btop",
        "nvtop", "nvidia-smi", "watch", "tmux", "tmux: server", "tmux: client", "screen", "ssh", "sftp",
        "sftp-server", "sshd", "sshd-session", "ssh-agent", "gpg-agent", "dbus-daemon", "dbus-launch", "ipython",
        "ipython3", "bpython", "gdb", "tensorboard", "tail",
    }
)  # fmt: skip
#: Begins the variable that every process of a desktop has (:mod:`extensions.desktop.command`).
DESKTOP_MARK = b"GALILEAN_DESKTOP_SESSION="
_REPLS = ("python", "R", "julia", "node", "octave")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One process of the node, as one look at ``/proc`` found it."""

    pid: int
    start_ticks: int
    parent: int
    group: int
    state: str
    name: str
    arguments: int
    ticks: int
    moved_bytes: int
    desktop: bool = False

    @property
    def waits(self) -> bool:
        """Whether it only waits for somebody, or does nothing any more."""
        if self.state in "TtZXx" or self.name in WAITING:
            return True
        return self.arguments <= 1 and self.name.rstrip("0123456789.") in _REPLS


class Processes:
    """Tells which processes of a node are at work; remembers the last look to see what they did since.

    Parameters
    ----------
    marks
        What stands in the environment of every process of the node.
    read
        Finds the node's processes: ``read(marks)``.
    """

    def __init__(
        self,
        marks: Collection[bytes],
        *,
        read: Callable[[Collection[bytes]], list[Process]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._marks = tuple(marks)
        self._read = read or Reader().read
        self._now = now
        self._before: dict[tuple[int, int], Process] = {}
        self._before_at = 0.0

    def at_work(
        self,
        *,
        server: int,
        kernels: Collection[int],
        shells: Collection[int],
        foreground: Collection[int] = (),
    ) -> int:
        """How many are at work. Blocks for a few milliseconds.

        Parameters
        ----------
        server
            Process id of the Jupyter server.
        kernels, shells
            Those of its kernels that execute nothing now, and of its terminals' shells. Kernels that
            execute are told of by themselves, and with them what they started.
        foreground
            Process groups that terminals have in the foreground, which are told of by themselves.
        """
        found = self._read(self._marks)
        now = self._now()
        by_pid = {item.pid: item for item in found}
        before, seconds = self._before, now - self._before_at
        self._before = {(item.pid, item.start_ticks): item for item in found}
        self._before_at = now
        above = _ancestors(server, by_pid)
        count = 0
        for item in found:
            if item.pid == server or item.pid in above or item.state in "TtZXx":
                continue
            if item.desktop:
                last = before.get((item.pid, item.start_ticks))
                count += not item.waits and last is not None and _active(last, item, seconds)
                continue
            root = _below(item, server, by_pid)
            if root is None or root.pid in shells or root.name.startswith("sshd"):
                count += not item.waits and item.group not in foreground
            elif root.pid in kernels:
                last = before.get((item.pid, item.start_ticks))
                count += last is not None and _active(last, item, seconds)
        return count


def _active(last: Process, item: Process, seconds: float) -> bool:
    if seconds <= 0:
        return False
    share = (item.ticks - last.ticks) / _TICKS / seconds
    return share >= ACTIVE_SHARE or (item.moved_bytes - last.moved_bytes) / seconds >= ACTIVE_BYTES


def _ancestors(pid: int, by_pid: Mapping[int, Process]) -> set[int]:
    found: set[int] = set()
    item = by_pid.get(pid)
    while item is not None and item.parent not in found:
        found.add(item.parent)
        item = by_pid.get(item.parent)
    return found


def _below(item: Process, server: int, by_pid: Mapping[int, Process]) -> Process | None:
    """The server's own child that a process comes from; ``None`` when it does not come from the server."""
    seen: set[int] = set()
    while item.pid not in seen:
        if item.parent == server:
            return item
        seen.add(item.pid)
        parent = by_pid.get(item.parent)
        if parent is None:
            return None
        item = parent
    return None


class Reader:
    """Reads ``/proc``; what a process is of is looked at once in its life."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._ours: dict[tuple[int, int], str] = {}

    def read(self, marks: Collection[bytes]) -> list[Process]:
        """The processes whose environment has all the marks, and this one."""
        found: list[Process] = []
        known: dict[tuple[int, int], str] = {}
        me, uid = os.getpid(), os.geteuid()
        for entry in os.scandir(self._proc):
            if not entry.name.isdigit():
                continue
            try:
                if entry.stat().st_uid != uid:
                    continue
                item = _parse(int(entry.name), Path(entry.path))
                key = (item.pid, item.start_ticks)
                ours = self._ours.get(key, "")
                if not ours:  # one that was just forked may become ours when it starts its program
                    ours = (
                        "node"
                        if item.pid == me
                        else _kind((Path(entry.path) / "environ").read_bytes(), marks)
                    )
                known[key] = ours
                if ours:
                    found.append(_counted(item, Path(entry.path), desktop=ours == "desktop"))
            except (OSError, ValueError, IndexError):
                continue  # it ended meanwhile, or is none of ours
        self._ours = known
        return found


def _kind(environ: bytes, marks: Iterable[bytes]) -> str:
    """``node`` or ``desktop`` for a process of this node, empty for any other."""
    variables = set(environ.split(b"\0"))
    if not all(mark in variables for mark in marks):
        return ""
    return "desktop" if any(name.startswith(DESKTOP_MARK) for name in variables) else "node"


def _parse(pid: int, entry: Path) -> Process:
    content = (entry / "stat").read_text(errors="replace")
    end = content.rindex(")")
    fields = content[end + 2 :].split()
    return Process(
        pid=pid,
        start_ticks=int(fields[19]),
        parent=int(fields[1]),
        group=int(fields[2]),
        state=fields[0],
        name=content[content.index("(") + 1 : end],
        arguments=0,
        ticks=int(fields[11]) + int(fields[12]),
        moved_bytes=0,
    )


def _counted(item: Process, entry: Path, *, desktop: bool = False) -> Process:
    arguments = (entry / "cmdline").read_bytes().count(b"\0")
    moved = 0
    try:
        for line in (entry / "io").read_text().splitlines():
            name, _, value = line.partition(": ")
            if name in ("rchar", "wchar"):
                moved += int(value)
    except OSError:
        pass
    return Process(**{**item.__dict__, "arguments": arguments, "moved_bytes": moved, "desktop": desktop})


class Busy:
    """All of it, for one Jupyter server.

    Parameters
    ----------
    place
        Which node.
    kernels
        Its kernel manager.
    terminals
        Its terminals by name, each with a ``ptyproc``.
    queued
        How many cells wait or are unwritten.
    processes
        Looks at other processes; handed in so that tests need none.
    """

    def __init__(
        self,
        place: Place,
        *,
        kernels: Any,
        terminals: Callable[[], Mapping[str, Any]],
        queued: Callable[[], int],
        processes: Processes | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernels = kernels
        self._terminals = terminals
        self._queued = queued
        marks = (f"{RUN}={place.run}".encode(), f"{RANK}={place.rank}".encode())
        self._processes = processes or Processes(marks)
        self._now = now
        self._looked_at: float | None = None
        self._others = 0

    def told(self) -> dict[str, int]:
        """What runs now; other processes as of the last look."""
        busy, _ = self._kernel_pids()
        return {
            "kernels": busy,
            "queued": self._queued(),
            "terminals": len(self._foreground()[0]),
            "processes": self._others,
        }

    async def look(self, *, somebody: bool = True) -> dict[str, int]:
        """What runs now; looks at other processes again when it is time to, in a thread."""
        pause = LOOK_SECONDS if somebody or self._others else QUIET_LOOK_SECONDS
        now = self._now()
        if self._looked_at is None or now - self._looked_at >= pause:
            self._looked_at = now
            _, idle = self._kernel_pids()
            groups, shells = self._foreground()
            self._others = await asyncio.to_thread(
                self._processes.at_work, server=os.getpid(), kernels=idle, shells=shells, foreground=groups
            )
        return self.told()

    def _kernel_pids(self) -> tuple[int, set[int]]:
        busy, idle = 0, set()
        for kernel_id in self._kernels.list_kernel_ids():
            kernel = self._kernels.get_kernel(kernel_id)
            if getattr(kernel, "execution_state", "") == "busy":
                busy += 1
            elif pid := getattr(getattr(kernel, "provisioner", None), "pid", None):
                idle.add(int(pid))
        return busy, idle

    def _foreground(self) -> tuple[set[int], set[int]]:
        """Foreground groups at work, and the shells of all terminals."""
        groups: set[int] = set()
        shells: set[int] = set()
        for terminal in list(self._terminals().values()):
            try:
                shell, group = int(terminal.ptyproc.pid), os.tcgetpgrp(terminal.ptyproc.fd)
            except (OSError, ValueError, AttributeError):
                continue
            shells.add(shell)
            if group != shell and works(group):
                groups.add(group)
        return groups, shells


def works(group: int, proc: Path = PROC) -> bool:
    """Whether a process group in the foreground is at work: its leader, or somebody when that has gone."""
    entry = proc / str(group)
    try:
        return not _counted(_parse(group, entry), entry).waits
    except (OSError, ValueError, IndexError):
        pass
    for other in os.scandir(proc):
        if other.name.isdigit():
            try:
                item = _parse(int(other.name), Path(other.path))
                if item.group == group and not _counted(item, Path(other.path)).waits:
                    return True
            except (OSError, ValueError, IndexError):
                continue
    return False
