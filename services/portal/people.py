"""What administrators do with people, groups and roles: one set of functions for pages, API and imports.

Accounts and memberships belong to the hub, which is asked with the visitor's own token and applies
:mod:`services.people.rules`; roles and groups are ours, changed here by the same rules, and the hub is told.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, func, select

from extensions.quota.store import uses_of_role
from galilean import audit, centre
from galilean.centre import RoleRow
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, GROUP_PREFIX, RIGHTS, ROLE_PREFIX, GroupRow, Rights, read
from galilean.web.context import Portal
from galilean.web.handlers import BaseHandler
from services.catalog.tables import projects
from services.people import roles, rules, store
from services.people.rules import Asker
from services.people.store import Person
from services.people.waiting import Account, list_accounts
from services.release import rules as release_rules
from spawner import records
from spawner.records import Run

log = logging.getLogger("galilean.portal")

#: Without letters and digits that look alike.
_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A person as pages show them.

    Attributes
    ----------
    clusters
        Open runs.
    """

    account: Account
    known: Person | None = None
    clusters: Sequence[Run] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        return self.account.name

    @property
    def full_name(self) -> str:
        return self.known.full_name if self.known else ""

    @property
    def state(self) -> str:
        """``blocked``, ``waits``, ``holds`` or ``in``."""
        if self.account.blocked:
            return "blocked"
        if self.account.waits:
            return "waits"
        return "holds" if self.clusters else "in"


def new_password() -> str:
    """Twelve letters and digits, some 70 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))


async def everybody(handler: BaseHandler) -> list[Row]:
    """All people, those who wait first; with the visitor's own right to list them."""
    portal = handler.portal
    accounts = await list_accounts(handler.hub_as_visitor(), await portal.rights.get())
    known, runs = await portal.db.run_read(_known_and_held)
    held: dict[str, list[Run]] = {}
    for run in runs:
        held.setdefault(run.user, []).append(run)
    return [
        Row(account=account, known=known.get(account.name), clusters=tuple(held.get(account.name, ())))
        for account in accounts
    ]


def _known_and_held(conn: Connection) -> tuple[dict[str, Person], list[Run]]:
    return store.everybody(conn), records.all_open(conn)


async def one(handler: BaseHandler, name: str) -> Row:
    """Somebody, or oneself.

    Raises
    ------
    UserError
        403 for others without the right, 404.
    """
    portal = handler.portal
    if name != handler.person.name and not handler.person.may("people:manage"):
        raise UserError(403, mark("This page is for administrators."))
    from services.people.waiting import account_of

    account = account_of(await portal.hub.user(name), await portal.rights.get())
    known, runs = await portal.db.run_read(
        lambda conn: (store.get(conn, account.name), records.list_runs(conn, user=account.name, limit=200))
    )
    return Row(account=account, known=known, clusters=tuple(runs))


def matches(row: Row, text: str) -> bool:
    """Whether all words stand in name, full name or mail address."""
    mail = row.known.mail if row.known else ""
    haystack = f"{row.name}\n{row.full_name}\n{mail}".casefold()
    return all(word in haystack for word in text.casefold().split())


# ------------------------------------------------------------------------------------------ at the hub


async def ask_hub(handler: BaseHandler, method: str, path: str, body: Any = None) -> Any:
    """One of the hub's calls of ours (:mod:`hub_config.people_api`), with the visitor's token and address."""
    portal = handler.portal
    response = await handler.hub_as_visitor().request(
        method,
        path,
        json=body,
        language="zh-CN" if handler.language == "zh_CN" else "en",
        headers=portal.hub.signed(handler.address, path),
    )
    return response.json() if response.content else None


def _path(name: str, more: str = "") -> str:
    return f"/galilean/people/{quote(name, safe='')}{more}"


def forget(portal: Portal, *names: str) -> None:
    """What was kept of these people is out of date."""
    for name in names:
        portal.people.forget(name)
        portal.parts["watcher"].tell(name, "role")
    portal.parts["frame"].forget()
    if "who_has" in portal.parts:
        portal.parts["who_has"].forget()


async def create(
    handler: BaseHandler,
    *,
    name: str,
    given: Iterable[str] = (),
    groups: Iterable[str] = (),
    full_name: str = "",
    mail: str = "",
    password: str | None = None,
    import_id: str | None = None,
) -> dict[str, Any]:
    """Make an account; what the hub said: ``{"name", "groups"}``, and whether it has the password.

    Where people sign in by another system the account has none, and ``"password"`` is false.
    """
    body: dict[str, Any] = {
        "name": name,
        "groups": [*(ROLE_PREFIX + role for role in given), *(GROUP_PREFIX + slug for slug in groups)],
        "full_name": full_name,
        "mail": mail,
        "import_id": import_id,
    }
    if password is not None:
        body["password"] = password
    try:
        made = await ask_hub(handler, "POST", "/galilean/people", body)
    except UserError as error:
        if error.reason != "elsewhere":
            raise
        del body["password"]
        made = await ask_hub(handler, "POST", "/galilean/people", body)
    forget(handler.portal, made["name"])
    return {**made, "password": "password" in body}


