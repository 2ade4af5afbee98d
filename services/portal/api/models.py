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


class DefaultRequest(Incoming):
    """What the Run panel starts with; what is left out is the site's."""

    nodes: int | None = Field(default=None, ge=1, le=10_000)
    cpu: float | int | None = Field(default=None, description="CPUs (hardware threads) of a node.")
    memory: str | int | None = Field(default=None, description="Of a node: “8G” or bytes.")
    gpu: int | None = Field(default=None, ge=0, le=1000, description="Cards of a node.")
    gpu_model: str | None = None
    storage: str | int | None = Field(default=None, description="Local storage of a node: “8G” or bytes.")
    pool: str | None = None
    ports: list[int] | None = Field(default=None, description="Ports of programs that open as doors.")
    release: str | None = None
    on_node_loss: Literal["release", "keep"] | None = None


class ProjectChange(Incoming):
    """Only the keys that are sent are changed."""

    name: str | None = Field(default=None, min_length=1, max_length=NAME_LENGTH)
    description: str | None = Field(default=None, max_length=DESCRIPTION_LENGTH)
    environment: str | None = Field(default=None, max_length=128)
    field: str | None = Field(default=None, max_length=64, description="One of the fields; empty = none.")
    tags: list[str] | None = Field(default=None, max_length=50)
    readme: str | None = Field(
        default=None, max_length=255, description="The file that is shown first; empty = README.md."
    )
    default_request: DefaultRequest | None = Field(
        default=None, description="All of it anew; {} = as the site says."
    )


AccessWord = Literal["read", "run", "write", "own"]


class Project(Outgoing):
    id: str
    owner: str
    slug: str
    name: str
    description: str
    environment: str
    visibility: str = Field(description="private, shared or public.")
    created_at: datetime
    changed_at: datetime
    url: str = Field(description="The project's page.")
    server: str = Field(description="Name of the hub's named server on which the caller runs it.")
    cluster: str | None = Field(default=None, description="Id of the caller's open cluster of this project.")
    access: AccessWord = Field(default="own", description="What the caller may do with it.")
    field: str = ""
    tags: list[str] = Field(default_factory=list)
    readme: str = ""
    cover: str | None = Field(default=None, description="Address of its image; null = one is drawn.")
    default_request: dict[str, Any] | None = None
    forked_from: str | None = Field(default=None, description="Id of the project that it is a fork of.")
    busy: str = Field(default="", description="copying, moving or importing: it cannot be run meanwhile.")
    published_at: datetime | None = None
    taken_down: bool = Field(default=False, description="Hidden by an administrator.")
    size_bytes: int | None = Field(default=None, description="As last counted.")
    file_count: int | None = None


class Card(Outgoing):
    """A project or data set as lists show it."""

    kind: Literal["project", "dataset"]
    id: str
    owner: str
    slug: str
    name: str
    summary: str
    visibility: str
    taken_down: bool
    cover: str | None
    field: str
    environment: str
    tags: list[str]
    changed_at: datetime
    published_at: datetime = Field(description="Published, or made where it is not public.")
    views: int
    uses: int = Field(description="Forks of a project; projects that use a data set.")
    favourites: int
    favourite: bool = Field(description="Whether it is one of the caller's.")
    url: str


class Share(Outgoing):
    person: str | None = None
    group: str | None = None
    access: Literal["read", "run", "write"]
    given_by: str
    given_at: datetime | None


class GiveShare(Incoming):
    person: str | None = Field(default=None, max_length=255, description="With whom; this or group.")
    group: str | None = Field(default=None, max_length=255)
    access: Literal["read", "run", "write"]


class Publication(Outgoing):
    """What everybody would see."""

    files: int
    complete: bool = Field(description="Whether all files were looked at; of very many only the first are.")
    size_bytes: int
    notebooks: int
    hidden: int
    secrets: list[str] = Field(description="Files that look like keys and passwords, the first of them.")
    more_secrets: int
    unreadable: list[str] = Field(description="Data sets that others will not get.")


