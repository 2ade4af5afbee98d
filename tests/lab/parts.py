"""The lab's own processes by name: started with a log each, ended, killed, and never left alone."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(what: str, ready: Callable[[], Any], seconds: float = 240) -> None:
    """Until a part is ready: seconds where nothing else is done, and not much later on any machine."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the lab's {what} was not ready after {seconds:.0f} s")
        time.sleep(0.1)


def _end_with_us() -> None:
    """Let the kernel kill a part when whoever started it is killed: the kubelet of a dead lab would kill the
    containers of the next one, which it takes for leftovers of its own. By thread: parts are started by the main one."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Parts:
    """Processes by name, each with a log in a directory."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __getitem__(self, name: str) -> subprocess.Popen[bytes]:
        return self._running[name]

    def start(self, name: str, *command: str) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )

    def said(self, name: str) -> str:
        """The log of a part."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self, name: str, seconds: float = 10) -> None:
        """End a part as one should; safe when there is none."""
        part = self._running.pop(name, None)
        if part is None or part.poll() is not None:
            return
        part.terminate()
        try:
            part.wait(seconds)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()

    def kill(self, name: str) -> list[str]:
        """Kill a part without a word, as a crash would; its command line."""
        part = self._running.pop(name)
        part.send_signal(signal.SIGKILL)
        part.wait()
        return part.args  # type: ignore[return-value]

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Killed, and started again at the end."""
        command = self.kill(name)
        try:
            yield
        finally:
            self.start(name, *command)

    @contextlib.contextmanager
    def otherwise(self, name: str, *flags: str) -> Iterator[None]:
        """With other flags for the while; of a flag that is told twice the last counts."""
        command = self.kill(name)
        self.start(name, *command, *flags)
        try:
            yield
        finally:
            self.end(name)
            self.start(name, *command)
