"""Signing out at the hub is leaving at once (CG-30), and signing in is being there again.

The moment is noted for the release service, wherever the sign-out came from: the portal's page, the menu of a
page of the hub, or the address itself. A link on somebody else's site signs out as it always did, and releases
nothing. The page afterwards says what goes back when; it is the last that this browser sees of the person.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyterhub.handlers.login import LogoutHandler
from sqlalchemy import Connection

from galilean.web.language import translate
from hub_config.blocked import check_sign_in
from services.release import ask, rules, store
from spawner import records
from spawner.records import Run


class SignOutHandler(LogoutHandler):
    """``/hub/logout``."""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def get(self) -> None:
        user: Any = self.get_current_user_cookie()
        held: list[tuple[Run, str]] = []
        if user is not None and self.request.headers.get("Sec-Fetch-Site") != "cross-site":
            try:
                held = await self.wiring.database.run(_leave, user.name, self.wiring.clock())
            except Exception:
                # Nobody stays signed in because our database is away; the policies take their course.
                self.log.exception("The sign-out of %s was not noted", user.name)
        await self.default_handle_logout()
        await self.handle_logout()
        self._jupyterhub_user = None
        self.set_header("Cache-Control", "no-store")
        self.finish(await self.render_template("logout.html", held=held))


def _leave(conn: Connection, user: str, now: datetime) -> list[tuple[Run, str]]:
    store.signed_out(conn, user, now)
    grace_seconds = rules.read(conn).site.grace_seconds
    return [
        (run, ask.policy_words(run.release_policy, translate, grace_seconds=grace_seconds))
        for run in records.list_runs(conn, user=user, limit=50)
        if run.stop_asked_at is None
    ]


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