class NewFork(Incoming):
    name: str | None = Field(default=None, min_length=1, max_length=NAME_LENGTH)
    slug: str | None = Field(default=None, max_length=60)


class ForkMade(Outgoing):
    project: Project
    left_out: int = Field(description="How many data sets it lacks because the caller may not read them.")


class GivenFork(Outgoing):
    """How it stands with the fork of one member of a group."""

    person: str
    state: Literal["none", "copying", "there", "refused"]
    slug: str = Field(description="Of their fork, where there is one.")
    left_out: int = Field(
        description="Data sets that a fork made now lacks, for its owner may not read them."
    )
    why: str = Field(description="Why it was refused, in the language asked for.")


class Copying(Outgoing):
    """How far the copy of a fork is."""

    state: Literal["copying", "done"]
    files: int
    size_bytes: int
    of_files: int | None = None
    of_bytes: int | None = None


class ForkOf(Outgoing):
    """A project in a tree of forks; depth 0 is the one asked for."""

    id: str
    parent: str | None
    depth: int
    owner: str
    slug: str
    name: str
    created_at: datetime
    url: str


class Forks(Outgoing):
    origin: ForkOf | None = Field(description="What it is a fork of, where the caller may see that.")
    items: list[ForkOf]


class Binned(Outgoing):
    id: str
    slug: str
    name: str
    deleted_at: datetime
    kept_until: datetime
    size_bytes: int | None


class TakeDown(Incoming):
    reason: str = Field(min_length=1, max_length=1000, description="Told to the owner.")


class NewOwner(Incoming):
    owner: str = Field(min_length=1, max_length=255)


class Cover(Outgoing):
    cover: str = Field(description="Address of the image.")


class Found(Outgoing):
    """One thing that a search found."""

    group: Literal[
        "projects", "datasets", "environments", "disks", "object-stores", "people", "pages", "help"
    ]
    title: str
    detail: str = ""
    url: str


class FoundAll(Outgoing):
    items: list[Found]


# --- files ---------------------------------------------------------------------------------------------


class File(Outgoing):
    name: str
    path: str = Field(description="Below the project's directory, with “/” between the parts.")
    kind: Literal["file", "folder", "link", "other"]
    size_bytes: int | None = None
    changed_at: datetime


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
    disks: dict[str, Literal["read", "write"]] | None = Field(
        default=None,
        description="Names of your own disks, each to read (all nodes) or to write (node-0). One that is written has no "
        "other run.",
    )


class Release(Incoming):
    reason: str = Field(default="", max_length=500, description="Why; told to the owner by an administrator.")


class DatasetOfCluster(Outgoing):
    """A data set that a run has: with a version, the same files can be had again."""

    id: str
    address: str = Field(description="owner/slug.")
    version: int = Field(description="0 = the data set itself, whose files change.")
    mount: str = Field(description="Its directory below ~/datasets.")
    read_only: bool


class ProjectOfCluster(Outgoing):
    """The project as it was when the cluster started."""

    id: str
    owner: str
    slug: str
    name: str


class Door(Outgoing):
    """A way into a node."""

    name: str = Field(description="lab, desktop, terminal or port-<n>; more may come.")
    title: str = Field(description="In the visitor's language.")
    url: str
    listens: bool = Field(description="Whether it opens only while a program of the person's listens there.")


class Node(Outgoing):
    rank: int
    name: str
    state: Literal["waiting", "starting", "ready", "restarting", "gone"]
    host: str = ""
    placed_at: datetime | None = None
    ready_at: datetime | None = None
    gone_at: datetime | None = None
    exit_reason: str = ""
    attempt: int = Field(default=1, description="Which life of this node it is.")
    explanation: str = Field(default="", description="Why it did not come back, or was left as it is.")
    can: list[str] = Field(default_factory=list, description="What may be asked of it now: restart, reset.")
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
    datasets: list[DatasetOfCluster] = Field(
        default=[],
        description="The data sets that its nodes have, as they were called when it was asked for.",
    )
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
    licences: list[str] = Field(
        default=[],
        description="Licence servers of its environment when it was asked for, as host:port: its nodes have a way there.",
    )
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
