"""A claim looked at on machines, for the portal and the commands (``POST /hub/api/galilean/look``; CG-37).

The hub is the only part that may make pods. It is asked with the names of claim, volume and machines alone; image and
account are those of nodes. Whoever asks needs the scope ``custom:galilean:look``, which they alone have.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import aiohttp
from jupyterhub.apihandlers.base import APIHandler
from tornado import web
from ulid import ULID

from galilean.errors import UserError, mark
from galilean.web.language import translate
from hub_config.roles import LOOK_SCOPE
from services.catalog.volumes import MARK
from spawner.asking import refusal

MACHINES_MOST = 1000


class LookAPIHandler(APIHandler):
    """Names in, ``{machine: {problem, why}}`` out."""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def post(self) -> None:
        # Not by needs_scope, which wants to know the scope before the configuration has made it.
        if LOOK_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires {LOOK_SCOPE}")
        body: Any = self.get_json_body() or {}
        body = body if isinstance(body, dict) else {}
        claim, volume, machines = (body.get(name) for name in ("claim", "volume", "machines"))
        if not (
            isinstance(claim, str)
            and isinstance(volume, str)
            and isinstance(machines, list)
            and all(isinstance(machine, str) for machine in machines)
            and len(machines) <= MACHINES_MOST
        ):
            raise web.HTTPError(400, "claim, volume and machines are names")
        try:
            self.finish(await self._look(claim, volume, machines))
        except UserError as error:
            raise refusal(error, translate) from error

    def _image(self) -> str:
        """Of nodes: the site's, else that of any environment; the settings see to it that there is one."""
        settings = self.wiring.settings
        of_environments = [one.image for one in settings.environments.values() if one.image]
        return settings.kubernetes.image or of_environments[0]

    async def _look(self, claim: str, volume: str, machines: list[str]) -> dict[str, Any]:
        if self.wiring.settings.backend != "kubernetes":
            raise UserError(400, mark("Machines are looked at one by one on Kubernetes only."))
        from kubespawner.clients import load_config

        from spawner.kubernetes import look
        from spawner.kubernetes.api import APIError, KubeAPI

        kube, traits = self.wiring.settings.kubernetes, self.settings["config"].KubeCluster
        load_config()
        api = KubeAPI(kube.namespace)
        try:
            found = await look.look(
                api,
                look.Claim(
                    claim=claim,
                    mark=MARK,
                    volume=volume,
                    image=self._image(),
                    pull_policy=kube.image_pull_policy,
                    pull_secrets=kube.image_pull_secrets,
                    uid=int(traits.get("uid", 1000)),
                    gid=int(traits.get("gid", 1000)),
                ),
                machines,
                look_id=str(ULID()).lower(),
            )
        except (APIError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UserError(
                503, mark("Kubernetes does not answer just now: {problem}"), problem=str(error)[:200]
            ) from error
        finally:
            await api.close()
        return {machine: asdict(seen) for machine, seen in found.items()}
