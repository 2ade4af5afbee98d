"""How the node's cluster stands, asked of the portal with the node's own token and kept while it is away.

Toolbars in JupyterLab speak to their node, and the node to the portal: never as the person, and only about its
own run (the portal's ``/api/v1/node/…``). One question serves all open pages of a language, however many tabs
there are. While the portal does not answer, what it said last is shown, marked as such: clusters go on
without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from spawner.node.place import Place, node_name, node_prefix

ASK_SECONDS = 15.0
#: Close to an end, and right after somebody asked for something.
SOON_SECONDS = 5.0
SOON_BEFORE_SECONDS = 90.0
#: For an answer that the portal has to wait for, 20 s at most.
PATIENT_SECONDS = 30.0
LANGUAGES = {"en": "en", "zh_CN": "zh-CN"}

#: ``fetch(method, path, body, language)`` → HTTP status and JSON; raises ``OSError`` when nobody answers.
Fetch = Callable[[str, str, Mapping[str, Any] | None, str], Awaitable[tuple[int, Any]]]


class Refused(Exception):
    """The portal said no, or nothing.

    Attributes
    ----------
    status, reason, message
        HTTP status, machine word, sentence for the person.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Standing:
    """Asks the portal and keeps its last word.

    Parameters
    ----------
    place
        Which node.
    fetch
        Speaks to the portal.
    own
        What the node alone knows: ``busy``, ``headless``.
    patient
        The same as ``fetch`` for what the portal has to wait for itself.
    """

    def __init__(
        self,
        place: Place,
        fetch: Fetch,
        own: Callable[[], Mapping[str, Any]],
        *,
        log: logging.Logger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patient: Fetch | None = None,
    ) -> None:
        self._place = place
        self._fetch = fetch
        self._patient = patient or fetch
        self._own = own
        self._log = log
        self._clock = clock
        self._said: dict[str, Mapping[str, Any]] = {}
        self._asked_at: dict[str, datetime] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.away = False

    @property
    def rank(self) -> int:
        """Which node this is."""
        return self._place.rank

    async def ask(self, language: str = "en") -> None:
        """Ask the portal how things stand; a question under way serves everybody. Never raises."""
        task = self._asking.get(language)
        if task is None:
            task = self._asking[language] = asyncio.create_task(self._ask(language))
            task.add_done_callback(lambda _: self._asking.pop(language, None))
        await asyncio.shield(task)

    async def _ask(self, language: str) -> None:
        query = urlencode(self._self())
        try:
            status, said = await self._fetch("GET", f"/api/v1/node/status?{query}", None, language)
        except Exception as error:  # whatever state the portal is in, the node goes on
            self._gone_away(error)
            return
        if status == 200:
            self._take(language, said)
        elif status >= 500 or status in (401, 403, 404):
            # Also a hub that cannot name the owner of a token just now looks like a refusal.
            self._gone_away(f"it answers {status}")
        elif status == 409:
            self._said[language] = {**self._said.get(language, {}), "state": "released", "ended": {"why": ""}}

    async def change(self, what: str, language: str = "en", **more: Any) -> None:
        """``extend``, ``when-done``, ``release``, ``restart`` or ``reset``.

        Raises
        ------
        Refused
            With the portal's own words, or 503 when it does not answer.
        """
        try:
            status, said = await self._fetch(
                "POST", f"/api/v1/node/{what}", {**self._self(), **more}, language
            )
        except Exception as error:
            self._gone_away(error)
            raise Refused(503, "portal-away", say(language, PORTAL_AWAY)) from None
        if status == 200:
            self._take(language, said)
            return
        if not 400 <= status < 500 or status in (401, 403, 404):
            raise Refused(503, "portal-away", say(language, PORTAL_AWAY))
        problem = said if isinstance(said, dict) else {}
        message = problem.get("detail") or problem.get("title") or say(language, PORTAL_AWAY)
        raise Refused(status, str(problem.get("reason", "")), str(message))

    async def losses(self, language: str = "en", node: int | None = None) -> Any:
        """What a release, or a reset of one node, would lose outside “work”; takes as long as the portal looks.

        Raises
        ------
        Refused
            503 when nobody can tell.
        """
        query = {**self._self(), **({} if node is None else {"node": node})}
        try:
            status, said = await self._patient(
                "GET", f"/api/v1/node/losses?{urlencode(query)}", None, language
            )
        except Exception as error:  # the person releases all the same
            self._log.info("What would be lost is not known: %s", error)
            status, said = 503, None
        if status != 200 or not isinstance(said, dict):
            raise Refused(503, "portal-away", say(language, PORTAL_AWAY))
        return said

    def status(self, language: str = "en") -> dict[str, Any]:
        """How things stand as far as is known, with what the node itself knows now."""
        place, now = self._place, self._clock()
        said = dict(self._said.get(language) or next(iter(self._said.values()), {}))
        if not said:
            said = {
                "state": None, "project": None, "portal_url": None, "size": None, "since": None,
                "held_seconds": None, "release": None, "extend": None, "warning": None, "use": None,
                "can": {"when_done": False, "release": False}, "loses": {}, "ended": None,
                "nodes": [
                    {
                        "rank": rank, "name": node_name(rank), "state": None,
                        "lab_url": node_prefix(place.prefix, rank) + "lab",
                        "terminal_url": node_prefix(place.prefix, rank) + "galilean/terminal",
                    }
                    for rank in range(place.nodes)
                ],
            }  # fmt: skip
        asked_at = self._asked_at.get(language)
        if said.get("held_seconds") is not None and asked_at and not said.get("ended"):
            said["held_seconds"] += max(0, int((now - asked_at).total_seconds()))
        return {
            **said,
            **self._own(),
            "now": now.isoformat(),
            "run": place.run,
            "language": LANGUAGES.get(language, "en"),
            "node": {"rank": place.rank, "name": place.name},
            "portal_away": self.away or not self._said,
            "asked_at": asked_at.isoformat() if asked_at else None,
        }

    def pause_seconds(self, language: str = "en") -> float:
        """When to ask again: sooner where something is about to happen."""
        said = self._said.get(language, {})
        at = (said.get("release") or {}).get("at")
        if said.get("ended") or said.get("warning"):
            return SOON_SECONDS
        if any(node.get("state") in ("starting", "restarting") for node in said.get("nodes") or ()):
            return SOON_SECONDS
        if at and (datetime.fromisoformat(at) - self._clock()).total_seconds() < SOON_BEFORE_SECONDS:
            return SOON_SECONDS
        return ASK_SECONDS

    def _self(self) -> dict[str, Any]:
        return {"server": self._place.server, "run": self._place.run, "rank": self._place.rank}

    def _take(self, language: str, said: Any) -> None:
        if self.away:
            self._log.info("The portal tells again how the cluster stands")
        self.away = False
        self._said[language] = said
        self._asked_at[language] = self._clock()

    def _gone_away(self, why: object) -> None:
        if not self.away:
            self._log.warning("The portal does not tell how the cluster stands: %s", why)
        self.away = True


