"""Signing out at the hub is leaving at once (CG-30), and signing in is being there again.

The moment is noted for the release service, wherever the sign-out came from: the portal's page, the menu of a
page of the hub, or the address itself. A link on another site signs out as it always did, and releases nothing; nor
does one on another host of this site, where people's own programs answer beside JupyterLab, nor one of which nobody says
where it came from: browsers do not over plain http. Whoever holds something and comes from there, as from JupyterLab's
*Log Out*, is led to the portal's page, which asks, notes the moment and comes back. What is no page that is opened (a
script's request, a picture, a frame) signs nobody out from there. The page afterwards says what goes back when; it is the
last that this browser sees of the person.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jupyterhub.handlers.login import LogoutHandler
from sqlalchemy import Connection
from tornado import web

from galilean.web.language import translate
from hub_config.blocked import check_sign_in
from services.release import ask, rules, store
from spawner import records
from spawner.records import Run

#: What browsers say of requests that a page of the hub's own host made, or the person by typing.
OWN = ("same-origin", "none")


def hidden_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a page of another host asks behind the person's back: they do not see the page that answers."""
    if headers.get("Sec-Fetch-Site", "none") in OWN:
        return False
    return headers.get("Sec-Fetch-Dest", "document") != "document"


class SignOutHandler(LogoutHandler):
    """``/hub/logout``."""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def get(self) -> None:
        if hidden_elsewhere(self.request.headers):
            raise web.HTTPError(403, "Another page asked for this.")
        user: Any = self.get_current_user_cookie()
        held: list[tuple[Run, str]] = []
        site = self.request.headers.get("Sec-Fetch-Site", "")
        if user is not None and site != "cross-site":
            now = self.wiring.clock() if site in OWN else None
            try:
                held, said = await self.wiring.database.run(_leave, user.name, now)
                if held and not said:
                    self.redirect(self.settings["template_vars"]["portal_url"] + "sign-out")
                    return
            except Exception:
                # Nobody stays signed in because our database is away; the policies take their course.
                self.log.exception("The sign-out of %s was not noted", user.name)
        await self.default_handle_logout()
        await self.handle_logout()
        self._jupyterhub_user = None
        self.set_header("Cache-Control", "no-store")
        self.finish(await self.render_template("logout.html", held=held))


def _leave(conn: Connection, user: str, now: datetime | None) -> tuple[list[tuple[Run, str]], bool]:
    """What somebody holds, after noting that they left at ``now``, if at all; and whether they have said that they leave."""
    if now is not None:
        store.signed_out(conn, user, now)
    grace_seconds = rules.read(conn).site.grace_seconds
    held = [
        (run, ask.policy_words(run.release_policy, translate, grace_seconds=grace_seconds))
        for run in records.list_runs(conn, user=user, limit=50)
        if run.stop_asked_at is None
    ]
    return held, store.has_signed_out(conn, user)


def signed_in(wiring: Any) -> Any:
    """``Authenticator.post_auth_hook``: whoever signs in is on the platform, unless they are blocked."""

    async def hook(authenticator: Any, handler: Any, model: Any) -> Any:
        check_sign_in(handler, model["name"])
        try:
            await wiring.database.run(store.seen_on_platform, model["name"], wiring.clock())
        except Exception:
            authenticator.log.exception("The sign-in of %s was not noted", model["name"])
        return model

    return hook
