"""What is public, narrowed down: by environment, which the page offers where there is a choice."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

TWO = """
environments:
  jupyter: {title: Jupyter}
  torch: {title: PyTorch 2}
"""


def found(client: httpx.Client, **query: str) -> list[str]:
    answer = client.get("/explore", params=query)
    assert answer.status_code == 200, answer.text
    return sorted(item["name"] for item in answer.json()["items"])


def test_only_projects_of_the_environment_are_found_by_api_and_page(tmp_path: Path) -> None:
    with LiveSite(tmp_path / "state", TWO) as site:
        site.hub.add("alice", "researcher")
        headers = {"Authorization": f"token {site.hub.token('alice')}"}
        with httpx.Client(base_url=site.url + "api/v1", headers=headers, timeout=120) as alice:
            for name, environment in (
                ("Heat", "jupyter"),
                ("Learning to see", "torch"),
                ("Learning", "jupyter"),
            ):
                project = made(alice, name, environment=environment)
                answer = alice.put(f"/projects/alice/{project['slug']}/publication")
                assert answer.status_code == 204, answer.text
            assert found(alice, environment="torch") == ["Learning to see"]
            assert found(alice, environment="jupyter", q="learning") == ["Learning"]
            assert found(alice, environment="gone") == []
            page = alice.get(site.url + "explore", params={"environment": "torch"}).text
            assert re.findall(r'class="clamp"[^>]*>([^<]+)<', page) == ["Learning to see"]
            assert re.search(r'<option value="torch" selected>PyTorch 2</option>', page)


def test_one_environment_is_no_choice(site: LiveSite, sign: Sign) -> None:
    assert 'name="environment"' not in sign("bob").get(site.url + "explore").text
