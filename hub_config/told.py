"""What administrators do by the hub's own API is told as what they do in pages: a line in the audit log (SC-17).

The hub knows calls that pages of ours do not use, and everybody with their scopes may use them from a script:
making or renaming accounts, tokens for others, starting and ending somebody's server, the proxy, the hub's end.
Their line is written before the change, as everywhere; where the hub refuses, a second line says so. Calls of ours
write lines of their own, what people do with their own things is nobody's business, and whoever has none of these
scopes fills no log, because the hub refuses them anyway.

A server that somebody else ends is a forced release: its person is told, too (:func:`release_of_another`).
"""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.user import User
from sqlalchemy import Connection
from tornado.escape import url_unescape

from galilean import audit, came_from
from galilean.errors import UserError
from galilean.web.language import translate
from spawner import records
from spawner.asking import refusal

SETTING = "galilean_wiring"
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: Whoever has none of these for everybody can change nothing of others by the hub's API.
SCOPES = frozenset(
    {"admin:users", "delete:users", "admin:servers", "servers", "start:servers", "delete:servers", "tokens"}
    | {"admin:groups", "groups", "delete:groups", "shares", "proxy", "shutdown"}
)
#: What a call is called in the log, by method and the address below ``/hub/api/``; whose it is stands first in it.
_CALLS: tuple[tuple[str, str, str], ...] = (
    ("POST", r"users", "person.create"),
    ("POST", r"users/([^/]+)", "person.create"),
    ("PATCH", r"users/([^/]+)", "person.change"),
    ("POST", r"users/([^/]+)/servers?(?:/([^/]*))?", "cluster.start-for"),
    ("POST", r"users/([^/]+)/tokens", "token.make-for"),
    ("DELETE", r"users/([^/]+)/tokens/([^/]+)", "token.revoke-of"),
    ("POST", r"groups(?:/([^/]+))?", "hub-group.create"),
    ("DELETE", r"groups/([^/]+)", "hub-group.delete"),
    ("POST", r"proxy", "proxy.check"),
    ("PATCH", r"proxy", "proxy.change"),
    ("POST", r"shutdown", "hub.shutdown"),
)
#: Of a body what may be told: nothing that could be a secret or is long.
_TOLD = (
    "name",
    "usernames",
    "admin",
    "note",
    "expires_in",
    "scopes",
    "roles",
    "user_options",
    "users",
    "groups",
)
_NOTED = "_galilean_noted"


def what_of(method: str, place: str) -> tuple[str, str, str] | None:
    """Action, whose it is and the subject of a call; ``None`` for what writes its own line or is no change.

    Parameters
    ----------
    method
        Of HTTP.
    place
        The address below ``/hub/api/``, decoded.
    """
    if method not in WRITES or place.startswith("galilean/"):
        return None
    for wanted, pattern, action in _CALLS:
        found = re.fullmatch(pattern, place) if method == wanted else None
        if found:
            parts = [part for part in found.groups() if part]
            owner = parts[0] if place.startswith("users/") else ""
            return action, owner, "/".join(parts) or place
    if re.fullmatch(r"(users/[^/]+(/servers?(/[^/]*)?|/activity)?|groups/[^/]+/users)", place):
        return None  # told where it is done, or no change that somebody decides
    owner = place.split("/")[1] if place.startswith("users/") else ""
    return f"hub.{method.lower()}", owner, place


def tell_of_calls() -> None:
    """Wrap the hub's API handlers; a second time nothing happens."""
    handler: Any = APIHandler
    if getattr(handler.prepare, "tells", False):
        return
    prepare, on_finish = handler.prepare, handler.on_finish

    @functools.wraps(prepare)
    async def prepared(self: Any) -> None:
        await prepare(self)
        await _note(self)

    @functools.wraps(on_finish)
    def finished(self: Any) -> None:
        on_finish(self)
        noted = getattr(self, _NOTED, None)
        if noted and self.get_status() >= 400:
            wiring, action, values = noted
            failed = {**values, "action": f"{action}.failed", "reason": f"HTTP {self.get_status()}"}
            task = asyncio.ensure_future(wiring.database.run(_write, failed))
            wiring.told.add(task)
            task.add_done_callback(wiring.told.discard)

    prepared.tells = True  # type: ignore[attr-defined]
    handler.prepare, handler.on_finish = prepared, finished


async def _note(handler: Any) -> None:
    wiring, asker = handler.settings.get(SETTING), handler.current_user
    if wiring is None or not isinstance(asker, User) or handler._finished:
        return
    if not SCOPES & set(getattr(handler, "expanded_scopes", ())):
        return
    place = url_unescape(handler.request.path.removeprefix(handler.hub.base_url + "api/"), plus=False)
    found = what_of(handler.request.method, place)
    if found is None or found[1] == asker.name:
        return
    action, _, subject = found
    values = {
        "at": wiring.clock(),
        "actor": asker.name,
        "action": action,
        "subject": subject,
        "address": address_of(handler),
        "after": _said(handler),
    }
    try:
        await wiring.database.run(_write, values)
    except UserError as error:  # nothing is done of which there would be no line
        raise refusal(error, translate) from error
    setattr(handler, _NOTED, (wiring, action, {**values, "after": None}))


def _said(handler: Any) -> dict[str, Any] | None:
    try:
        body = handler.get_json_body()
    except Exception:  # refused in words by the handler itself
        return None
    return {key: body[key] for key in _TOLD if key in body} or None if isinstance(body, dict) else None


def address_of(handler: Any) -> str:
    """Where a request came from: the portal says it of its visitor, else as our own proxy noted it last."""
    path = handler.request.path.removeprefix(handler.hub.base_url + "api")
    signed = handler.request.headers.get(came_from.HEADER, "")
    if found := came_from.verified(signed, path, handler.settings[SETTING].portal_key):
        return found
    noted = ",".join(handler.request.headers.get_list("X-Forwarded-For")).rpartition(",")[2].strip()
    return (noted or handler.request.remote_ip or "")[: audit.ADDRESS_MOST]


def _write(conn: Connection, values: dict[str, Any]) -> None:
    audit.write(conn, **values)


async def release_of_another(handler: Any, user_name: str, server_name: str) -> None:
    """Write down that somebody ends another's cluster, and tell its person; before it is done, by who may.

    Where pages, commands or services of ours end it, all that is written already.
    """
    wiring, asker = handler.settings.get(SETTING), handler.current_user
    if wiring is not None and isinstance(asker, User) and asker.name != user_name:
        await wiring.database.run(
            _released, user_name, server_name, asker.name, address_of(handler), wiring.clock()
        )


def _released(conn: Connection, user: str, server: str, by: str, address: str, now: Any) -> None:
    from services.portal.api.clusters import note_release  # the hub starts without it

    run = records.open_run(conn, user, server)
    if run is not None and run.stop_asked_at is None:
        note_release(conn, run, by=by, others=True, address=address, now=now)
