"""What is held now, summed by the database: for pages of one person, for admission of everybody.

Admission asks once, in one statement of several parts (:func:`sums_of`), each by an index of its own: the version of
what was decided and how many exceptions the person has; the person's open runs; who is before them in line; what they
used of their budgets, where somebody gave a question for that (:class:`Along`). Everybody's open runs are added
up only where that matters, for a backend that has the word on room or for a role with bounds of all its people
together: with a thousand open runs that is half of the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

from extensions.quota.budgets import Along, UsedPart
from extensions.quota.limits import Held, Kind
from extensions.quota.policy import EXCEPTIONS, VERSION
from galilean.db import UTCDateTime
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
        Of the machines by everybody: all that starts, runs or is being removed. Nothing without ``everybody``.
    waiting
        How many wait in line for the same pool and GPU model, or are being placed once more after they had to.
    mine
        Id of the run that is open under the same server's name, or empty.
    by_role
        By everybody, by the role that it was admitted by; without the run of the same server. Empty without
        ``everybody``.
    version, exceptions
        Of what was decided (0 = nothing), and how many exceptions the person has, at the same moment.
    used
        What was asked along: the parts for each of its starts.
    """

    held: Held
    taken: Held
    waiting: int
    mine: str
    by_role: Mapping[str, Held] = field(default_factory=dict)
    version: int = 0
    exceptions: int = 0
    used: Mapping[datetime, list[UsedPart]] = field(default_factory=dict)


def held(conn: Connection, user: str) -> Held:
    """What a person holds over all open runs, waiting ones included."""
    return Held.of(_kind(row) for row in conn.execute(_HELD, {"b_user": user}))


def held_by_roles(conn: Connection) -> dict[str, Held]:
    """What all people hold, by the role that it was admitted by."""
    return _by_role(conn.execute(_BY_ROLE))


def sums_of(
    conn: Connection, plan: ClusterPlan, now: datetime, *, everybody: bool = True, along: Along | None = None
) -> Sums:
    """Everything that the admission of ``plan`` compares.

    Parameters
    ----------
    conn
        The transaction.
    plan
        Whose, and of which pool and model.
    now
        UTC.
    everybody
        Whether what everybody holds is added up, too.
    along
        What else is to be asked of the person's use.
    """
    values = {
        "b_user": plan.user,
        "b_pool": plan.pool,
        "b_gpu_model": plan.gpu_model,
        "b_now": now,
        **(along.values if along else {}),
    }
    parts: dict[int, list[Any]] = {_HEAD: [], _MINE: [], _ALL: [], _LINE: [], _USE: []}
    for row in conn.execute(_question(everybody, along.query if along else None), values):
        parts[row.kind].append(row)
    (head,) = parts[_HEAD]
    this = [row for row in parts[_MINE] if row.server == plan.server]
    every = parts[_ALL]
    return Sums(
        version=int(head.version or 0),
        exceptions=int(head.clusters),
        held=Held.of(_kind(row) for row in parts[_MINE] if row.server != plan.server),
        taken=Held.of(_kind(row) for row in every if not row.waits),
        waiting=sum(int(row.in_line) for row in (every if everybody else parts[_LINE])),
        mine=max((row.id for row in this), default=""),
        by_role=_by_role(every, without=this),
        used=along.answer([tuple(getattr(row, name) for name in _OF_USE) for row in parts[_USE]])
        if along
        else {},
    )


def _by_role(rows: Iterable[Any], *, without: Iterable[Any] = ()) -> dict[str, Held]:
    kinds: dict[str, list[Kind]] = {}
    for row in rows:
        kinds.setdefault(row.role, []).append(_kind(row))
    for row in without:
        if row.role in kinds:
            kinds[row.role].append(_kind(row, -1))
    return {role: Held.of(parts) for role, parts in kinds.items()}


def _kind(row: Any, times: int = 1) -> Kind:
    return Kind(
        pool=row.pool,
        gpu_model=row.gpu_model,
        clusters=times * int(row.clusters),
        cpu_millicores=times * int(row.cpu),
        memory_bytes=times * int(row.memory),
        gpu=times * int(row.gpu),
        storage_bytes=times * int(row.storage),
    )


