"""Which release policies are offered to whom, and what bounds them (CG-30, CG-32): the centre's decision.

The site's values stand in ``centre`` under ``release``, those of a role in ``release_rules``; what a role does
not say is as the site says. Of several roles the most generous holds: every policy that one of them offers,
the longest maximum, no idle timer where one of them has none. *Manual* needs permission besides: the limit
``manual_release`` of a role or of one person by exception, which whoever asks hands in.

What is decided here holds for runs admitted from then on (:mod:`services.release.terms`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from galilean import audit, centre
from galilean.errors import UserError, mark
from galilean.settings import RELEASE_POLICIES, Settings
from services.release.tables import release_rules
from services.release.terms import EXTEND_LEAST_SECONDS, WARN_SECONDS, Terms, wait_seconds

KEY = "release"
DAYS_MOST = 400 * 86400
HOLIDAYS_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class SiteRule:
    """What holds for everybody whose role says nothing else.

    Attributes
    ----------
    grace_seconds
        Of the automatic policies.
    offered, default
        Names of policies.
    most_seconds, idle_seconds, idle_percent
        Hard maximum and idle timer; ``None`` = none.
    extend_seconds
        How far ahead one may extend; ``None`` = as far as the longest wait that is offered to the person.
    holidays
        ISO dates on which schedules rest, where they say so.
    """

    grace_seconds: int = 300
    offered: tuple[str, ...] = RELEASE_POLICIES
    default: str = "auto"
    most_seconds: int | None = None
    idle_seconds: int | None = None
    idle_percent: int = 5
    extend_seconds: int | None = None
    holidays: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RoleRule:
    """What a role has of its own; ``None`` = as the site."""

    offered: tuple[str, ...] | None = None
    default: str | None = None
    most_seconds: int | None = None
    idle_seconds: int | None = None
    idle_percent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All of it, as it was read."""

    site: SiteRule = SiteRule()
    roles: Mapping[str, RoleRule] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------- what holds


def offered_to(rules: Rules, roles: Iterable[str], manual: bool) -> tuple[str, ...]:
    """The policies that somebody of these roles may choose, in the order of :data:`RELEASE_POLICIES`.

    Parameters
    ----------
    rules
        What was decided.
    roles
        Names.
    manual
        Whether the person may keep a cluster until they press Release.
    """
    found: set[str] = set()
    own = [rules.roles.get(role, RoleRule()) for role in roles]
    for rule in own or [RoleRule()]:
        found.update(rules.site.offered if rule.offered is None else rule.offered)
    if not manual:
        found.discard("manual")
    return tuple(name for name in RELEASE_POLICIES if name in found) or ("auto",)


def default_for(rules: Rules, roles: Iterable[str], manual: bool, wanted: Sequence[str | None] = ()) -> str:
    """The policy of somebody who chose none: the first of ``wanted`` (a project's), their roles', the site's.

    What may not be chosen gives way to the next.
    """
    roles = list(roles)
    allowed = offered_to(rules, roles, manual)
    own = [rule.default for role in roles if (rule := rules.roles.get(role)) is not None]
    return next(name for name in (*wanted, *own, rules.site.default, *allowed) if name in allowed)


def terms_for(rules: Rules, roles: Iterable[str], policy: str, manual: bool) -> Terms:
    """The terms to freeze into a run of this policy for somebody of these roles."""
    roles = list(roles)
    site = rules.site
    own = [rules.roles.get(role, RoleRule()) for role in roles] or [RoleRule()]
    most = [site.most_seconds if rule.most_seconds is None else rule.most_seconds for rule in own]
    idle = [site.idle_seconds if rule.idle_seconds is None else rule.idle_seconds for rule in own]
    percents = [site.idle_percent if rule.idle_percent is None else rule.idle_percent for rule in own]
    extend = site.extend_seconds
    if extend is None:
        waits = [
            wait_seconds(name, grace_seconds=site.grace_seconds) or 0
            for name in offered_to(rules, roles, manual)
        ]
        extend = max(EXTEND_LEAST_SECONDS, *waits)
    terms = Terms(
        policy=policy,
        grace_seconds=site.grace_seconds,
        most_seconds=_longest(most),
        idle_seconds=_longest(idle),
        idle_percent=min(percents),
        extend_seconds=extend,
        warn_seconds=WARN_SECONDS,
    )
    return terms.unattended() if policy == "auto-when-done" else terms


