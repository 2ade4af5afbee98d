"""Requests whose body is refused while it is still on its way.

A server that answers and closes the connection while its client is sending loses the answer: what arrives
after the close makes the system reset the connection, and whoever is in the middle (our own proxy) tells the
sender of a broken server instead. Nor may the answer simply come early: Node.js, in which the proxy is
written, sends no more of a request whose answer is complete, and its client waits until it is cut off.

So what is still on its way is read and dropped, and answered when it is in. When that takes too long, the
answer says that the connection ends, and what comes is dropped for some seconds more, until the proxy has
read the answer and ends the connection itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tornado.escape import json_encode
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, stream_request_body

from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.handlers import APIHandler
from galilean.web.problems import MEDIA_TYPE, plain

ANY_SIZE = 2**62
#: How much is waited for before a refusal is answered.
DROPPED_BYTES, DROPPED_SECONDS = 64 * 2**20, 30.0
#: The same for whoever asks first whether to send, which a proxy does not wait for.
ASKED_SECONDS = 1.0
#: How long a connection is kept after the answer, for whoever is between us and the sender.
LINGER_SECONDS = 5.0


def content_length(request: HTTPServerRequest) -> int | None:
    """How many bytes of body are announced, 0 when none are; ``None`` when it is no number that can be."""
    text = request.headers.get("Content-Length", "0").partition(",")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@stream_request_body
class StreamedHandler(APIHandler):
    """A handler that sees its body come in.

    Subclasses put into :meth:`begin` what would be in ``prepare`` and into :meth:`body_piece` what would be in
    ``data_received``; both may raise. Methods are called when the body is in, and begin with :meth:`admitted`.
    """

    _refusal: Exception | None = None
    _answered = False
    _dropped_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Before the first byte; raise to refuse."""
        await super().prepare()

    async def body_piece(self, piece: bytes) -> None:
        """One piece of the body; raise to refuse the rest."""

    def admitted(self) -> None:
        """Raise what was raised while the body came in."""
        if self._refusal is not None:
            raise self._refusal

    async def prepare(self) -> None:
        language.current.set(language.language_of(self.request, default=self.portal.settings.site.language))
        # How much is taken is decided by us and answered in words, not by a bare 400 of the server's.
        connection: Any = self.request.connection
        connection.set_max_body_size(ANY_SIZE)
        try:
            await self.begin()
        except Exception as error:
            # Not raised here, even if there is no body: the server would close the connection after the answer
            # without saying so in it, and the proxy would send its next request into the void.
            self._refuse(error)

    async def data_received(self, chunk: bytes) -> None:
        if self._refusal is None:
            try:
                await self.body_piece(chunk)
            except Exception as error:
                self._refuse(error)
            return
        self._dropped_bytes += len(chunk)
        if self._dropped_bytes > DROPPED_BYTES:
            self._answer_now()

    def _refuse(self, error: Exception) -> None:
        self._refusal = error
        # The server must not say "continue" any more.
        asked = self.request.headers.pop("Expect", None)
        self._later(ASKED_SECONDS if asked else DROPPED_SECONDS, self._answer_now)

    def _answer_now(self) -> None:
        if self._answered or self._finished:
            return
        self._answered = True
        error = self._refusal
        problem = self.problem(error.status_code if isinstance(error, HTTPError) else 500, error)
        text = json_encode(plain(problem)).encode()
        self.clear()
        self.set_status(problem.status, problem.title)
        self.set_header("Content-Type", MEDIA_TYPE)
        self.set_header("Content-Length", str(len(text)))
        self.set_header("Connection", "close")
        self.write(text)
        self.flush()
        self._later(LINGER_SECONDS, self._end)

    def _end(self) -> None:
        if not self._finished:
            self.finish()  # and close: the body is not in

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._forget()
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _handle_request_exception(self, error: BaseException) -> None:
        if not self._answered:  # else it is what was answered already
            super()._handle_request_exception(error)
        elif not self._finished:
            self.finish()

    def on_connection_close(self) -> None:
        self._forget()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._forget()
        super().on_finish()

    async def _nothing(self, *_: str) -> None:
        self.admitted()
        raise HTTPError(405)

    get = post = put = patch = delete = _nothing  # type: ignore[assignment]


class TooLarge(StreamedHandler):
    """Takes the place of a handler whose body would be larger than it takes."""

    anonymous = True

    async def begin(self) -> None:
        raise UserError(413, mark("The request is larger than what is taken here."))
