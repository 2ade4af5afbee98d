"""What one person holds, as pages show it: the meter in the top bar and the cards of the home page.

Made of rows that are read in two queries, whatever the number of clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

from sqlalchemy import Connection

from extensions.quota.limits import Held
from galilean.web.context import Portal
from services.metering.usage import usage_of
from services.portal.addresses import project_path
from services.portal.api.clusters import node_state
from services.portal.doors import Way, ways
from services.portal.goes_back import GoesBack, goes_back
from services.portal.my_limits import site_grace_seconds
from services.release import ask
from spawner import records
from spawner.records import NodeInterval, Run

MOST = 200


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node and the ways into it; no ways while it does not answer."""

    rank: int
    state: str
    ways: tuple[Way, ...]

    @property
    def lab(self) -> str:
        """What *Open* opens."""
        return self.ways[0].url

    @property
    def terminal(self) -> str:
        return next((way.url for way in self.ways if way.key == "terminal"), "")

    @property
    def name(self) -> str:
        return f"node-{self.rank}"

    @property
    def answers(self) -> bool:
        return self.state == "ready"


@dataclass(frozen=True)
class Used:
    """What a cluster has used so far (BX-4): hours of cores and of GPU cards, and how they grow each second."""

    core_hours: float = 0.0
    gpu_hours: float = 0.0
    core_hours_per_second: float = 0.0
    gpu_hours_per_second: float = 0.0

    def __add__(self, other: Used) -> Used:
        return Used(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """One open cluster."""

    run: Run
    nodes: tuple[NodeView, ...]
    project_url: str
    url: str
    goes_back: GoesBack
    used: Used = Used()

    @property
    def release_url(self) -> str:
        return self.url + "/release"

    @property
    def word(self) -> str:
        return self.run.word

    @property
    def since(self) -> datetime | None:
        """From when it is held: machine time counts from here."""
        return self.run.ready_at

    @property
    def ready_nodes(self) -> int:
        return sum(node.answers for node in self.nodes)

    @property
    def open_nodes(self) -> tuple[NodeView, ...]:
        """Nodes that one can go to now."""
        return tuple(node for node in self.nodes if node.answers) if self.word == "running" else ()


@dataclass(frozen=True, kw_only=True)
class Mine:
    """Everything that one person holds or has asked for."""

    clusters: tuple[ClusterView, ...]
    held: Held
    grace_seconds: int = 300

    @property
    def running(self) -> int:
        return sum(cluster.word == "running" for cluster in self.clusters)

    @property
    def starting(self) -> int:
        return sum(cluster.word == "starting" for cluster in self.clusters)

    @property
    def waiting(self) -> int:
        """Clusters that wait in line for room."""
        return sum(cluster.word == "waiting" for cluster in self.clusters)

    @property
    def longest_since(self) -> datetime | None:
        """The beginning of the longest hold."""
        return min((c.since for c in self.clusters if c.since is not None), default=None)

    @property
    def until(self) -> datetime | None:
        """The earliest moment at which one of them goes back, of those that do not move while one is there."""
        return min((c.goes_back.at for c in self.clusters if c.goes_back.at), default=None)

    @property
    def used(self) -> Used:
        """What all of them have used so far."""
        return sum((cluster.used for cluster in self.clusters), Used())

    @property
    def soon(self) -> bool:
        """Whether one of them goes back so soon that its person is warned."""
        return any(cluster.goes_back.soon for cluster in self.clusters)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was read of open runs, newest first.

    Attributes
    ----------
    intervals
        Of their nodes, by run id.
    tells
        Ids of those whose nodes tell what runs there.
    grace_seconds
        The centre's, for rows without terms of their own.
    """

    runs: Sequence[Run]
    intervals: Mapping[str, Sequence[NodeInterval]]
    tells: frozenset[str] = frozenset()
    grace_seconds: int = 300


def read_mine(conn: Connection, portal: Portal, user: str) -> Rows:
    """A person's open runs with their nodes."""
    return read_runs(conn, portal, records.list_runs(conn, user=user, limit=MOST))


def read_runs(conn: Connection, portal: Portal, runs: Sequence[Run]) -> Rows:
    """What belongs to these runs."""
    ids = [run.id for run in runs]
    return Rows(
        runs=runs,
        intervals=records.intervals(conn, ids),
        tells=ask.telling(conn, ids),
        grace_seconds=site_grace_seconds(conn, portal),
    )


def mine_of(portal: Portal, rows: Rows) -> Mine:
    """Views of rows; those held longest first, then what is on its way."""
    order = {"running": 0, "starting": 1, "waiting": 2}
    runs = rows.runs
    views = [view_of(portal, run, rows) for run in runs]
    views.sort(key=lambda view: (order.get(view.word, 3), view.run.ready_at or view.run.queued_at))
    return Mine(
        clusters=tuple(views),
        grace_seconds=rows.grace_seconds,
        held=Held(
            clusters=len(runs),
            cpu_millicores=sum(run.together("cpu_millicores") for run in runs),
            memory_bytes=sum(run.together("memory_bytes") for run in runs),
            gpu=sum(run.together("gpu") for run in runs),
        ),
    )


def view_of(portal: Portal, run: Run, rows: Rows) -> ClusterView:
    """One cluster with its nodes of the present attempt, by rank."""
    nodes = rows.intervals.get(run.id, ())
    views = []
    for node in records.present(nodes):
        found = tuple(ways(portal, run, node.rank))
        views.append(NodeView(rank=node.rank, state=node_state(node), ways=found))
    return ClusterView(
        run=run,
        nodes=tuple(views),
        project_url=portal.prefix + project_path(run.project_owner, run.project_slug),
        url=f"{portal.prefix}clusters/{run.id}",
        goes_back=goes_back(
            run, portal.clock(), grace_seconds=rows.grace_seconds, tells=run.id in rows.tells
        ),
        used=used_of(run, nodes, portal.clock()),
    )


def used_of(run: Run, nodes: Sequence[NodeInterval], now: datetime) -> Used:
    """What a run has used until now, by all lives of its nodes."""
    usage = usage_of(nodes, run, now)
    counting = sum(node.ready_at is not None and node.gone_at is None for node in nodes)
    return Used(
        core_hours=usage.cpu_core_minutes / 60,
        gpu_hours=usage.gpu_card_minutes / 60,
        core_hours_per_second=counting * run.cpu_millicores / 1000 / 3600,
        gpu_hours_per_second=counting * run.gpu / 3600,
    )
