"""The hub's own calls about groups: for groups of ours by our rules (:mod:`services.people.rules`).

Which groups there are is decided in our tables and :mod:`hub_config.role_sync` makes them, so here nobody makes
or deletes one of ours: with ``galilean:admin`` all administrators would be gone at once, with the group of those
who are blocked all of them would be let in. Members come and go, but not the last administrator; and blocking
has a call of its own, that says why and ends sessions.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.groups import (
    GroupAPIHandler,
    GroupListAPIHandler,
    GroupUsersAPIHandler,
)
from jupyterhub.scopes import needs_scope
from tornado import web

from galilean.errors import UserError, mark
from galilean.rights import BLOCKED
from hub_config.our_handler import OurHandler
from services.people import rules
from services.people.rules import ADMIN_GROUP


def check_not_ours(name: Any) -> None:
    """Refuse to make or delete a hub group that means something to us.

    Raises
    ------
    UserError
        409 with the place where it is done.
    """
    if isinstance(name, str) and rules.is_ours(name):
        raise UserError(
            409,
            mark("“{group}” belongs to roles and groups of people: they are made and deleted in the portal."),
            group=name[:64],
            reason="ours",
        )


class Groups(OurHandler, GroupListAPIHandler):
    """``/groups``."""

    @needs_scope("admin:groups")
    async def post(self) -> None:
        for name in self.names(self.body(), "groups"):
            check_not_ours(name)
        await super().post()


class Group(OurHandler, GroupAPIHandler):
    """``/groups/<name>``."""

    @needs_scope("admin:groups")
    async def post(self, group_name: str) -> None:
        check_not_ours(group_name)
        await super().post(group_name)

    @needs_scope("delete:groups")
    def delete(self, group_name: str) -> None:
        known = {*self.known.roles, *self.known.groups}
        if group_name == BLOCKED or group_name.partition(":")[2] in known:
            check_not_ours(group_name)
        super().delete(group_name)


class Members(OurHandler, GroupUsersAPIHandler):
    """``/groups/<name>/users``."""

    @needs_scope("groups")
    async def post(self, group_name: str) -> None:
        await self._by_our_rules(group_name, add=True)

    @needs_scope("groups")
    async def delete(self, group_name: str) -> None:
        await self._by_our_rules(group_name, add=False)

    async def _by_our_rules(self, group_name: str, *, add: bool) -> None:
        users = [self._somebody(name) for name in self.names(self.body(), "users")]
        for name, groups in self._who_changes(group_name, users, add).items():
            after = groups | {group_name} if add else groups - {group_name}
            await self.note(  # before it is done: a line too many rather than one too few
                "person.groups",
                name,
                before=sorted(filter(rules.is_ours, groups)),
                after=sorted(filter(rules.is_ours, after)),
            )
        self._who_changes(group_name, users, add)  # between this look and the change nobody else has a turn
        done: Any = GroupUsersAPIHandler.post if add else GroupUsersAPIHandler.delete
        found = done(self, group_name)
        if found is not None:
            await found

    def _who_changes(self, group_name: str, users: list[Any], add: bool) -> dict[str, set[str]]:
        """Whose groups of ours this changes, and what those are; refused where it must not be."""
        if not rules.is_ours(group_name):
            return {}
        if group_name == BLOCKED:
            raise UserError(409, mark("People are blocked in the portal, which asks why."), reason="ours")
        before = {user.name: self.groups_of(user) for user in users}
        before = {name: groups for name, groups in before.items() if (group_name in groups) != add}
        if group_name == ADMIN_GROUP and not add:
            rules.check_last_admin(self.admins(), *before)
        return before

    def _somebody(self, name: str) -> Any:
        user = self.find_user(self.accounts.normalize_username(name))
        if user is None:
            raise web.HTTPError(400, f"No such user: {name[:64]}")
        return user


def handlers(wiring: Any) -> list[tuple[Any, ...]]:
    """What stands in the place of the hub's own."""
    given = {"wiring": wiring}
    return [
        (r"/api/groups", Groups, given),
        (r"/api/groups/([^/]+)", Group, given),
        (r"/api/groups/([^/]+)/users", Members, given),
    ]
