"""Accounts, memberships, blocking: calls of our own beside the hub's, for whoever has the right.

The hub's own calls need scopes that allow everything at once (``admin:users``, ``groups``), with which
somebody who may give the role of a student could make themselves administrator. These need the custom scope
of a right of ours, and ask :mod:`services.people.rules` who gives what to whom. The hub's own calls about
groups of ours ask the same, so that an administrator's script cannot take away the last one either.

Every change writes its audit line here, before it is made, where all ways meet; the portal says from where its
visitor came.

``POST /galilean/people`` makes an account · ``PATCH …/people/<name>`` moves it between groups ·
``DELETE …/people/<name>`` deletes it · ``POST`` / ``DELETE …/people/<name>/block`` ·
``PUT …/people/<name>/password`` · ``PUT …/people/<name>/names`` · ``POST …/roles``

Nobody learns from a refusal whether there is an account: what the asker may do at all is asked first.
"""

from __future__ import annotations

import json
import re
from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.scopes import needs_scope
from sqlalchemy import Connection
from tornado import web

from galilean import audit, notices
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, ROLE_PREFIX
from galilean.web.visitor import RUN_SCOPE
from hub_config.accounts import end_sessions
from hub_config.api import PersonAPIHandler
from hub_config.authenticator import check_name
from hub_config.blocked import of_a_node
from hub_config.our_handler import OurHandler
from hub_config.roles import SYNC_SCOPE
from services.people import rules, store
from services.people.rules import ADMIN_GROUP
from spawner import records
from spawner.states import Status

PORTAL_CLIENT = "service-portal"
NAME_MOST, MAIL_MOST, REASON_MOST = 255, 128, 500
_ULID = re.compile(r"[0-9A-Z]{26}", re.ASCII)


class People(OurHandler):
    """Make an account: ``{"name", "password"?, "mail"?, "full_name"?, "groups"?: […], "import_id"?}``."""

    opened_by = ("people:manage",)

    async def post(self) -> None:
        asker, body, accounts = self.asker, self.body(), self.accounts
        name = accounts.normalize_username(self.text(body, "name", 1000))
        password, groups, mail = body.get("password"), self.names(body, "groups"), self.mail(body)
        full_name, import_id = self.text(body, "full_name", NAME_MOST), self.text(body, "import_id", 100)
        if password is not None:
            accounts = self.own_passwords()
        if hasattr(accounts, "keep_password"):
            check_name(name, ())
        elif not name or not accounts.validate_username(name):
            raise UserError(400, mark("“{name}” cannot be a user name here."), name=name[:64])
        self._check_free(name)
        try:
            self.check_not_reserved(name)
            rules.check_change(asker, self.known, name, (), groups, ())
        except UserError as error:
            await self.refused(error, "person.create", name, {"groups": groups})
            raise
        hashed = None
        if password is not None:
            self.check_password(password)
            hashed = await accounts.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        given = {"groups": groups, "full_name": full_name, "mail": mail}
        self._check_free(name)
        async with self.noted("person.create", name, after=given):
            self._check_free(name)  # two at once
            user = self.user_from_username(name)
            if hashed is not None:
                accounts.keep_password(name, hashed, email=mail)
            added, _ = await self.move(user, groups, ())
            await self.wiring.database.run(
                _made,
                self.wiring.clock(),
                asker.name,
                name,
                full_name,
                mail,
                import_id if _ULID.fullmatch(import_id) else None,
            )
        self.set_status(201)
        self.finish(json.dumps({"name": name, "groups": added}))

    def _check_free(self, name: str) -> None:
        get: Any = getattr(self.accounts, "get_user", lambda name: None)
        if self.find_user(name) is not None or get(name) is not None:
            raise UserError(409, mark("There is an account “{name}” already."), name=name, reason="exists")


