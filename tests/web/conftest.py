"""A portal with a fake hub, and a client that behaves like a browser without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.web.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "state") as running:
        running.hub.add("alice", "researcher")
        running.hub.add("maria", "admin")
        running.hub.add("newcomer")
        yield running


class Visitor(httpx.Client):
    """A browser without scripts: keeps cookies, follows redirects, tells what a browser tells."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(
            base_url=site.url, follow_redirects=True, timeout=60, headers={"Sec-Fetch-Mode": "navigate"}
        )
        site.hub.whoever = name
        self.site = site

    def xsrf(self) -> str:
        """The token that a page hands to its scripts."""
        text = self.get("").text
        return text.split('name="galilean-xsrf" content="', 1)[1].split('"', 1)[0]

    def script(self, method: str, path: str, **more: object) -> httpx.Response:
        """A request as the page's own scripts send it."""
        headers = {"HX-Request": "true", "Sec-Fetch-Mode": "cors", "X-XSRFToken": self.xsrf()}
        return self.request(method, path, headers=headers, **more)  # type: ignore[arg-type]


@pytest.fixture
def alice(site: Site) -> Iterator[Visitor]:
    with Visitor(site, "alice") as visitor:
        visitor.get("")
        yield visitor


@pytest.fixture
def maria(site: Site) -> Iterator[Visitor]:
    with Visitor(site, "maria") as visitor:
        visitor.get("")
        yield visitor


def token_client(site: Site, name: str, scopes: list[str] | None = None) -> httpx.Client:
    """A script with an API token."""
    token = site.hub.token(name, scopes)
    return httpx.Client(base_url=site.url, headers={"Authorization": f"token {token}"}, timeout=60)
