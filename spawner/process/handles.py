"""A process that can be told from every other: its id, its start time, and the boot it belongs to.

Process ids are used again; killing "the pid in the file" may kill a stranger. Linux knows when a process
started, in clock ticks since boot: id, ticks and the boot's own id together name one process for ever.
A zombie has ended; whoever should have collected it may never do so (containers without an init).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    """What ``/proc/<pid>/stat`` says, as far as we need it."""

    state: str
    parent: int
    group: int
    session: int
    terminal: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        return self.state in "ZXx"


@dataclass(frozen=True)
class Handle:
    """One process of this machine.

    Attributes
    ----------
    pid
        Its id.
    start_ticks
        When it started, in clock ticks since boot.
    boot
        The boot's own id; after a reboot no handle is alive.
    """

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Handle | None:
        """The handle of a process that exists (a zombie has one too); ``None`` when there is none."""
        stat = read_stat(pid)
        return None if stat is None else cls(pid, stat.start_ticks, boot_id())

    @classmethod
    def from_dict(cls, said: dict[str, object]) -> Handle:
        return cls(int(str(said["pid"])), int(str(said["start_ticks"])), str(said["boot"]))

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def alive(self) -> bool:
        """Whether exactly this process runs; a zombie does not."""
        stat = read_stat(self.pid)
        return (
            stat is not None
            and not stat.ended
            and stat.start_ticks == self.start_ticks
            and self.boot == boot_id()
        )

    def started_at(self) -> datetime | None:
        """When it started, UTC, to the hundredth of a second; ``None`` for another boot's."""
        if self.boot != boot_id():
            return None
        seconds = boot_seconds() + self.start_ticks / os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(seconds, UTC)

    def signal(self, number: int) -> bool:
        """Send a signal to exactly this process; whether it was still there."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():  # looked at while the descriptor pins the id
                return False
            import signal

            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


def read_stat(pid: int, proc: Path = PROC) -> Stat | None:
    """State of a process; ``None`` when there is none of that id."""
    try:
        content = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(content)


def parse_stat(content: str) -> Stat:
    """Parse ``/proc/<pid>/stat``: the name in parentheses may contain spaces and parentheses itself."""
    fields = content[content.rindex(")") + 2 :].split()
    return Stat(
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        start_ticks=int(fields[19]),
    )


@cache
def boot_id() -> str:
    """The kernel's id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@cache
def boot_seconds() -> float:
    """When this machine booted, seconds since 1970."""
    import time

    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
