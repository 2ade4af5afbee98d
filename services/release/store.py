"""What the release service reads in a round, and what it writes into the rows of runs.

Ten thousand clusters are looked at every five seconds, so a round reads only the columns it needs: of each held
cluster what :func:`services.release.decide.decide` asks for, and whole rows only of the few that end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from services.release.calendar import release_of
from services.release.decide import Facts, both_saw
from services.release.tables import presence, schedules
from services.release.terms import Terms, from_json
from spawner import records
from spawner.records import NodeInterval, Run
from spawner.states import Status, Target
from spawner.tables import cluster_nodes, clusters, node_use

#: So many ids are named in one statement.
AT_ONCE = 5000


@dataclass(frozen=True, kw_only=True)
class Held:
    """A cluster that is held and that nobody has asked to end.

    Attributes
    ----------
    seen_ahead, known_seen_at
        When its person was last seen on one of their clusters, where ``presence`` does not say so; what it says.
    budgeted
        Whether a budget bounds it.
    """

    id: str
    user: str
    server: str
    project: str
    terms: Terms
    facts: Facts
    release_at: datetime | None
    release_why: str
    seen_ahead: datetime | None = None
    known_seen_at: datetime | None = None
    budgeted: bool = False


_c = clusters.c
_HELD = (
    _c.released_at.is_(None),
    _c.status == Status.RUNNING.value,
    _c.stop_asked_at.is_(None),
    _c.ready_at.is_not(None),
)


def held(conn: Connection, *, grace_seconds: int, ids: Collection[str] | None = None) -> list[Held]:
    """Every held cluster with what is known of it; ``ids`` = of these only.

    Parameters
    ----------
    conn
        A transaction.
    grace_seconds
        The site's, for rows without terms.
    ids
        Of runs.
    """
    # Anywhere on the platform: on any cluster, whichever of them is asked about.
    everywhere = _people(conn, ids)
    uses = _uses(conn, ids)
    ends = _scheduled(conn)
    query = select(
        _c.id, _c.user, _c.server, _c.project_name, _c.release_policy, _c.release_terms, _c.ready_at,
        _c.proxy_seen_at, _c.node_seen_at, _c.extended_until, _c.warned_at, _c.release_at, _c.release_why,
    ).where(*_HELD).order_by(_c.id)  # fmt: skip
    if ids is not None:
        query = query.where(_c.id.in_(list(ids)))
    found = []
    for row in conn.execute(query):
        person = everywhere.get(row.user, _NOBODY)
        use = uses.get(row.id, _NO_USE)
        facts = Facts(
            held_since=row.ready_at,
            last_seen=both_saw(row.proxy_seen_at, row.node_seen_at),
            person_last_seen=person.seen_at,
            signed_out_at=person.signed_out_at,
            extended_until=row.extended_until,
            warned_at=row.warned_at,
            busy_at=use[0],
            ran_at=use[1],
            batch_at=use[2],
            used_at=use[3],
            measured_at=use[4],
            scheduled_until=ends.get(row.id),
        )
        found.append(
            Held(
                id=row.id,
                user=row.user,
                server=row.server,
                project=row.project_name,
                terms=from_json(row.release_terms, policy=row.release_policy, grace_seconds=grace_seconds),
                facts=facts,
                release_at=row.release_at,
                release_why=row.release_why,
                seen_ahead=person.seen_ahead,
                known_seen_at=person.known_seen_at,
                budgeted=bool((row.release_terms or {}).get("budgets")),
            )
        )
    return found


def with_budgets(found: Iterable[Held], seconds: Mapping[str, float]) -> list[Held]:
    """The same with what is left of budgets, by run id."""
    return [
        replace(one, facts=replace(one.facts, budget_seconds=seconds[one.id])) if one.id in seconds else one
        for one in found
    ]


@dataclass(frozen=True)
class _Person:
    seen_at: datetime | None = None
    signed_out_at: datetime | None = None
    seen_ahead: datetime | None = None
    known_seen_at: datetime | None = None


_NOBODY = _Person()
_NO_USE: tuple[datetime | None, ...] = (None,) * 5


def _people(conn: Connection, ids: Collection[str] | None) -> dict[str, _Person]:
    """Of whoever holds these clusters, or any: when they were last anywhere, and a sign-out that still counts."""
    # Of each cluster the earlier word of its two witnesses, of each person the latest of those.
    both = case((_c.proxy_seen_at < _c.node_seen_at, _c.proxy_seen_at), else_=_c.node_seen_at)
    seen = (
        select(_c.user, func.max(case((_c.proxy_seen_at.is_not(None), both))).label("seen_at"))
        .where(_c.released_at.is_(None))
        .group_by(_c.user)
    )
    if ids is not None:
        asked = clusters.alias("asked")
        seen = seen.where(_c.user.in_(select(asked.c.user).where(asked.c.id.in_(list(ids)))))
    seen = seen.subquery()
    rows = conn.execute(
        select(seen.c.user, seen.c.seen_at, presence.c.platform_seen_at, presence.c.signed_out_at).outerjoin(
            presence, presence.c.user == seen.c.user
        )
    )
    found = {}
    for user, seen_at, platform_at, out_at in rows:
        if out_at is not None and platform_at is not None and platform_at > out_at:
            out_at = None
        moments = [at for at in (seen_at, platform_at) if at is not None]
        last = max(moments) if moments else None
        ahead = seen_at if last != platform_at and out_at is None else None
        found[user] = _Person(last, out_at, ahead, platform_at)
    return found


def _uses(conn: Connection, ids: Collection[str] | None) -> dict[str, tuple[datetime | None, ...]]:
    """By run id: busy_at, ran_at, batch_at, used_at, measured_at, over all its nodes."""
    n, u = cluster_nodes.c, node_use.c
    says = u.busy_at == u.told_at
    query = (
        select(
            n.cluster_id,
            func.max(case((says, u.busy_at))),
            func.max(u.busy_at),
            func.max(case((and_(says, u.busy["processes"].as_integer() > 0), u.busy_at))),
            func.max(u.used_at),
            # Use is known when it was measured on every node that is there, and only then.
            case((func.count(u.measured_at) == func.count(), func.min(u.measured_at))),
        )
        .select_from(cluster_nodes)
        .join(clusters, and_(_c.id == n.cluster_id, _c.released_at.is_(None)))
        .outerjoin(node_use, and_(u.cluster_id == n.cluster_id, u.rank == n.rank, u.attempt == n.attempt))
        .where(n.gone_at.is_(None))
        .group_by(n.cluster_id)
    )
    if ids is not None:
        query = query.where(n.cluster_id.in_(list(ids)))
    return {row[0]: tuple(row[1:]) for row in conn.execute(query)}


def _scheduled(conn: Connection) -> dict[str, datetime]:
    """By run id: when the schedule that started it gives it back."""
    s = schedules.c
    rows = conn.execute(
        select(s.run_id, s.done_day, s.ready_minute, s.release_minute, s.zone).where(
            s.run_id != "", s.done_day != "", s.release_minute.is_not(None)
        )
    )
    found = {}
    for row in rows:
        # One that says no end, such as by a zone that this machine does not know, must not keep the others from
        # theirs. The keeper tells of it, once.
        with suppress(Exception):
            found[row.run_id] = release_of(
                date.fromisoformat(row.done_day), row.ready_minute, row.release_minute, row.zone
            )
    return found


def ending(conn: Connection) -> tuple[list[Run], dict[str, list[NodeInterval]]]:
    """Open runs that may have to be brought to their end, with their nodes: all but those that are simply held."""
    n = cluster_nodes
    of_it = n.c.cluster_id == _c.id
    no_node_left = and_(exists().where(of_it), not_(exists().where(of_it, n.c.gone_at.is_(None))))
    query = (
        select(clusters)
        .where(
            _c.released_at.is_(None),
            _c.status != Status.QUEUED.value,
            or_(
                _c.status != Status.RUNNING.value,
                _c.stop_asked_at.is_not(None),
                _c.target != Target.RUNNING.value,
                no_node_left,
            ),
        )
        .order_by(_c.id)
    )
    runs = [Run(**row) for row in conn.execute(query).mappings()]
    return runs, records.intervals(conn, [run.id for run in runs if run.status == Status.RUNNING])


_NOTE = (
    update(clusters)
    .where(_c.id == bindparam("b_id"), _c.released_at.is_(None))
    .values(release_at=bindparam("b_at", type_=_c.release_at.type), release_why=bindparam("b_why"))
)
#: PostgreSQL takes all of them in one statement: ten thousand of them cost a round half of its second.
_NOTE_ALL = text(
    """
    UPDATE clusters SET release_at = noted.at, release_why = noted.why
    FROM unnest(CAST(:ids AS varchar[]), CAST(:ats AS timestamptz[]), CAST(:whys AS varchar[]))
        AS noted(id, at, why)
    WHERE clusters.id = noted.id AND clusters.released_at IS NULL
    """
)
_SEEN_ALL = text(
    "SELECT * FROM unnest(CAST(:users AS varchar[]), CAST(:ats AS timestamptz[])) AS seen(b_user, b_at)"
).columns(column("b_user"), column("b_at"))


def note_ends(conn: Connection, ends: Iterable[tuple[str, datetime | None, str]]) -> None:
    """Write into the rows when each run goes back, as last decided: (run id, when, why)."""
    rows = [{"b_id": run_id, "b_at": at, "b_why": why} for run_id, at, why in ends]
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        conn.execute(_NOTE, rows)
    else:
        ids, ats, whys = ([row[name] for row in rows] for name in ("b_id", "b_at", "b_why"))
        conn.execute(_NOTE_ALL, {"ids": ids, "ats": ats, "whys": whys})


def note_seen(conn: Connection, seen: Mapping[str, datetime]) -> None:
    """Note when people were seen on their clusters, by person: a cluster that is closed says it no more.

    Only forward, and never past a sign-out that still counts: a page left open on a cluster is no sign-in.
    """
    people = sorted(seen.items())
    if not people:
        return
    given: Any
    if conn.dialect.name == "sqlite":
        query = sqlite.insert(presence).values(user=bindparam("b_user"), platform_seen_at=bindparam("b_at"))
        given = [{"b_user": user, "b_at": at} for user, at in people]
    else:
        query = postgresql.insert(presence).from_select(["user", "platform_seen_at"], _SEEN_ALL)
        given = {"users": [user for user, _ in people], "ats": [at for _, at in people]}
    p, new = presence.c, query.excluded.platform_seen_at
    query = query.on_conflict_do_update(
        index_elements=["user"],
        set_={"platform_seen_at": new},
        where=and_(
            or_(p.platform_seen_at.is_(None), p.platform_seen_at < new),
            or_(p.signed_out_at.is_(None), p.signed_out_at < p.platform_seen_at, p.signed_out_at >= new),
        ),
    )
    conn.execute(query, given)


def note_warned(conn: Connection, run_ids: Collection[str], now: datetime) -> None:
    """Write into the rows that the person was warned."""
    ids = sorted(run_ids)
    for begin in range(0, len(ids), AT_ONCE):
        some = _c.id.in_(ids[begin : begin + AT_ONCE])
        conn.execute(update(clusters).where(some).values(warned_at=now))


# ------------------------------------------------------------------------------------- the person's own word


def seen_on_platform(conn: Connection, user: str, now: datetime, *, since: datetime | None = None) -> bool:
    """Note that a person is on a page of the portal, or signed in; whether it was noted.

    Parameters
    ----------
    conn
        A transaction.
    user
        Who.
    now
        UTC; only forward.
    since
        When the page was opened. One from before a sign-out does not count any more.
    """
    p = presence.c
    known = conn.execute(select(p.platform_seen_at, p.signed_out_at).where(p.user == user)).first()
    if known is None:
        _put(conn, user, platform_seen_at=now)
        return True
    if since is not None and known.signed_out_at is not None and since <= known.signed_out_at:
        return False
    if known.platform_seen_at is None or known.platform_seen_at < now:
        conn.execute(update(presence).where(p.user == user).values(platform_seen_at=now))
    return True


def last_anywhere(conn: Connection, users: Collection[str]) -> dict[str, datetime]:
    """When each of these people was last on any page of the portal or of a cluster."""
    found = {
        row.user: row.platform_seen_at
        for row in conn.execute(select(presence).where(presence.c.user.in_(list(users))))
        if row.platform_seen_at is not None
    }
    rows = conn.execute(
        select(_c.user, _c.proxy_seen_at, _c.node_seen_at).where(
            _c.released_at.is_(None), _c.user.in_(list(users))
        )
    )
    for row in rows:
        seen = both_saw(row.proxy_seen_at, row.node_seen_at)
        if seen is not None:
            found[row.user] = max(seen, found.get(row.user, seen))
    return found


def signed_out(conn: Connection, user: str, now: datetime) -> None:
    """Note that a person signed out: for every policy they left at this moment."""
    done = conn.execute(update(presence).where(presence.c.user == user).values(signed_out_at=now))
    if done.rowcount == 0:
        _put(conn, user, signed_out_at=now)


def has_signed_out(conn: Connection, user: str) -> bool:
    """Whether a sign-out of a person still counts: they were nowhere since."""
    p = presence.c
    known = conn.execute(select(p.platform_seen_at, p.signed_out_at).where(p.user == user)).first()
    if known is None or known.signed_out_at is None:
        return False
    return known.platform_seen_at is None or known.platform_seen_at <= known.signed_out_at


def _put(conn: Connection, user: str, **values: Any) -> None:
    """Insert the row of a person, or change the one that another process has inserted in this moment."""
    try:
        with conn.begin_nested():
            conn.execute(insert(presence).values(user=user, **values))
    except IntegrityError:
        conn.execute(update(presence).where(presence.c.user == user).values(**values))