_HEAD, _MINE, _ALL, _LINE, _USE = range(5)
_OPEN = clusters.c.released_at.is_(None)
_SIZES = {
    "cpu": clusters.c.nodes * clusters.c.cpu_millicores,
    "memory": clusters.c.nodes * clusters.c.memory_bytes,
    "gpu": clusters.c.nodes * clusters.c.gpu,
    "storage": clusters.c.nodes * clusters.c.storage_bytes,
}
_AMOUNTS = (
    func.count().label("clusters"),
    *(func.sum(amount).label(name) for name, amount in _SIZES.items()),
)
_KIND = (clusters.c.pool, clusters.c.gpu_model)
_WAITS = clusters.c.status == Status.QUEUED.value
_IN_LINE = and_(
    or_(and_(_WAITS, clusters.c.stop_asked_at.is_(None)), PLACED_AGAIN),
    clusters.c.pool == bindparam("b_pool"),
    clusters.c.gpu_model == bindparam("b_gpu_model"),
)
#: As the index of open runs has it.
_NOT_YET = clusters.c.status.in_((Status.QUEUED.value, Status.RESERVED.value, Status.STARTING.value))
_OF_PERSON = clusters.c.user == bindparam("b_user")
_HELD = select(*_KIND, *_AMOUNTS).where(_OPEN, _OF_PERSON).group_by(*_KIND)
_BY_ROLE = select(clusters.c.role, *_KIND, *_AMOUNTS).where(_OPEN).group_by(clusters.c.role, *_KIND)


#: What is asked along, in the order in which it is answered.
_OF_USE = ("part", "cpu", "gpu", "node_us", "ready_at", "gone_at")


def _number(value: int) -> Any:
    return literal_column(str(value), Integer)


#: The columns of each part of the question, and what stands where a part has nothing to say. The first part decides
#: the types; times are only in what is asked along.
_NOTHING: dict[str, Any] = {
    "kind": _number(0),
    "version": cast(null(), VERSION.type),
    **{name: literal_column("''", String) for name in ("id", "server", "role", "pool", "gpu_model")},
    "waits": _number(0),
    "part": _number(0),
    **{
        name: cast(literal_column("0"), BigInteger)
        for name in ("clusters", "cpu", "memory", "gpu", "storage", "in_line")
    },
    "node_us": cast(null(), BigInteger),
    "ready_at": cast(null(), UTCDateTime()),
    "gone_at": cast(null(), UTCDateTime()),
}


def _part(kind: int, **columns: Any) -> Any:
    found = {**_NOTHING, "kind": _number(kind), **columns}
    return select(*(column.label(name) for name, column in found.items()))


_RUN = {name: clusters.c[name] for name in ("role", "pool", "gpu_model")}
_HEAD_PART = _part(_HEAD, version=VERSION, clusters=EXCEPTIONS)
_MINE_PART = _part(
    _MINE, id=clusters.c.id, server=clusters.c.server, **_RUN, clusters=_number(1), **_SIZES
).where(_OPEN, _OF_PERSON)
_WAITING = case((_WAITS, 1), else_=0)
_ALL_PART = (
    _part(
        _ALL,
        **_RUN,
        waits=_WAITING,
        clusters=func.count(),
        **{name: func.sum(amount) for name, amount in _SIZES.items()},
        in_line=func.sum(case((_IN_LINE, 1), else_=0)),
    )
    .where(_OPEN)
    .group_by(*_RUN.values(), clusters.c.status)
)
_LINE_PART = _part(_LINE, in_line=func.count()).select_from(clusters).where(_OPEN, _NOT_YET, _IN_LINE)


@cache
def _question(everybody: bool, along: Any) -> Any:
    parts = [_HEAD_PART, _MINE_PART, _ALL_PART if everybody else _LINE_PART]
    if along is not None:
        use = along.subquery("use_of_person").c
        parts.append(
            _part(_USE, cpu=use.cpu_millicores, **{name: use[name] for name in _OF_USE if name != "cpu"})
        )
    return union_all(*parts)