def _longest(values: Collection[int | None]) -> int | None:
    """``None`` (no bound) is the longest of all; 0 in a rule means none as well."""
    known = [value for value in values if value]
    return max(known) if len(known) == len(values) else None


# ---------------------------------------------------------------------------------------- read and change


def read(conn: Connection) -> Rules:
    """What was decided, or the defaults where nothing was."""
    kept = dict(centre.value(conn, KEY) or {})
    return Rules(
        site=_site(kept),
        roles={row.role: _role(row) for row in conn.execute(select(release_rules))},
    )


def kept() -> centre.Kept[Rules]:
    """A reader for one process that asks again only when something was decided."""
    return centre.Kept(read)


class Freeze:
    """Terms as a run is admitted on them; one for each process, which reads only what was decided anew."""

    def __init__(self) -> None:
        self._kept = kept()

    def __call__(
        self,
        conn: Connection,
        *,
        user: str,
        roles: Sequence[str],
        policy: str,
        manual: bool,
        version: int | None = None,
        now: datetime | None = None,
    ) -> dict[str, Any]:
        """What goes into ``clusters.release_terms``; ``version`` of the centre's decisions, where it is known."""
        return terms_for(self._kept.get(conn, version), roles, policy, manual).to_json()


def seed(conn: Connection, settings: Settings, now: datetime) -> bool:
    """Begin as ``galilean.yaml`` says, where nothing was decided yet; whether it did."""
    if centre.value(conn, KEY) is not None:
        return False
    site = replace(
        SiteRule(),
        grace_seconds=settings.release.grace_seconds,
        offered=tuple(settings.release.offered),
        default=settings.defaults.release,
    )
    centre.put(conn, KEY, asdict(site), now=now)
    centre.bump(conn, now)
    return True


def set_site(
    conn: Connection,
    changes: Mapping[str, Any],
    *,
    now: datetime,
    actor: str,
    address: str = "",
    reason: str = "",
) -> Rules:
    """Change values of the site; the rules as they are then.

    Raises
    ------
    UserError
        400 for a field that does not exist or a value that cannot be.
    """
    centre.decide_alone(conn)
    before = read(conn)
    after = replace(before, site=_site({**asdict(before.site), **_known(changes, SiteRule)}))
    check(after)
    if after != before:
        centre.put(conn, KEY, asdict(after.site), now=now, by=actor)
        _note(conn, "site", asdict(before.site), asdict(after.site), now, actor, address, reason)
    return after


def set_role(
    conn: Connection,
    role: str,
    changes: Mapping[str, Any],
    *,
    now: datetime,
    actor: str,
    address: str = "",
    reason: str = "",
) -> Rules:
    """Change what a role has of its own (``None`` = as the site again); the rules as they are then.

    Raises
    ------
    UserError
        404 for a role that does not exist; 400 for a field or a value that cannot be.
    """
    centre.decide_alone(conn)
    if role not in centre.all_roles(conn):
        raise UserError(404, mark("There is no role “{role}”."), role=role[:64])
    before = read(conn)
    old = before.roles.get(role, RoleRule())
    values = {**asdict(old), **_known(changes, RoleRule)}
    new = RoleRule(**{**values, "offered": _names(values["offered"])})
    after = Rules(site=before.site, roles={**before.roles, role: new})
    check(after)
    if new == old:
        return before
    columns = {
        "offered": None if new.offered is None else list(new.offered),
        "default_policy": new.default,
        "most_seconds": new.most_seconds,
        "idle_seconds": new.idle_seconds,
        "idle_percent": new.idle_percent,
    }
    where = release_rules.c.role == role
    if new == RoleRule():
        conn.execute(delete(release_rules).where(where))
    elif conn.execute(update(release_rules).where(where).values(columns)).rowcount == 0:
        conn.execute(insert(release_rules).values(role=role, **columns))
    _note(conn, role, asdict(old), asdict(new), now, actor, address, reason)
    return after


