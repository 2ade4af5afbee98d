"""What administrators do with limits, for the page and the API: look, weigh, apply; exceptions (CG-28, CG-29).

Pages and API call the same functions, so that neither can do what the other cannot. Whatever changes
something is written together with its line of the audit log (:mod:`extensions.quota.store`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection

from extensions.quota import store
from extensions.quota.limits import Granted, Limits
from extensions.quota.measures import RESOURCES, Measure, check
from extensions.quota.policy import Policy, read_snapshot
from extensions.quota.store import Actor
from galilean import centre
from galilean.centre import RoleRow
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.measures_said import amount_said, amount_text
from services.portal.quota_matrix import (
    Change,
    Effect,
    Matrix,
    RoleHead,
    amount_in,
    effect_of,
    gather,
    generous,
)
from services.portal.said import Said, say
from services.portal.who_has import Everybody, WhoHas
from spawner import records
from spawner.records import Run

PAGE_SIZE = 50
REASON_MOST = 300
#: Together with one of these, its other half is usually meant too.
HALVES = {"gpu": "total_gpu", "total_gpu": "gpu", "cpu": "total_cpu", "memory": "total_memory"}


@dataclass(frozen=True, kw_only=True)
class Book:
    """All that is decided about limits, at one version."""

    version: int
    roles: Mapping[str, RoleRow]
    matrix: Matrix

    @property
    def titles(self) -> dict[str, str]:
        """What roles are called, untranslated."""
        return centre.titles(self.roles)


def read_book(conn: Connection) -> Book:
    """What the tables say now."""
    snapshot = read_snapshot(conn)
    roles = centre.all_roles(conn)
    return Book(
        version=snapshot.version,
        roles=roles,
        matrix={name: snapshot.roles.get(name, {}) for name in roles},
    )


def who_has(portal: Portal) -> WhoHas:
    """Who has which role; one for each portal."""
    return portal.parts.setdefault("who_has", WhoHas(portal.hub, portal.rights))


def policy(portal: Portal) -> Policy:
    """The limits of people; one for each portal."""
    return portal.parts.setdefault("quota_policy", Policy())


def heads_of(book: Book, everybody: Everybody) -> list[RoleHead]:
    """The columns."""
    return [
        RoleHead(name=name, title=title, people=len(everybody.of(name)))
        for name, title in book.titles.items()
    ]


def models_of(portal: Portal) -> dict[str, str]:
    """Models of GPU of the site with their titles."""
    return {name: entry.title or name for name, entry in portal.settings.gpu_models.items()}


def pools_of(portal: Portal) -> dict[str, str]:
    """Pools of the site with their titles."""
    return {name: entry.title or name for name, entry in portal.settings.pools.items()}


def known(portal: Portal, measure: Measure) -> Measure:
    """A measure of this site.

    Raises
    ------
    UserError
        400 for a pool or a model that the site does not have.
    """
    return check(measure, pools=portal.settings.pools, models=portal.settings.gpu_models)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """An amount that somebody wants; ``was`` is what they saw before (``...`` = they do not say)."""

    role: str
    measure: Measure
    amount: int | None
    was: object = ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Changes, and whom they touch."""

    changes: tuple[Change, ...]
    effect: Effect


async def weigh(portal: Portal, wishes: Sequence[Wish]) -> Difference:
    """What wishes would change, without changing it."""
    book, runs = await portal.db.run_read(_book_and_runs)
    changes = gather(book.matrix, [(wish.role, wish.measure, wish.amount) for wish in wishes])
    everybody = await who_has(portal).everybody()
    people_of = {role: everybody.of(role) for role in book.roles}
    return Difference(changes=changes, effect=effect_of(changes, people_of, runs))


async def apply(
    portal: Portal, person: Visitor, wishes: Sequence[Wish], *, address: str, reason: str = ""
) -> Difference:
    """Make wishes true, all or none.

    Raises
    ------
    UserError
        409 when somebody else changed one of the amounts after it was looked at.
    """
    _must_know(person, "quotas:manage")
    difference = await weigh(portal, wishes)
    await store.changed(
        portal.db,
        _apply,
        list(wishes),
        actor=actor_of(person, address),
        now=portal.clock(),
        reason=reason.strip()[:REASON_MOST],
    )
    return difference


def actor_of(person: Visitor, address: str) -> Actor:
    """Who changes something, for the audit log."""
    return Actor(name=person.name, address=address, roles=person.roles)


def _book_and_runs(conn: Connection) -> tuple[Book, list[Run]]:
    return read_book(conn), list(records.all_open(conn))


