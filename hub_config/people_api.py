"""Accounts, memberships, blocking: calls of our own beside the hub's, for whoever has the right.

The hub's own calls need scopes that allow everything at once (``admin:users``, ``groups``), with which
somebody who may give the role of a student could make themselves administrator. These need the custom scope
of a right of ours, and ask :mod:`services.people.rules` who gives what to whom. The hub's own calls about
groups of ours ask the same, so that an administrator's script cannot take away the last one either.

Every change writes its audit line here, where all ways meet; the portal says from where its visitor came.

``POST /galilean/people`` makes an account · ``PATCH …/people/<name>`` moves it between groups ·
``DELETE …/people/<name>`` deletes it · ``POST`` / ``DELETE …/people/<name>/block`` · ``POST …/roles``
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.groups import GroupUsersAPIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import Connection
from tornado import web

from galilean import audit, came_from, notices
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, RIGHTS, ROLE_PREFIX, Rights
from galilean.web.language import translate
from galilean.web.visitor import scope_of
from hub_config.accounts import end_sessions
from hub_config.api import PersonAPIHandler
from hub_config.authenticator import PASSWORD_BYTES, check_name
from hub_config.roles import SYNC_SCOPE
from services.people import rules, store
from services.people.rules import ADMIN_GROUP, Asker
from spawner import records
from spawner.states import Status


class OurHandler(APIHandler):
    """What the calls share: who asks, what is known, and refusals in words."""

    wiring: Any

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    @property
    def known(self) -> Rights:
        return self.wiring.following.rights

    @property
    def asker(self) -> Asker:
        """Whoever sent the request.

        Raises
        ------
        tornado.web.HTTPError
            403 for nobody.
        """
        actor: Any = self.current_user
        if actor is None:
            raise web.HTTPError(403)
        carried = frozenset(right for right in RIGHTS if scope_of(right) in self.expanded_scopes)
        if isinstance(actor, orm.Service) or getattr(actor, "kind", "user") == "service":
            return Asker(name=f"service:{actor.name}", carried=carried, service=bool(carried))
        groups = frozenset(group.name for group in actor.groups)
        return Asker(name=actor.name, groups=groups, carried=carried)

    @property
    def came_from(self) -> str:
        """Where the person's request came from: the portal says it of its visitor, and nobody else can."""
        value = self.request.headers.get(came_from.HEADER, "")
        path = self.request.path.removeprefix(self.hub.base_url + "api")
        found = came_from.verified(value, path, self.wiring.portal_key)
        if found:
            return found
        noted = ",".join(self.request.headers.get_list("X-Forwarded-For")).rpartition(",")[2].strip()
        return (noted or self.request.remote_ip or "")[:64]

    def person(self, name: str) -> Any:
        """An account.

        Raises
        ------
        UserError
            404.
        """
        accounts: Any = self.authenticator
        user = self.find_user(accounts.normalize_username(name))
        if user is None:
            raise UserError(404, mark("There is no account “{name}”."), name=name[:64])
        return user

    def groups_of(self, user: Any) -> set[str]:
        return {group.name for group in user.groups}

    def admins(self) -> set[str]:
        """Administrators who can sign in."""
        group = orm.Group.find(self.db, ADMIN_GROUP)
        blocked = orm.Group.find(self.db, BLOCKED)
        out = {user.name for user in blocked.users} if blocked else set()
        return {user.name for user in group.users} - out if group else set()

    async def note(self, action: str, subject: str, **values: Any) -> None:
        await self.wiring.database.run(
            _note, self.wiring.clock(), self.asker.name, action, subject, self.came_from, values
        )

    async def refused(self, error: UserError, action: str, subject: str, wanted: Any) -> None:
        """Somebody tried to get or give more than they have: that is noted, too."""
        if error.reason in ("escalation", "yourself"):
            await self.note(f"{action}.refused", subject, after=wanted, reason=str(error))

    def body(self) -> dict[str, Any]:
        body = self.get_json_body() if self.request.body else {}
        if not isinstance(body, dict):
            raise web.HTTPError(400, "the body must be a JSON object")
        return body

    def names(self, body: dict[str, Any], key: str) -> list[str]:
        found = body.get(key) or []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise web.HTTPError(400, f"{key} must be a list of names")
        return found

    async def move(self, user: Any, add: Iterable[str], remove: Iterable[str]) -> tuple[list[str], list[str]]:
        """Put a person into groups and out of others, after asking the rules; what really changed."""
        present = self.groups_of(user)
        wanted = {"add": sorted(add), "remove": sorted(remove)}
        try:
            rules.check_change(self.asker, self.known, user.name, present, add, remove)
            if ADMIN_GROUP in remove and ADMIN_GROUP in present:
                if self.asker.name == user.name:
                    raise UserError(409, mark("You cannot take the administrator's role from yourself."))
                rules.check_last_admin(self.admins(), user.name)
        except UserError as error:
            await self.refused(error, "role", user.name, wanted)
            raise
        added = [name for name in dict.fromkeys(add) if name not in present]
        removed = [name for name in dict.fromkeys(remove) if name in present]
        for name in added:
            group = orm.Group.find(self.db, name)
            if group is None:
                group = orm.Group(name=name)
                self.db.add(group)
            group.users.append(user.orm_user)
        for name in removed:
            orm.Group.find(self.db, name).users.remove(user.orm_user)
        self.db.commit()
        return added, removed

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, UserError):
            self.db.rollback()
            self.set_status(error.status)
            self.set_header("Content-Type", "application/json")
            self.finish(
                json.dumps({"status": error.status, "message": error.text(translate), "reason": error.reason})
            )
            return
        super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, UserError):
            super().log_exception(typ, value, tb)