async def move(
    handler: BaseHandler, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> dict[str, Any]:
    """Hub groups that a person gets and loses; what really changed."""
    done = await ask_hub(handler, "PATCH", _path(name), {"add": list(add), "remove": list(remove)})
    forget(handler.portal, name)
    return done


async def rename(handler: BaseHandler, name: str, **wanted: str) -> None:
    """How somebody is called (``full_name``) and written to (``mail``)."""
    await ask_hub(handler, "PUT", _path(name, "/names"), wanted)


async def block(handler: BaseHandler, name: str, *, reason: str, release: bool) -> int:
    """Block somebody; how many clusters they held."""
    done = await ask_hub(handler, "POST", _path(name, "/block"), {"reason": reason, "release": release})
    forget(handler.portal, name)
    handler.portal.parts["watcher"].tell(name, "clusters")
    return done["clusters"]


async def unblock(handler: BaseHandler, name: str) -> None:
    """Let somebody in again."""
    await ask_hub(handler, "DELETE", _path(name, "/block"))
    forget(handler.portal, name)


async def delete(handler: BaseHandler, name: str) -> None:
    """Delete an account: clusters are released, projects go to the bin, machine time stays."""
    await ask_hub(handler, "DELETE", _path(name))
    forget(handler.portal, name)


async def set_password(handler: BaseHandler, name: str, password: str) -> None:
    """A new password; every browser of the person is signed out."""
    await ask_hub(handler, "PUT", _path(name, "/password"), {"password": password})


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What goes with an account."""

    projects: int
    clusters: int
    nodes: int


async def loss_of(portal: Portal, name: str) -> Loss:
    """What deleting somebody would take away."""
    return await portal.db.run_read(_loss_of, name)


def _loss_of(conn: Connection, name: str) -> Loss:
    count = select(func.count()).select_from(projects)
    count = count.where(projects.c.owner == name, projects.c.deleted_at.is_(None))
    runs = records.list_runs(conn, user=name, limit=1000)
    return Loss(
        projects=int(conn.execute(count).scalar_one()),
        clusters=len(runs),
        nodes=sum(run.nodes for run in runs),
    )


# --------------------------------------------------------------------------------------- roles and groups


async def asker_of(handler: BaseHandler) -> Asker:
    """The visitor, as the rules know them: with the groups of this moment, not of some seconds ago.

    Raises
    ------
    UserError
        403 for whoever was blocked meanwhile.
    """
    person, portal = handler.person, handler.portal
    portal.people.forget(person.name)
    groups = frozenset((await portal.hub.user(person.name)).get("groups") or ())
    if BLOCKED in groups:
        raise UserError(
            403,
            mark("Your account is blocked. Ask the administrators; your files are where they were."),
            reason="blocked",
        )
    return Asker(
        name=person.name,
        groups=groups,
        carried=person.rights if person.by_token else frozenset(RIGHTS),
    )


async def tell_hub(portal: Portal) -> None:
    """Have the hub follow; should it be away, it notices by itself when it is back."""
    portal.rights.forget()
    portal.people.forget_all()
    forget(portal)
    try:
        await portal.hub.request("POST", "/galilean/roles")
    except UserError as error:
        log.info("the hub was not told of a change of roles (%s); it will notice", error)


async def _decide(handler: BaseHandler, action: str, subject: str, check: Any, write: Any) -> Any:
    """Check by the rules against what holds now, and write, in one transaction; refusals are noted."""
    portal, asker = handler.portal, await asker_of(handler)

    def decide(conn: Connection) -> Any:
        check(asker, read(conn))
        return write(conn)

    try:
        done = await portal.db.run_serialised("centre", decide)
    except UserError as error:
        if error.reason in ("escalation", "yourself"):
            await portal.db.run(
                _note_refusal,
                portal.clock(),
                handler.person.name,
                handler.address,
                action,
                subject,
                str(error),
            )
        raise
    await tell_hub(portal)
    return done


def _note_refusal(
    conn: Connection, now: Any, actor: str, address: str, action: str, subject: str, why: str
) -> None:
    audit.write(
        conn, at=now, actor=actor, action=f"{action}.refused", subject=subject, address=address, reason=why
    )


async def create_role(handler: BaseHandler, *, name: str, title: str, rights: Sequence[str]) -> RoleRow:
    """A role of one's own."""

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "roles:manage")
        rules.check_role_name(name)
        rules.check_rights(asker, known, (), rights)

    now, by, address = handler.portal.clock(), handler.person.name, handler.address
    return await _decide(
        handler,
        "role",
        name,
        check,
        lambda conn: roles.create_role(
            conn, name=name, title=title, rights=rights, now=now, by=by, address=address
        ),
    )


