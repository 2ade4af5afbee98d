"""A live site for the tests of the API and of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.portal.live import LiveSite

Client = httpx.Client
Sign = Callable[..., httpx.Client]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """A portal with alice (researcher), bob (student), root (admin) and nobody (no role)."""
    live = LiveSite(tmp_path / "state")
    live.hub.add("alice", "researcher")
    live.hub.add("bob", "student")
    live.hub.add("root", "admin")
    live.hub.add("nobody")
    with live:
        yield live


@pytest.fixture
def sign(site: LiveSite) -> Iterator[Sign]:
    """``sign("alice")`` is a client with a token of hers; relative addresses are the API's."""
    clients: list[httpx.Client] = []

    def make(name: str, *, scopes: list[str] | None = None, language: str = "en") -> httpx.Client:
        client = httpx.Client(
            base_url=site.url + "api/v1",
            headers={"Authorization": f"token {site.hub.token(name, scopes)}", "Accept-Language": language},
            timeout=90,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def made(client: httpx.Client, name: str = "Heat flow", **more: object) -> dict[str, str]:
    """A new project of the client's person."""
    answer = client.post("/projects", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()
