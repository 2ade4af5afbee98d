"""Which processes belong to a cluster, and how all of them are ended.

More than the nodes themselves: kernels, terminals and whatever people started in them are sessions of
their own and outlive the server that began them. They are found by three signs, each enough: the mark in
their environment (or in memory, for a forked node), the session they are in, and who started them.
Reading ``/proc`` costs about a millisecond per hundred processes; everything here blocks and belongs into
a thread.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from spawner.node.marks import MEMORY_FILE, Mark, environment_mark, read_mark
from spawner.process.handles import PROC, Handle, Stat, boot_id, read_stat

TERM_SECONDS = 5.0
KILL_SECONDS = 10.0
LOOK_SECONDS = 0.02


class StillThere(Exception):
    """Processes that did not end although they were killed."""


@dataclass(frozen=True)
class Seen:
    """A process that runs, as one look at ``/proc`` found it."""

    handle: Handle
    stat: Stat
    mark: Mark | None
    node: bool

    @property
    def pid(self) -> int:
        return self.handle.pid


def look(*, proc: Path = PROC) -> list[Seen]:
    """All processes of this account that run, with their marks.

    Raises
    ------
    OSError
        When ``/proc`` cannot be read at all; never a part of it. Processes of other accounts are left out.
    """
    boot = boot_id()
    found: list[Seen] = []
    me = os.geteuid()
    for entry in os.scandir(proc):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            if me and entry.stat().st_uid != me:
                continue
            stat = read_stat(pid, proc)
            if stat is None or stat.ended:
                continue
            mark, node = _mark_of(proc / entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        found.append(Seen(Handle(pid, stat.start_ticks, boot), stat, mark, node))
    return found


def _mark_of(entry: Path) -> tuple[Mark | None, bool]:
    try:
        fds = os.listdir(entry / "fd")
        environ = (entry / "environ").read_bytes()
    except PermissionError:
        return None, False
    for fd in fds:
        try:
            if os.readlink(entry / "fd" / fd) == MEMORY_FILE:
                mark = read_mark((entry / "fd" / fd).read_bytes())
                if mark is not None:
                    return mark, True
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return environment_mark(environ), False


def family(
    seen: Iterable[Seen], belongs: Callable[[Mark], bool], roots: Collection[Handle] = ()
) -> list[Seen]:
    """The processes that belong: marked ones, recorded ones, their sessions and their descendants.

    A process with a mark of *another* cluster never belongs, whoever started it: a hub that was itself
    started from a terminal of some node stays alive, and so do its clusters.
    """
    seen = list(seen)
    known = set(roots)
    chosen = {
        item.pid: item
        for item in seen
        if item.handle in known or (item.mark is not None and belongs(item.mark))
    }
    grew = True
    while grew:
        sessions = {item.stat.session for item in chosen.values() if item.stat.session == item.pid}
        grew = False
        for item in seen:
            if item.pid in chosen or (item.mark is not None and not belongs(item.mark)):
                continue
            if item.stat.session in sessions or item.stat.parent in chosen:
                chosen[item.pid] = item
                grew = True
    return [item for item in chosen.values() if item.pid != os.getpid()]


def end_family(
    belongs: Callable[[Mark], bool],
    roots: Collection[Handle] = (),
    *,
    first: Collection[Handle] = (),
    first_seconds: float = 0.0,
    term_seconds: float = TERM_SECONDS,
    kill_seconds: float = KILL_SECONDS,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """End every process that belongs; come back when none is left, with how many there were.

    First TERM (and HUP where there is a terminal: an interactive shell ignores TERM), then KILL, also for
    what appears meanwhile. What belonged once still does after its parent is gone. ``first`` are told before all
    others, which have ``first_seconds`` of peace while those end what they started by themselves.

    Raises
    ------
    StillThere
        When something lives on after ``kill_seconds`` of killing.
    """
    met: dict[int, Handle] = {}
    told: set[Handle] = set()
    all_from = now() + (first_seconds if first else 0.0)
    while True:
        members = {item.handle: item for item in family(look(), belongs, [*roots, *first, *met.values()])}
        if not members:
            return len(met)
        met.update({handle.pid: handle for handle in members})
        alone = [handle for handle in first if handle in members]
        if not alone:
            all_from = min(all_from, now())
        if now() < all_from:
            for handle in alone:
                if handle not in told:
                    told.add(handle)
                    handle.signal(signal.SIGTERM)
            _wait_for_end(alone, until=min(now() + 0.5, all_from), pause=pause, now=now)
            continue
        kill_from = all_from + term_seconds
        give_up = kill_from + kill_seconds
        if now() >= give_up:
            raise StillThere(f"{len(members)} processes live on although they were killed")
        for handle, item in members.items():
            if now() >= kill_from:
                handle.signal(signal.SIGKILL)
            elif handle not in told:
                told.add(handle)
                handle.signal(signal.SIGTERM)
                if item.stat.terminal:
                    handle.signal(signal.SIGHUP)
                    handle.signal(signal.SIGCONT)
        _wait_for_end(list(members), until=min(now() + 0.5, give_up), pause=pause, now=now)


def _wait_for_end(
    handles: list[Handle], *, until: float, pause: Callable[[float], None], now: Callable[[], float]
) -> None:
    while now() < until and any(handle.alive() for handle in handles):
        pause(LOOK_SECONDS)
