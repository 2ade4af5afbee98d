"""What our calls beside the hub's own share: who asks, what is known, refusals in words, lines of the audit log.

A change of the hub's database and a line in ours cannot be one transaction. So the line is written first
(:meth:`OurHandler.noted`): should the hub end in between, the log tells of a change that did not come about, and
never misses one that did. Where a change fails after its line, a second line says so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from sqlalchemy import Connection
from tornado import web

from galilean import audit, came_from
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, RIGHTS, Rights
from galilean.web.language import translate
from galilean.web.visitor import scope_of
from hub_config.authenticator import PASSWORD_BYTES, plausible
from services.people import rules
from services.people.rules import ADMIN_GROUP, Asker

#: The service of commands, which acts for whoever runs the machine. No other one is more than its scopes.
COMMAND = "command"


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

    @asynccontextmanager
    async def noted(self, action: str, subject: str, **values: Any) -> AsyncIterator[None]:
        """Write the line of a change, then make it in the block. What was looked at before is to be asked again there."""
        await self.note(action, subject, **values)
        try:
            yield
        except Exception as error:
            await self.note(f"{action}.failed", subject, reason=str(error)[:500])
            raise

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

    async def check_move(
        self, user: Any, add: Iterable[str], remove: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        """Ask the rules whether a person may be put into groups and out of others; what would really change."""
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
        return added, [name for name in dict.fromkeys(remove) if name in present]

    async def move(self, user: Any, add: Iterable[str], remove: Iterable[str]) -> tuple[list[str], list[str]]:
        """Put a person into groups and out of others, after asking the rules; what really changed."""
        added, removed = await self.check_move(user, add, remove)
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


def _note(
    conn: Connection, now: Any, actor: str, action: str, subject: str, address: str, values: dict[str, Any]
) -> None:
    audit.write(conn, at=now, actor=actor, action=action, subject=subject, address=address, **values)
