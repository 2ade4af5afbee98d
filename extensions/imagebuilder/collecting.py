"""Garbage collection of a registry of our own: nobody may push meanwhile, whoever dies.

The registry's collector marks what manifests name, then deletes the rest: a layer that is pushed between the two, for a
manifest that comes a moment later, would be gone for good. So it runs only while this service pushes nothing, and
nothing is begun while it runs. The collector is a process that outlives a killed service, therefore it holds a lock, by a
file that it has open and nothing else; whoever comes next asks the lock, not its own memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from pathlib import Path
from typing import Protocol

log = logging.getLogger("galilean.imagebuilder")

MOST_SECONDS = 1800.0


class Collects(Protocol):
    """Gives deleted blobs back."""

    def free(self) -> bool:
        """Whether nobody is collecting, so that one may push."""
        ...

    async def collect(self) -> None:
        """Collect; comes back when it is over. Cancelled, it is ended first."""
        ...


class Collector:
    """Collects by the registry's own program.

    Parameters
    ----------
    program, settings
        The program, and the file of the registry.
    """

    def __init__(self, program: str, settings: Path) -> None:
        self._program, self._settings = program, settings
        self._lock = settings.parent / "collecting"

    def free(self) -> bool:
        """See :class:`Collects`."""
        with self._lock.open("a") as lock:
            return _held(lock.fileno())

    async def collect(self) -> None:
        """See :class:`Collects`."""
        with self._lock.open("a") as lock:
            if not _held(lock.fileno()):
                return
            process = await asyncio.create_subprocess_exec(
                self._program,
                "garbage-collect",
                str(self._settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(lock.fileno(),),
            )
            try:
                _, said = await asyncio.wait_for(process.communicate(), MOST_SECONDS)
            finally:
                if process.returncode is None:
                    process.kill()
                    await asyncio.shield(process.wait())
        if process.returncode:
            log.warning("the registry gave nothing back: %s", said.decode(errors="replace")[-500:])


def _held(descriptor: int) -> bool:
    """Take the lock, for as long as somebody has this very file open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
