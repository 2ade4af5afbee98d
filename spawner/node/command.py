"""The start command of the environment: run once on every node, as the person, when the node answers (CG-39).

It runs in ``~/work`` in a session of its own, without the secrets of the node's server. What it prints stands
in ``~/.galilean-command.log``. It is ended with the node's server; when that restarts in its place, it is ended and
run again. That it ends, or fails, ends nothing else.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from spawner.node.plain_files import plain
from spawner.node.ssh import SECRET_VARIABLES

COMMAND = "GALILEAN_START_COMMAND"
#: Survives the server's restart in its place, as the process does.
PROCESS = "GALILEAN_START_PID"
LOG = ".galilean-command.log"
#: Tenths of a second: the first half asking, the second killing.
ENDING_STEPS = 60


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """What the command gets to see: the node's variables but for its secrets."""
    left_out = {*SECRET_VARIABLES, COMMAND, PROCESS}
    return {name: value for name, value in environ.items() if name not in left_out}


def ended(pid: int, *, pause: Callable[[float], None] = time.sleep) -> None:
    """End the session of a command that ran before this server, and come back when it has ended. Blocks."""
    for step in range(ENDING_STEPS):
        try:
            os.killpg(pid, signal.SIGTERM if step < ENDING_STEPS // 2 else signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue  # its group may have others
        except ChildProcessError:
            pass
        pause(0.1)


def start_command(environ: MutableMapping[str, str], log: Any) -> subprocess.Popen[bytes] | None:
    """Start it, if the environment has one. Blocks."""
    command = environ.get(COMMAND, "")
    if not command:
        return None
    if environ.get(PROCESS, "").isdigit():
        ended(int(environ[PROCESS]))
    home = Path(environ.get("HOME") or Path.home())
    work = home / "work"
    try:
        with open(home / LOG, "ab", opener=plain) as output:
            started = subprocess.Popen(
                ["/bin/bash", "-c", command],
                cwd=work if work.is_dir() else home,
                env=environment_of(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:  # a full home: the node is there all the same
        log.warning("The start command of the environment was not run: %s", error)
        return None
    environ[PROCESS] = str(started.pid)
    atexit.register(ended, started.pid)
    log.info("The start command of the environment runs; what it prints stands in ~/%s", LOG)
    return started
