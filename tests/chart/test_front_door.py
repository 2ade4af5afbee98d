"""The chart for trying out, on SQLite and with a host for each person, behind a real ingress controller.

People come to one port of the controller by the names of the site and of each person, with an Ingress and then
with a route of the Gateway API; what they do there is what they do everywhere.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import CHROMIUM, PATIENCE_MS
from tests.chart.installed import Installed
from tests.chart.restoring import backed_up_and_restored
from tests.lab.ingress import CLASS, GATEWAY, front_door
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import wait_for
from tests.product.product import Person
from tests.product.split import DOMAIN, ByHost, address, host_of
from tests.product.test_subdomains import RUN_CELL, sign_in

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]

#: Values of the chart for each way in.
WAYS = {
    "ingress": {"ingress": {"enabled": True, "className": CLASS}, "gateway": {"enabled": False}},
    "gateway": {"ingress": {"enabled": False}, "gateway": {"enabled": True, "parentRefs": [GATEWAY]}},
}


@pytest.fixture(scope="module")
def port(kubernetes: Kubernetes, place: Path) -> Iterator[int]:
    with front_door(kubernetes, place / "front") as port:
        yield port


@pytest.fixture(scope="module")
def site(kubernetes: Kubernetes, place: Path, port: int) -> Iterator[Installed]:
    """Installed with an Ingress, and reached by it alone."""
    hosts = {"config": {"web": {"subdomain_host": f"http://{DOMAIN}:{port}"}}}
    made = Behind(kubernetes, f"t{os.getpid()}-trial", place / "trial", {**hosts, **WAYS["ingress"]})
    made.port = port
    try:
        made.install()
        yield made
    finally:
        made.close()


class Behind(Installed):
    """An installation that its controller leads to."""

    port = 0

    def find(self) -> None:
        self.url = f"http://{DOMAIN}:{self.port}"
        self.http.close()
        self.http = ByHost(self.port)
        wait_for(lambda: self.http.get("/hub/api/").status_code == 200, "the way in is open", seconds=60)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def eva(site: Installed) -> Person:
    person = site.person("eva", "researcher")
    site.give_password("eva")
    return person


@pytest.mark.parametrize("way", WAYS)
def test_sign_in_each_persons_host_and_websockets_come_through(
    site: Behind, eva: Person, chromium: Browser, way: str
):
    if way != "ingress":
        site.upgrade(WAYS[way])
        assert not site.every("ingress")
        site.find()
    (route,) = site.every({"ingress": "ingress", "gateway": "httproute"}[way])
    assert f"*.{DOMAIN}" in str(route["spec"])
    with chromium.new_context(locale="en-US") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(site.url + "/")
        sign_in(page, eva)
        page.wait_for_url(address(site.port, "/services/portal/"))
        slug = eva.running(f"By {way}", nodes=2)
        for rank in (0, 1):
            between = f"node-{rank}/" if rank else ""
            page.goto(address(site.port, f"/user/eva/{slug}/{between}lab"))
            page.wait_for_selector("#jupyter-config-data", state="attached")
            assert page.url.startswith(host_of("eva", site.port) + "/")
            assert page.evaluate(RUN_CELL) == f"{rank} 42"
    eva.stop(slug)
    wait_for(lambda: not eva.clusters(), "the cluster is released")


def test_a_host_that_is_not_the_sites_leads_nowhere(site: Behind):
    def status(host: str) -> int:
        return site.http.get("/hub/api/", headers={"Host": f"{host}:{site.port}"}).status_code

    assert status(DOMAIN) == 200
    assert {host: status(host) for host in ("localhost", "other.localhost", f"x{DOMAIN}")} == dict.fromkeys(
        ("localhost", "other.localhost", f"x{DOMAIN}"), 404
    )


def test_for_trying_out_it_runs_on_sqlite_here_with_a_host_for_each_person(
    site: Behind, eva: Person, place: Path, tmp_path: Path
):
    """And can be backed up and restored as well."""
    site.helm("test", "galilean", "--timeout", "480s")
    slug = eva.running("First steps", nodes=2)
    for rank in (0, 1):
        assert eva.node(slug, rank).status_code == 200
        between = f"node-{rank}/" if rank else ""
        elsewhere = functools.partial(site.http.get, headers=eva_token(eva), follow_redirects=False)
        assert elsewhere(f"{site.url}/user/eva/{slug}/{between}api/status").status_code != 200
    eva.stop(slug)
    wait_for(lambda: not eva.clusters(), "the cluster is released")
    assert (place / "trial" / "state" / "state" / "galilean.sqlite").exists()
    backed_up_and_restored(site, site.person("bea", "researcher"), tmp_path / "backup.tar.gz")


def eva_token(person: Person) -> dict[str, str]:
    return {"Authorization": f"token {person.token}"}
