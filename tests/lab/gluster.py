"""A real network file system for tests: a GlusterFS server and its mount by FUSE, both on this machine.

A kernel need know no network file system for it. The server can be stopped, so that whoever asks for a file
waits for ever, and killed, so that whoever asks is told at once; each time it comes back and all goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.parts import Parts, free_port, wait

_SERVER = """
volume brick
    type storage/posix
    option directory {brick}
end-volume
volume locks
    type features/locks
    subvolumes brick
end-volume
volume files
    type performance/io-threads
    subvolumes locks
end-volume
volume server
    type protocol/server
    option transport-type tcp
    option transport.socket.bind-address 127.0.0.1
    option transport.socket.listen-port {port}
    option auth.addr.files.allow 127.0.0.1
    subvolumes files
end-volume
"""
#: A server that says nothing is waited for, for longer than a test takes.
_CLIENT = """
volume remote
    type protocol/client
    option transport-type tcp
    option remote-host 127.0.0.1
    option remote-port {port}
    option remote-subvolume files
    option ping-timeout 1000
end-volume
"""


class Gluster:
    """One volume of one brick.

    Attributes
    ----------
    brick
        Where the server keeps the files.
    mount
        Where this machine has them, from the server.
    """

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory, self.brick, self.mount = directory, directory / "brick", directory / "mount"
        for folder in (directory, self.brick, self.mount):
            folder.mkdir(mode=0o755)
        port = free_port()
        (directory / "server.vol").write_text(_SERVER.format(brick=self.brick, port=port))
        (directory / "client.vol").write_text(_CLIENT.format(port=port))
        self._parts = Parts(directory)
        self._start_server()
        self._parts.start(
            "client",
            "glusterfs",
            "-N",
            "-f",
            self._file("client.vol"),
            *self._logs("client"),
            str(self.mount),
        )
        wait("mount", self._is_mounted)
        os.chown(self.mount, owner, owner)

    def _file(self, name: str) -> str:
        return str(self.directory / name)

    def _logs(self, name: str) -> tuple[str, ...]:
        return ("-l", self._file(f"{name}.gluster.log"), "-p", self._file(f"{name}.pid"))

    def _start_server(self) -> None:
        self._parts.start("server", "glusterfsd", "-N", "-f", self._file("server.vol"), *self._logs("server"))

    def _is_mounted(self) -> bool:
        mounted = f" {self.mount} fuse.glusterfs " in Path("/proc/self/mounts").read_text()
        # It is mounted before it has found its server, and refuses everything meanwhile.
        return (
            mounted
            and subprocess.run(["stat", str(self.mount)], capture_output=True, check=False).returncode == 0
        )

    @contextmanager
    def silent(self) -> Iterator[None]:
        """With a server that does not answer, as behind a switch that is down."""
        server = self._parts["server"]
        server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.send_signal(signal.SIGCONT)

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Without a server; its machine refuses those who ask."""
        self._parts.kill("server")
        try:
            yield
        finally:
            self._start_server()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True, check=False)
        for name in ("client", "server"):
            self._parts.end(name)
        shutil.rmtree(self.directory, ignore_errors=True)