async def change_role(
    handler: BaseHandler, name: str, *, title: str | None = None, rights: Sequence[str] | None = None
) -> RoleRow:
    """Another title or other rights."""

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "roles:manage")
        if name not in known.roles:
            raise rules.no_such_role(name, known)
        if rights is not None:
            rules.check_rights(asker, known, known.roles[name].rights, rights)

    now, by, address = handler.portal.clock(), handler.person.name, handler.address
    return await _decide(
        handler,
        "role",
        name,
        check,
        lambda conn: roles.change_role(
            conn, name, title=title, rights=rights, now=now, by=by, address=address
        ),
    )


async def uses_of(handler: BaseHandler, name: str) -> list[str]:
    """Where a role is still used, in words."""
    return [
        *await _uses_outside(handler, name),
        *await handler.portal.db.run_read(_uses_in_rules, name, handler.translate),
    ]


def _uses_in_rules(conn: Connection, name: str, translate: Callable[[str], str]) -> list[str]:
    """Clusters that it admitted, limits and rules of release of its own."""
    words = {"clusters": mark("{n} clusters are held by it"), "limits": mark("{n} limits of its own")}
    found = [
        translate(words.get(use.kind, use.kind + " {n}")).format(n=use.count)
        for use in uses_of_role(conn, name)
    ]
    if name in release_rules.read(conn).roles:
        found.append(translate(mark("rules of release of its own")))
    return found


async def _uses_outside(handler: BaseHandler, name: str) -> list[str]:
    """Who has it, and which groups and pools name it."""
    portal, translate = handler.portal, handler.translate
    models = await portal.hub.users()
    members = sum(ROLE_PREFIX + name in (model.get("groups") or ()) for model in models)
    found = []
    if members:
        found.append(translate(mark("{n} people have it")).format(n=members))
    for slug, group in (await portal.rights.get()).groups.items():
        if name in group.roles:
            found.append(translate(mark("group {group}")).format(group=group.title or slug))
    for title, pool in portal.settings.pools.items():
        if name in pool.open_to:
            found.append(translate(mark("pool {pool}")).format(pool=title))
    return found


async def delete_role(handler: BaseHandler, name: str) -> None:
    """Delete a role of one's own that nothing uses any more.

    Raises
    ------
    UserError
        409 with the list of what uses it, at the moment of the deletion.
    """
    outside = await _uses_outside(handler, name)

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "roles:manage")
        if name not in known.roles:
            raise rules.no_such_role(name, known)
        rules.check_rights(asker, known, known.roles[name].rights, ())

    now, by, address = handler.portal.clock(), handler.person.name, handler.address

    def write(conn: Connection) -> None:
        centre.decide_alone(conn)
        uses = [*outside, *_uses_in_rules(conn, name, handler.translate)]
        roles.delete_role(conn, name, uses=uses, now=now, by=by, address=address)

    await _decide(handler, "role", name, check, write)


async def create_group(
    handler: BaseHandler, *, title: str, slug: str = "", description: str = "", given: Sequence[str] = ()
) -> GroupRow:
    """A group of people."""

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "groups:manage")
        rules.check_roles_of_group(asker, known, slug, (), given)

    now, by, address = handler.portal.clock(), handler.person.name, handler.address
    return await _decide(
        handler,
        "group",
        slug or title,
        check,
        lambda conn: roles.create_group(
            conn,
            title=title,
            slug=slug,
            description=description,
            given=given,
            now=now,
            by=by,
            address=address,
        ),
    )


async def change_group(
    handler: BaseHandler,
    slug: str,
    *,
    title: str | None = None,
    description: str | None = None,
    given: Sequence[str] | None = None,
) -> GroupRow:
    """What a group is called and which roles it gives."""

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "groups:manage")
        before = known.groups.get(slug)
        if before is not None and given is not None:
            rules.check_roles_of_group(asker, known, slug, before.roles, given)

    now, by, address = handler.portal.clock(), handler.person.name, handler.address
    return await _decide(
        handler,
        "group",
        slug,
        check,
        lambda conn: roles.change_group(
            conn,
            slug,
            title=title,
            description=description,
            given=given,
            now=now,
            by=by,
            address=address,
        ),
    )


async def members_of(portal: Portal, slug: str) -> list[str]:
    """Names of a group's members, in order."""
    models = await portal.hub.users()
    return sorted(model["name"] for model in models if GROUP_PREFIX + slug in (model.get("groups") or ()))


async def delete_group(handler: BaseHandler, slug: str) -> None:
    """Take a group away; members lose what it gave."""
    members = await members_of(handler.portal, slug)

    def check(asker: Asker, known: Rights) -> None:
        rules.need(asker, known, "groups:manage")
        before = known.groups.get(slug)
        if before is not None:
            rules.check_roles_of_group(asker, known, slug, before.roles, ())

    now, by, address = handler.portal.clock(), handler.person.name, handler.address
    await _decide(
        handler,
        "group",
        slug,
        check,
        lambda conn: roles.delete_group(conn, slug, members=members, now=now, by=by, address=address),
    )
