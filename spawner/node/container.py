"""A node that is a container: ``python -m spawner.node.container`` is its command, on every container backend.

What the process backend prepares from outside, a container prepares for itself: HOME, the host file that
MPI finds without options, ssh to and from the other nodes (which have names, ``node-i``, and all take
connections on one port), then the launcher. Secrets come as files in one directory; they are copied where
ssh accepts them, readable by the account alone.

As the container's first process it keeps a small parent that hands signals on and collects what others
leave: Jupyter does neither. Ready is told by the node's own URL, which the backend probes.
"""

from __future__ import annotations

import atexit
import os
import pwd
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from spawner.node import ssh
from spawner.node.home import write_shell
from spawner.node.place import (
    CPU_MILLICORES,
    LISTEN_FD,
    SECRETS,
    SECRETS_DIRECTORY,
    SSH_FD,
    SSHD_CONFIG,
    Place,
    node_name,
)
from spawner.node.variables import HOSTS_PROGRAM, host_file, parallel_variables

SSH_PORT = 2222
MASTER_PORT = 29500
OWN_DIRECTORY = ".galilean"


@dataclass(frozen=True)
class Prepared:
    """What the launcher is started with."""

    arguments: list[str]
    environment: dict[str, str]


def client_config(directory: Path, user: str) -> str:
    """``~/.ssh/config``: every node by its name, on one port, as the same account."""
    return (
        "Host node-*\n"
        f"  User {user}\n"
        f"  Port {SSH_PORT}\n"
        f'  IdentityFile "{directory}/id_ed25519"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{directory}/known_hosts"\n'
        f"  HostKeyAlias {ssh.HOST_ALIAS}\n"
        "  StrictHostKeyChecking yes\n"
        "  LogLevel ERROR\n"
    )


def binding_variables(cpus_of_machine: int, cpus_allowed: int) -> dict[str, str]:
    """Open MPI's binding to cores, switched off unless the cores are this node's own.

    A node with a share of a machine's time sees all its cores, as its neighbours do: everybody would bind
    to the first one. Only where the machine gave it cores of its own does it see fewer than there are.
    """
    return {} if cpus_allowed < cpus_of_machine else {"OMPI_MCA_hwloc_base_binding_policy": "none"}


def prepare(environ: Mapping[str, str], home: Path, user: str) -> Prepared:
    """Make the node's HOME and everything in it.

    Raises
    ------
    KeyError, ValueError
        When a backend did not say where the node stands.
    OSError
        When HOME cannot be written, or ``~/work`` or the secrets are not there.
    """
    from spawner.node.arguments import server_arguments

    place = Place.read(environ)
    work = home / "work"
    if not work.is_dir():
        raise FileNotFoundError(2, "The project's directory is not mounted", str(work))
    own = home / OWN_DIRECTORY
    own.mkdir(mode=0o700, exist_ok=True)
    hostfile = own / "hostfile"
    hostfile.write_text(host_file(place.nodes, int(environ.get(CPU_MILLICORES, "1000"))))
    secrets = Path(environ.get(SECRETS, SECRETS_DIRECTORY))
    keys = own / "ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    for name in ("host_ed25519", "id_ed25519", "authorized_keys", "known_hosts"):
        _write(keys / name, (secrets / name).read_bytes())
    _write(own / "cookie_secret", (secrets / "cookie_secret").read_bytes())
    sshd = keys / f"sshd-{place.rank}.conf"
    environment = {
        **environ,
        **place.variables(),
        **parallel_variables(
            place, master_address=node_name(0), master_port=MASTER_PORT, hostfile=str(hostfile)
        ),
        **binding_variables(os.cpu_count() or 1, len(os.sched_getaffinity(0))),
        SSHD_CONFIG: str(sshd),
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        "PWD": str(work),
        "SHELL": "/bin/bash",
        "PATH": os.pathsep.join([str(own / "bin"), environ.get("PATH", os.defpath)]),
    }
    login = ssh.login_script(environment, work, ssh.find_sftp_server())
    _write(keys / f"login-{place.rank}", login.encode(), 0o700)
    _write(sshd, ssh.server_config(keys, place.rank).encode())
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not (folder / "config").exists():
        _write(folder / "config", client_config(keys, user).encode())
    write_shell(home, work, place.rank)
    programs = own / "bin"
    programs.mkdir(mode=0o700, exist_ok=True)
    _write(programs / "galilean-hosts", HOSTS_PROGRAM.encode(), 0o700)
    arguments = server_arguments(place, home=str(home), cookie_secret_file=str(own / "cookie_secret"))
    return Prepared(arguments, environment)


def listen(port: int) -> str:
    """Bind a port, to be handed on by its descriptor; who connects waits until the server takes it.

    So whoever asks whether the node answers asks once, and is told at the moment when it does.
    """
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    os.set_inheritable(listener.fileno(), True)
    return str(listener.detach())


def http_port(environ: Mapping[str, str]) -> int:
    """The port of the node's pages, as the hub says it; 0 = it does not, and the server chooses."""
    return urlsplit(environ.get("JUPYTERHUB_SERVICE_URL", "")).port or 0


def leave() -> NoReturn:
    """End the process without taking Python itself apart, which takes a JupyterLab most of a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def be_first(node: Callable[[], None]) -> None:
    """Run ``node`` in a child, as the container's first process must: hand signals on, collect orphans.

    Ends as the child ends, with 128 + signal when it was killed by one, or was told by one to end: Jupyter
    then ends with 0, and Kubernetes would forget that it evicted the node (it calls it completed).
    """
    told = 0
    handed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_BLOCK, handed_on)  # until somebody is there to hand them on
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handed_on)
        node()
        leave()

    def hand_on(number: int, _: object) -> None:
        nonlocal told
        if number != signal.SIGUSR1:
            told = number
        os.kill(child, number)

    for number in handed_on:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handed_on)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status) or -told
            os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    """Prepare, then become the node's server."""
    port = http_port(os.environ)
    listening = listen(port) if port else ""
    account = pwd.getpwuid(os.geteuid())
    prepared = prepare(os.environ, Path(os.environ.get("HOME") or account.pw_dir), account.pw_name)
    os.environ.clear()
    os.environ.update(prepared.environment)
    os.chdir(prepared.environment["PWD"])
    os.environ |= {SSH_FD: listen(SSH_PORT), LISTEN_FD: listening}
    from spawner.node import launcher

    if os.getpid() == 1:
        be_first(lambda: launcher.main(prepared.arguments))
    else:
        launcher.main(prepared.arguments)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(fd, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)


if __name__ == "__main__":
    main()