class OnePerson(OurHandler, PersonAPIHandler):
    """Move a person between groups of ours, or delete the account."""

    opened_by = ("people:manage", "groups:manage")

    async def patch(self, name: str) -> None:
        body, user = self.body(), self.person(name)
        add, remove = self.names(body, "add"), self.names(body, "remove")
        added, removed = await self.check_move(user, add, remove)
        if added or removed:
            before = self.groups_of(user)
            after = (before | set(added)) - set(removed)
            async with self.noted(
                "person.groups",
                user.name,
                before=sorted(filter(rules.is_ours, before)),
                after=sorted(filter(rules.is_ours, after)),
            ):
                added, removed = await self.move(user, add, remove)
            gained = [g.removeprefix(ROLE_PREFIX) for g in added if g.startswith(ROLE_PREFIX)]
            if gained:
                titles = [self.known.titles().get(role, role) for role in gained]
                await self.wiring.database.run(_tell_role, self.wiring.clock(), user.name, ", ".join(titles))
        self.finish(json.dumps({"name": user.name, "added": added, "removed": removed}))

    async def delete(self, name: str) -> None:
        rules.need(self.asker, self.known, "people:manage")
        user = self.person(name)
        self.check_may_go(user)
        name, groups = user.name, sorted(filter(rules.is_ours, self.groups_of(user)))
        async with self.noted("person.delete", name, before={"groups": groups}):
            self.check_may_go(user)
            await self.delete_for_good(name)

    def check_may_go(self, user: Any) -> None:
        """Refuse to delete oneself, the last administrator, or who may more."""
        asker = self.asker
        if user.name == asker.name:
            raise UserError(409, mark("You cannot delete your own account."), reason="yourself")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        self.check_not_reserved(user.name)
        if ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)

    async def delete_for_good(self, name: str) -> None:
        """Delete an account; while that goes on, it is no longer counted among the administrators."""
        if name in self.wiring.going:
            raise UserError(409, mark("“{name}” is being deleted already."), name=name[:64])
        self.wiring.going.add(name)
        try:
            await self.delete_account(name)
        finally:
            self.wiring.going.discard(name)


class TheHubsPerson(OnePerson):
    """The hub's own ``/users/<name>``: deleting goes by the same rules, all else as ever."""

    opened_by = ()
    patch = PersonAPIHandler.patch  # type: ignore[assignment] - the hub calls the name differently

    @needs_scope("delete:users")
    async def delete(self, user_name: str) -> None:
        user = self.find_user(user_name)
        if user is None:
            raise web.HTTPError(404)
        name = user.name
        self._check_last(user)
        async with self.noted("person.delete", name):
            self._check_last(user)
            await self.delete_for_good(name)

    def _check_last(self, user: Any) -> None:
        if user.name != self.asker.name and ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        OurHandler.write_error(self, status_code, **kwargs)


class Block(OurHandler):
    """Block somebody (``{"reason", "release": bool}``), or let them in again."""

    opened_by = ("people:manage",)

    def somebody(self, name: str) -> Any:
        """Who is meant: not oneself, nor who may more."""
        user, asker = self.person(name), self.asker
        if user.name == asker.name:
            raise UserError(409, mark("You cannot block your own account."), reason="yourself")
        rules.check_person(asker, self.known, user.name, self.groups_of(user))
        self.check_not_reserved(user.name)
        return user

    async def post(self, name: str) -> None:
        body, user = self.body(), self.somebody(name)
        self._check_last(user)
        reason, release = self.text(body, "reason", REASON_MOST), body.get("release") is True
        if not reason:
            raise UserError(400, mark("Say why: the person and other administrators will ask."))
        count = await self.wiring.database.run_read(_count_open, user.name)
        told = {"release": release, "clusters": count}
        async with self.noted("person.block", user.name, after=told, reason=reason):
            self._check_last(user)
            self._shut_out(user)
            held = await self.wiring.database.run(
                _blocked, self.wiring.clock(), self.asker.name, user.name, reason, release
            )
        self.finish(json.dumps({"name": user.name, "clusters": held}))

    def _check_last(self, user: Any) -> None:
        if ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)

    def _shut_out(self, user: Any) -> None:
        group = orm.Group.find(self.db, BLOCKED)
        if group is None:
            group = orm.Group(name=BLOCKED)
            self.db.add(group)
        if user.orm_user not in group.users:
            group.users.append(user.orm_user)
        self.db.commit()
        end_sessions(self.db, user)
        for token in list(user.orm_user.api_tokens):
            # A running cluster's own stays: what becomes of it was chosen. Whether it is that is asked anew at
            # each request (hub_config.blocked).
            if not of_a_node(token):
                self.db.delete(token)
        self.db.commit()

    async def delete(self, name: str) -> None:
        user = self.somebody(name)
        found = await self.wiring.database.run_read(store.get, user.name)
        before = {"reason": found.blocked_reason if found else ""}
        async with self.noted("person.unblock", user.name, before=before):
            group = orm.Group.find(self.db, BLOCKED)
            if group is not None and user.orm_user in group.users:
                group.users.remove(user.orm_user)
                self.db.commit()
            await self.wiring.database.run(_unblocked, self.wiring.clock(), user.name)
        self.finish(json.dumps({"name": user.name}))


