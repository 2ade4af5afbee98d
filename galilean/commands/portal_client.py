"""The portal from the command line: as a person, with a token of theirs.

What a command does for a person it does by the REST API, so that it may exactly what they may, from any machine.
The token stands in ``GALILEAN_TOKEN`` and nowhere else: words of a command are read by everybody on a machine.
``GALILEAN_SITE`` says which installation; without it, the one whose settings this machine has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from galilean.errors import UserError, mark
from galilean.terminal import terminal_language

TOKEN, SITE = "GALILEAN_TOKEN", "GALILEAN_SITE"
PORTAL = "services/portal/"
HERE = ("localhost", "127.0.0.1", "::1")


def portal_address(text: str) -> str:
    """The portal of a site, with a slash at the end; ``text`` is the site's address or the portal's.

    Raises
    ------
    UserError
        400 for what is no address of the web.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            400, mark("“{site}” is no address of a site, such as https://hub.example.edu/."), site=text[:200]
        )
    address = text.rstrip("/") + "/"
    return address if address.endswith("/" + PORTAL) else address + PORTAL


class PortalClient:
    """A person's requests to a portal.

    Parameters
    ----------
    portal
        Its address, as :func:`portal_address` gives it.
    token
        Of the person; sent as a header only, and to this portal only.
    transport
        How requests go out; ``None`` = over the network.
    """

    def __init__(self, portal: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.portal = portal
        # A proxy for the web does not know this machine's own addresses.
        self._http = httpx.Client(
            timeout=httpx.Timeout(300, connect=20),
            transport=transport,
            trust_env=urlsplit(portal).hostname not in HERE,
            headers={
                "Authorization": f"token {token}",
                "Accept-Language": terminal_language(os.environ).replace("_", "-"),
            },
        )

    @property
    def root(self) -> str:
        """Scheme, name and port, as addresses in answers begin after."""
        parts = urlsplit(self.portal)
        return f"{parts.scheme}://{parts.netloc}"

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One call; ``path`` is below ``/api/v1``, or an absolute path of the site.

        Raises
        ------
        UserError
            With the portal's own sentence for an answer ≥ 400; 503 when nothing answers.
        """
        address = self.portal + "api/v1" + path if not path.startswith("//") else self.root + path[1:]
        try:
            answer = self._http.request(
                method, address, json=json, content=content, headers=headers, params=params
            )
        except httpx.TransportError as error:
            raise UserError(
                503, mark("{site} does not answer: {why}."), site=self.portal, why=str(error)
            ) from error
        if answer.status_code >= 400:
            raise refusal(answer)
        if answer.status_code >= 300:
            raise UserError(
                502, mark("{site} is not the portal of a Galilean: set {name}."), site=self.portal, name=SITE
            )
        return answer

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def __enter__(self) -> PortalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refusal(answer: httpx.Response) -> UserError:
    """What the portal said, as it said it."""
    try:
        told = answer.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    text = str(told.get("detail") or f"{answer.status_code} {answer.reason_phrase}")
    return UserError(answer.status_code, "{text}", reason=str(told.get("reason") or ""), text=text)


def from_environment(environ: Mapping[str, str], here: Callable[[], str]) -> PortalClient:
    """The portal and the person that the environment names; ``here`` gives this machine's own.

    Raises
    ------
    UserError
        401 without a token.
    """
    token = environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            401,
            mark(
                "Whose? Put a token into {name}: your name → Token in the browser, or `galilean token NAME`."
            ),
            name=TOKEN,
        )
    return PortalClient(portal_address(environ.get(SITE, "").strip() or here()), token)


def path_of(kind: str, address: str) -> str:
    """``/projects/alice/heat-flow`` of ``alice/heat-flow``.

    Raises
    ------
    UserError
        400 for anything but owner and slug.
    """
    owner, slash, slug = address.strip().strip("/").partition("/")
    if not (owner and slash and slug) or "/" in slug:
        raise UserError(
            400,
            mark("Name it as owner/slug, as its address in the browser ends; “{text}” is not so."),
            text=address[:200],
        )
    return f"/{kind}/{quote(owner, safe='')}/{quote(slug, safe='')}"
