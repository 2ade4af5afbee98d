"""A real PostgreSQL of a test run's own: its data directory, its port, gone at the end.

``initdb`` and ``postgres`` refuse to run as root, so as root they are run as the ``postgres`` account
that Debian's package makes. The server is our child and is told to end when we do, also when we are killed:
by ``setpriv``, after the change of account, which would make the kernel forget it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if not path:
        raise RuntimeError(f"{name} is missing: install Debian's package postgresql")
    return path


class PostgresServer:
    """Starts on a free port of the loopback address, and of ``more`` addresses of this machine, for anybody there."""

    def __init__(self, directory: Path, *, more: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.more = more
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._account = "postgres" if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, user=self._account, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        if self._account:
            entry = pwd.getpwnam(self._account)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            for parent in self.directory.parents:  # pytest makes its directories 0700
                if parent == Path("/tmp"):
                    break
                parent.chmod(parent.stat().st_mode | 0o011)
        data = str(self.directory / "data")
        self._run(_program("initdb"), "-D", data, "-A", "trust", "-U", "galilean", "-E", "UTF8", "--no-sync")
        if self.more:
            with (self.directory / "data" / "pg_hba.conf").open("a") as file:
                file.write("host all all all trust\n")
        settings = {
            "port": str(self.port),
            "listen_addresses": ",".join(("127.0.0.1", *self.more)),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "max_connections": "200",
        }
        become = ["setpriv", "--pdeathsig", "QUIT"]
        if self._account:
            become += ["--reuid", self._account, "--regid", self._account, "--init-groups"]
        command = [*become, _program("postgres"), "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def _wait(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                assert self._server is not None
                if self._server.poll() is not None or time.monotonic() > end:
                    log = (self.directory / "log").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"PostgreSQL does not start: {error}\n{log[-2000:]}") from error
            time.sleep(0.1)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="galilean",
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            self._server.wait(30)

    def create_database(self, name: str) -> str:
        """A new empty database; returns its URL."""
        with self._connect() as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://galilean@127.0.0.1:{self.port}/{name}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new empty database's URL. It goes at the end, also when somebody still has a connection: at once, while
        most of it is in memory still, for hundreds of them together take minutes to be unlinked."""
        name = f"t{uuid.uuid4().hex[:12]}"
        yield self.create_database(name)
        with self._connect() as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
