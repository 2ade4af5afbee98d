"""An address of a service that only the portal may ask.

A service has little to say to anybody else; what it is asked, it is asked by the portal, for somebody whose rights the
portal has looked at. Whoever asks proves to be the portal with the portal's own token, which the hub names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from tornado.web import RequestHandler

from galilean.errors import UserError, mark
from galilean.service import Context

log = logging.getLogger("galilean.service")


class PortalAsks(RequestHandler):
    """Answers a POST of the portal with JSON; a heir says what, and with what words it could not.

    Attributes
    ----------
    unanswered
        What is said (503) when the answer failed for a reason that only the log may have.
    """

    unanswered: str

    def initialize(self, context: Context) -> None:
        self.context = context

    async def answer(self, body: Any) -> Mapping[str, Any]:
        """The answer to a body; ``ValueError``, ``KeyError`` and ``TypeError`` say that it is none of the portal's."""
        raise NotImplementedError

    async def post(self) -> None:
        try:
            await self._check()
            answer = await self.answer(json.loads(self.request.body))
        except UserError as error:
            self._refuse(error)
        except (ValueError, KeyError, TypeError):
            self._refuse(UserError(400, mark("This is not a request of the portal.")))
        except Exception:
            log.exception("%s: no answer", self.request.path)
            self._refuse(UserError(503, self.unanswered))
        else:
            self.finish(dict(answer))

    async def _check(self) -> None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "token" or not token:
            raise UserError(401, mark("Only the portal may ask for this."))
        model = (await self.context.hub.as_person(token).request("GET", "/user")).json()
        if model.get("kind") != "service" or model.get("name") != "portal":
            raise UserError(403, mark("Only the portal may ask for this."))

    def _refuse(self, error: UserError) -> None:
        self.set_status(error.status)
        self.finish({**error.as_dict(), "reason": error.reason})
