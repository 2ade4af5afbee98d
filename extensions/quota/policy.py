"""Who may hold what *now*: the tables of roles and limits as one snapshot, exceptions by one small query.

Roles are few and change seldom, so each process keeps them (:class:`Policy`) and asks only whether the
centre's version moved. Exceptions may be as many as people and end by the clock: they are looked up for the
one person, together with the version, by one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, or_, select

from extensions.quota.limits import Amounts, Granted, Limits, combine
from extensions.quota.measures import TOGETHER, Measure
from extensions.quota.periods import CALENDAR, Calendar
from extensions.quota.tables import quota_exceptions, quotas
from galilean import centre
from galilean.db import UTCDateTime
from galilean.tables import centre as centre_table

#: The centre's value: ``generous`` (default) or ``strictest``.
COMBINE = "quota.combine"
COMBINATIONS = ("generous", "strictest")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the tables said at one version.

    Attributes
    ----------
    roles
        Amounts by role, in the order of the roles; a role without limits of its own has an empty one.
    strictest
        How several roles go together.
    calendar
        When weeks and terms begin.
    """

    version: int = 0
    roles: Mapping[str, Amounts] = field(default_factory=dict)
    strictest: bool = False
    calendar: Calendar = field(default_factory=Calendar)
    _of_roles: dict[tuple[str, ...], Limits] = field(default_factory=dict, repr=False, compare=False)

    def limits(self, roles: Iterable[str], exceptions: Iterable[Granted] = ()) -> Limits | None:
        """The limits of somebody with these roles; ``None`` without any that there is."""
        wanted, given = set(roles), tuple(exceptions)
        names = tuple(name for name in self.roles if name in wanted)
        if not names:
            return None
        limits = None if given else self._of_roles.get(names)  # most people have no exception
        if limits is None:
            known = [(name, self.roles[name]) for name in names]
            limits = combine(known, given, strictest=self.strictest)
            if not given:
                self._of_roles[names] = limits
        return limits

    def together(self, role: str) -> dict[Measure, int]:
        """The bounds of all people of a role together."""
        return {
            measure: amount
            for measure, amount in self.roles.get(role, {}).items()
            if measure.resource in TOGETHER and amount is not None
        }


def read_snapshot(conn: Connection) -> Snapshot:
    """What the tables say now."""
    roles: dict[str, dict[Measure, int | None]] = {name: {} for name in centre.all_roles(conn)}
    for row in conn.execute(select(quotas)):
        measure = Measure(row.resource, row.pool, row.gpu_model, row.period)
        roles.setdefault(row.role, {})[measure] = row.amount
    return Snapshot(
        version=centre.version(conn),
        roles=roles,
        strictest=centre.value(conn, COMBINE) == "strictest",
        calendar=Calendar.parse(centre.value(conn, CALENDAR)),
    )


class Policy:
    """The limits of people, kept as long as nothing changes. One for each process."""

    def __init__(self) -> None:
        self._kept = centre.Kept(read_snapshot)

    def snapshot(self, conn: Connection) -> Snapshot:
        """What the tables say."""
        return self._kept.get(conn)

    def last(self) -> Snapshot | None:
        """What the tables said when they were last read; ``None`` = they never were."""
        return self._kept.last

    def limits_of(
        self, conn: Connection, user: str, roles: Sequence[str], now: datetime
    ) -> tuple[Limits | None, Snapshot]:
        """What a person with these roles may hold (``None`` without any role), and the snapshot it is from.

        ``roles`` are the effective ones, those of the person's groups among them.
        """
        rows = conn.execute(_MINE, {"b_user": user, "b_now": now}).mappings().all()
        version = int(rows[0]["version"]) if rows else 0
        snapshot = self._kept.get(conn, version)
        return snapshot.limits(roles, [granted(row) for row in rows if row["id"] is not None]), snapshot

    def limits_at(
        self,
        conn: Connection,
        user: str,
        roles: Sequence[str],
        now: datetime,
        *,
        version: int,
        exceptions: int,
    ) -> tuple[Limits | None, Snapshot]:
        """The same where the caller's own statement has asked for :data:`VERSION` and :data:`EXCEPTIONS`.

        Most people have no exception: then nothing more is asked.
        """
        if exceptions:
            return self.limits_of(conn, user, roles, now)
        snapshot = self._kept.get(conn, version)
        return snapshot.limits(roles), snapshot

    def glance(
        self, conn: Connection, user: str, roles: Sequence[str], now: datetime
    ) -> tuple[Limits | None, Snapshot]:
        """The same as :meth:`limits_of` by the cheapest question."""
        version, exceptions = conn.execute(_GLANCE, {"b_user": user, "b_now": now}).one()
        return self.limits_at(conn, user, roles, now, version=int(version or 0), exceptions=int(exceptions))


def limits_of(conn: Connection, user: str, roles: Sequence[str], now: datetime) -> Limits | None:
    """What a person may hold, read afresh: for commands; processes keep a :class:`Policy`."""
    return Policy().limits_of(conn, user, roles, now)[0]


def granted(row: Mapping[Any, Any]) -> Granted:
    """A row of ``quota_exceptions``."""
    names = ("id", "user", "amount", "reason", "given_by", "given_at", "expires_at", "ended_at", "ended_by")
    return Granted(
        measure=Measure(row["resource"], row["pool"], row["gpu_model"], row["period"]),
        **{name: row[name] for name in names},
    )


_NOW = bindparam("b_now", type_=UTCDateTime())
_HOLDS = and_(
    quota_exceptions.c.user == bindparam("b_user"),
    quota_exceptions.c.ended_at.is_(None),
    or_(quota_exceptions.c.expires_at.is_(None), quota_exceptions.c.expires_at > _NOW),
)
#: For statements that ask for them along with something else, with ``b_user`` and ``b_now``: the version of what was
#: decided (null = nothing ever was), and how many exceptions the person has now.
VERSION = select(centre_table.c.value).where(centre_table.c.key == centre.VERSION).scalar_subquery()
EXCEPTIONS = select(func.count()).select_from(quota_exceptions).where(_HOLDS).scalar_subquery()
_GLANCE = select(VERSION, EXCEPTIONS)
_MINE = (
    select(centre_table.c.value.label("version"), quota_exceptions)
    .select_from(centre_table.outerjoin(quota_exceptions, _HOLDS))
    .where(centre_table.c.key == centre.VERSION)
)
