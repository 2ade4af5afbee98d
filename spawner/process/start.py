"""How one node is started: by the zygote, or plainly where the zygote cannot or is away.

Both ways give the node the same arguments, environment, working directory, log and descriptors, and both
make it a session of its own. Blocking (some milliseconds); belongs into a thread.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spawner.node import place
from spawner.process.stamp import code_stamp

ZYGOTE_SECONDS = 5.0
_FD_VARIABLES = {"ready": place.READY_FD, "listen": place.LISTEN_FD, "ssh": place.SSH_FD}


@dataclass(frozen=True, kw_only=True)
class NodeCommand:
    """What to start.

    Attributes
    ----------
    arguments
        Of :mod:`spawner.node.launcher`.
    environment
        All of it; nothing is inherited.
    directory
        Working directory.
    log, exit_file
        Where the node prints to, and where its end is written.
    descriptors
        ``ready``, ``listen`` and ``ssh``, as the caller holds them.
    python
        Interpreter; empty = our own.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    exit_file: Path
    descriptors: Mapping[str, int] = field(default_factory=dict)
    python: str = ""

    @property
    def own_python(self) -> bool:
        return not self.python or os.path.realpath(self.python) == os.path.realpath(sys.executable)


@dataclass(frozen=True)
class Started:
    """A node that was started.

    Attributes
    ----------
    pid
        Its process.
    popen
        Who must collect it; ``None`` = the zygote does.
    why_plain
        Why the zygote was not used; empty when it was.
    """

    pid: int
    popen: subprocess.Popen[bytes] | None = None
    why_plain: str = ""


class ZygoteAway(Exception):
    """The zygote cannot start this node; the text says why."""


def start_node(command: NodeCommand, zygote: Path | None) -> Started:
    """Start a node by the zygote if it can be, else plainly.

    Raises
    ------
    OSError
        When it cannot be started at all: no such interpreter, no memory, no descriptors left.
    """
    if zygote is None:
        why = "the zygote is switched off"
    elif not command.own_python:
        why = "the environment has an interpreter of its own"
    else:
        try:
            return Started(ask_zygote(command, zygote))
        except ZygoteAway as error:
            why = str(error)
    popen = start_plainly(command)
    return Started(popen.pid, popen, why)


def ask_zygote(command: NodeCommand, path: Path) -> int:
    """The pid of a node that the zygote forked.

    Raises
    ------
    ZygoteAway
        It is not there, does not answer, or refuses. If it does not answer, it may still fork: the node
        then finds that nobody waits for it (its readiness pipe is closed) and is swept.
    """
    log = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        descriptors = {"log": log, **command.descriptors}
        message = json.dumps(
            {
                "stamp": code_stamp(),
                "arguments": list(command.arguments),
                "environment": dict(command.environment),
                "directory": str(command.directory),
                "exit_file": str(command.exit_file),
                "descriptors": list(descriptors),
            }
        ).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(ZYGOTE_SECONDS)
            _connect(connection, path)
            socket.send_fds(connection, [message], list(descriptors.values()))
            answer = json.loads(connection.recv(4096) or b"{}")
    except (OSError, ValueError) as error:
        raise ZygoteAway(f"the zygote does not answer ({error})") from error
    finally:
        os.close(log)
    if "pid" not in answer:
        raise ZygoteAway(answer.get("refused", "the zygote gave no answer"))
    return int(answer["pid"])


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect to a socket whose path may be longer than an address can be."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def start_plainly(command: NodeCommand) -> subprocess.Popen[bytes]:
    """Start a node as a new interpreter.

    Only the descriptors named are inherited, nothing of the caller's; the signal that ends our own parts
    with their supervisor is not inherited by children of children.
    """
    environment = dict(command.environment)
    for name, fd in command.descriptors.items():
        environment[_FD_VARIABLES[name]] = str(fd)
    if not command.own_python:
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(_node_code(command.log.parent)), environment.get("PYTHONPATH", "")])
        )
    with open(command.log, "ab") as log:
        return subprocess.Popen(
            [command.python or sys.executable, "-m", "spawner.node.launcher", *command.arguments],
            env=environment,
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(command.descriptors.values()),
            start_new_session=True,
        )


def _node_code(directory: Path) -> Path:
    """A folder with nothing but our packages in it, for an interpreter that has its own."""
    folder = directory / "code"
    folder.mkdir(exist_ok=True)
    spawner = Path(place.__file__).parents[1]
    for package in (spawner, spawner.with_name("extensions")):
        link = folder / package.name
        if not link.is_symlink():
            link.symlink_to(package, target_is_directory=True)
    return folder
