"""What goes into the API and comes out of it, version 1 (design §10).

The same models check what arrives, shape what leaves, and print the OpenAPI document. What arrives is
strict: an unknown key or text where a number belongs is refused with a sentence, never guessed at. Amounts
carry their unit in the name (1 GB = 2**30 bytes); times are UTC. New keys may be added to what leaves;
none is renamed or taken away within version 1.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

NAME_LENGTH = 1000
DESCRIPTION_LENGTH = 100_000


class Incoming(BaseModel):
    """A body that somebody sends."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


class Outgoing(BaseModel):
    """A body that we answer with."""

    model_config = ConfigDict(extra="forbid")


class ListOf(Outgoing, Generic[T]):
    """A page of a list; ``next`` is the cursor of the next one, ``null`` at the end."""

    items: list[T]
    next: str | None = None


class Problem(Outgoing):
    """What went wrong (RFC 9457): a sentence for people in ``detail``, a word for programs in ``reason``."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str = ""


# --- projects ------------------------------------------------------------------------------------------


class NewProject(Incoming):
    name: str = Field(min_length=1, max_length=NAME_LENGTH, description="As people call it, in any script.")
    slug: str | None = Field(
        default=None, max_length=60, description="Its part of addresses; left out = made from the name."
    )
    description: str = Field(default="", max_length=DESCRIPTION_LENGTH)
    environment: str = Field(
        default="", max_length=128, description="Default environment; empty = the site's."
    )
    starter: bool = Field(default=False, description="Put a small notebook into it that shows the nodes.")


class ProjectChange(Incoming):
    """Only the keys that are sent are changed."""

    name: str | None = Field(default=None, min_length=1, max_length=NAME_LENGTH)
    description: str | None = Field(default=None, max_length=DESCRIPTION_LENGTH)
    environment: str | None = Field(default=None, max_length=128)


class Project(Outgoing):
    id: str
    owner: str
    slug: str
    name: str
    description: str
    environment: str
    visibility: str
    created_at: datetime
    changed_at: datetime
    url: str = Field(description="The project's page.")
    server: str = Field(description="Name of the hub's named server on which the caller runs it.")
    cluster: str | None = Field(default=None, description="Id of the caller's open cluster of this project.")


# --- files ---------------------------------------------------------------------------------------------


class File(Outgoing):
    name: str
    path: str = Field(description="Below the project's directory, with “/” between the parts.")
    kind: Literal["file", "folder", "link", "other"]
    size_bytes: int | None = None
    changed_at: datetime


class Rename(Incoming):
    to: str = Field(min_length=1, max_length=4096, description="The new path below the project's directory.")


class NewFolder(Incoming):
    kind: Literal["folder"] = "folder"


# --- clusters ------------------------------------------------------------------------------------------


class StartCluster(Incoming):
    """A request as the hub takes it in ``user_options``; amounts per node; what is left out is the project's."""

    nodes: int | None = None
    cpu: float | int | None = Field(default=None, description="CPUs (hardware threads).")
    memory: str | int | None = Field(default=None, description="“8G” or bytes.")
    gpu: int | None = None
    gpu_model: str | None = None
    storage: str | int | None = None
    environment: str | None = None
    pool: str | None = None
    ports: list[int] | None = None
    release: str | None = None
    on_node_loss: Literal["release", "keep"] | None = None


class Release(Incoming):
    reason: str = Field(default="", max_length=500, description="Why; told to the owner by an administrator.")


class ProjectOfCluster(Outgoing):
    """The project as it was when the cluster started."""

    id: str
    owner: str
    slug: str
    name: str


class Door(Outgoing):
    """A way into a node."""

    name: Literal["lab", "terminal"]
    url: str


class Node(Outgoing):
    rank: int
    name: str
    state: Literal["waiting", "starting", "ready", "gone"]
    host: str = ""
    placed_at: datetime | None = None
    ready_at: datetime | None = None
    gone_at: datetime | None = None
    exit_reason: str = ""
    doors: list[Door] = Field(default_factory=list)


