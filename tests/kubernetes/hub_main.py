"""The hub that the Kubernetes tests start: JupyterHub, and beside it what finishes leftovers, as in the product."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import Any as AnyTrait

from spawner.leftovers import finish_leftovers
from spawner.renewing import attend_all

EVERY_SECONDS = 2


class LabHub(JupyterHub):
    """See the module."""

    name = "jupyterhub"
    collaborators: Any = AnyTrait(help="A spawner.collaborators.Collaborators.").tag(config=True)

    async def start(self) -> None:
        await super().start()
        self._finishing = asyncio.create_task(self._finish())
        self._renewing = asyncio.create_task(self._renew())

    async def _finish(self) -> None:
        while True:
            try:
                await finish_leftovers(self, self.collaborators.database)
            except Exception:
                self.log.exception("leftovers")
            await asyncio.sleep(EVERY_SECONDS)

    async def _renew(self) -> None:
        while True:
            try:
                await attend_all(self, self.collaborators.database)
            except Exception:
                self.log.exception("nodes that are made anew")
            await asyncio.sleep(0.3)


if __name__ == "__main__":
    LabHub.launch_instance()
