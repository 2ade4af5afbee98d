"""The live meter on the hub's own pages: what it carries, and who may have it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.web.conftest import Visitor
from tests.web.site import Site

PAGE = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
SUBDOMAINS = "web:\n  subdomain_host: https://hub.example.edu\n"


def first_meter(visitor: httpx.Client, headers: dict[str, str]) -> tuple[httpx.Response, str]:
    """The answer, and the meter's HTML that the stream begins with; empty where it is refused."""
    with visitor.stream("GET", "meter-beside", headers=headers) as answer:
        if answer.status_code != 200:
            return answer, ""
        for line in answer.iter_lines():
            if line.startswith("data: "):
                return answer, json.loads(line[6:])
    return answer, ""


def test_a_page_of_the_hub_gets_the_meter_at_once_and_after_each_change(site: Site, alice: Visitor) -> None:
    with alice.stream("GET", "meter-beside", headers=PAGE) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        meters = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
        assert "Nothing running" in next(meters)
        while site.portal.parts["watcher"]._known is None:
            time.sleep(0.02)
        site.cluster("bob")
        site.cluster("alice", "Heat flow")
        held = next(meters)
    assert "1 cluster" in held
    assert "data-since=" in held, "the held time goes on by itself"
    assert 'href="/services/portal/"' in held
    assert "hx-" not in held, "nothing is changed from a page that has no token for it"


def test_what_is_held_is_its_persons_alone_and_said_in_their_language(site: Site, alice: Visitor) -> None:
    site.cluster("bob")
    assert "Nothing running" in first_meter(alice, PAGE)[1]
    assert "没有运行" in first_meter(alice, {**PAGE, "Accept-Language": "zh-CN"})[1]
    with Visitor(site, "newcomer") as newcomer:
        newcomer.get("")
        assert first_meter(newcomer, PAGE)[1] == "", "whoever has no role holds nothing and sees no meter"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site", "Origin": "https://bob.hub.example.edu"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {},
    ],
)
def test_no_other_page_can_have_it_or_keep_its_reader_on_the_platform(
    alice: Visitor, headers: dict[str, str]
) -> None:
    answer, meter = first_meter(alice, {"Sec-Fetch-Mode": "cors", **headers})
    assert (answer.status_code, meter) == (401, "")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_with_hosts_of_their_own_the_hubs_origin_may_read_it_and_nobody_elses(tmp_path: Path) -> None:
    with Site(tmp_path / "state", SUBDOMAINS) as site:
        site.hub.add("alice", "researcher")
        token = site.hub.token("alice")
        with httpx.Client(
            base_url=site.url, headers={"Authorization": f"token {token}"}, timeout=120
        ) as alice:
            origin = site.portal.hub_host = "https://hub.example.edu"
            answer, meter = first_meter(alice, {"Origin": origin})
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert answer.headers["Vary"] == "Origin"
            assert "https://portal--service.hub.example.edu/services/portal/" in meter
            for other in (
                "https://bob.hub.example.edu",
                "http://hub.example.edu",
                "null",
                "https://hub.example.edu.evil",
            ):
                answer, _ = first_meter(alice, {"Origin": other})
                assert "Access-Control-Allow-Origin" not in answer.headers, other


def test_whoever_is_not_signed_in_at_the_portal_gets_no_meter_and_no_way_round(site: Site) -> None:
    answer, _ = first_meter(httpx.Client(base_url=site.url), PAGE)
    assert answer.status_code == 401
