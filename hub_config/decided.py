"""What administrators decided, as one file: ``galilean export`` writes it, ``galilean apply`` makes it so.

Roles with rights, limits and release rules; groups; exceptions; the home page and messages; what holds for the
site. A section that stands in the file is complete: limits that a role's section leaves out are taken away,
exceptions that the list leaves out are ended. A section that does not stand in it stays as it is. Roles and
groups that the file does not name stay, too: taking one away is a matter of who is in it, and done in the page.

The same functions as the pages' do the work, in one transaction: they refuse the same and write the same
lines into the audit log. What the file would change is found by doing it and looking, so that what is shown
before is what happens after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from pydantic import Field, ValidationError
from sqlalchemy import Connection

from extensions.quota import store
from extensions.quota.limits import Granted
from extensions.quota.measures import Measure, check, parse_amount, written
from extensions.quota.periods import CALENDAR, Calendar
from extensions.quota.policy import COMBINATIONS, COMBINE
from extensions.quota.store import Actor
from galilean import audit, centre, messages
from galilean.errors import UserError, mark
from galilean.messages import HomePage, Messages
from galilean.placed import Placed
from galilean.rights import RIGHTS, all_groups
from galilean.settings import Settings, SettingsError
from galilean.settings_places import Section
from galilean.terminal import sentence
from services.people import roles as people
from services.people.rules import check_role_name
from services.release import rules as release

NO_LIMIT = "no limit"
ALL = 1_000_000


class RoleSection(Section):
    """A role."""

    title: str | None = None
    rights: list[str] | None = None
    limits: dict[str, Any] | None = Field(
        default=None, description="Measures with amounts, such as gpu_hours/week: 20; “no limit”."
    )
    release: dict[str, Any] | None = Field(default=None, description="What the role has of its own.")


class GroupSection(Section):
    """A group of people; who is in it the hub keeps."""

    title: str | None = None
    description: str | None = None
    roles: list[str] | None = None


class ExceptionSection(Section):
    """What one person may hold whatever the roles say."""

    person: str
    measure: str
    amount: Any
    reason: str
    expires_at: datetime | None = None


class QuotaSection(Section):
    """How limits go together."""

    combine: str = "generous"


class Document(Section):
    """The whole file."""

    quota: QuotaSection | None = None
    calendar: dict[str, Any] | None = None
    release: dict[str, Any] | None = None
    roles: dict[str, RoleSection] | None = None
    groups: dict[str, GroupSection] | None = None
    exceptions: list[ExceptionSection] | None = None
    home: HomePage | None = None
    messages: Messages | None = None


@dataclass(frozen=True)
class Change:
    """One value that is another afterwards; ``None`` = it is not said."""

    path: str
    before: Any
    after: Any


# ---------------------------------------------------------------------------------------------- writing


def read(conn: Connection, now: datetime) -> dict[str, Any]:
    """All decisions as plain values, in the form of the file."""
    rules = release.read(conn)
    matrix = store.matrix(conn)
    said = messages.read(conn)
    return {
        "quota": {"combine": centre.value(conn, COMBINE) or "generous"},
        "calendar": Calendar.parse(centre.value(conn, CALENDAR)).as_value(),
        "release": _plain(asdict(rules.site)),
        "roles": {
            name: {
                "title": role.title,
                **({} if name == "admin" else {"rights": sorted(role.rights)}),  # it has every right
                "limits": {
                    str(measure): _amount(measure, amount) for measure, amount in matrix.get(name, {}).items()
                },
                "release": {
                    key: value
                    for key, value in _plain(asdict(rules.roles.get(name, release.RoleRule()))).items()
                    if value is not None
                },
            }
            for name, role in centre.all_roles(conn).items()
        },
        "groups": {
            slug: {"title": group.title, "description": group.description, "roles": list(group.roles)}
            for slug, group in all_groups(conn).items()
        },
        "exceptions": [
            {
                "person": one.user,
                "measure": str(one.measure),
                "amount": _amount(one.measure, one.amount),
                "reason": one.reason,
                "expires_at": one.expires_at.isoformat() if one.expires_at else None,
            }
            for one in _holding(conn, now)
        ],
        "home": messages.as_value(said.home),
        "messages": messages.as_value(said.messages),
    }


def export(conn: Connection, now: datetime) -> str:
    """The file's text."""
    return yaml.safe_dump(read(conn, now), sort_keys=False, allow_unicode=True, width=100)


