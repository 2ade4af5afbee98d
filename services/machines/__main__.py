"""``python -m services.machines``: the machines service.

Besides the loop it has one address for the portal: ``POST /join`` answers the command with which a machine
joins. Every process of the service answers it, whoever has the lease. Whoever asks proves to be the portal
with the portal's own token, which the hub names.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from tornado.web import RequestHandler

from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.service import Context, Tick, run_service
from services.machines.keeper import Keeper, add_machine
from services.machines.notify import MailPost
from services.machines.the_settings import pools_in, world_in

INTERVAL_SECONDS = 5.0
log = logging.getLogger("galilean.machines")


class Join(RequestHandler):
    """Makes tickets for the portal."""

    def initialize(self, context: Context) -> None:
        self.context = context

    async def post(self) -> None:
        try:
            await self._check()
            body = json.loads(self.request.body)
            made = await add_machine(
                self.context.db,
                self.context.parts["world"],
                name=str(body["name"]),
                pool=str(body["pool"]),
                asked_by=str(body["asked_by"]),
                minutes=self.context.settings.machines.token_minutes,
                clock=self.context.clock,
            )
        except UserError as error:
            self._refuse(error)
        except (ValueError, KeyError, TypeError):
            self._refuse(UserError(400, mark("This is not a request of the portal.")))
        except Exception:
            log.exception("a ticket could not be made")
            self._refuse(
                UserError(503, mark("The machines' side does not answer just now. Try again in a moment."))
            )
        else:
            self.finish(made)

    async def _check(self) -> None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "token" or not token:
            raise UserError(401, mark("Only the portal may ask for this."))
        hub = HubAPI(self.context.hub.api_url, token, self.context.hub._client)
        model = (await hub.request("GET", "/user")).json()
        if model.get("kind") != "service" or model.get("name") != "portal":
            raise UserError(403, mark("Only the portal may ask for this."))

    def _refuse(self, error: UserError) -> None:
        self.set_status(error.status)
        self.finish({**error.as_dict(), "reason": error.reason})


def build(context: Context) -> Tick:
    """The tick of this service."""
    context.parts["world"] = world = world_in(context.settings, context.clock)
    return Keeper(
        context.db,
        world,
        pools_in(context.settings),
        post=MailPost(context.settings, context.hub),
        clock=context.clock,
        registry=context.registry,
        details=context.details,
    ).tick


def routes(context: Context) -> list[Any]:
    """Addresses of this service besides ``/health`` and ``/metrics``."""
    return [(r"/join", Join, {"context": context})]


if __name__ == "__main__":
    run_service("machines", build, interval_seconds=INTERVAL_SECONDS, routes=routes)
