"""Everything of a cluster that is on disk or bound before its first node starts.

Ports are bound here and handed over open, so nobody can take one in between, and every node's address and
ssh port is known to all nodes from the beginning. Blocking; belongs into a thread.

What a node was made from is kept among the cluster's secrets, for it names the hub's token: :func:`prepare_again`
makes the same node once more (:mod:`spawner.renewal`), at the same ports where nobody took them meanwhile.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from spawner.keys import ClusterKeys
from spawner.node import place, ssh
from spawner.node.arguments import server_arguments
from spawner.node.home import SCRATCH, write_home, write_links
from spawner.node.place import Place
from spawner.node.variables import HOSTS_PROGRAM, host_file, parallel_variables, shared_host_variables
from spawner.process import overlay
from spawner.process.layout import ClusterDirectory, read_json, remove_tree, write_json, write_secret
from spawner.process.start import NodeCommand

ADDRESS = "127.0.0.1"
SERVICE_URL = "JUPYTERHUB_SERVICE_URL"
#: JupyterLab's extension as ``scripts/assets`` or the wheel brings it; a node may have another Python than ours.
LABEXTENSIONS = Path(__file__).resolve().parents[2] / "extensions" / "lab" / "labextensions"
#: Gives the hub's part of a node's environment: (rank, "http://host:port") → variables.
NodeEnvironment = Callable[[int, str], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class DiskLink:
    """The directory of a disk; one that is written only ``node-0`` has a link to."""

    path: Path
    written: bool


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
    disks
        Name → disk; nodes have links to them below ``~/disks``, with which it is the same.
    prefix
        Path of the cluster, ``/user/U/S/``.
    environment
        The hub's part of a node's environment.
    scratch
        The centre's directory for scratch space; each cluster has a directory of its own in it. ``None`` = it is
        in the nodes' homes.
    python, language, portal_url
        Interpreter of the nodes (empty = ours), JupyterLab's language, where presence is reported.
    layer
        A saved environment on top of the interpreter's packages; empty = none.
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
    disks: Mapping[str, DiskLink] = field(default_factory=dict)
    scratch: Path | None = None
    layer: str = ""


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
    scratch = spec.scratch / directory.path.name if spec.scratch else None
    directory.write_run(
        {
            "user": spec.user,
            "server": spec.server,
            "run": spec.run,
            "nodes": spec.nodes,
            "made_at": datetime.now(UTC).isoformat(),
            **({"scratch": str(scratch)} if scratch else {}),
        }
    )
    if scratch and not scratch.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {spec.scratch} for scratch space")
    if scratch:  # of a cluster whose own directory was lost, nobody else would remove it
        remove_tree(scratch)
        scratch.mkdir(mode=0o700)
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one node is made from.

    Attributes
    ----------
    port, ssh_port
        On the loopback address.
    work, datasets, disks, scratch
        What its home leads to; an empty ``scratch`` is a directory of the home itself.
    arguments, environment, python
        As :class:`~spawner.process.start.NodeCommand` has them.
    layer
        The saved environment that its Python stands on; empty = none.
    """

    port: int
    ssh_port: int
    work: str
    datasets: Mapping[str, str]
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    python: str = ""
    scratch: str = ""
    layer: str = ""
    disks: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def at(self, port: int, ssh_port: int) -> Recipe:
        """The same at other ports."""
        moved = {
            name: value.replace(self.url, f"http://{ADDRESS}:{port}", 1) if name == SERVICE_URL else value
            for name, value in self.environment.items()
        }
        return replace(self, port=port, ssh_port=ssh_port, environment=moved)


