"""How a node ended: written by whoever collected the process, read by whoever looks (design §4)."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spawner.process.layout import write_json


def write_exit(path: Path, pid: int, code: int, at: float) -> None:
    """Write when (seconds since 1970) and with which code a process ended; a directory that is gone is no loss."""
    try:
        write_json(path, {"pid": pid, "code": code, "ended_at": at})
    except OSError:
        pass


def exit_reason(code: int) -> str:
    """``exited 1``, ``killed by signal 9``."""
    return f"killed by signal {-code}" if code < 0 else f"exited {code}"


def exit_words(code: int) -> str:
    """The same with the signal's name, for logs."""
    if code >= 0:
        return f"exited {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def ended_at(said: dict[str, Any] | None, pid: int) -> datetime | None:
    """The moment in an exit file, if it is this process's."""
    if said is None or said.get("pid") != pid:
        return None
    return datetime.fromtimestamp(said["ended_at"], UTC)
