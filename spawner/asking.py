"""Who asks for a cluster, in which language, with which words, and how a refusal reaches them.

The hub hands a start three things: the person whose server it is, ``user_options``, and the handler of the
request. The real actor (an admin on behalf, the queue service) is the handler's ``current_user``. Options
that were *not* sent are told apart from empty ones, because the hub repeats the last ones otherwise, also
those that were refused; a start without options means the project's defaults (design §10).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jupyterhub.spawner import SpawnException

from galilean.errors import UserError
from galilean.i18n import choose_language
from galilean.rights import GROUP_PREFIX, ROLE_PREFIX

_REASONS = {400: "invalid", 403: "forbidden", 404: "not-found", 409: "conflict", 429: "quota"}
_NOT_OPTIONS = frozenset({"next", "display_name", "_xsrf"})


def asked_by(handler: Any, owner: str) -> str:
    """The name of whoever sent the request: a person's, or ``service:<name>``."""
    actor = getattr(handler, "current_user", None)
    if actor is None:
        return owner
    if getattr(actor, "kind", "user") == "service":
        return f"service:{actor.name}"
    return str(actor.name)


def hub_groups(user: Any) -> tuple[str, ...]:
    """The hub groups of a person, and ``galilean:<role>`` for each role that one of them gives.

    The hub roles that are bound to a group of people say which (:mod:`hub_config.roles`), so the hub knows
    without asking a database.
    """
    found = dict.fromkeys(group.name for group in user.groups)
    for group in user.groups:
        for role in getattr(group, "roles", ()):
            if group.name.startswith(GROUP_PREFIX) and role.name.startswith("galilean-"):
                found.setdefault(ROLE_PREFIX + role.name.removeprefix("galilean-"))
    return tuple(found)


def language_of(handler: Any, default: str) -> str:
    """The language of the request: chosen by cookie, else by the browser, else the site's."""
    request = getattr(handler, "request", None)
    if request is None:
        return default
    cookie = request.cookies.get("galilean_language")
    return choose_language(
        cookie.value if cookie else None, request.headers.get("Accept-Language", ""), default
    )


def sent_options(handler: Any, user_options: Any) -> Any:
    """``user_options`` when this very request brought them, else ``None`` (what the hub remembered)."""
    request = getattr(handler, "request", None)
    if request is None:
        return None
    if not hasattr(handler, "get_server_json_body"):  # a page of the hub, not its API
        if request.method == "POST":
            return user_options
        return user_options if set(request.query_arguments) - _NOT_OPTIONS else None
    try:
        body = json.loads(request.body or b"null")
    except ValueError:
        return None
    if not isinstance(body, dict) or not body:
        return None
    if "user_options" in body or "display_name" in body:
        return None if body.get("user_options") is None else user_options
    return user_options


def refusal(error: UserError, translate: Callable[[str], str]) -> SpawnException:
    """The form of a refusal that reads well in the hub's form, API, progress stream and metrics.

    The reason is the HTTP reason phrase as well: one plain word.
    """
    text = error.text(translate)
    reason = error.reason or _REASONS.get(error.status, "unavailable" if error.status < 600 else "error")
    exception: Any = SpawnException(text, reason=reason, status_code=error.status, log_message=str(error))
    exception.jupyterhub_message = text
    return exception
