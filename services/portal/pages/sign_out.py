"""Signing out is leaving at once (CG-30): what goes back when is said, and can be chosen, before it happens.

Whoever holds nothing is signed out without a question. The moment is noted here, by a form that no other page can
send; then the hub does the signing out, also where somebody goes to its address directly (:mod:`hub_config.sign_out`).
"""

from __future__ import annotations

import logging
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import losses
from services.portal.api.clusters import release_cluster
from services.portal.frame import mine_for
from services.portal.held import ClusterView
from services.portal.longer import go_on_without
from services.release import ask, store

log = logging.getLogger("galilean.portal")

CHOICES = ("policy", "now", "when-done")


class SignOut(PageHandler):
    async def get(self) -> None:
        mine = await mine_for(self)
        if not mine.clusters:
            self.redirect(self.portal.hub_url + "logout")
            return
        await self.render_page(
            "sign_out.html",
            clusters=[(view, self._words(view, mine.grace_seconds)) for view in mine.clusters],
            losses_of={view.run.id: losses.address(self.portal, view.run) for view in mine.clusters},
        )

    def _words(self, view: ClusterView, grace_seconds: int) -> str:
        policy = view.run.release_policy
        if policy == "auto":
            return self.translate(mark("Goes back as soon as you sign out"))
        if policy == "auto-when-done":
            return self.translate(mark("Goes back as soon as nothing runs there any more"))
        return ask.policy_words(policy, self.translate, grace_seconds=grace_seconds)

    async def post(self) -> None:
        mine = await mine_for(self)
        for view in mine.clusters:
            choice = self.get_body_argument(f"run-{view.run.id}", "policy")
            if choice not in CHOICES:
                raise UserError(400, mark("Choose what happens to each cluster."))
            if choice == "now":
                await release_cluster(
                    self.portal, self.person, self.hub_as_visitor(), view.run, address=self.address
                )
            elif choice == "when-done":
                await go_on_without(self.portal, self.person, view.run)
        self.portal.parts["seen"].forget(self.person.name)
        try:
            await self.portal.db.run(store.signed_out, self.person.name, self.portal.clock())
        except Exception as error:  # nobody stays signed in because of it; the policies take their course
            log.warning("The sign-out of %s was not noted: %s", self.person.name, error)
        self.redirect(self.portal.hub_url + "logout", status=303)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/sign-out", SignOut)]
