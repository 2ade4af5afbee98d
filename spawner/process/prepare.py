"""Everything of a cluster that is on disk or bound before its first node starts.

Ports are bound here and handed over open, so nobody can take one in between, and every node's address and
ssh port is known to all nodes from the beginning. Blocking; belongs into a thread.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from spawner.keys import ClusterKeys
from spawner.node import place, ssh
from spawner.node.arguments import server_arguments
from spawner.node.home import write_home, write_links
from spawner.node.place import Place
from spawner.node.variables import host_file, parallel_variables, shared_host_variables
from spawner.process.layout import ClusterDirectory, write_json, write_secret
from spawner.process.start import NodeCommand

ADDRESS = "127.0.0.1"
#: JupyterLab's extension as ``scripts/assets`` or the wheel brings it; a node may have another Python than ours.
LABEXTENSIONS = Path(__file__).resolve().parents[2] / "extensions" / "lab" / "labextensions"
#: Gives the hub's part of a node's environment: (rank, "http://host:port") → variables.
NodeEnvironment = Callable[[int, str], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster to be made of processes.

    Attributes
    ----------
    user, server, run
        Whose it is; ``run`` is the run's id.
    nodes, cpu_millicores
        How many, and how many slots each has in the host file.
    work
        The project's directory.
    datasets
        Mount directory → directory of a data set; each node has a link to it below ``~/datasets``. Whether it
        may be written this backend cannot enforce: all nodes are processes of one account.
    prefix
        Path of the cluster, ``/user/U/S/``.
    environment
        The hub's part of a node's environment.
    python, language, portal_url
        Interpreter of the nodes (empty = ours), JupyterLab's language, where presence is reported.
    """

    user: str
    server: str
    run: str
    nodes: int
    work: Path
    prefix: str
    environment: NodeEnvironment
    cpu_millicores: int = 1000
    python: str = ""
    language: str = ""
    portal_url: str = ""
    datasets: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class PreparedNode:
    """A node ready to be started; its sockets are open until :meth:`close`."""

    rank: int
    url: str
    command: NodeCommand
    ready: socket.socket
    _handed_over: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Close what the node has by now (or will never have); our end of the readiness pipe stays open."""
        for item in self._handed_over:
            item.close()
        self._handed_over.clear()


def prepare(spec: ClusterSpec, directory: ClusterDirectory) -> list[PreparedNode]:
    """Make the cluster's directory and bind its ports; call with the cluster's lock held.

    Raises
    ------
    OSError
        When the disk is full, the project's directory is missing, or no descriptor is left.
    """
    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.write_run(
        {
            "user": spec.user,
            "server": spec.server,
            "run": spec.run,
            "nodes": spec.nodes,
            "made_at": datetime.now(UTC).isoformat(),
        }
    )
    directory.secrets.mkdir(mode=0o700, exist_ok=True)
    keys = ClusterKeys.new()
    write_secret(directory.cookie_secret, keys.cookie_secret)
    directory.hostfile.write_text(host_file(spec.nodes, spec.cpu_millicores))
    ssh_sockets = [_bound() for _ in range(spec.nodes)]
    _write_ssh(directory, keys, [item.getsockname()[1] for item in ssh_sockets])
    master_port = _free_port()
    return [
        _prepare_node(spec, directory, rank, ssh_socket, master_port)
        for rank, ssh_socket in enumerate(ssh_sockets)
    ]


def _prepare_node(
    spec: ClusterSpec, directory: ClusterDirectory, rank: int, ssh_socket: socket.socket, master_port: int
) -> PreparedNode:
    home = directory.home(rank)
    write_home(home, spec.work, rank)
    write_links(home / "datasets", spec.datasets)
    _write_client(directory, home)
    listen = _bound()
    url = f"http://{ADDRESS}:{listen.getsockname()[1]}"
    # A pair of sockets, not a pipe: it closes itself when a cancelled start forgets it.
    ready, write = socket.socketpair()
    ready.setblocking(False)
    node = Place.of(spec, rank)
    environment = {
        **spec.environment(rank, url),
        **node.variables(),
        **parallel_variables(
            node, master_address=ADDRESS, master_port=master_port, hostfile=str(directory.hostfile)
        ),
        **shared_host_variables(),
        place.DIRECTORY: str(directory.path),
        place.LANGUAGE: spec.language,
        "HOME": str(home),
        "PWD": str(home / "work"),
        "SHELL": "/bin/bash",
    }
    environment["PATH"] = os.pathsep.join([str(directory.programs), environment.get("PATH", os.defpath)])
    public = {name: value for name, value in environment.items() if name not in ssh.SECRET_VARIABLES}
    script = ssh.login_script(public, home / "work", ssh.find_sftp_server())
    write_secret(directory.ssh / f"login-{rank}", script.encode(), 0o700)
    command = NodeCommand(
        arguments=server_arguments(
            node,
            home=str(home),
            cookie_secret_file=str(directory.cookie_secret),
            labextensions=str(LABEXTENSIONS) if LABEXTENSIONS.is_dir() else "",
        ),
        environment=environment,
        directory=home / "work",
        log=directory.log_file(rank),
        exit_file=directory.exit_file(rank),
        descriptors={"ready": write.fileno(), "listen": listen.fileno(), "ssh": ssh_socket.fileno()},
        python=spec.python,
    )
    return PreparedNode(rank, url, command, ready, [listen, ssh_socket, write])


def _bound() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((ADDRESS, 0))
    listener.listen(128)
    return listener


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _write_ssh(directory: ClusterDirectory, keys: ClusterKeys, ports: list[int]) -> None:
    """Keys of this run, and the configuration of both sides."""
    folder = directory.ssh
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in keys.ssh_files().items():
        write_secret(folder / name, content)
    user = pwd.getpwuid(os.geteuid()).pw_name
    config = ssh.client_config(ports, folder, user, sshd=ssh.find_sshd() is not None)
    write_secret(folder / "config", config.encode())
    for rank in range(len(ports)):
        write_secret(folder / f"sshd-{rank}.conf", ssh.server_config(folder, rank).encode())
    directory.programs.mkdir(mode=0o700, exist_ok=True)
    for program in ("ssh", "scp", "sftp"):
        found = shutil.which(program)
        if found:
            write_secret(directory.programs / program, ssh.wrapper(found).encode(), 0o700)


def _write_client(directory: ClusterDirectory, home: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    config = folder / "config"
    if not config.is_symlink():
        config.symlink_to(directory.ssh / "config")


def write_node(directory: ClusterDirectory, rank: int, said: Mapping[str, object]) -> None:
    """Write down a node right after it was started."""
    write_json(directory.node_file(rank), said)
