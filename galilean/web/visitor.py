"""Who is there, and what they may do *now*.

A person's rights come from their hub groups, asked with the portal's own token and kept for a few seconds,
and from what the administrators decided of roles and groups (:mod:`galilean.rights`). The model that comes with an OAuth token is only believed for the name: it is up
to five minutes old and keeps the groups of the day it was granted.

A token may be made for less than its owner may (SC-20). So whoever comes with one has the rights that the
groups give *and* the token carries; a browser's session has those of the groups alone.

A node's token names its owner, but code in a node is not the owner: such a visitor has a ``node`` and no
rights, and only handlers that say so let it in (design §2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from galilean.centre import RIGHTS
from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI

#: A token may change something only with this scope; a token that carries all its owner may has it.
RUN_SCOPE = "custom:galilean:run"


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who makes this request.

    Attributes
    ----------
    roles
        Names of the effective roles, one's own and those of one's groups, as of a few seconds ago.
    given
        The rights that the roles give (AP-36).
    scopes
        Of the token that came with the request; fixed when it was granted.
    by_token
        Whether an ``Authorization`` header identified them (no XSRF needed then).
    node
        ``user/server`` when the token is a node's, else ``None``.
    """

    name: str
    groups: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    by_token: bool = False
    node: str | None = None

    @property
    def admin(self) -> bool:
        """Whether the person has the admin role, and the token, if one came, all that goes with it."""
        return "admin" in self.roles and frozenset(RIGHTS) <= self.rights

    @property
    def has_role(self) -> bool:
        """Whether the person may run anything at all."""
        return bool(self.roles)

    @property
    def rights(self) -> frozenset[str]:
        """What the roles allow beyond one's own things; by token what it carries of that."""
        if not self.by_token:
            return self.given
        return frozenset(right for right in self.given if scope_of(right) in self.scopes)

    @property
    def may_change(self) -> bool:
        """Whether the request may change anything; a token needs :data:`RUN_SCOPE` for it."""
        return not self.by_token or RUN_SCOPE in self.scopes

    def may(self, right: str) -> bool:
        return right in self.rights

    @property
    def token_is_stale(self) -> bool:
        """Whether the token was granted before the role: the hub would refuse what the groups allow."""
        if self.by_token or not self.has_role:
            return False
        starts = {"servers", "start:servers", "admin:servers"}
        if not any(scope.partition("!")[0] in starts for scope in self.scopes):
            return True
        return any(scope_of(right) not in self.scopes for right in self.given)


def scope_of(right: str) -> str:
    """The hub scope that a right is: a token carries it, or not."""
    return f"custom:galilean:{right}"


def node_of(model: dict[str, Any]) -> str | None:
    """``user/server`` when a hub model belongs to a node's token.

    A node's token may enter its own server and the portal, but not read its owner's model.
    """
    name = model.get("name", "")
    scopes = set(model.get("scopes", ()))
    if scopes & {"read:users", f"read:users!user={name}"}:
        return None
    for scope in sorted(scopes):
        if scope.startswith("access:servers!server="):
            return scope.removeprefix("access:servers!server=")
    return None


class People:
    """Groups of people by the portal's own token, kept for ``keep_seconds`` at most.

    Parameters
    ----------
    monotonic
        Seconds that never go back; handed in for tests.
    """

    def __init__(
        self, hub: HubAPI, *, keep_seconds: float = 15, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if keep_seconds > 30:
            raise ValueError("rights may be at most 30 seconds old")
        self.hub = hub
        self.keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._asking: dict[str, asyncio.Task[frozenset[str]]] = {}

    async def groups(self, name: str) -> frozenset[str]:
        """The person's hub groups; one question to the hub however many ask at once.

        Raises
        ------
        UserError
            404 when the hub does not know the person (any more), 503 when it does not answer.
        """
        known = self._known.get(name)
        if known and self._monotonic() - known[0] < self.keep_seconds:
            return known[1]
        task = self._asking.get(name)
        if task is None:
            task = asyncio.create_task(self._ask(name))
            self._asking[name] = task
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(task)

    async def _ask(self, name: str) -> frozenset[str]:
        asked_at = self._monotonic()
        try:
            groups = frozenset((await self.hub.user(name)).get("groups", ()))
        except UserError as error:
            if error.status < 500:
                raise
            raise UserError(
                503,
                mark("The hub does not answer just now. Running clusters go on; try again in a few seconds."),
            ) from error
        self._known[name] = (asked_at, groups)
        if len(self._known) > 10_000:
            limit = asked_at - self.keep_seconds
            self._known = {key: value for key, value in self._known.items() if value[0] > limit}
        return groups

    def forget(self, name: str) -> None:
        """Ask again the next time: a role was just given or taken."""
        self._known.pop(name, None)

    def forget_all(self) -> None:
        """Ask again of everybody: a group was taken away."""
        self._known.clear()
