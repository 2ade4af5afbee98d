"""What a request was resolved to: everything a backend needs to make the nodes, nothing it must look up.

A plan is made by the resolver (the catalogue, handed in at the top floor) from a request and what the
person may see. It is plain data: a backend turns it into processes, containers or pods, admission sums its
amounts, the row of the run keeps what must stay readable later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from spawner.licences import LicenceServer


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """Which data set a mount is, as it stays readable with the run when the data set is long gone.

    Attributes
    ----------
    id, address
        Of the data set, ``owner/slug``.
    version
        Its number, 0 = the data set itself, whose files change.
    """

    id: str
    address: str
    version: int = 0

    def told(self, mount: Mount) -> dict[str, Any]:
        """As it stands in the row of a run."""
        return {
            "id": self.id,
            "address": self.address,
            "version": self.version,
            "mount": mount.target.removeprefix("datasets/"),
            "read_only": mount.read_only,
        }


@dataclass(frozen=True, kw_only=True)
class DiskUsed:
    """Which disk a mount is."""

    id: str
    name: str
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A directory that every node of the cluster sees at the same place; of a disk that is written, only ``node-0``.

    Attributes
    ----------
    source
        Path on the machine (process, docker) or within the volume's claim (kubernetes).
    target
        Path below the person's home, such as ``work``.
    read_only
        Whether nodes may only read it. Not enforced by the process backend.
    claim, root
        Of a volume that was registered online on Kubernetes: its claim, and where hub and portal have it
        mounted. Empty = the settings say which claim is mounted where.
    data
        The data set that it is; ``None`` for the project's own directory.
    disk
        The disk that it is; ``None`` for everything else.
    """

    source: str
    target: str
    read_only: bool = False
    claim: str = ""
    root: str = ""
    data: DataUsed | None = None
    disk: DiskUsed | None = None

    def is_of(self, rank: int) -> bool:
        """Whether the node of this rank has it: a disk has one writer, which is one node."""
        return self.disk is None or self.read_only or rank == 0


@dataclass(frozen=True, kw_only=True)
class EnvironmentChoice:
    """The environment of a run.

    Attributes
    ----------
    name
        The entry's name, as people choose it.
    digest
        What exactly was started: an image digest, or a hash of the Python environment's lock.
    python
        Process backend: the interpreter that runs the node's Jupyter server; empty = the product's own.
    image
        Container backends: the image.
    variables
        Variables set in every node; also what :func:`spawner.doors.start_variables` tells it of the entry.
    interfaces, ports
        What its nodes offer by themselves (:mod:`spawner.doors`).
    hostname
        Docker: what nodes call themselves, with their rank behind it; empty = ``node-i``.
    sudo
        Container backends: whether people may become root inside their nodes.
    containers
        Whether containers can be started inside of its nodes.
    licences
        Licence servers that its nodes get a way to, as they are named.
    key
        Under which id the name and password are kept that the image is fetched with; empty = none is needed.
    as_is
        The image has no node's part: its own single-user server is started.
    lock
        Process backend: the lock file of a saved environment on top of ``python``; empty = none.
    """

    name: str
    digest: str = ""
    python: str = ""
    image: str = ""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    interfaces: tuple[str, ...] = ("jupyter",)
    ports: tuple[int, ...] = ()
    hostname: str = ""
    sudo: bool = False
    key: str = ""
    containers: bool = False
    licences: tuple[LicenceServer, ...] = ()
    as_is: bool = False
    lock: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A virtual cluster to be made; amounts are per node.

    ``user`` and ``server`` are the hub's; ``project_*`` are kept in the row as they were.

    Attributes
    ----------
    mounts
        The project's directory, ``work``, its data sets, ``datasets/<mount directory>``, and the disks that were asked
        for, ``disks/<name>``.
    missing
        Mount directories of data sets of the project that this run does not get; told at its start.
    """

    user: str
    server: str
    project_id: str
    project_owner: str
    project_slug: str
    project_name: str
    environment: EnvironmentChoice
    mounts: tuple[Mount, ...]
    missing: tuple[str, ...] = ()
    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int = 0
    gpu_model: str = ""
    storage_bytes: int = 0
    pool: str = "default"
    account: str | None = None
    release_policy: str = "auto"
    on_node_loss: str = "release"
    ports: tuple[int, ...] = ()
    language: str = ""

    @property
    def work(self) -> Mount:
        """The project's own directory, ``~/work`` on every node (CG-7)."""
        return next(mount for mount in self.mounts if mount.target == "work")

    @property
    def disks(self) -> tuple[Mount, ...]:
        """The disks among what is mounted."""
        return tuple(mount for mount in self.mounts if mount.disk is not None)