def _holding(conn: Connection, now: datetime) -> list[Granted]:
    found, _ = store.exceptions(conn, open_at=now, limit=ALL)
    return sorted(found, key=lambda one: (one.user, one.measure))


def _amount(measure: Measure, amount: int | None) -> Any:
    return NO_LIMIT if amount is None else written(measure.resource, amount)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


# ---------------------------------------------------------------------------------------------- reading


class File:
    """A file to apply.

    Raises
    ------
    SettingsError
        With a line for each thing that is wrong, each with its place.
    """

    def __init__(self, source: str, name: str) -> None:
        self._placed = Placed(source, name)
        try:
            self.document = Document.model_validate(self._placed.data)
        except ValidationError as error:
            raise SettingsError(
                [
                    self._placed.problem(
                        item["loc"],
                        "there is no such key"
                        if item["type"] == "extra_forbidden"
                        else item["msg"].removeprefix("Value error, "),
                    )
                    for item in error.errors()
                ]
            ) from error
        self.problems: list[str] = []

    @contextmanager
    def at(self, *path: object) -> Iterator[None]:
        """What is refused in here is a problem of this place."""
        try:
            yield
        except UserError as error:
            self.problems.append(self._placed.problem(path, sentence(error.message, **error.params)))


# --------------------------------------------------------------------------------------------- applying


def apply(
    conn: Connection, file: File, settings: Settings, *, actor: Actor, now: datetime, reason: str = ""
) -> list[Change]:
    """Make it so, within the caller's transaction; what is another now.

    Raises
    ------
    SettingsError
        With all that is refused; nothing may be committed then.
    """
    before = read(conn, now)
    _Work(conn, file, settings, actor, now, reason).do()
    if file.problems:
        raise SettingsError(file.problems)
    return difference(before, read(conn, now))


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What is another, value by value, in the order of the file."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        Change(path, old.get(path), new.get(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path) != new.get(path)
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif path == "exceptions":
        for item in value:
            yield (
                f"{path}.{item['person']}.{item['measure']}",
                {key: item[key] for key in ("amount", "reason", "expires_at")},
            )
    else:
        yield path, value


