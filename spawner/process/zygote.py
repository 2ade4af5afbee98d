"""The zygote: a process that has imported everything a node needs, and forks nodes from itself.

A plain start of a Jupyter server is several seconds of imports; a fork of a process that has done them is
a few milliseconds. ``python -m spawner.process.zygote --socket PATH`` is one more supervised part. It has
one thread, no event loop and no open descriptors but its own; each request is one message on a local
socket in a private directory, with the descriptors that the node is to have.

**A forked node must differ from a plain one in nothing but speed.** Hence two rules, each learnt from a
fault: it imports only what a plain start imports too (some modules of Jupyter change others when they are
imported), and it refuses a request whose environment has another value for a variable that those modules
read at import. It also refuses when the code on disk is not the code it has in memory. A refusal is not
an error: the caller then starts the node plainly.

Nodes are sessions of their own and outlive the zygote. While it lives, it collects them and writes down
when and how they ended.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.process.exits import write_exit
from spawner.process.stamp import code_stamp

MESSAGE_BYTES = 1 << 17
#: Read by Jupyter or JupyterHub while they are imported: a forked node cannot have another value.
FROZEN = (
    "JUPYTERHUB_SINGLEUSER_APP",
    "JUPYTERHUB_SINGLEUSER_EXTENSION",
    "JUPYTERHUB_SINGLEUSER_LOAD_OTHER_EXTENSIONS",
    "JUPYTERHUB_SSL_CERTFILE",
    "JUPYTERHUB_SSL_CLIENT_CA",
    "JUPYTERHUB_SSL_KEYFILE",
    "JUPYTERHUB_XSRF_ANONYMOUS_ID_HEADERS",
    "JUPYTERHUB_XSRF_ANONYMOUS_IP_CIDRS",
    "JUPYTER_PREFER_ENV_PATH",
    "JUPYTER_PLATFORM_DIRS",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
)
#: What a plain start imports as well; a test compares.
PRELOADED = (
    "jupyterhub.singleuser",
    "jupyterhub.singleuser.extension",
    "jupyter_server.serverapp",
    "jupyter_server_terminals",
    "jupyter_lsp",
    "jupyterlab",
    "jupyterlab.labapp",
    "notebook_shim",
    "jupyter_server_proxy",
    "spawner.node.ports",
    "spawner.node.running",
    "spawner.node.handlers",
    "spawner.node.identity",
)


@dataclass(frozen=True)
class Request:
    """What one node is started with, in the child."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str
    descriptors: dict[str, int]


def frozen_difference(mine: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """The first variable that a forked node could not have as it is asked for; empty when there is none."""
    names = [*FROZEN, *(name for name in {*mine, *asked} if name.startswith("PYTHON"))]
    return next((name for name in sorted(names) if mine.get(name, "") != asked.get(name, "")), "")


def preload() -> None:
    """Import what a node needs; what is not installed is not there in a plain node either."""
    import importlib
    import importlib.util

    from spawner.node.launcher import keep_out

    keep_out()
    for name in PRELOADED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


class Zygote:
    """Serves requests until it is told to end.

    Parameters
    ----------
    path
        The socket; its directory must be private.
    stamp
        Identity of the code in memory.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        self._path = path
        self._stamp = stamp
        self._children: dict[int, Path] = {}
        self._listener = listen(path)
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._ending = False

    def serve(self) -> Request | None:
        """Answer requests; ``None`` when told to end, a request **in the child** that is to become a node."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._ending:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                _drain(self._wake_read)
                self._collect()
            if self._listener.fileno() in ready:
                request = self._answer()
                if request is not None:
                    return request
        self._listener.close()
        self._path.unlink(missing_ok=True)
        return None

    def _end(self, *_: object) -> None:
        self._ending = True

    def _collect(self) -> None:
        """Collect every child that ended, and write down when."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            record = self._children.pop(pid, None)
            if record is not None:
                write_exit(record, pid, os.waitstatus_to_exitcode(status), time.time())

    def _answer(self) -> Request | None:
        connection, _ = self._listener.accept()
        fds: list[int] = []
        request: Request | None = None
        with connection:
            connection.settimeout(2)
            try:
                message, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 8)
                if not message:  # somebody only looked whether there is a zygote
                    return None
                said = json.loads(message)
                refusal = self._refusal(said, fds)
                if refusal:
                    connection.send(json.dumps({"refused": refusal}).encode())
                else:
                    request = self._fork(connection, said, fds)
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"zygote: a request failed: {error!r}", file=sys.stderr, flush=True)  # noqa: T201
            finally:
                if request is None:
                    for fd in fds:
                        os.close(fd)
        return request

    def _refusal(self, said: dict[str, Any], fds: Sequence[int]) -> str:
        if said.get("stamp") != self._stamp:
            return "the code has changed since the zygote was started"
        if len(fds) != len(said["descriptors"]):
            return "descriptors are missing"
        name = frozen_difference(os.environ, said["environment"])
        return f"{name} is read at import and has another value" if name else ""

    def _fork(self, connection: socket.socket, said: dict[str, Any], fds: list[int]) -> Request | None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._children[pid] = Path(said["exit_file"])
            connection.send(json.dumps({"pid": pid}).encode())
            return None
        try:
            os.setsid()
            connection.close()
            self._listener.close()
            signal.set_wakeup_fd(-1)
            os.close(self._wake_read)
            os.close(self._wake_write)
            return Request(
                arguments=said["arguments"],
                environment=said["environment"],
                directory=said["directory"],
                descriptors=dict(zip(said["descriptors"], fds, strict=True)),
            )
        except BaseException:  # a child must never go on as a second zygote
            os._exit(70)


def listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, however long the path is; a stale one of a killed zygote is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.umask(old)
    finally:
        os.close(folder)
    listener.listen(128)
    return listener


def become_node(request: Request) -> None:
    """Turn this forked process into a node; comes back when its server has ended."""
    from spawner.node import place

    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = request.descriptors["log"]
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(request.environment)
    variables = {"ready": place.READY_FD, "listen": place.LISTEN_FD, "ssh": place.SSH_FD}
    for name, variable in variables.items():
        if name in request.descriptors:
            os.environ[variable] = str(request.descriptors[name])
    os.chdir(request.directory)
    _renew()
    from spawner.node import launcher

    launcher.main(request.arguments)


def _renew() -> None:
    """What Python works out once, at its start or at the first use."""
    import ctypes
    import locale
    import tempfile

    tempfile.tempdir = None
    time.tzset()
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        pass
    ctypes.CDLL(None).prctl(15, b"galilean-node", 0, 0, 0)  # PR_SET_NAME: what ps and top show


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def main(argv: Sequence[str]) -> None:
    """Entry point of ``python -m spawner.process.zygote``."""
    parser = argparse.ArgumentParser(prog="python -m spawner.process.zygote")
    parser.add_argument("--socket", type=Path, required=True, help="where requests are taken")
    options = parser.parse_args(argv)
    path: Path = options.socket.absolute()
    os.closerange(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = code_stamp()  # before the imports: code that changes meanwhile makes it stale, never the reverse
    preload()
    request = Zygote(path, stamp).serve()
    if request is not None:
        become_node(request)


if __name__ == "__main__":
    main(sys.argv[1:])
