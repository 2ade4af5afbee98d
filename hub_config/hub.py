"""The hub process: JupyterHub with our handlers, the accounts that wait, and what runs beside it.

What must see the hub's live objects runs here and nowhere else: spawner, proxy class, admission, the sample
of the proxy's activity, and the sweeper (which needs to know which starts are under way). Each is a short
step on the loop or a hop to a thread; nothing here blocks.

``python -m hub_config.launch`` starts it; its configuration is ``jupyterhub_config.py``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from traitlets import Any as AnyTrait

from galilean.settled import settle
from galilean.web.assets import AssetHandler
from galilean.web.jinja import site_assets
from galilean.web.quiet import hide_form_ids
from hub_config import groups_api, hub_database, people_api, port_shares
from hub_config.api import handlers
from hub_config.blocked import keep_out
from hub_config.notes import never_deny_for_a_note
from hub_config.role_sync import apply
from hub_config.secrets import waiting_accounts
from hub_config.sign_out import SignOutHandler
from hub_config.told import SETTING, tell_of_calls

CONFIG_FILE = Path(__file__).parent / "jupyterhub_config.py"


class ToPortal(BaseHandler):
    """Pages of the hub that a person would miss the portal on."""

    def get(self, user: str = "", server: str = "") -> None:
        portal = self.settings["template_vars"]["portal_url"]
        self.redirect(portal + (f"projects/{quote(user)}/{quote(server)}" if server else ""))


class GalileanHub(JupyterHub):
    """See the module."""

    name = "jupyterhub"
    wiring = AnyTrait(help="A hub_config.wiring.Wiring: settings, database, chores.").tag(config=True)

    def init_handlers(self) -> None:
        never_deny_for_a_note()
        keep_out()
        tell_of_calls()
        super().init_handlers()
        ours = [
            (r"/galilean/(.*)", AssetHandler, {"assets": site_assets()}),
            (r"/home", ToPortal),
            (r"/spawn", ToPortal),
            (r"/spawn/([^/]+)", ToPortal),
            (r"/spawn/([^/]+)/([^/]+)", ToPortal),
            *people_api.handlers(self.wiring),
            *groups_api.handlers(self.wiring),
            *port_shares.handlers(self.wiring),
            (r"/logout", SignOutHandler, {"wiring": self.wiring}),
            *handlers(self.wiring),
        ]
        self.handlers[:0] = self.add_url_prefix(self.hub_prefix, ours)

    def init_tornado_settings(self) -> None:
        super().init_tornado_settings()
        self.tornado_settings[SETTING] = self.wiring

    def init_db(self) -> None:
        hub_database.upgrade(self.db_url)  # else the hub refuses tables of an older JupyterHub
        super().init_db()

    async def init_users(self) -> None:
        await super().init_users()
        authenticator: Any = self.authenticator
        keep = getattr(authenticator, "keep_password", None)
        self._made: list[Path] = []
        for path, account in waiting_accounts(self.wiring.settings.state):
            # A password that was changed since is not set back; the group comes by load_groups.
            if keep and (account.replace or authenticator.get_user(account.name) is None):
                keep(authenticator.normalize_username(account.name), account.password_hash.encode("ascii"))
            self._made.append(path)

    async def init_role_assignment(self) -> None:
        await super().init_role_assignment()
        apply(self.db, self.wiring.following.rights)

    async def start(self) -> None:
        await self._until_the_proxy_answers()
        await super().start()
        for path in self._made:  # not before: their roles are in the database only now
            path.unlink(missing_ok=True)
        chores = self.wiring.chores(self)
        self._chores = [asyncio.create_task(chore.run(self.log)) for chore in chores]

    async def _until_the_proxy_answers(self) -> None:
        """The hub by itself gives up after half a minute; started again and again it would wait ever longer.

        A proxy that refuses the hub's token is an error at once.
        """
        while not self.proxy.should_start:
            try:
                await self.proxy.get_all_routes()
            except TimeoutError:
                self.log.warning("The proxy at %s does not answer; waiting for it", self.proxy.api_url)
            else:
                return


def main() -> None:
    # The first process of a container is not ended by a signal that it does not handle, and the hub handles
    # none until it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    hide_form_ids()
    settle()
    GalileanHub.launch_instance([f"--config={CONFIG_FILE}"])