PORTAL_AWAY = "The portal does not answer just now. Your cluster goes on; try again in a moment."


def say(language: str, message: str) -> str:
    """A sentence of the node's own in the person's language. Catalogues are read when first needed."""
    if language == "en":
        return message
    from galilean.i18n import translations

    return translations(language).gettext(message)


def language_of(cookie: str, accept_language: str, started: str = "en") -> str:
    """What the person chose in the portal, else what the browser asks for, else what the node started with."""
    if cookie in LANGUAGES:
        return cookie
    for part in accept_language.lower().split(",")[:20]:
        tag = part.strip()
        if tag.startswith("zh"):
            return "zh_CN"
        if tag.startswith("en"):
            return "en"
    return started if started in LANGUAGES else "en"


def http_fetch(portal_url: str, token: str, *, seconds: float = 10.0) -> Fetch:
    """Speaks to the portal with the node's own token, and waits so long for an answer."""

    async def fetch(method: str, path: str, body: Mapping[str, Any] | None, language: str) -> tuple[int, Any]:
        from tornado.httpclient import AsyncHTTPClient, HTTPRequest

        answer = await AsyncHTTPClient().fetch(
            HTTPRequest(
                portal_url + path,
                method=method,
                headers={
                    "Authorization": f"token {token}",
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                    "Accept-Language": LANGUAGES.get(language, "en"),
                },
                body=None if body is None else json.dumps(body),
                connect_timeout=5,
                request_timeout=seconds,
                follow_redirects=False,
            ),
            raise_error=False,
        )
        if answer.code == 599:
            raise ConnectionError(str(answer.error))
        try:
            return answer.code, json.loads(answer.body or b"null")
        except ValueError:
            return max(answer.code, 502), None

    return fetch
