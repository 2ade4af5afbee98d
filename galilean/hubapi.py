"""The hub, by its REST API: the only way in which our processes learn from it (never its database).

Acting for a visitor means a client made with the visitor's own token, so that the hub's RBAC decides.
What the hub refuses comes back as :class:`UserError` with the hub's own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from galilean import came_from
from galilean.errors import UserError, mark


class HubAPI:
    """A client for one token.

    Parameters
    ----------
    api_url
        Such as ``http://127.0.0.1:8081/hub/api``.
    token
        API or OAuth token; sent as a header only.
    client
        An ``httpx.AsyncClient`` to share connections over several tokens.
    """

    def __init__(self, api_url: str, token: str, client: httpx.AsyncClient | None = None) -> None:
        self.api_url = api_url.rstrip("/")
        self._token = token
        self._client = client or httpx.AsyncClient(
            timeout=30, limits=httpx.Limits(max_connections=20), trust_env=False
        )

    def signed(self, address: str, path: str) -> dict[str, str]:
        """A header that tells the hub where a person's request to ``path`` came from, by this token's owner."""
        return {came_from.HEADER: came_from.signed(address, path, self._token)}

    def as_person(self, token: str) -> HubAPI:
        """The same hub with another token, over the same connections."""
        return HubAPI(self.api_url, token, self._client)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        language: str = "",
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        **params: Any,
    ) -> httpx.Response:
        """One call; ``path`` is below ``/hub/api``. ``seconds`` = how long the answer may take; ``None`` = 30.

        Raises
        ------
        UserError
            With the hub's status, reason phrase and sentence for any answer ≥ 400; 503 when the hub does
            not answer at all.
        """
        sent = {"Authorization": f"token {self._token}", "Accept": "application/json", **(headers or {})}
        if language:
            sent["Accept-Language"] = language
        try:
            response = await self._client.request(
                method,
                self.api_url + path,
                json=json,
                params=params or None,
                headers=sent,
                timeout=httpx.USE_CLIENT_DEFAULT if seconds is None else seconds,
            )
        except httpx.TransportError as error:
            raise UserError(
                503,
                mark("The hub does not answer just now. Running clusters go on; try again in a few seconds."),
            ) from error
        if response.status_code >= 400:
            raise UserError(response.status_code, "{text}", reason=_reason(response), text=_message(response))
        return response

    async def user(self, name: str) -> dict[str, Any]:
        """The hub's model of a person."""
        return (await self.request("GET", f"/users/{quote(name, safe='')}")).json()

    async def users(self) -> list[dict[str, Any]]:
        """All people the token may list, page by page."""
        people: list[dict[str, Any]] = []
        offset = 0
        while True:
            page = (await self.request("GET", "/users", offset=offset, limit=200)).json()
            people += page
            if len(page) < 200:
                return people
            offset += 200

    async def start(
        self, user: str, server: str, options: dict[str, Any] | None, *, language: str = ""
    ) -> int:
        """Ask for a cluster: 201 it runs, 202 it is on its way."""
        body = None if options is None else {"user_options": options}
        path = f"/users/{quote(user, safe='')}/servers/{quote(server, safe='')}"
        return (await self.request("POST", path, json=body, language=language)).status_code

    async def stop(self, user: str, server: str, *, remove: bool = False) -> int:
        """Stop a cluster: 204 gone, 202 on its way. ``remove`` takes the hub's entry away too."""
        path = f"/users/{quote(user, safe='')}/servers/{quote(server, safe='')}"
        return (await self.request("DELETE", path, json={"remove": remove} if remove else None)).status_code

    async def add_to_group(self, group: str, user: str) -> None:
        """Put a person into a hub group (a role is the group ``galilean:<role>``)."""
        await self.request("POST", f"/groups/{quote(group, safe='')}/users", json={"users": [user]})

    async def remove_from_group(self, group: str, user: str) -> None:
        """Take a person out of a hub group."""
        await self.request("DELETE", f"/groups/{quote(group, safe='')}/users", json={"users": [user]})

    async def close(self) -> None:
        await self._client.aclose()


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.reason_phrase or f"HTTP {response.status_code}"
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or response.reason_phrase)
    return response.reason_phrase


def _reason(response: httpx.Response) -> str:
    phrase = response.reason_phrase
    if phrase in ("quota", "queued", "cancelled"):
        return phrase
    try:
        body = response.json()
    except ValueError:
        return ""
    found = body.get("reason") if isinstance(body, dict) else ""
    return found if isinstance(found, str) else ""
