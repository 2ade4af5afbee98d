"""Keeps the parts of the product alive on one machine: proxy, hub, zygote, portal and the services.

Promises: a part that dies is back within a second, and later after growing pauses that never end in giving
up; no part outlives its supervisor, however that ends (nodes do: they are nobody's children here); a second
supervisor on one state directory is refused; every part writes one log, which is rotated; where everything
stands can be read at any time from ``run/status.json``. SIGTERM stops the parts and leaves the nodes for
the next start. SIGINT first releases every cluster, then does the same; a second SIGINT does not wait.

The general-purpose supervisors on the package index lack two of these, dying with the parent and backing
off without giving up, which is why this is our own (``docs/design.md``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from galilean.errors import UserError, mark
from galilean.terminal import sentence
from hub_config.secrets import write_private

LOG_BYTES, LOG_FILES = 10 * 2**20, 3
STEADY_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1

Probe = Callable[[], Awaitable[bool]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process that must run.

    Attributes
    ----------
    name
        Also the name of its log.
    command, environment
        What is executed; the environment is complete, nothing is inherited.
    ready
        Whether it answers; ``None`` = it counts as ready when it runs.
    after
        Parts that must have been ready before this one is started for the first time.
    stop_seconds
        How long it may take to stop before it is killed.
    restarted
        Called each time it is ready again after it died.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Probe | None = None
    after: Sequence[str] = ()
    stop_seconds: float = 10.0
    restarted: Callable[[], Awaitable[None]] | None = None


@dataclass
class _Life:
    """What is known of a part now."""

    state: str = "waiting"
    pid: int = 0
    starts: int = 0
    failures: int = 0
    last_exit: int | None = None
    since: float = field(default_factory=time.time)
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)


def pause_seconds(failures: int, lived_seconds: float) -> float:
    """How long to wait before a part is started again.

    Nothing when it lived for more than ten seconds; else 0.1 s, doubling to 30 s. The first restart is
    always within a second.
    """
    if lived_seconds > STEADY_SECONDS:
        return 0.0
    return min(LONGEST_PAUSE_SECONDS, 0.1 * 2 ** min(max(failures - 1, 0), 20))


class Lock:
    """The state directory's lock: one supervisor at a time, let go by the system when it dies."""

    def __init__(self, state: Path) -> None:
        run = state / "run"
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: IO[str] = (run / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            self._file.seek(0)
            holder = self._file.read().strip() or "?"
            self._file.close()
            raise UserError(
                409,
                mark(
                    "Galilean runs already on {state} (process {pid}). Stop that one first, or choose another "
                    "directory with GALILEAN_STATE."
                ),
                state=str(state),
                pid=holder,
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def _die_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return in_child


class Supervisor:
    """Starts the parts and keeps them alive until a signal comes.

    Parameters
    ----------
    parts
        In the order in which they are told; stopped in the reverse order.
    state
        State directory: logs, status file.
    say
        Prints a line for the person at the terminal.
    release_all
        Releases every cluster (SIGINT); answers how many are still open at its end.
    settled
        Called once when every part has been ready.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        state: Path,
        *,
        say: Say,
        release_all: Callable[[], Awaitable[int]] | None = None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        self.parts = list(parts)
        self.state = state
        self.say = say
        self.release_all = release_all
        self.settled = settled
        self.lives = {part.name: _Life() for part in parts}
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stopping = False
        self._disk_told = False
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM. Call it in the main thread: the death signal is tied to it."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._signals.put_nowait, name)
        (self.state / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        tasks = {part.name: asyncio.create_task(self._keep(part)) for part in self.parts}
        chores = [asyncio.create_task(self._rotate()), asyncio.create_task(self._tell_settled())]
        try:
            got = await self._signals.get()
            if got == signal.SIGINT and self.release_all:
                await self._release()
            self.say(sentence(mark("Stopping.")))
        finally:
            self._stopping = True
            for chore in chores:
                chore.cancel()
            for part in reversed(self.parts):
                tasks[part.name].cancel()
            await asyncio.gather(*(self._stop(part) for part in self.parts))
            await asyncio.gather(*tasks.values(), *chores, return_exceptions=True)
            self._write_status()

    async def _release(self) -> None:
        assert self.release_all is not None
        self.say(sentence(mark("Releasing every cluster. Press Ctrl-C again to leave them running.")))
        release, again = asyncio.ensure_future(self.release_all()), asyncio.create_task(self._signals.get())
        await asyncio.wait({release, again}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if not release.done():
            release.cancel()
            self.say(sentence(mark("Left as they are: clusters go on and are found by the next start.")))
        elif error := release.exception():
            self.say(sentence(mark("Not everything could be released: {why}"), why=error))
        elif left := release.result():
            self.say(
                sentence(mark("{left} could not be released in time; the next start finishes it."), left=left)
            )

    async def _keep(self, part: Part) -> None:
        life = self.lives[part.name]
        for other in part.after:
            await self.lives[other].was_ready.wait()
        while not self._stopping:
            began = time.monotonic()
            watch = None
            try:
                process = await self._start(part)
            except OSError as error:
                life.last_exit = None
                self.say(sentence(mark("{part} cannot be started: {why}"), part=part.name, why=_plain(error)))
            else:
                watch = asyncio.create_task(self._await_ready(part, life))
                life.last_exit = await process.wait()
                self._processes.pop(part.name, None)
                watch.cancel()
            lived = time.monotonic() - began
            life.failures = 1 if lived > STEADY_SECONDS else life.failures + 1
            self._mark(part, "down")
            if self._stopping:
                return
            pause = pause_seconds(life.failures, lived)
            if life.failures in (1, 4) or life.failures % 20 == 0:
                self.say(self._obituary(part, life, pause))
            await asyncio.sleep(pause)

    async def _start(self, part: Part) -> asyncio.subprocess.Process:
        life = self.lives[part.name]
        with (self.state / "logs" / f"{part.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *part.command,
                env=dict(part.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the supervisor alone
                preexec_fn=_die_with(os.getpid()),
            )
        self._processes[part.name] = process
        life.pid, life.starts = process.pid, life.starts + 1
        self._mark(part, "starting")
        return process

    async def _await_ready(self, part: Part, life: _Life) -> None:
        while part.ready is not None:
            with contextlib.suppress(Exception):
                if await part.ready():
                    break
            await asyncio.sleep(0.1)
        self._mark(part, "running")
        life.was_ready.set()
        if life.starts > 1:
            self.say(sentence(mark("{part} is back."), part=part.name))
            if part.restarted:
                with contextlib.suppress(Exception):
                    await part.restarted()

    async def _stop(self, part: Part) -> None:
        process = self._processes.get(part.name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), part.stop_seconds)
        except TimeoutError:
            self.say(sentence(mark("{part} does not stop; it is killed."), part=part.name))
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._mark(part, "stopped")

    def _obituary(self, part: Part, life: _Life, pause: float) -> str:
        if life.last_exit is None:
            line = mark("{part} did not start and is started again in {seconds} s (log: {log})")
        elif pause < 1:
            line = mark("{part} ended with {code} and is started again (log: {log})")
        else:
            line = mark("{part} ended with {code} and is started again in {seconds} s (log: {log})")
        text = sentence(
            line, part=part.name, code=life.last_exit, seconds=f"{pause:.0f}", log=self._log(part)
        )
        if life.failures > 1:
            text += "".join(f"\n    {line}" for line in last_lines(self._log(part), 4))
        return text

    def _log(self, part: Part) -> Path:
        return self.state / "logs" / f"{part.name}.log"

    def _mark(self, part: Part, state: str) -> None:
        life = self.lives[part.name]
        life.state, life.since = state, time.time()
        if state in ("down", "stopped"):
            life.pid = 0
        self._write_status()

    def status(self) -> dict[str, object]:
        """What ``run/status.json`` says."""
        return {
            "pid": os.getpid(),
            "stopping": self._stopping,
            "parts": {
                name: {
                    "state": life.state,
                    "pid": life.pid,
                    "restarts": max(0, life.starts - 1),
                    "last_exit": life.last_exit,
                    "since": life.since,
                }
                for name, life in self.lives.items()
            },
        }

    def _write_status(self) -> None:
        try:
            write_private(self.state / "run" / "status.json", json.dumps(self.status(), indent=1) + "\n")
        except OSError as error:
            if not self._disk_told:
                self._disk_told = True
                self.say(sentence(mark("The state directory cannot be written: {why}"), why=_plain(error)))
        else:
            self._disk_told = False

    async def _tell_settled(self) -> None:
        for life in self.lives.values():
            await life.was_ready.wait()
        if self.settled:
            self.settled()

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(10)
            for part in self.parts:
                try:
                    await asyncio.to_thread(rotate, self._log(part))
                except OSError as error:
                    self.say(
                        sentence(
                            mark("The log of {part} cannot be rotated: {why}"),
                            part=part.name,
                            why=_plain(error),
                        )
                    )


def rotate(log: Path, *, most_bytes: int = LOG_BYTES, keep: int = LOG_FILES) -> bool:
    """Move a log that has grown too large aside, without the writer noticing.

    The part writes in append mode, so the file is copied and emptied, not renamed; lines that are written
    between the two are lost.
    """
    if not log.exists() or log.stat().st_size <= most_bytes:
        return False
    for number in range(keep - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, each cut to a terminal's width."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 8192))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line[:160] for line in lines if line.strip()][-count:]


def _plain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return sentence(mark("the disk is full. Free some space; everything goes on by itself then."))
    return f"{error.filename or ''}: {error.strerror}".removeprefix(": ")


def read_status(state: Path) -> dict[str, object] | None:
    """The status that a supervisor on this state directory wrote last, ``None`` when none runs."""
    try:
        with (state / "run" / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except OSError:
        pass
    try:
        return json.loads((state / "run" / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
