"""What is held now, summed by the database: for pages of one person, for admission of everybody.

Admission asks once, whatever there is: everything that is open, grouped by whose it is, by the role it was
admitted by, by pool and GPU model. These are a few dozen rows; the index of open runs gives them without
the millions that are closed. The version of what was decided, and whether the person has exceptions, come along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, literal, or_, select, true

from extensions.quota.limits import Held, Kind
from extensions.quota.policy import EXCEPTIONS, VERSION
from spawner.plan import ClusterPlan
from spawner.records import PLACED_AGAIN
from spawner.states import Status
from spawner.tables import clusters


@dataclass(frozen=True, kw_only=True)
class Sums:
    """All that admission compares, from one look at the open rows.

    Attributes
    ----------
    held
        By the person, besides a run of the same server.
    taken
        Of the machines by everybody: all that starts, runs or is being removed.
    waiting
        How many wait in line for the same pool and GPU model, or are being placed once more after they had to.
    mine
        Id of the run that is open under the same server's name, or empty.
    by_role
        By everybody, by the role that it was admitted by; without the run of the same server.
    version, exceptions
        Of what was decided (0 = nothing), and how many exceptions the person has, at the same moment.
    """

    held: Held
    taken: Held
    waiting: int
    mine: str
    by_role: Mapping[str, Held] = field(default_factory=dict)
    version: int = 0
    exceptions: int = 0


def held(conn: Connection, user: str) -> Held:
    """What a person holds over all open runs, waiting ones included."""
    return Held.of(_kind(row) for row in conn.execute(_HELD, {"b_user": user}))


def held_by_roles(conn: Connection) -> dict[str, Held]:
    """What all people hold, by the role that it was admitted by."""
    return _by_role(conn.execute(_BY_ROLE))


def sums_of(conn: Connection, plan: ClusterPlan, now: datetime) -> Sums:
    """Everything that is open, summed for the admission of ``plan``."""
    found = conn.execute(
        _SUMS,
        {
            "b_user": plan.user,
            "b_server": plan.server,
            "b_pool": plan.pool,
            "b_gpu_model": plan.gpu_model,
            "b_now": now,
        },
    ).all()
    rows = [row for row in found if row.whose is not None]  # nothing open is one row without anything
    return Sums(
        version=int(found[0].version or 0),
        exceptions=int(found[0].exceptions),
        held=Held.of(_kind(row) for row in rows if row.whose == _THEIRS),
        taken=Held.of(_kind(row) for row in rows if not row.waits),
        waiting=sum(int(row.in_line) for row in rows),
        mine=max((row.newest for row in rows if row.whose == _THIS), default=""),
        by_role=_by_role(row for row in rows if row.whose != _THIS),
    )


def _by_role(rows: Iterable[Any]) -> dict[str, Held]:
    kinds: dict[str, list[Kind]] = {}
    for row in rows:
        kinds.setdefault(row.role, []).append(_kind(row))
    return {role: Held.of(parts) for role, parts in kinds.items()}


def _kind(row: Any) -> Kind:
    return Kind(
        pool=row.pool,
        gpu_model=row.gpu_model,
        clusters=int(row.clusters),
        cpu_millicores=int(row.cpu),
        memory_bytes=int(row.memory),
        gpu=int(row.gpu),
        storage_bytes=int(row.storage),
    )


_OTHERS, _THEIRS, _THIS = 0, 1, 2
_OPEN = clusters.c.released_at.is_(None)
_AMOUNTS = (
    func.count().label("clusters"),
    func.sum(clusters.c.nodes * clusters.c.cpu_millicores).label("cpu"),
    func.sum(clusters.c.nodes * clusters.c.memory_bytes).label("memory"),
    func.sum(clusters.c.nodes * clusters.c.gpu).label("gpu"),
    func.sum(clusters.c.nodes * clusters.c.storage_bytes).label("storage"),
)
_KIND = (clusters.c.pool, clusters.c.gpu_model)
_WAITS = clusters.c.status == Status.QUEUED.value
_IN_LINE = and_(
    or_(and_(_WAITS, clusters.c.stop_asked_at.is_(None)), PLACED_AGAIN),
    clusters.c.pool == bindparam("b_pool"),
    clusters.c.gpu_model == bindparam("b_gpu_model"),
)
_OF_PERSON = clusters.c.user == bindparam("b_user")
_HELD = select(*_KIND, *_AMOUNTS).where(_OPEN, _OF_PERSON).group_by(*_KIND)
_BY_ROLE = select(clusters.c.role, *_KIND, *_AMOUNTS).where(_OPEN).group_by(clusters.c.role, *_KIND)
_EACH = (
    select(
        case(
            (and_(_OF_PERSON, clusters.c.server == bindparam("b_server")), _THIS),
            (_OF_PERSON, _THEIRS),
            else_=_OTHERS,
        ).label("whose"),
        case((_WAITS, 1), else_=0).label("waits"),
        case((_IN_LINE, 1), else_=0).label("in_line"),
        *(
            clusters.c[name]
            for name in (
                "id",
                "role",
                "pool",
                "gpu_model",
                "nodes",
                "cpu_millicores",
                "memory_bytes",
                "gpu",
                "storage_bytes",
            )
        ),
    )
    .where(_OPEN)
    .subquery("each")
)
_E = _EACH.c
_GROUP = (_E.whose, _E.waits, _E.role, _E.pool, _E.gpu_model)
_ONE = select(literal(1).label("one")).subquery("one")
_SUMS = (
    select(
        VERSION.label("version"),
        EXCEPTIONS.label("exceptions"),
        *_GROUP,
        func.count(_E.id).label("clusters"),
        func.sum(_E.nodes * _E.cpu_millicores).label("cpu"),
        func.sum(_E.nodes * _E.memory_bytes).label("memory"),
        func.sum(_E.nodes * _E.gpu).label("gpu"),
        func.sum(_E.nodes * _E.storage_bytes).label("storage"),
        func.sum(_E.in_line).label("in_line"),
        func.max(_E.id).label("newest"),
    )
    .select_from(_ONE.outerjoin(_EACH, true()))
    .group_by(*_GROUP)
)
