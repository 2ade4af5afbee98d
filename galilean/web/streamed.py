"""Requests whose body is refused, or dropped, while it is still on its way.

A server that answers and closes the connection while its client is sending loses the answer: what arrives
after the close makes the system reset the connection, and whoever is in the middle (our own proxy) tells the
sender of a broken server instead. So a refusal is *answered at once*, whole, and the rest of the body is
then read and dropped for a while before anything is closed. Whoever reads while sending stops early; whoever
sends everything first finds the answer afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tornado.escape import json_encode
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.handlers import APIHandler
from galilean.web.problems import MEDIA_TYPE, plain

ANY_SIZE = 2**62
#: What is dropped after a refusal: of people whom we know, and of strangers.
DROPPED_BYTES, DROPPED_SECONDS = 2**30, 600.0
STRANGERS_BYTES, STRANGERS_SECONDS = 64 * 2**20, 60.0


def content_length(request: HTTPServerRequest) -> int | None:
    """How many bytes of body are announced, 0 when none are; ``None`` when it is no number that can be."""
    text = request.headers.get("Content-Length", "0").partition(",")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@stream_request_body
class StreamedHandler(APIHandler):
    """A handler that sees its body come in.

    Subclasses put into :meth:`begin` what would be in ``prepare`` and into :meth:`body_piece` what would be in
    ``data_received``; both may raise. Methods are called when the body is in, unless it was refused.
    """

    #: Whether the answer was given before the body was in.
    refused = False
    _received_bytes = 0
    _dropped_bytes = 0
    _enough: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Before the first byte; raise to refuse."""
        await super().prepare()

    async def body_piece(self, piece: bytes) -> None:
        """One piece of the body; raise to refuse the rest."""

    async def prepare(self) -> None:
        language.current.set(language.language_of(self.request, default=self.portal.settings.site.language))
        # How much is taken is decided by us and answered in words, not by a bare 400 of the server's.
        connection: Any = self.request.connection
        connection.set_max_body_size(ANY_SIZE)
        try:
            await self.begin()
        except Exception as error:
            await self._refuse(error)

    async def data_received(self, chunk: bytes) -> None:
        self._received_bytes += len(chunk)
        if self.refused:
            self._dropped_bytes += len(chunk)
            if self._dropped_bytes > self._most()[0] and not self._finished:
                self.finish()  # closes, too: the body is not in
            return
        try:
            await self.body_piece(chunk)
        except Exception as error:
            await self._refuse(error)

    def _has_body(self) -> bool:
        return "Transfer-Encoding" in self.request.headers or content_length(self.request) != 0

    def _most(self) -> tuple[int, float]:
        if getattr(self, "person", None) is not None:
            return DROPPED_BYTES, DROPPED_SECONDS
        return STRANGERS_BYTES, STRANGERS_SECONDS

    async def _refuse(self, error: Exception) -> None:
        if not self._has_body():
            raise error
        # The server would say "continue" after the answer.
        self.request.headers.pop("Expect", None)
        self.refused = True
        status = error.status_code if isinstance(error, HTTPError) else 500
        problem = self.problem(status, error)
        text = json_encode(plain(problem)).encode()
        self.clear()
        self.set_status(problem.status, problem.title)
        self.set_header("Content-Type", MEDIA_TYPE)
        self.set_header("Content-Length", str(len(text)))
        self.write(text)
        with contextlib.suppress(StreamClosedError):
            await self.flush()
        self._enough = asyncio.get_running_loop().call_later(self._most()[1], self._stop)

    def _stop(self) -> None:
        if not self._finished:
            self.finish()

    def on_connection_close(self) -> None:
        self._cancel()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._cancel()
        super().on_finish()

    def _cancel(self) -> None:
        if self._enough is not None:
            self._enough.cancel()

    async def _nothing(self, *_: str) -> None:
        if not self.refused:
            raise HTTPError(405)

    get = post = put = patch = delete = _nothing  # type: ignore[assignment]


class TooLarge(StreamedHandler):
    """Takes the place of a handler whose body would be larger than it takes."""

    anonymous = True

    async def begin(self) -> None:
        raise UserError(413, mark("The request is larger than what is taken here."))
