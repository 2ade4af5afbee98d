"""A real PostgreSQL of a test run's own: its data directory, its port, gone at the end.

``initdb`` and ``postgres`` refuse to run as root, so as root they are run as the ``postgres`` account
that Debian's package makes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if not path:
        raise RuntimeError(f"{name} is missing: install Debian's package postgresql")
    return path


class PostgresServer:
    """Starts on a free port of the loopback address; ``url`` is its administrator's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._account = "postgres" if os.geteuid() == 0 else None

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
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.directory} "
            "-c fsync=off -c max_connections=200"
        )
        log = str(self.directory / "log")
        self._run(_program("pg_ctl"), "-D", data, "-l", log, "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        self._run(_program("pg_ctl"), "-D", str(self.directory / "data"), "-m", "immediate", "stop")

    def create_database(self, name: str) -> str:
        """A new empty database; returns its URL."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="galilean", dbname="postgres", autocommit=True
        ) as conn:
            conn.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://galilean@127.0.0.1:{self.port}/{name}"