class People(OurHandler):
    """Make an account: ``{"name", "password"?, "mail"?, "full_name"?, "groups"?: […], "import_id"?}``."""

    async def post(self) -> None:
        asker, body, accounts = self.asker, self.body(), self.authenticator
        accounts: Any = accounts
        rules.need(asker, self.known, "people:manage")
        name = accounts.normalize_username(str(body.get("name") or "").strip())
        password, groups = body.get("password"), self.names(body, "groups")
        check_name(name, ())
        if self.find_user(name) is not None or accounts.get_user(name) is not None:
            raise UserError(409, mark("There is an account “{name}” already."), name=name, reason="exists")
        try:
            rules.check_change(asker, self.known, name, (), groups, ())
        except UserError as error:
            await self.refused(error, "person.create", name, {"groups": groups})
            raise
        hashed = None
        if password is not None:
            if not isinstance(password, str) or not 8 <= len(password) <= PASSWORD_BYTES:
                raise UserError(400, mark("A password has 8 to 72 characters."))
            if len(password.encode()) > PASSWORD_BYTES:
                raise UserError(400, mark("A password has 8 to 72 characters."))
            hashed = await accounts.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        mail = str(body.get("mail") or "")[:128]
        user = self.user_from_username(name)
        if hashed is not None:
            accounts.keep_password(name, hashed, email=mail)
        added, _ = await self.move(user, groups, ())
        await self.wiring.database.run(
            _made,
            self.wiring.clock(),
            asker.name,
            self.came_from,
            name,
            str(body.get("full_name") or "")[:255],
            mail,
            added,
            body.get("import_id"),
        )
        self.set_status(201)
        self.finish(json.dumps({"name": name, "groups": added}))


class OnePerson(OurHandler, PersonAPIHandler):
    """Move a person between groups of ours, or delete the account."""

    async def patch(self, name: str) -> None:
        body, user = self.body(), self.person(name)
        before = self.groups_of(user)
        added, removed = await self.move(user, self.names(body, "add"), self.names(body, "remove"))
        if added or removed:
            after = self.groups_of(user)
            await self.note(
                "person.groups",
                user.name,
                before=sorted(filter(rules.is_ours, before)),
                after=sorted(filter(rules.is_ours, after)),
            )
            gained = [g.removeprefix(ROLE_PREFIX) for g in added if g.startswith(ROLE_PREFIX)]
            if gained:
                titles = [self.known.titles().get(role, role) for role in gained]
                await self.wiring.database.run(_tell_role, self.wiring.clock(), user.name, ", ".join(titles))
        self.finish(json.dumps({"name": user.name, "added": added, "removed": removed}))

    async def delete(self, name: str) -> None:
        user, asker = self.person(name), self.asker
        rules.need(asker, self.known, "people:manage")
        await self.check_may_go(user, asker)
        groups = sorted(filter(rules.is_ours, self.groups_of(user)))
        await self.delete_account(user.name)
        await self.note("person.delete", name, before={"groups": groups})

    async def check_may_go(self, user: Any, asker: Asker) -> None:
        """Refuse to delete oneself, the last administrator, or who may more."""
        if user.name == asker.name:
            raise UserError(409, mark("You cannot delete your own account."), reason="yourself")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        if ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)