class Password(OurHandler):
    """A new password for somebody (``{"password"}``), by whoever manages people."""

    opened_by = ("people:manage",)

    async def put(self, name: str) -> None:
        body, user, accounts = self.body(), self.person(name), self.own_passwords()
        rules.check_person(self.asker, self.known, user.name, self.groups_of(user))
        self.check_not_reserved(user.name)
        password = self.check_password(body.get("password"))
        hashed = await accounts.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        async with self.noted("person.password", user.name):
            accounts.keep_password(user.name, hashed)
            end_sessions(self.db, user)
        self.set_status(204)


class Names(OurHandler):
    """How somebody is called and written to (``{"full_name"?, "mail"?}``): one's own, or by who manages people.

    Letters go to the address that was given last, here or at sign-up.
    """

    async def put(self, name: str) -> None:
        asker, own = self.asker, self.accounts.normalize_username(name) == self.asker.name
        if not own:
            rules.need(asker, self.known, "people:manage")
        elif RUN_SCOPE not in self.expanded_scopes and not self._by_the_portal():
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires {RUN_SCOPE}")
        body, user = self.body(), self.person(name)
        if not own:
            rules.check_person(asker, self.known, user.name, self.groups_of(user))
        wanted: dict[str, str] = {}
        if "full_name" in body:
            wanted["full_name"] = self.text(body, "full_name", NAME_MOST)
        if "mail" in body:
            wanted["mail"] = self.mail(body)
        if wanted:
            await self.wiring.database.run(
                _named, self.wiring.clock(), asker.name, self.came_from, user.name, wanted
            )
            keep: Any = getattr(self.accounts, "keep_address", None)
            if keep is not None and "mail" in wanted:
                keep(user.name, wanted["mail"])
        self.set_status(204)

    def _by_the_portal(self) -> bool:
        """Whether the token is of a sign-in at the portal: whoever waits for a role has no other scope."""
        token = self.get_token()
        return token is not None and token.client_id == PORTAL_CLIENT


class Roles(OurHandler):
    """Read roles and groups again: something was changed."""

    async def post(self) -> None:
        if SYNC_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires {SYNC_SCOPE}")
        await self.wiring.following.look(self.db, self.wiring.database, always=True)
        self.finish(json.dumps({"version": self.wiring.following.version}))


def _made(
    conn: Connection, now: Any, actor: str, name: str, full_name: str, mail: str, import_id: str | None
) -> None:
    store.forget(conn, name)  # of somebody who had the name before
    store.keep(conn, name, now=now, by=actor, full_name=full_name, mail=mail, import_id=import_id)


def _named(conn: Connection, now: Any, actor: str, address: str, name: str, wanted: dict[str, str]) -> None:
    found = store.get(conn, name)
    before = {key: getattr(found, key) if found else "" for key in wanted}
    if before == wanted:
        return
    store.keep(conn, name, now=now, by=actor, **wanted)
    audit.write(
        conn,
        at=now,
        actor=actor,
        action="person.names",
        subject=name,
        address=address,
        before=before,
        after=wanted,
    )


def _tell_role(conn: Connection, now: Any, name: str, titles: str) -> None:
    notices.tell(conn, name, now=now, kind="role", text=mark("You have the role {roles} now."), roles=titles)


def _count_open(conn: Connection, name: str) -> int:
    return records.count_open(conn, user=name)


def _blocked(conn: Connection, now: Any, actor: str, name: str, reason: str, release: bool) -> int:
    store.block(conn, name, by=actor, reason=reason, now=now)
    runs = records.list_runs(conn, user=name, limit=10_000)
    for run in runs:
        if run.status == Status.QUEUED:  # what waits would be refused in its turn
            records.cancel_waiting(conn, run.id, reason="admin", asked_by=actor, now=now)
        elif release:
            told = {"message": mark("The account was blocked: {reason}"), "params": {"reason": reason}}
            records.ask_stop(conn, run.id, reason="admin", asked_by=actor, now=now, explanation=told)
    return len(runs)


def _unblocked(conn: Connection, now: Any, name: str) -> None:
    store.unblock(conn, name, now=now)


def handlers(wiring: Any) -> list[tuple[Any, ...]]:
    """Our calls, and the hub's own one about a person that goes by our rules."""
    given = {"wiring": wiring}
    return [
        (r"/api/galilean/people", People, given),
        (r"/api/galilean/people/([^/]+)", OnePerson, given),
        (r"/api/galilean/people/([^/]+)/block", Block, given),
        (r"/api/galilean/people/([^/]+)/password", Password, given),
        (r"/api/galilean/people/([^/]+)/names", Names, given),
        (r"/api/galilean/roles", Roles, given),
        (r"/api/users/([^/]+)", TheHubsPerson, given),
    ]
