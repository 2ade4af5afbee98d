"""What nodes that are processes really use, from ``/proc`` (AP-22).

A node is its whole family (:mod:`spawner.process.family`): server, kernels, terminals, whatever they started.
They share no cgroup of their own, since nobody here is root, so processes are counted one by one. What
children used that have ended stands in whoever collected them. A process that nobody of the family collects
(its parent ended before it) takes its time along: its last figure, at most one interval old, is kept.

Processes of one account can mark themselves as another node's. This backend keeps people apart in nothing, and
says so; figures that hold against people are the container backends'.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from spawner.process.family import Seen, family, look
from spawner.process.handles import PROC, Handle
from spawner.use import NodeUse

Node = tuple[str, int]
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessUse:
    """One process of a node: its time and that of children it collected, and its share of memory."""

    handle: Handle
    parent: int
    cpu_us: int
    memory_bytes: int


class Counter:
    """Processor time of one node over many looks; it never goes back."""

    def __init__(self) -> None:
        self._before: dict[Handle, ProcessUse] = {}
        self._ended_us = 0

    def add(self, processes: Iterable[ProcessUse]) -> int:
        """Take what one look found; microseconds since the node began."""
        now = {item.handle: item for item in processes}
        living = {handle.pid for handle in now}
        for handle, item in self._before.items():
            if handle not in now and item.parent not in living:
                self._ended_us += item.cpu_us
        self._before = now
        return self._ended_us + sum(item.cpu_us for item in now.values())


class ProcessUseMeter:
    """Measures the nodes of one state directory; implements :class:`spawner.use.UseMeter`."""

    def __init__(
        self, state_dir: Path | str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._clusters = Path(state_dir).absolute() / "clusters"
        self._clock = clock
        self._counters: dict[Node, Counter] = {}

    async def measure(self) -> list[NodeUse]:
        """All nodes of which a process runs.

        Raises
        ------
        OSError
            When ``/proc`` cannot be read.
        """
        return await asyncio.to_thread(self._measure)

    async def close(self) -> None:
        """Nothing is held."""

    def _measure(self) -> list[NodeUse]:
        at = self._clock()
        found: list[NodeUse] = []
        counters: dict[Node, Counter] = {}
        for node, members in families(look(), self._clusters).items():
            processes = [use for item in members if (use := process_use(item)) is not None]
            counter = counters[node] = self._counters.get(node) or Counter()
            found.append(
                NodeUse(
                    run=node[0],
                    rank=node[1],
                    cpu_us_total=counter.add(processes),
                    memory_bytes=sum(item.memory_bytes for item in processes),
                    measured_at=at,
                )
            )
        self._counters = counters
        return found


def families(seen: list[Seen], clusters: Path) -> dict[Node, list[Seen]]:
    """The processes of each node whose cluster has its directory below ``clusters``."""
    marks = {
        item.mark for item in seen if item.mark is not None and Path(item.mark.directory).parent == clusters
    }
    found: dict[Node, list[Seen]] = {}
    for mark in marks:
        node = (mark.run, mark.rank)
        found.setdefault(node, []).extend(family(seen, lambda other, mark=mark: other == mark))
    return found


def process_use(item: Seen, proc: Path = PROC) -> ProcessUse | None:
    """What one process uses; ``None`` when it ended meanwhile."""
    try:
        stat = (proc / str(item.pid) / "stat").read_text(errors="replace")
        memory = _memory_bytes(proc / str(item.pid))
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if int(fields[19]) != item.handle.start_ticks:
        return None
    ticks = sum(int(value) for value in fields[11:15])  # utime, stime, cutime, cstime
    return ProcessUse(item.handle, int(fields[1]), ticks * _TICK_US, memory)


def _memory_bytes(entry: Path) -> int:
    """Its proportional share: nodes forked from one process share most of what they have in memory."""
    try:
        for line in (entry / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (PermissionError, OSError) as error:
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            raise
    resident, shared = (int(value) for value in (entry / "statm").read_text().split()[1:3])
    return max(0, resident - shared) * _PAGE_BYTES
