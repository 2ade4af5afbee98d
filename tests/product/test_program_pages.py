"""The page of a person's program on a host of its own: what it tries with the cookies of whoever opened it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS
from tests.product.conftest import SETTINGS
from tests.product.product import Person, free_port, wait_for
from tests.product.split import DOMAIN, SplitProduct, host_of
from tests.product.test_subdomains import at_home

pytestmark = pytest.mark.browser

#: Where the start command of an environment answers.
PROGRAM = free_port()
WITH_PROGRAM = {
    **SETTINGS,
    "environments": {
        "jupyter": {"title": "JupyterLab"},
        "program": {
            "title": "Program",
            "command": f"exec {sys.executable} -m http.server --bind 127.0.0.1 {PROGRAM}",
            "ports": [PROGRAM],
        },
    },
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitProduct]:
    product = SplitProduct(tmp_path_factory.mktemp("program"), WITH_PROGRAM)
    try:
        product.start()
        yield product
    finally:
        product.close()


#: What the page of a program tries with the cookies of whoever opened it.
TRIES = """async ([home, hub, eve]) => {
  const act = async (address, options) => {
    try { return (await fetch(address, {credentials: 'include', ...options})).status; } catch { return 'refused'; }
  };
  const known = {'Content-Type': 'application/json', 'X-XSRFToken': 'known'};
  const json = {method: 'POST', headers: known, body: '{"name": "x"}'};
  const plain = {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: '{"name": "x"}'};
  const socket = (address) => new Promise((done) => {
    const line = new WebSocket(address.replace('http', 'ws'));
    line.onopen = () => done('open'); line.onerror = () => done('refused');
  });
  document.cookie = '_xsrf=known; domain=DOMAIN; path=/services/portal/';
  document.cookie = '_xsrf=known; domain=DOMAIN; path=/hub/';
  return [
    await act(home, {}), await act(home + 'api/v1/projects', {}), await act(home + 'api/v1/projects', json),
    await act(home + 'api/v1/projects?_xsrf=known', plain), await act(hub + '/hub/home', {}),
    await act(hub + '/hub/api/user', {}), await act(hub + '/hub/api/users/ada/tokens', json),
    await act(hub + '/hub/api/users/ada/tokens?_xsrf=known', plain), await act(hub + '/hub/logout', {}),
    await act(eve + 'api/contents', {}), await act(eve + 'api/terminals', json),
    await socket(eve + 'terminals/websocket/1'), await socket(eve + 'api/events/subscribe'),
  ];
}""".replace("DOMAIN", DOMAIN)


def test_the_page_of_a_program_has_no_use_for_its_owners_cookies(split: SplitProduct) -> None:
    """A program that Ada took over from somebody answers on a port of her node; Eve runs a node, too."""
    ada, eve = split.person("ada"), split.person("eve")
    split.give_password("ada")
    shown, theirs = ada.running("Shown", environment="program"), eve.running("Theirs")
    text = "<!doctype html><title>program</title><script>fetch('told', {method: 'POST'})</script>"
    put = ada.portal("PUT", f"/projects/ada/{shown}/files/page.html", content=text.encode())
    assert put.status_code in (200, 201), put.text
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        _try_all(page, split, ada, shown, f"{host_of('eve', split.port)}/user/eve/{theirs}/")
        browser.close()


def _try_all(page: Page, split: SplitProduct, ada: Person, shown: str, theirs: str) -> None:
    home = at_home(page, split, ada)
    own = f"{host_of('ada', split.port)}/user/ada/{shown}/proxy/{PROGRAM}/page.html"

    def shows() -> bool:
        page.goto(own)
        return page.title() == "program"

    wait_for(shows, "the program's page is there", seconds=60)
    tokens = ada.api("GET", "/hub/api/users/ada/tokens").json()["api_tokens"]
    projects = ada.portal("GET", "/projects").json()["items"]
    assert "jupyterhub" not in page.evaluate("document.cookie"), "no script reads what signs in"
    tries = page.evaluate(TRIES, [home, split.url, theirs])
    assert all(said in ("refused", 0) for said in tries), tries
    after = ada.api("GET", "/hub/api/users/ada/tokens").json()["api_tokens"]
    assert {token["id"] for token in after} == {token["id"] for token in tokens}
    assert ada.portal("GET", "/projects").json()["items"] == projects
    page.goto(home)
    assert page.url == home, "and she is signed in still"
