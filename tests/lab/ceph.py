"""A real CephFS for tests: one monitor, manager, store and metadata server, and a mount by FUSE, all on this machine.

What is written lies in memory. The servers can be stopped, so that whoever asks for a file waits for ever, and killed,
each time they come back and all goes on; as long as the monitor remembers the mount, a client waits in both cases.
The programs are Debian's ``ceph-mon``, ``ceph-mgr``, ``ceph-osd``, ``ceph-mds`` and ``ceph-fuse``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.parts import Parts, free_port, wait

#: Whoever reaches the port of a server on this machine is let in: nobody else is on its loopback.
_CONFIG = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{port}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = {directory}
admin socket = {directory}/$name.$pid.asok
log file = {directory}/$name.ceph.log
pid file =
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data = {directory}/mon
mon data avail crit = 1
mon max pg per osd = 1000
mgr data = {directory}/mgr
mgr initial modules =
mds data = {directory}/mds
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
# A server that says nothing is waited for, for longer than a test takes.
mds session blocklist on timeout = false
mds session timeout = 1000
mds session autoclose = 2000
"""
_SERVERS = ("osd", "mds")
TRIES = 20


class Ceph:
    """One file system of one store.

    Attributes
    ----------
    mount
        Where this machine has its files.
    """

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory, self.mount = directory, directory / "mount"
        self._config = directory / "ceph.conf"
        for folder in (directory, *(directory / name for name in ("mon", "mgr", "mds", "osd", "mount"))):
            folder.mkdir(mode=0o755)
        fsid = str(uuid.uuid4())
        port = free_port()
        self._config.write_text(_CONFIG.format(fsid=fsid, port=port, directory=directory))
        self._parts = Parts(directory)
        monitors = str(directory / "monmap")
        self._call(
            "monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{port}]", monitors
        )
        self._call("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors)
        self._start("mon")
        identity = str(uuid.uuid4())
        self.ceph("osd", "new", identity)
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        for name in ("mgr", *_SERVERS):
            self._start(name)
        for pool in ("names", "bytes"):
            self.ceph("osd", "pool", "create", pool, "4")
        self.ceph("fs", "new", "campus", "names", "bytes")
        wait("metadata server", lambda: "up:active" in self.ceph("mds", "stat"))
        self._parts.start(
            "client", "ceph-fuse", "-f", "-c", str(self._config), "--id", "admin", str(self.mount)
        )
        wait("mount", self._is_mounted)
        wait("count of free space", lambda: os.statvfs(self.mount).f_blocks)
        os.chown(self.mount, owner, owner)

    def ceph(self, *words: str) -> str:
        """What the cluster answers to one command of an administrator."""
        for _ in range(TRIES):
            try:
                return self._call("ceph", "--connect-timeout", "60", *words)
            except RuntimeError as error:
                # Now and then a monitor that has just begun does not say yet which commands it knows.
                if "command descriptions" not in str(error):
                    raise
                time.sleep(1)
        raise RuntimeError(f"ceph {' '.join(words)}: its monitor knows no commands")

    def _call(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [program, "-c", str(self._config), *words] if program != "monmaptool" else [program, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout + done.stderr

    def _start(self, name: str) -> None:
        self._parts.start(
            name, f"ceph-{name}", "-f", "-c", str(self._config), "-i", "0" if name == "osd" else "a"
        )

    def _is_mounted(self) -> bool:
        mounted = f" {self.mount} fuse.ceph-fuse " in Path("/proc/self/mounts").read_text()
        return (
            mounted
            and subprocess.run(["stat", str(self.mount)], capture_output=True, check=False).returncode == 0
        )

    @contextmanager
    def silent(self) -> Iterator[None]:
        """With servers that do not answer, as behind a switch that is down."""
        for name in _SERVERS:
            self._parts[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for name in _SERVERS:
                self._parts[name].send_signal(signal.SIGCONT)

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Without its metadata server, whose place nobody takes."""
        self._parts.kill("mds")
        try:
            yield
        finally:
            self._start("mds")

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True, check=False)
        for name in ("client", "mds", "osd", "mgr", "mon"):
            self._parts.end(name)
        shutil.rmtree(self.directory, ignore_errors=True)