class TheHubsPerson(OnePerson):
    """The hub's own ``/users/<name>``: deleting goes by the same rules, all else as ever."""

    patch = PersonAPIHandler.patch  # type: ignore[assignment] - the hub calls the name differently

    @needs_scope("delete:users")
    async def delete(self, user_name: str) -> None:
        user = self.find_user(user_name)
        if user is not None:
            actor: Any = self.current_user
            if user.name != actor.name and ADMIN_GROUP in self.groups_of(user):
                rules.check_last_admin(self.admins(), user.name)
        await self.delete_account(user_name)
        await self.note("person.delete", user_name)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        OurHandler.write_error(self, status_code, **kwargs)


class Block(OurHandler):
    """Block somebody (``{"reason", "release": bool}``), or let them in again."""

    async def post(self, name: str) -> None:
        body, user, asker = self.body(), self.person(name), self.asker
        rules.need(asker, self.known, "people:manage")
        if user.name == asker.name:
            raise UserError(409, mark("You cannot block your own account."), reason="yourself")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        if ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)
        reason = str(body.get("reason") or "").strip()[:500]
        if not reason:
            raise UserError(400, mark("Say why: the person and other administrators will ask."))
        group = orm.Group.find(self.db, BLOCKED)
        if group is None:
            group = orm.Group(name=BLOCKED)
            self.db.add(group)
        if user.orm_user not in group.users:
            group.users.append(user.orm_user)
        self.db.commit()
        end_sessions(self.db, user)
        for token in list(user.orm_user.api_tokens):
            # A running cluster's own stays: what becomes of it was chosen.
            if not any(scope.startswith("access:servers!server=") for scope in token.scopes):
                self.db.delete(token)
        self.db.commit()
        held = await self.wiring.database.run(
            _blocked,
            self.wiring.clock(),
            asker.name,
            self.came_from,
            user.name,
            reason,
            bool(body.get("release")),
        )
        self.finish(json.dumps({"name": user.name, "clusters": held}))

    async def delete(self, name: str) -> None:
        user, asker = self.person(name), self.asker
        rules.need(asker, self.known, "people:manage")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        group = orm.Group.find(self.db, BLOCKED)
        if group is not None and user.orm_user in group.users:
            group.users.remove(user.orm_user)
            self.db.commit()
        await self.wiring.database.run(_unblocked, self.wiring.clock(), asker.name, self.came_from, user.name)
        self.finish(json.dumps({"name": user.name}))


class Password(OurHandler):
    """A new password for somebody (``{"password"}``), by whoever manages people."""

    async def put(self, name: str) -> None:
        body, user, asker, accounts = self.body(), self.person(name), self.asker, self.authenticator
        accounts: Any = accounts
        rules.need(asker, self.known, "people:manage")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        password = body.get("password")
        if not isinstance(password, str) or not len(password) >= 8 or len(password.encode()) > PASSWORD_BYTES:
            raise UserError(400, mark("A password has 8 to 72 characters."))
        hashed = await accounts.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        accounts.keep_password(user.name, hashed)
        end_sessions(self.db, user)
        await self.note("person.password", user.name)
        self.set_status(204)


class Roles(OurHandler):
    """Read roles and groups again: something was changed."""

    async def post(self) -> None:
        if SYNC_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires {SYNC_SCOPE}")
        await self.wiring.following.look(self.db, self.wiring.database, always=True)
        self.finish(json.dumps({"version": self.wiring.following.version}))


