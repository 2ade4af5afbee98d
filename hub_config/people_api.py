"""Accounts, memberships, blocking: calls of our own beside the hub's, for whoever has the right.

The hub's own calls need scopes that allow everything at once (``admin:users``, ``groups``), with which
somebody who may give the role of a student could make themselves administrator. These need the custom scope
of a right of ours, and ask :mod:`services.people.rules` who gives what to whom. The hub's own calls about
groups of ours ask the same, so that an administrator's script cannot take away the last one either.

Every change writes its audit line here, where all ways meet; the portal says from where its visitor came.

``POST /galilean/people`` makes an account · ``PATCH …/people/<name>`` moves it between groups ·
``DELETE …/people/<name>`` deletes it · ``POST`` / ``DELETE …/people/<name>/block`` ·
``PUT …/people/<name>/password`` · ``PUT …/people/<name>/names`` · ``POST …/roles``

Nobody learns from a refusal whether there is an account: what the asker may do at all is asked first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import Connection
from tornado import web

from galilean import audit, came_from, notices
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, RIGHTS, ROLE_PREFIX, Rights
from galilean.web.language import translate
from galilean.web.visitor import RUN_SCOPE, scope_of
from hub_config.accounts import end_sessions
from hub_config.api import PersonAPIHandler
from hub_config.authenticator import PASSWORD_BYTES, check_name, plausible
from hub_config.blocked import of_a_node
from hub_config.roles import SYNC_SCOPE
from services.people import rules, store
from services.people.rules import ADMIN_GROUP, Asker
from spawner import records
from spawner.states import Status

#: The service of commands, which acts for whoever runs the machine. No other one is more than its scopes.
COMMAND = "command"
PORTAL_CLIENT = "service-portal"
NAME_MOST, MAIL_MOST, REASON_MOST = 255, 128, 500
_ULID = re.compile(r"[0-9A-Z]{26}", re.ASCII)


class OurHandler(APIHandler):
    """What the calls share: who asks, what is known, and refusals in words."""

    wiring: Any

    #: Any of these rights opens the call; empty = the handler asks by itself.
    opened_by: tuple[str, ...] = ()
    came_from = ""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def prepare(self) -> None:
        await super().prepare()
        # Before anything is changed: what cannot be read must not keep a line out of the log afterwards.
        self.came_from = self._came_from()
        if self.opened_by:
            rules.need(self.asker, self.known, *self.opened_by)

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
            commands = bool(carried) and str(actor.name) == COMMAND
            return Asker(name=f"service:{actor.name}", groups=None, carried=carried, service=commands)
        groups = frozenset(group.name for group in actor.groups)
        return Asker(name=actor.name, groups=groups, carried=carried)

    def _came_from(self) -> str:
        """Where the person's request came from: the portal says it of its visitor, and nobody else can."""
        value = self.request.headers.get(came_from.HEADER, "")
        path = self.request.path.removeprefix(self.hub.base_url + "api")
        found = came_from.verified(value, path, self.wiring.portal_key)
        if found:
            return found
        noted = ",".join(self.request.headers.get_list("X-Forwarded-For")).rpartition(",")[2].strip()
        return (noted or self.request.remote_ip or "")[:64]

    @property
    def accounts(self) -> Any:
        """Who keeps passwords: ours, or another authenticator, which keeps them elsewhere."""
        return self.authenticator

    def own_passwords(self) -> Any:
        """Our authenticator.

        Raises
        ------
        UserError
            409 where people sign in by another system.
        """
        if not hasattr(self.accounts, "keep_password"):
            raise UserError(
                409,
                mark(
                    "Accounts and passwords come from another system here: people sign in by it, and their "
                    "passwords are changed there. Roles and groups are given here as ever."
                ),
                reason="elsewhere",
            )
        return self.accounts

    @property
    def reserved(self) -> frozenset[str]:
        """Names that the settings make administrators, at the next start too."""
        admins = self.wiring.settings.signup.admins
        return frozenset(self.accounts.normalize_username(name) for name in admins)

    def check_not_reserved(self, name: str) -> None:
        """Refuse to make, or take over, an account that the settings make an administrator.

        Raises
        ------
        UserError
            403 for all but administrators.
        """
        if name in self.reserved and not self.asker.is_admin(self.known):
            raise UserError(
                403,
                mark("“{name}” is an administrator by the settings. Only an administrator can do this."),
                name=name[:64],
                reason="escalation",
            )

    def text(self, body: dict[str, Any], key: str, most: int) -> str:
        """A text of the body, without what no database keeps.

        Raises
        ------
        tornado.web.HTTPError
            400 for anything else.
        """
        found = body.get(key)
        if found is not None and not isinstance(found, str):
            raise web.HTTPError(400, f"{key} must be a text")
        clean = (found or "").encode("utf-8", "ignore").decode().replace("\0", "")
        return " ".join(clean.split())[:most]

    def mail(self, body: dict[str, Any]) -> str:
        """The mail address of the body.

        Raises
        ------
        UserError
            400 for what cannot be one.
        """
        mail = self.text(body, "mail", 1000)
        if mail and not plausible(mail):
            raise UserError(400, mark("“{email}” does not look like a mail address."), email=mail[:80])
        return mail

    def person(self, name: str) -> Any:
        """An account.

        Raises
        ------
        UserError
            404.
        """
        user = self.find_user(self.accounts.normalize_username(name))
        if user is None:
            raise UserError(404, mark("There is no account “{name}”."), name=name[:64])
        return user

    def groups_of(self, user: Any) -> set[str]:
        return {group.name for group in user.groups}

    def admins(self) -> set[str]:
        """Administrators who can sign in, and are not being deleted just now."""
        group = orm.Group.find(self.db, ADMIN_GROUP)
        blocked = orm.Group.find(self.db, BLOCKED)
        out = {user.name for user in blocked.users} if blocked else set()
        return {user.name for user in group.users} - out - self.wiring.going if group else set()

    async def note(self, action: str, subject: str, **values: Any) -> None:
        await self.wiring.database.run(
            _note, self.wiring.clock(), self.asker.name, action, subject, self.came_from, values
        )

    async def refused(self, error: UserError, action: str, subject: str, wanted: Any) -> None:
        """Somebody tried to get or give more than they have: that is noted, too."""
        if error.reason in ("escalation", "yourself"):
            await self.note(f"{action}.refused", subject, after=wanted, reason=str(error))

    def body(self) -> dict[str, Any]:
        body: Any = self.get_json_body() if self.request.body else {}
        if not isinstance(body, dict):
            raise web.HTTPError(400, "the body must be a JSON object")
        return body

    def names(self, body: dict[str, Any], key: str) -> list[str]:
        found = body.get(key) or []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise web.HTTPError(400, f"{key} must be a list of names")
        return list(dict.fromkeys(found))

    def check_password(self, password: Any) -> str:
        """A password as it may be given to somebody.

        Raises
        ------
        UserError
            400 with the rule.
        """
        try:
            if isinstance(password, str) and len(password) >= 8 and len(password.encode()) <= PASSWORD_BYTES:
                return password
        except UnicodeEncodeError:  # half a character
            pass
        raise UserError(400, mark("A password has 8 to 72 characters."))

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
        for name in added:  # the rules know them all; the hub may have lost one
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
            self._check_free(name)  # two at once
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
            full_name,
            mail,
            added,
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
        rules.need(self.asker, self.known, "people:manage")
        user = self.person(name)
        self.check_may_go(user)
        name, groups = user.name, sorted(filter(rules.is_ours, self.groups_of(user)))
        await self.delete_for_good(name)
        await self.note("person.delete", name, before={"groups": groups})

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
        if user.name != self.asker.name and ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)
        await self.delete_for_good(user.name)
        await self.note("person.delete", user.name if user.name else user_name)

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
        if ADMIN_GROUP in self.groups_of(user):
            rules.check_last_admin(self.admins(), user.name)
        reason = self.text(body, "reason", REASON_MOST)
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
            # A running cluster's own stays: what becomes of it was chosen. Whether it is that is asked anew at
            # each request (hub_config.blocked).
            if not of_a_node(token):
                self.db.delete(token)
        self.db.commit()
        held = await self.wiring.database.run(
            _blocked,
            self.wiring.clock(),
            self.asker.name,
            self.came_from,
            user.name,
            reason,
            body.get("release") is True,
        )
        self.finish(json.dumps({"name": user.name, "clusters": held}))

    async def delete(self, name: str) -> None:
        user = self.somebody(name)
        group = orm.Group.find(self.db, BLOCKED)
        if group is not None and user.orm_user in group.users:
            group.users.remove(user.orm_user)
            self.db.commit()
        await self.wiring.database.run(
            _unblocked, self.wiring.clock(), self.asker.name, self.came_from, user.name
        )
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
        accounts.keep_password(user.name, hashed)
        end_sessions(self.db, user)
        await self.note("person.password", user.name)
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
