"""What administrators do with the rules of release, for the page and the API (CG-30).

Changes are gathered, said as a difference and made together. What runs keeps the terms on which it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from galilean import centre
from galilean.centre import RoleRow
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.quotas import who_has
from services.portal.release_said import AS_EVERYBODY, EVERYBODY, value_typed
from services.release import rules as store
from services.release.rules import RoleRule, Rules, SiteRule

RIGHT = "release:manage"


@dataclass(frozen=True, kw_only=True)
class RuleWish:
    """A value that somebody wants; ``was`` is what they saw before (``...`` = they do not say)."""

    role: str
    field: str
    value: Any
    was: object = ...


@dataclass(frozen=True, kw_only=True)
class RuleChange:
    """A value that is to be another one; ``role`` may be :data:`~services.portal.release_said.EVERYBODY`."""

    role: str
    field: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """All that is decided about release."""

    rules: Rules
    roles: Mapping[str, RoleRow]

    def value(self, role: str, field: str) -> Any:
        """What is said of a role, or of everybody."""
        of: SiteRule | RoleRule = self.rules.site
        if role != EVERYBODY:
            of = self.rules.roles.get(role, RoleRule())
        return getattr(of, field)


@dataclass(frozen=True, kw_only=True)
class RuleDifference:
    """Changes, and how many people have one of the roles."""

    changes: tuple[RuleChange, ...]
    people: int


def read_book(conn: Connection) -> RuleBook:
    """What the tables say now."""
    return RuleBook(rules=store.read(conn), roles=centre.all_roles(conn))


def gather(book: RuleBook, wishes: Sequence[RuleWish]) -> tuple[RuleChange, ...]:
    """Changes among wishes; what is so already is none, of two wishes for one value the later counts."""
    wanted: dict[tuple[str, str], Any] = {}
    for wish in wishes:
        kind = SiteRule if wish.role == EVERYBODY else RoleRule
        if wish.role != EVERYBODY and wish.role not in book.roles:
            raise UserError(404, mark("There is no role “{role}”."), role=wish.role[:64])
        if wish.field not in {one.name for one in fields(kind)}:
            raise UserError(400, mark("There is no rule of release called “{name}”."), name=wish.field[:60])
        wanted[(wish.role, wish.field)] = wish.value
    found = (
        RuleChange(role=role, field=field, before=book.value(role, field), after=after)
        for (role, field), after in wanted.items()
    )
    return tuple(change for change in found if _plain(change.before) != _plain(change.after))


def _plain(value: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, list | tuple) else value


async def weigh(portal: Portal, wishes: Sequence[RuleWish]) -> RuleDifference:
    """What wishes would change, without changing it.

    Raises
    ------
    UserError
        400 where they do not go together: a default that is not offered.
    """
    book = await portal.db.run_read(read_book)
    changes = gather(book, wishes)
    store.check(_after(book.rules, changes))
    everybody = await who_has(portal).everybody()
    touched: set[str] = set()
    for change in changes:
        if change.role == EVERYBODY:
            touched |= {name for name, roles in everybody.roles_of.items() if roles}
        else:
            touched |= everybody.of(change.role)
    return RuleDifference(changes=changes, people=len(touched))


def _after(rules: Rules, changes: Sequence[RuleChange]) -> Rules:
    by_role: dict[str, dict[str, Any]] = {}
    for change in changes:
        by_role.setdefault(change.role, {})[change.field] = change.after
    site = replace(rules.site, **by_role.pop(EVERYBODY, {}))
    roles = {role: replace(rules.roles.get(role, RoleRule()), **more) for role, more in by_role.items()}
    return Rules(site=site, roles={**rules.roles, **roles})


async def apply(
    portal: Portal, person: Visitor, wishes: Sequence[RuleWish], *, address: str, reason: str = ""
) -> RuleDifference:
    """Make wishes true, all or none.

    Raises
    ------
    UserError
        409 when somebody else changed one of the values after it was looked at.
    """
    if not person.may(RIGHT):
        raise UserError(403, mark("This page is for administrators."))
    difference = await weigh(portal, wishes)
    await portal.db.run(_apply, list(wishes), portal.clock(), person.name, address, reason.strip()[:300])
    return difference


def _apply(
    conn: Connection, wishes: list[RuleWish], now: datetime, actor: str, address: str, reason: str
) -> None:
    centre.decide_alone(conn)
    book = read_book(conn)
    changes = gather(book, wishes)
    for wish in wishes:
        is_now = book.value(wish.role, wish.field)
        if (
            wish.was is not ...
            and _plain(wish.was) != _plain(is_now)
            and _plain(wish.value) != _plain(is_now)
        ):
            shown = value_typed(wish.field, is_now, role=wish.role != EVERYBODY)
            raise UserError(
                409,
                mark(
                    "Somebody else changed {role}, {measure} meanwhile: it is {amount} now. Look at it again."
                ),
                role="*" if wish.role == EVERYBODY else wish.role,
                measure=wish.field,
                amount="as everybody" if shown == AS_EVERYBODY else shown,
            )
    by_role: dict[str, dict[str, Any]] = {}
    for change in changes:
        by_role.setdefault(change.role, {})[change.field] = change.after
    more = {"now": now, "actor": actor, "address": address, "reason": reason}
    # Values of several roles may only go together with those of everybody, so all are looked at in the end.
    site = by_role.pop(EVERYBODY, None)
    if site:
        store.set_site(conn, site, **more)
    for role, values in by_role.items():
        store.set_role(conn, role, values, **more)