class Members(OurHandler, GroupUsersAPIHandler):
    """The hub's own ``/groups/<name>/users``: for groups of ours by our rules."""

    @needs_scope("groups")
    async def post(self, group_name: str) -> None:
        await self._by_our_rules(group_name, add=True)

    @needs_scope("groups")
    async def delete(self, group_name: str) -> None:
        await self._by_our_rules(group_name, add=False)

    async def _by_our_rules(self, group_name: str, *, add: bool) -> None:
        if rules.is_ours(group_name) and group_name != BLOCKED:
            for name in self.names(self.body(), "users"):
                user = self.find_user(name)
                present = self.groups_of(user) if user is not None else set()
                if user is None or (group_name in present) == add:
                    continue
                if not add and group_name == ADMIN_GROUP:
                    rules.check_last_admin(self.admins(), user.name)
                after = present | {group_name} if add else present - {group_name}
                await self.note(
                    "person.groups",
                    user.name,
                    before=sorted(filter(rules.is_ours, present)),
                    after=sorted(filter(rules.is_ours, after)),
                )
        done: Any = GroupUsersAPIHandler.post if add else GroupUsersAPIHandler.delete
        found = done(self, group_name)
        if found is not None:
            await found


def _note(
    conn: Connection, now: Any, actor: str, action: str, subject: str, address: str, values: dict[str, Any]
) -> None:
    audit.write(conn, at=now, actor=actor, action=action, subject=subject, address=address, **values)


def _made(
    conn: Connection,
    now: Any,
    actor: str,
    address: str,
    name: str,
    full_name: str,
    mail: str,
    groups: list[str],
    import_id: Any,
) -> None:
    store.forget(conn, name)  # of somebody who had the name before
    store.keep(
        conn,
        name,
        now=now,
        by=actor,
        full_name=full_name,
        mail=mail,
        import_id=import_id if isinstance(import_id, str) else None,
    )
    audit.write(
        conn,
        at=now,
        actor=actor,
        action="person.create",
        subject=name,
        address=address,
        after={"groups": groups, "full_name": full_name, "mail": mail},
    )


def _tell_role(conn: Connection, now: Any, name: str, titles: str) -> None:
    notices.tell(conn, name, now=now, kind="role", text=mark("You have the role {roles} now."), roles=titles)


def _blocked(
    conn: Connection, now: Any, actor: str, address: str, name: str, reason: str, release: bool
) -> int:
    store.block(conn, name, by=actor, reason=reason, now=now)
    runs = records.list_runs(conn, user=name, limit=10_000)
    for run in runs:
        if run.status == Status.QUEUED:  # what waits would be refused in its turn
            records.cancel_waiting(conn, run.id, reason="admin", asked_by=actor, now=now)
        elif release:
            told = {"message": mark("The account was blocked: {reason}"), "params": {"reason": reason}}
            records.ask_stop(conn, run.id, reason="admin", asked_by=actor, now=now, explanation=told)
    audit.write(
        conn,
        at=now,
        actor=actor,
        action="person.block",
        subject=name,
        address=address,
        after={"release": release, "clusters": len(runs)},
        reason=reason,
    )
    return len(runs)


def _unblocked(conn: Connection, now: Any, actor: str, address: str, name: str) -> None:
    found = store.get(conn, name)
    store.unblock(conn, name, now=now)
    audit.write(
        conn,
        at=now,
        actor=actor,
        action="person.unblock",
        subject=name,
        address=address,
        before={"reason": found.blocked_reason if found else ""},
    )


def handlers(wiring: Any) -> list[tuple[Any, ...]]:
    """Our calls, and the hub's two that go by our rules."""
    given = {"wiring": wiring}
    return [
        (r"/api/galilean/people", People, given),
        (r"/api/galilean/people/([^/]+)", OnePerson, given),
        (r"/api/galilean/people/([^/]+)/block", Block, given),
        (r"/api/galilean/people/([^/]+)/password", Password, given),
        (r"/api/galilean/roles", Roles, given),
        (r"/api/users/([^/]+)", TheHubsPerson, given),
        (r"/api/groups/([^/]+)/users", Members, given),
    ]