def _prepare_node(
    spec: ClusterSpec, directory: ClusterDirectory, rank: int, ssh_socket: socket.socket, master_port: int
) -> PreparedNode:
    home = directory.home(rank)
    listen = _bound()
    port = int(listen.getsockname()[1])
    node = Place.of(spec, rank)
    environment = {
        **spec.environment(rank, f"http://{ADDRESS}:{port}"),
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
    if overlay.Base.of(spec.python or sys.executable) is not None:
        environment |= overlay.variables(home, environment, Path(spec.layer) if spec.layer else None)
    recipe = Recipe(
        port=port,
        ssh_port=int(ssh_socket.getsockname()[1]),
        work=str(spec.work),
        datasets={name: str(path) for name, path in spec.datasets.items()},
        arguments=server_arguments(
            node,
            home=str(home),
            cookie_secret_file=str(directory.cookie_secret),
            labextensions=str(LABEXTENSIONS) if LABEXTENSIONS.is_dir() else "",
        ),
        environment=environment,
        python=spec.python,
        scratch=str(spec.scratch / directory.path.name / node.name) if spec.scratch else "",
        layer=spec.layer,
        disks={name: str(disk.path) for name, disk in spec.disks.items() if rank == 0 or not disk.written},
    )
    write_json(directory.recipe_file(rank), asdict(recipe))
    return _prepared(directory, rank, recipe, listen, ssh_socket)


def read_recipe(directory: ClusterDirectory, rank: int) -> Recipe | None:
    """What a node was made from; ``None`` when nobody wrote it down."""
    said = read_json(directory.recipe_file(rank))
    try:
        return None if said is None else Recipe(**said)
    except TypeError:  # of another version
        return None


def prepare_again(directory: ClusterDirectory, rank: int, recipe: Recipe, *, empty: bool) -> PreparedNode:
    """Make ready a node of which nothing runs; call with the cluster's lock held.

    Parameters
    ----------
    directory, rank, recipe
        Which, and what it was made from.
    empty
        Whether its home and its scratch space begin anew; what else it leads to is not touched.

    Raises
    ------
    OSError
        When the disk is full, or the project's directory is missing.
    """
    if empty:
        remove_tree(directory.home(rank))
        if recipe.scratch:
            remove_tree(Path(recipe.scratch))
    directory.exit_file(rank).unlink(missing_ok=True)
    listen, ssh_socket = _bound(recipe.port), _bound(recipe.ssh_port)
    moved = recipe.at(int(listen.getsockname()[1]), int(ssh_socket.getsockname()[1]))
    if moved != recipe:
        write_json(directory.recipe_file(rank), asdict(moved))
    if moved.ssh_port != recipe.ssh_port:
        nodes = int((directory.run() or {}).get("nodes", rank + 1))
        ports = [known.ssh_port if (known := read_recipe(directory, other)) else 0 for other in range(nodes)]
        _write_client_config(directory, ports)
    return _prepared(directory, rank, moved, listen, ssh_socket)


def write_scratch(place_: Path, elsewhere: str) -> None:
    """Make a node's scratch space: a directory of its home, or one ``elsewhere`` to which the home leads."""
    if not elsewhere:
        place_.mkdir(mode=0o700, exist_ok=True)
        return
    Path(elsewhere).mkdir(mode=0o700, exist_ok=True)
    if not place_.is_symlink():
        place_.symlink_to(elsewhere, target_is_directory=True)


def _prepared(
    directory: ClusterDirectory, rank: int, recipe: Recipe, listen: socket.socket, ssh_socket: socket.socket
) -> PreparedNode:
    home = directory.home(rank)
    write_home(home, Path(recipe.work), rank)
    write_scratch(home / SCRATCH, recipe.scratch)
    if (base := overlay.Base.of(recipe.python or sys.executable)) is not None:
        overlay.make_for_node(home, base, Path(recipe.layer) if recipe.layer else None)
    write_links(home / "datasets", {name: Path(path) for name, path in recipe.datasets.items()})
    write_links(home / "disks", {name: Path(path) for name, path in recipe.disks.items()})
    _write_client(directory, home)
    # A pair of sockets, not a pipe: it closes itself when a cancelled start forgets it.
    ready, write = socket.socketpair()
    ready.setblocking(False)
    public = {name: value for name, value in recipe.environment.items() if name not in ssh.SECRET_VARIABLES}
    script = ssh.login_script(public, home / "work", ssh.find_sftp_server())
    write_secret(directory.ssh / f"login-{rank}", script.encode(), 0o700)
    command = NodeCommand(
        arguments=recipe.arguments,
        environment=recipe.environment,
        directory=home / "work",
        log=directory.log_file(rank),
        exit_file=directory.exit_file(rank),
        descriptors={"ready": write.fileno(), "listen": listen.fileno(), "ssh": ssh_socket.fileno()},
        python=recipe.python,
    )
    return PreparedNode(rank, recipe.url, command, ready, [listen, ssh_socket, write])


def _bound(port: int = 0) -> socket.socket:
    """A listening socket; at ``port`` if nobody took it meanwhile."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if port:
        # Connections of the node that was here linger for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
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
    _write_client_config(directory, ports)
    for rank in range(len(ports)):
        write_secret(folder / f"sshd-{rank}.conf", ssh.server_config(folder, rank).encode())
    directory.programs.mkdir(mode=0o700, exist_ok=True)
    for program in ("ssh", "scp", "sftp"):
        found = shutil.which(program)
        if found:
            write_secret(directory.programs / program, ssh.wrapper(found).encode(), 0o700)
    write_secret(directory.programs / "galilean-hosts", HOSTS_PROGRAM.encode(), 0o700)


def _write_client_config(directory: ClusterDirectory, ports: Sequence[int]) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    config = ssh.client_config(ports, directory.ssh, user, sshd=ssh.find_sshd() is not None)
    write_secret(directory.ssh / "config", config.encode())


def _write_client(directory: ClusterDirectory, home: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    config = folder / "config"
    if not config.is_symlink():
        config.symlink_to(directory.ssh / "config")


def write_node(directory: ClusterDirectory, rank: int, said: Mapping[str, object]) -> None:
    """Write down a node right after it was started."""
    write_json(directory.node_file(rank), said)