class StartStep(Outgoing):
    key: str
    title: str
    state: Literal["done", "now", "todo", "failed"]
    took: str = ""


class ClusterUse(Outgoing):
    """What the nodes of a cluster really use, together, as last measured from outside."""

    measured_at: datetime
    cpu_percent: float = Field(description="Of the CPUs that it holds.")
    gpu_percent: float | None = Field(description="Of its cards; null = nobody measures them.")
    idle_since: datetime | None = Field(description="Nothing worth speaking of was used since then.")


class Cluster(Outgoing):
    id: str
    user: str
    server: str
    project: ProjectOfCluster
    environment: str
    pool: str
    backend: str
    nodes: int
    cpu: float = Field(description="CPUs (hardware threads) per node.")
    memory_bytes: int = Field(description="Per node.")
    gpu: int = Field(description="Cards per node.")
    gpu_model: str
    storage_bytes: int = Field(description="Per node.")
    release: str
    on_node_loss: str
    status: Literal["waiting", "starting", "running", "releasing", "released", "failed"]
    reason: str = Field(description="Why it ended or waits, a word for programs.")
    explanation: str = Field(description="The same for people, in the language asked for.")
    asked_by: str
    queued_at: datetime
    ready_at: datetime | None
    released_at: datetime | None
    seconds: int = Field(description="Wall time held, from ready.")
    place_in_line: int | None = Field(default=None, description="While it waits: 1 = next.")
    url: str | None = Field(default=None, description="JupyterLab of node-0, while it runs.")
    use: ClusterUse | None = Field(default=None, description="While it runs; null = not measured (lately).")
    last_seen_at: datetime | None = Field(
        default=None, description="When its person was last there, by both witnesses."
    )
    release_at: datetime | None = Field(
        default=None, description="When it goes back, as last decided; null = not by itself."
    )
    release_why: str = Field(default="", description="Why it goes back then, a word for programs.")


class ClusterDetail(Cluster):
    node_list: list[Node]
    steps: list[StartStep]


# --- usage and limits ----------------------------------------------------------------------------------


class Amounts(Outgoing):
    """``null`` = no limit."""

    clusters: int | None
    cpu: float | None
    memory_bytes: int | None
    gpu: int | None


class AmountsPerNode(Outgoing):
    """``null`` = no limit."""

    nodes: int | None = Field(description="Nodes per cluster.")
    cpu: float | None
    memory_bytes: int | None
    gpu: int | None
    storage_bytes: int | None


class Environment(Outgoing):
    name: str
    title: str
    description: str
    gpu: bool
    default: bool


# --- presence ------------------------------------------------------------------------------------------


class Busy(Incoming):
    """What runs in a node by its own word (BX-15)."""

    model_config = ConfigDict(extra="ignore", strict=True)

    kernels: int = Field(default=0, ge=0, le=1_000_000, description="Kernels at work.")
    queued: int = Field(
        default=0, ge=0, le=1_000_000, description="Cells that wait or whose output is still to be written."
    )
    terminals: int = Field(default=0, ge=0, le=1_000_000, description="Terminals with a command at work.")
    processes: int = Field(default=0, ge=0, le=1_000_000, description="Other programs at work.")


class Presence(Incoming):
    """What a node reports while somebody is there or something runs (design §6)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    server: str = Field(max_length=64)
    run: str = Field(min_length=26, max_length=26)
    rank: int = Field(ge=0, le=4096)
    seen_at: float | int | str | None = Field(
        default=None,
        description="When a person was last seen: seconds since 1970 or an ISO 8601 time; left out = nobody new.",
    )
    open: int = Field(default=0, ge=0, le=1_000_000, description="Open websockets of people.")
    busy: Busy | None = Field(default=None, description="What runs there; left out = not said.")


def plain(model: BaseModel) -> dict[str, Any]:
    """A model as JSON values."""
    return model.model_dump(mode="json")