class _Work:
    def __init__(
        self, conn: Connection, file: File, settings: Settings, actor: Actor, now: datetime, reason: str
    ) -> None:
        self.conn, self.file, self.settings = conn, file, settings
        self.actor, self.now, self.reason = actor, now, reason

    def do(self) -> None:
        document = self.file.document
        if document.quota is not None:
            with self.file.at("quota", "combine"):
                if document.quota.combine not in COMBINATIONS:
                    raise UserError(
                        400,
                        mark("“{value}” is none of: {known}."),
                        value=document.quota.combine[:60],
                        known=", ".join(COMBINATIONS),
                    )
                self._value(COMBINE, document.quota.combine, "generous")
        if document.calendar is not None:
            with self.file.at("calendar"):
                calendar = Calendar.parse(_dates_as_text(document.calendar))
                self._value(CALENDAR, calendar.as_value(), Calendar().as_value())
        if document.release is not None:
            with self.file.at("release"):
                release.set_site(self.conn, _dates_as_text(document.release), **self._by)
        for name, role in (document.roles or {}).items():
            self._role(name, role)
        for slug, group in (document.groups or {}).items():
            with self.file.at("groups", slug):
                self._group(slug, group)
        if document.exceptions is not None:
            self._exceptions(document.exceptions)
        if document.home is not None:
            messages.set_home(self.conn, document.home, **self._by)
        if document.messages is not None:
            with self.file.at("messages"):
                messages.set_messages(self.conn, document.messages, **self._by)

    @property
    def _by(self) -> dict[str, Any]:
        return {
            "now": self.now,
            "actor": self.actor.name,
            "address": self.actor.address,
            "reason": self.reason,
        }

    def _value(self, key: str, new: Any, default: Any) -> None:
        old = centre.value(self.conn, key)
        if (default if old is None else old) == new:
            return
        centre.put(self.conn, key, new, now=self.now, by=self.actor.name)
        audit.write(
            self.conn,
            at=self.now,
            actor=self.actor.name,
            address=self.actor.address,
            action="centre.set",
            subject=key,
            before=old,
            after=new,
            reason=self.reason,
        )
        centre.bump(self.conn, self.now, self.actor.name)

    def _role(self, name: str, role: RoleSection) -> None:
        there = centre.all_roles(self.conn).get(name)
        by = {"now": self.now, "by": self.actor.name, "address": self.actor.address}
        with self.file.at("roles", name, "rights"):
            for right in role.rights or ():
                if right not in RIGHTS:
                    raise UserError(
                        400,
                        mark("There is no right “{right}”. There are: {known}."),
                        right=right[:60],
                        known=", ".join(sorted(RIGHTS)),
                    )
        problems = len(self.file.problems)
        with self.file.at("roles", name):
            if there is None:
                people.create_role(
                    self.conn,
                    name=check_role_name(name),
                    title=role.title or "",
                    rights=role.rights or (),
                    **by,
                )
            else:
                people.change_role(self.conn, name, title=role.title, rights=role.rights, **by)
        if len(self.file.problems) > problems:
            return
        if role.limits is not None:
            self._limits(name, role.limits)
        if role.release is not None:
            with self.file.at("roles", name, "release"):
                fields = asdict(release.RoleRule())
                release.set_role(self.conn, name, {**fields, **role.release}, **self._by)

    def _limits(self, name: str, limits: Mapping[str, Any]) -> None:
        wanted: dict[Measure, int | None] = {}
        for text, value in limits.items():
            with self.file.at("roles", name, "limits", text):
                measure = self._measure(text)
                wanted[measure] = parse_amount(measure.resource, value)
        with self.file.at("roles", name, "limits"):
            gone = [m for m in store.matrix(self.conn).get(name, {}) if m not in wanted]
            store.set_limits(
                self.conn,
                [
                    *((name, measure, amount) for measure, amount in wanted.items()),
                    *((name, measure, store.REMOVE) for measure in gone),
                ],
                actor=self.actor,
                now=self.now,
                reason=self.reason,
            )

    def _measure(self, text: str) -> Measure:
        measure = Measure.parse(str(text))
        return check(measure, pools=self.settings.pools, models=self.settings.gpu_models or None)

    def _group(self, slug: str, group: GroupSection) -> None:
        by = {"now": self.now, "by": self.actor.name, "address": self.actor.address}
        known = centre.all_roles(self.conn)
        for role in group.roles or ():
            if role not in known:
                raise UserError(404, mark("There is no role “{role}”."), role=role[:64])
        if slug in all_groups(self.conn):
            people.change_group(
                self.conn,
                slug,
                title=group.title,
                description=group.description,
                given=group.roles,
                **by,
            )
        else:
            people.create_group(
                self.conn,
                title=group.title or slug,
                slug=slug,
                description=group.description or "",
                given=group.roles or (),
                **by,
            )

    def _exceptions(self, items: list[ExceptionSection]) -> None:
        holding = {(one.user, one.measure): one for one in _holding(self.conn, self.now)}
        seen: set[tuple[str, Measure]] = set()
        for place, item in enumerate(items):
            with self.file.at("exceptions", place):
                measure = self._measure(item.measure)
                amount = parse_amount(measure.resource, item.amount)
                key = item.person, measure
                if key in seen:
                    raise UserError(400, mark("This exception stands in the file twice."))
                seen.add(key)
                self._exception(item, measure, amount, holding.get(key))
        by: dict[str, Any] = {"actor": self.actor, "now": self.now}
        for key, one in holding.items():
            if key not in seen:
                store.end(self.conn, one.id, reason=self.reason, **by)

    def _exception(
        self, item: ExceptionSection, measure: Measure, amount: int | None, old: Granted | None
    ) -> None:
        by: dict[str, Any] = {"actor": self.actor, "now": self.now}
        expires_at = item.expires_at
        if expires_at is not None and expires_at.tzinfo is None:
            expires_at = expires_at.replace(tzinfo=self.settings.site.zone)
        expires_at = expires_at.astimezone(UTC) if expires_at else None
        if old is None:
            if expires_at is not None and expires_at <= self.now:
                return  # it was good when the file was written, and would have ended by now
            store.give(
                self.conn,
                item.person,
                [(measure, amount)],
                reason=item.reason,
                expires_at=expires_at,
                **by,
            )
        elif (old.amount, old.reason, old.expires_at) != (amount, item.reason.strip(), expires_at):
            store.change(
                self.conn,
                old.id,
                amount=amount,
                reason=item.reason,
                expires_at=store.KEEP if expires_at == old.expires_at else expires_at,
                **by,
            )


def _dates_as_text(value: Any) -> Any:
    """YAML reads an unquoted day as a date; our values are JSON."""
    if isinstance(value, Mapping):
        return {str(key): _dates_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
