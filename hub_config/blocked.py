"""Whoever is blocked is nobody to the hub: no cookie, no token, no sign-in (AP-32).

The hub has no such state, so its two ways of finding out who asks are wrapped: somebody in the hub group of
those who are blocked is not found, and the API says why. One thing goes on: a running node speaks with the
token that it was started with, because what becomes of a blocked person's clusters was chosen when they were
blocked. That token is told by the node's OAuth client, whose secret it is; a token that merely carries the
same scopes, as people may make for themselves, is not one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.utils import compare_token
from tornado import web

from galilean.errors import UserError, mark
from galilean.rights import BLOCKED
from galilean.web.language import translate

_FOUND = "_galilean_blocked"
_SERVER = "access:servers!server="


def is_blocked(user: Any) -> bool:
    """Whether a person of the hub is blocked; services never are."""
    return any(group.name == BLOCKED for group in getattr(user, "groups", ()))


def refusal() -> web.HTTPError:
    """What a blocked person is told."""
    error = UserError(
        403, mark("Your account is blocked. Ask the administrators; your files are where they were.")
    )
    return web.HTTPError(403, error.text(translate).replace("%", "%%"))


def check_sign_in(handler: Any, name: str) -> None:
    """Refuse a sign-in, by whatever authenticator.

    Raises
    ------
    tornado.web.HTTPError
        403.
    """
    find = getattr(handler, "find_user", None)
    if find is not None and is_blocked(find(name)):
        raise refusal()


def of_a_node(token: Any) -> str:
    """``user/server`` of which a token may be the node's own by what it carries; else empty."""
    owner = token.user.name if token.user is not None else ""
    scopes = {scope + f"={owner}" if scope.endswith("!user") else scope for scope in token.scopes}
    server = next((scope.removeprefix(_SERVER) for scope in scopes if scope.startswith(_SERVER)), "")
    pure = {f"users:activity!user={owner}", _SERVER + server, "access:services!service=portal"}
    return server if server.startswith(f"{owner}/") and scopes <= pure else ""


def _is_the_nodes(handler: Any) -> bool:
    """Whether the request carries the token that a running node was started with."""
    token = handler.get_token()
    server = of_a_node(token) if token is not None and token.user is not None else ""
    if not server:
        return False
    owner, _, name = server.partition("/")
    found = handler.find_user(owner)
    if found is None or name not in found.spawners:
        return False
    client = (
        handler.db.query(orm.OAuthClient)
        .filter_by(identifier=found.spawners[name].oauth_client_id)
        .one_or_none()
    )
    return bool(client and client.secret) and compare_token(client.secret, handler.get_auth_token())


def _unless_blocked(look: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(look)
    def looked(self: Any, *args: Any, **kwargs: Any) -> Any:
        user = look(self, *args, **kwargs)
        if user is None or not is_blocked(user) or _is_the_nodes(self):
            return user
        setattr(self, _FOUND, True)
        return None

    looked.keeps_out = True  # type: ignore[attr-defined]
    return looked


def _saying_so(resolve: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(resolve)
    def resolved(self: Any) -> None:
        user = self.current_user
        if (
            user is not None and is_blocked(user) and not _is_the_nodes(self)
        ):  # named by the body of a request
            self._jupyterhub_user = None
            setattr(self, _FOUND, True)
        resolve(self)
        if getattr(self, _FOUND, False) and isinstance(self, APIHandler):
            raise refusal()

    return resolved


def keep_out() -> None:
    """Wrap the hub's methods; a second time nothing happens."""
    handler: Any = BaseHandler
    if getattr(handler.get_current_user_token, "keeps_out", False):
        return
    for name in ("get_current_user_token", "get_current_user_cookie"):
        setattr(handler, name, _unless_blocked(getattr(handler, name)))
    handler._resolve_roles_and_scopes = _saying_so(handler._resolve_roles_and_scopes)