def _apply(conn: Connection, wishes: list[Wish], *, actor: Actor, now: datetime, reason: str) -> None:
    centre.decide_alone(conn)
    book = read_book(conn)
    changes = gather(book.matrix, [(wish.role, wish.measure, wish.amount) for wish in wishes])
    for wish in wishes:
        is_now = amount_in(book.matrix[wish.role], wish.measure)
        if wish.was is not ... and wish.was != is_now and wish.amount != is_now:
            raise UserError(
                409,
                mark(
                    "Somebody else changed {role}, {measure} meanwhile: it is {amount} now. Look at it again."
                ),
                role=book.titles[wish.role],
                measure=str(wish.measure),
                amount=_plain(wish.measure, is_now),
            )
    if changes:
        # What is narrower than the rest and has no limit is no rule at all.
        wanted = [
            (
                change.role,
                change.measure,
                store.REMOVE
                if change.after is None and (change.measure.narrowed or change.measure.period)
                else change.after,
            )
            for change in changes
        ]
        store.set_limits(conn, wanted, now=now, actor=actor, reason=reason)


def _plain(measure: Measure, amount: int | None) -> str:
    return "no limit" if amount is None else amount_text(measure, amount)


def _must_know(person: Visitor, right: str) -> None:
    if not person.may(right):
        raise UserError(403, mark("This page is for administrators."))


# ---------------------------------------------------------------------------------------------- exceptions


@dataclass(frozen=True, kw_only=True)
class ExceptionView:
    """An exception beside what the person's roles say."""

    granted: Granted
    role_says: int | None
    now: datetime
    zone: tzinfo

    @property
    def open(self) -> bool:
        return self.granted.holds_at(self.now)

    @property
    def amount(self) -> Said:
        return amount_said(self.granted.measure, self.granted.amount)

    @property
    def role_amount(self) -> Said:
        return amount_said(self.granted.measure, self.role_says)

    @property
    def lower(self) -> bool:
        """Whether it allows less than the roles would."""
        return is_less(self.granted.amount, self.role_says)

    @property
    def last_day(self) -> date | None:
        """The last day on which it holds, by the site's days."""
        return last_day(self.granted.expires_at, self.zone)

    @property
    def days_left(self) -> int | None:
        """Whole days until its last day; ``None`` when it has no end or is over."""
        day = self.last_day
        return (day - self.now.astimezone(self.zone).date()).days if day and self.open else None


def is_less(amount: int | None, other: int | None) -> bool:
    """Whether an amount allows less than another; ``None`` = no limit."""
    return amount is not None and (other is None or amount < other)


def last_day(expires_at: datetime | None, zone: tzinfo) -> date | None:
    """The last day on which something holds that ends at ``expires_at``."""
    return (expires_at - timedelta(seconds=1)).astimezone(zone).date() if expires_at else None


def end_of_day(day: date, zone: tzinfo) -> datetime:
    """The first moment after a day of the site, UTC."""
    return datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def parse_end(text: str, zone: tzinfo, now: datetime) -> datetime | None:
    """The end that a date field says; empty = none.

    Raises
    ------
    UserError
        400 for what is no date, or one that is over.
    """
    if not text.strip():
        return None
    try:
        end = end_of_day(date.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError):
        raise UserError(400, mark("Say the last day as a date, such as 2026-12-15.")) from None
    if end <= now:
        raise UserError(400, mark("The last day is over already. Say one that is still to come."))
    return end


@dataclass(frozen=True, kw_only=True)
class ExceptionPage:
    """Some of the exceptions that fit, and how many fit."""

    views: tuple[ExceptionView, ...]
    count: int


async def exceptions(
    portal: Portal,
    *,
    text: str = "",
    user: str | None = None,
    over_too: bool = False,
    offset: int = 0,
    limit: int = PAGE_SIZE,
) -> ExceptionPage:
    """Exceptions that hold now (``over_too``: and those that are over), the newest first."""
    everybody = await who_has(portal).everybody()
    now, zone = portal.clock(), portal.settings.site.zone

    def read(conn: Connection) -> ExceptionPage:
        matrix = read_book(conn).matrix
        found, count = store.exceptions(
            conn,
            user=user,
            text=text.strip(),
            open_at=None if over_too else now,
            limit=limit,
            offset=offset,
        )
        return ExceptionPage(
            views=tuple(
                ExceptionView(
                    granted=row,
                    role_says=generous(matrix, everybody.roles_of.get(row.user, ()), row.measure),
                    now=now,
                    zone=zone,
                )
                for row in found
            ),
            count=count,
        )

    return await portal.db.run_read(read)