def _note(
    conn: Connection,
    subject: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    now: datetime,
    actor: str,
    address: str,
    reason: str,
) -> None:
    moved = [key for key in new if old.get(key) != new[key]]
    audit.write(
        conn,
        at=now,
        actor=actor,
        address=address,
        action="release.set",
        subject=subject,
        before={key: old.get(key) for key in moved},
        after={key: new[key] for key in moved},
        reason=reason,
    )
    centre.bump(conn, now, actor)


# ------------------------------------------------------------------------------------------------- values


def check(rules: Rules) -> None:
    """Refuse what cannot be.

    Raises
    ------
    UserError
        400.
    """
    site = rules.site
    _number(site.grace_seconds, "grace_seconds", 30, 86400)
    if site.default not in site.offered:
        raise UserError(
            400, mark("The default policy “{policy}” is not offered."), policy=str(site.default)[:60]
        )
    for rule in (site, *rules.roles.values()):
        offered = rule.offered
        if offered is not None:
            if not offered:
                raise UserError(400, mark("At least one release policy must be offered."))
            if not set(offered) - {"manual"}:
                raise UserError(
                    400, mark("Offer another release policy besides manual: not everybody may use it.")
                )
            for name in offered:
                _policy(name)
        if rule.default is not None and rule is not site:
            _policy(rule.default)
            if rule.default not in (site.offered if offered is None else offered):
                raise UserError(
                    400, mark("The default policy “{policy}” is not offered."), policy=str(rule.default)[:60]
                )
        for name, least in (("most_seconds", 600), ("idle_seconds", 300)):
            value = getattr(rule, name)
            if value is not None and not (value == 0 and rule is not site):
                _number(value, name, least, DAYS_MOST)
        if rule.idle_percent is not None:
            _number(rule.idle_percent, "idle_percent", 1, 100)
    if site.extend_seconds is not None:
        _number(site.extend_seconds, "extend_seconds", 60, DAYS_MOST)
    if len(site.holidays) > HOLIDAYS_MOST:
        raise UserError(400, mark("At most {n} holidays can be kept."), n=HOLIDAYS_MOST)
    for day in site.holidays:
        _day(day)


def _policy(name: Any) -> None:
    if name not in RELEASE_POLICIES:
        raise UserError(
            400,
            mark("There is no release policy “{policy}”. Choose one of: {known}."),
            policy=str(name)[:60],
            known=", ".join(RELEASE_POLICIES),
        )


def _number(value: Any, name: str, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            400,
            mark("“{name}” takes a whole number from {least} to {most}."),
            name=name,
            least=least,
            most=most,
        )


def _day(value: Any) -> None:
    try:
        if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            raise ValueError(value)
        date.fromisoformat(value)
    except ValueError:
        raise UserError(
            400, mark("“{value}” is not a date. Write it like 2026-10-01."), value=str(value)[:40]
        ) from None


def _known(changes: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    for name in changes:
        if name not in names:
            raise UserError(
                400, mark("There is no value “{name}” in the rules of release."), name=str(name)[:60]
            )
    return dict(changes)


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise UserError(400, mark("“offered” takes a list of release policies."))
    return tuple(name for name in RELEASE_POLICIES if name in value) + tuple(
        name for name in value if name not in RELEASE_POLICIES
    )


def _site(kept: Mapping[str, Any]) -> SiteRule:
    values = {one.name: kept[one.name] for one in fields(SiteRule) if one.name in kept}
    if "offered" in values:
        values["offered"] = _names(values["offered"]) or ()
    if "holidays" in values:
        values["holidays"] = tuple(sorted(set(values["holidays"] or ())))
    return SiteRule(**values)


def _role(row: Any) -> RoleRule:
    return RoleRule(
        offered=_names(row.offered),
        default=row.default_policy,
        most_seconds=row.most_seconds,
        idle_seconds=row.idle_seconds,
        idle_percent=row.idle_percent,
    )
