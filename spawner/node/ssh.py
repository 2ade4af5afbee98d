"""Password-free ssh among the nodes of a cluster (CG-6), without root and without a daemon.

Each node listens on a port that its backend bound before any node started, so every node knows every
port from the beginning and nobody can take it in between. A connection is handed to ``sshd -i``, which
runs as the user and ends with the connection; an idle node runs no sshd at all. Keys are made per run:
one host key and one person's key for the cluster, known to its nodes alone.

Where nodes share a machine and its accounts, a login must still land in the *node*: its HOME, its
environment, its ``~/work``. A forced command, one small script per node, sees to that. OpenSSH's client
reads its configuration from the account's home and not from ``$HOME``: a wrapper of the same name, first
in the nodes' PATH, names the node's own.

The texts are pure functions; only :class:`SshListener` touches the world.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from spawner.node.place import DIRECTORY, RANK, SSHD_CONFIG, node_name

#: Variables of the server that a login must not carry on.
SECRET_VARIABLES = frozenset({"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"})
HOST_ALIAS = "galilean-cluster"


def find_sshd() -> str | None:
    """Path of sshd, ``None`` where it is not installed. It must be absolute: sshd insists on that."""
    return shutil.which(
        "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


def find_sftp_server() -> str:
    """Path of OpenSSH's sftp server; its bare name where it is in none of the usual places."""
    places = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
    return next((path for path in places if os.access(path, os.X_OK)), "sftp-server")


def client_config(ports: Sequence[int], directory: Path, user: str, *, sshd: bool) -> str:
    """``~/.ssh/config`` of a node.

    Parameters
    ----------
    ports
        Port of each rank on the loopback address.
    directory
        Where ``id_ed25519`` and ``known_hosts`` are.
    user
        The account that the nodes run as.
    sshd
        Whether sshd is installed; otherwise ssh says so instead of hanging or guessing.
    """
    if not sshd:
        said = "sshd is not installed on this machine, so nodes cannot be reached by ssh (Debian: openssh-server)."
        return (
            f"Host node-*\n  ProxyCommand sh -c {shlex.quote('echo ' + shlex.quote(said) + ' >&2; exit 1')}\n"
        )
    parts = [
        f"Host {node_name(rank)}\n  HostName 127.0.0.1\n  Port {port}\n" for rank, port in enumerate(ports)
    ]
    parts.append(
        "Host node-*\n"
        f"  User {user}\n"
        f'  IdentityFile "{directory}/id_ed25519"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{directory}/known_hosts"\n'
        f"  HostKeyAlias {HOST_ALIAS}\n"
        "  StrictHostKeyChecking yes\n"
        "  LogLevel ERROR\n"
    )
    return "".join(parts)


def server_config(directory: Path, rank: int) -> str:
    """Configuration of the sshd of one node; ``sshd -i`` needs neither a port nor a pid file."""
    return "\n".join(
        [
            f'HostKey "{directory}/host_ed25519"',
            f'AuthorizedKeysFile "{directory}/authorized_keys"',
            f'ForceCommand "{directory}/login-{rank}"',
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            "StrictModes no",
            "PrintMotd no",
            "PrintLastLog no",
            "Subsystem sftp internal-sftp",
            "",
        ]
    )


def login_script(environ: Mapping[str, str], work: Path, sftp_server: str) -> str:
    """The forced command: puts a login into the node's environment and directory, then does what was asked."""
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in sorted(environ.items())
        if name.isidentifier() and name not in SECRET_VARIABLES and name not in {"TERM", "PWD", "OLDPWD"}
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *exports,
            f"cd {shlex.quote(str(work))} || cd",
            'case "$SSH_ORIGINAL_COMMAND" in',
            '"") exec bash -l ;;',
            f"internal-sftp|*/sftp-server) exec {shlex.quote(sftp_server)} ;;",
            '*) exec bash -c "$SSH_ORIGINAL_COMMAND" ;;',
            "esac",
            "",
        ]
    )


def wrapper(program: str) -> str:
    """``ssh``, ``scp`` or ``sftp`` (by its path) that reads the node's own configuration."""
    return f'#!/bin/sh\nexec {shlex.quote(program)} -F "$HOME/.ssh/config" "$@"\n'


class SshListener:
    """Hands each connection to an ``sshd -i`` of its own.

    Parameters
    ----------
    listener
        Bound and listening already.
    environ
        The node's environment; marks the sshd as part of the cluster.
    """

    def __init__(self, listener: socket.socket, environ: Mapping[str, str], *, log: logging.Logger) -> None:
        self._listener = listener
        self._environ = {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}
        self._config = environ.get(SSHD_CONFIG) or (
            Path(environ[DIRECTORY]) / "ssh" / f"sshd-{environ[RANK]}.conf"
        )
        self._log = log
        self._sessions: set[asyncio.Task[None]] = set()

    def fileno(self) -> int | None:
        """The descriptor that listens; ``None`` when nobody does."""
        return self._listener.fileno() if self._listener.fileno() >= 0 else None

    async def run(self) -> None:
        """Accept for ever."""
        sshd = find_sshd()
        if sshd is None:
            self._log.warning("sshd is not installed: nodes of this cluster cannot be reached by ssh")
            self._listener.close()
            return
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", 0o755, exist_ok=True)  # sshd refuses to run as root without it
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                connection, _ = await loop.sock_accept(self._listener)
                session = loop.create_task(self._serve(sshd, connection))
                self._sessions.add(session)
                session.add_done_callback(self._sessions.discard)

    async def _serve(self, sshd: str, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(True)
            try:
                process = await asyncio.create_subprocess_exec(
                    sshd,
                    "-i",
                    "-f",
                    str(self._config),
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=asyncio.subprocess.DEVNULL,
                    env=self._environ,
                    start_new_session=True,
                )
            except OSError as error:
                self._log.warning("sshd cannot be started: %s", error)
                return
        await process.wait()