async def exception(portal: Portal, exception_id: str) -> ExceptionView:
    """One exception.

    Raises
    ------
    UserError
        404 when there is none of this id.
    """
    everybody = await who_has(portal).everybody()

    def read(conn: Connection) -> ExceptionView:
        row = store.exception(conn, exception_id)
        says = generous(read_book(conn).matrix, everybody.roles_of.get(row.user, ()), row.measure)
        return ExceptionView(granted=row, role_says=says, now=portal.clock(), zone=portal.settings.site.zone)

    return await portal.db.run_read(read)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside an exception while it is written.

    Attributes
    ----------
    roles
        The person's; empty = waits for a role. ``None`` = there is no such person.
    says
        What the roles allow.
    lower
        Whether the amount allows less than that.
    also
        The other half that would still stand in the way (``total_gpu`` beside ``gpu``), and what it allows.
    there
        An exception of the same measure that the person has already.
    """

    roles: tuple[str, ...] | None
    says: int | None = None
    lower: bool = False
    also: Measure | None = None
    also_says: int | None = None
    there: Granted | None = None


async def beside(portal: Portal, user: str, measure: Measure, amount: int | object | None = ...) -> Beside:
    """What a person's roles say of a measure; an ``amount`` that is not said is ``...``."""
    everybody = await who_has(portal).everybody()
    roles = everybody.roles_of.get(user)
    if roles is None:
        return Beside(roles=None)
    now = portal.clock()

    def read(conn: Connection) -> Beside:
        matrix = read_book(conn).matrix
        limits, _ = policy(portal).limits_of(conn, user, roles, now)
        says = generous(matrix, roles, measure)
        there = limits.entries.get(measure) if limits else None
        also, also_says = other_half(limits, measure, amount)
        return Beside(
            roles=roles,
            says=says,
            lower=amount is not ... and is_less(amount, says),  # type: ignore[arg-type]
            also=also,
            also_says=also_says,
            there=there.exception if there else None,
        )

    return await portal.db.run_read(read)


def other_half(
    limits: Limits | None, measure: Measure, amount: int | object | None
) -> tuple[Measure | None, int | None]:
    """The measure that would keep an exception from being of any use, and what it allows now."""
    half = HALVES.get(measure.resource)
    if limits is None or half is None or amount is ...:
        return None, None
    if RESOURCES[half].by_model is False and measure.gpu_model:
        return None, None
    other = Measure(half, measure.pool, measure.gpu_model)
    if other not in limits.entries and measure.narrowed:
        # A narrowed exception counts by itself; its wider ones no longer count for it.
        other = Measure(half)
    allowed = limits.amount(other)
    if allowed is None or (amount is not None and isinstance(amount, int) and amount <= allowed):
        return None, None
    if measure.resource.startswith("total_") and allowed > 0:
        return None, None  # what is held at a time may be more than what one node has
    return other, allowed


async def give(
    portal: Portal,
    person: Visitor,
    *,
    user: str,
    measure: Measure,
    amount: int | None,
    reason: str,
    expires_at: datetime | None,
    also: Iterable[Measure] = (),
    address: str,
) -> Granted:
    """Give somebody an exception; ``also`` are measures that get the same amount with it.

    Raises
    ------
    UserError
        400 without a reason, 404 for somebody who has no account.
    """
    _must_know(person, "quotas:manage")
    everybody = await who_has(portal).everybody()
    if user not in everybody.roles_of:
        who_has(portal).forget()
        everybody = await who_has(portal).everybody()
    if user not in everybody.roles_of:
        raise UserError(404, mark("Nobody here is called “{name}”."), name=user[:64])
    measures = dict.fromkeys([measure, *also])
    made = await store.changed(
        portal.db,
        store.give,
        user,
        [(known(portal, one), amount) for one in measures],
        reason=reason,
        expires_at=expires_at,
        actor=actor_of(person, address),
        now=portal.clock(),
    )
    return made[0]


async def change(
    portal: Portal,
    person: Visitor,
    exception_id: str,
    *,
    address: str,
    **changes: Any,
) -> Granted:
    """Change an exception: ``amount``, ``reason``, ``expires_at``, those that are given."""
    _must_know(person, "quotas:manage")
    return await store.changed(
        portal.db,
        store.change,
        exception_id,
        **changes,
        actor=actor_of(person, address),
        now=portal.clock(),
    )


async def end(portal: Portal, person: Visitor, exception_id: str, *, address: str) -> Granted:
    """End an exception now; what runs goes on."""
    _must_know(person, "quotas:manage")
    return await store.changed(
        portal.db, store.end, exception_id, actor=actor_of(person, address), now=portal.clock()
    )


def until_said(granted: Granted, now: datetime, zone: tzinfo) -> Said:
    """``until Friday``, ``until 15 December``, or that it has no end; the day is the site's."""
    day = last_day(granted.expires_at, zone)
    if day is None:
        return say(mark("until it is ended"))
    today = now.astimezone(zone).date()
    if day == today:
        return say(mark("until tonight"))
    return say(mark("until {day}"), day=day_said(day, today))


def day_said(day: date, today: date) -> Said:
    """``Friday`` within a week, else the date; a day of the site."""
    if 0 <= (day - today).days < 7:
        return say(_WEEKDAYS[day.weekday()])
    return say("{date}", date=day.isoformat())


_WEEKDAYS = (
    mark("Monday"),
    mark("Tuesday"),
    mark("Wednesday"),
    mark("Thursday"),
    mark("Friday"),
    mark("Saturday"),
    mark("Sunday"),
)
