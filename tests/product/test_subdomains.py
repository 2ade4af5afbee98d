"""The thread of the product in Chromium when each person's nodes have a host of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.browser.conftest import PATIENCE_MS
from tests.product import shared_port
from tests.product.conftest import SETTINGS
from tests.product.product import PASSWORD, Person, at_once, processes_of, wait_for
from tests.product.split import DOMAIN, SplitProduct, address, host_of

pytestmark = pytest.mark.browser

#: One cell on a kernel of the node that the page came from, with the page's own cookies.
RUN_CELL = """async () => {
  const base = JSON.parse(document.getElementById('jupyter-config-data').textContent).baseUrl;
  const xsrf = /(?:^|; )_xsrf=([^;]+)/.exec(document.cookie)[1];
  const kernel = await (await fetch(base + 'api/kernels', {method: 'POST', headers: {'X-XSRFToken': xsrf}})).json();
  const socket = new WebSocket(location.origin.replace('http', 'ws') + base + 'api/kernels/' + kernel.id + '/channels');
  const header = {msg_id: 'm1', session: 's1', username: '', msg_type: 'execute_request', version: '5.3'};
  const content = {code: "import os; print(os.environ['GALILEAN_RANK'], 6 * 7)", silent: false, store_history: false, allow_stdin: false};
  return await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no answer')), 30000);
    socket.onerror = () => reject(new Error('no websocket'));
    socket.onopen = () => socket.send(JSON.stringify({header, parent_header: {}, metadata: {}, content, channel: 'shell', buffers: []}));
    socket.onmessage = (event) => {
      const told = JSON.parse(event.data);
      if (told.msg_type === 'stream') { socket.close(); resolve(told.content.text.trim()); }
    };
  });
}"""


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitProduct]:
    """The product on hosts of their own; when it ends nothing of it is left."""
    product = SplitProduct(tmp_path_factory.mktemp("split"), {**SETTINGS, "ports": {"share": True}})
    try:
        product.start()
        yield product
        assert product.end() == 0, product.said()
        wait_for(lambda: not processes_of(product.state), "nothing is left", seconds=10)
    finally:
        product.close()


@pytest.fixture(scope="module")
def ada(split: SplitProduct) -> Person:
    person = split.person("ada")
    split.give_password("ada")
    return person


@pytest.fixture(scope="module")
def eve(split: SplitProduct) -> Person:
    person = split.person("eve")
    split.give_password("eve")
    return person


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-quic", "--no-first-run"]
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Callable[[], Page]]:
    """``tab()``: a page of a browser of its own; an error in a script of ours fails the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def fault(page: Page, text: str) -> None:
        if "/user/" not in page.url:  # JupyterLab says so itself when its node is released under it
            faults.append(f"{page.url}: {text}")

    def make() -> Page:
        contexts.append(chromium.new_context(viewport={"width": 1400, "height": 900}, locale="en-US"))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: fault(page, str(error)))
        page.on(
            "console",
            lambda line: fault(page, line.text) if "Content Security Policy" in line.text else None,
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert not faults, faults


def sign_in(page: Page, person: Person) -> None:
    page.fill("#username_input", person.name)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")


def at_home(page: Page, split: SplitProduct, person: Person) -> str:
    """Sign in from the front door; the portal's address."""
    page.goto(split.url + "/")
    sign_in(page, person)
    home = address(split.port, "/services/portal/")
    page.wait_for_url(home)
    return home


def hosts(page: Page) -> set[str]:
    """Every origin that the page's links and forms lead to."""
    return set(
        page.eval_on_selector_all(
            "a[href], form[action]",
            "all => all.map(x => new URL(x.href || x.action, location.href)).filter(u => u.protocol.startsWith('http')).map(u => u.origin)",
        )
    )


def test_from_sign_in_to_release_on_hosts_of_their_own(
    split: SplitProduct, ada: Person, eve: Person, tab: Callable[[], Page]
):
    page = tab()
    home = at_home(page, split, ada)
    portal, hub, own = home.removesuffix("/services/portal/"), split.url, host_of("ada", split.port)

    page.goto(home + "projects")
    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Name", exact=True).fill("Heat flow")
    page.get_by_role("button", name="Make project").click()
    page.wait_for_url(portal + "/services/portal/projects/ada/heat-flow*")
    page.get_by_role("button", name="Run …").first.click()
    page.get_by_role("button", name="More: Nodes").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(own + "/user/ada/heat-flow/lab**")
    expect(page.locator("#jp-main-dock-panel")).to_be_visible()
    assert page.evaluate(RUN_CELL) == "0 42"

    # Doors, meter and the links of the hub's pages.
    page.goto(home)
    expect(page.get_by_role("link", name="Open Lab").first).to_be_visible()
    doors = set(page.eval_on_selector_all("a[href*='/user/']", "all => all.map(x => x.href)"))
    assert doors and all(door.startswith(own + "/user/ada/heat-flow/") for door in doors), doors
    assert any("/node-1/" in door for door in doors)
    assert hosts(page) <= {portal, hub, own}
    page.goto(hub + "/hub/token")
    assert page.get_by_role("link", name="Machine time").first.get_attribute("href") == home + "machine-time"
    assert hosts(page) <= {portal, hub}
    (cluster,) = ada.clusters()
    assert cluster["url"].startswith(own)

    page.goto(own + "/user/ada/heat-flow/node-1/lab")
    expect(page.locator("#jp-main-dock-panel")).to_be_visible()
    assert page.evaluate(RUN_CELL) == "1 42"

    # A deep link, cold: through the sign-in to the very place.
    deep = own + "/user/ada/heat-flow/node-1/lab/tree/welcome.ipynb?y=2&z=%2F"
    cold = tab()
    cold.goto(deep)
    assert cold.url.startswith(hub + "/hub/login")
    with cold.expect_request(deep):
        sign_in(cold, ada)
        cold.wait_for_url("**/node-1/lab**")
    assert cold.url.startswith(own + "/user/ada/heat-flow/node-1/lab/tree/welcome.ipynb")

    other = tab()
    at_home(other, split, eve)
    for path in ("/user/ada/heat-flow/lab", "/user/ada/heat-flow/node-1/lab"):
        answer = other.goto(own + path)
        assert answer is not None and answer.status == 403
        expect(other.locator("body")).to_contain_text("Not for you")

    for path in ("", "node-1/"):
        answer = split.http.get(f"/user/ada/heat-flow/{path}lab")
        assert answer.status_code == 302
        for headers in ({}, {"Authorization": f"token {eve.token}"}, {"Origin": own}):
            with pytest.raises(InvalidStatus) as caught:
                connect(
                    f"ws://ada.{DOMAIN}:{split.port}/user/ada/heat-flow/{path}api/events/subscribe",
                    sock=_socket(split.port),
                    additional_headers=headers,
                )
            assert caught.value.response.status_code in (401, 403)
    token = {"Authorization": f"token {eve.token}"}
    for path in ("", "node-1/"):
        answer = split.http.get(f"/user/ada/heat-flow/{path}api/contents", headers=token)
        assert answer.status_code in (403, 404)

    page.goto(home)
    page.get_by_role("button", name="Release", exact=False).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Release", exact=False).last.click()
    wait_for(lambda: not ada.clusters(), "the cluster is released", seconds=30)
    # In a thread: Playwright has a loop of its own in this one.
    wait_for(lambda: at_once(split.disagreement) == [[]], "nothing is left of it", seconds=15)


WITHOUT = ["lab", "api/contents", "api/kernels", "galilean/terminal", "galilean/api/status", "galilean/ssh"]


def test_a_shared_port_opens_that_port_alone_and_is_cut_off_when_it_is_withdrawn(
    split: SplitProduct, ada: Person, eve: Person, tab: Callable[[], Page]
):
    server = ada.running("Wiki", nodes=2)
    own = host_of("ada", split.port)
    port = shared_port.begin(ada, server, 1)
    (run,) = (one["id"] for one in ada.clusters() if one["server"] == server)
    people = f"/clusters/{run}/ports/{port}/people"
    assert ada.portal("POST", f"/clusters/{run}/ports", json={"port": port}).status_code == 200
    place = f"/user/ada/{server}/node-1/proxy/{port}/"

    visitor = tab()
    home = at_home(visitor, split, eve)
    answer = visitor.goto(own + place)
    assert answer is not None and answer.status == 403

    page = tab()
    at_home(page, split, ada)
    page.goto(f"{home}projects/ada/{server}?run=1")
    page.get_by_role("button", name="Share …").click()
    dialog = page.get_by_role("dialog", name=f"Who may open port {port}?")
    dialog.get_by_role("textbox").fill("eve")
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(dialog.get_by_role("button", name="Withdraw eve")).to_be_visible()

    # From her home page, cold, through the sign-in of the hub, to the very node.
    visitor.goto(home)
    expect(visitor.get_by_role("heading", name="Programs that others let you open")).to_be_visible()
    with visitor.expect_popup() as opened:
        visitor.get_by_role("link", name=f"node-1 Wiki {port}").click()
    guest = opened.value
    guest.set_default_timeout(PATIENCE_MS)
    agree = guest.get_by_role("button", name="Allow")
    expect(agree.or_(guest.get_by_role("heading", name="Wiki of Ada"))).to_be_visible()
    if agree.is_visible():
        agree.click()
    expect(guest.get_by_role("heading", name="Wiki of Ada")).to_be_visible()
    assert guest.url == own + place
    assert "False" in guest.content(), "her cookies of the hub stay behind"

    # Nothing else of it, by page or by token, on either node.
    token = {"Authorization": f"token {eve.token}"}
    for between in ("", "node-1/"):
        for path in [*WITHOUT, f"proxy/{port + 1}/"]:
            address_ = f"/user/ada/{server}/{between}{path}"
            assert split.http.get(address_, headers=token).status_code in (403, 404), address_
        for path in ("lab", "api/contents", "galilean/terminal", f"proxy/{port + 1}/"):
            answer = visitor.goto(f"{own}/user/ada/{server}/{between}{path}")
            assert answer is not None and answer.status == 403, (between, path)
    refused = guest.evaluate(
        """async (path) => await new Promise((done) => {
          const socket = new WebSocket(location.origin.replace('http', 'ws') + path);
          socket.onopen = () => done('open'); socket.onerror = () => done('refused');
        })""",
        f"/user/ada/{server}/api/events/subscribe",
    )
    assert refused == "refused"
    assert eve.portal("GET", f"/clusters/{run}").status_code == 404

    # What is under way ends with the share; the owner's goes on.
    talk = """async () => {
      window.closed = new Promise((done) => {
        const socket = new WebSocket(location.href.replace('http', 'ws') + 'ws');
        socket.onopen = () => socket.send('hello');
        socket.onmessage = (event) => { window.heard = event.data; };
        socket.onclose = (event) => { window.code = event.code; done(event.code); };
      });
      fetch('endless', {headers: {Accept: 'text/event-stream'}}).then(async (answer) => {
        const reader = answer.body.getReader();
        while (!(await reader.read()).done) window.read = true;
      }).catch(() => {});
    }"""
    owner = tab()
    at_home(owner, split, ada)
    owner.goto(own + place)
    for one in (guest, owner):
        one.evaluate(talk)
        one.wait_for_function("window.heard === 'hello' && window.read")
    dialog.get_by_role("button", name="Withdraw eve").click()
    expect(dialog.get_by_text("Nobody but you so far.")).to_be_visible()
    guest.wait_for_function("window.code")
    assert guest.evaluate("window.code") == 4403
    assert owner.evaluate("window.code") is None
    after = guest.goto(own + place)
    assert after is not None and after.status == 403
    assert ada.portal("GET", people).json()["people"] == []
    visitor.goto(home)
    expect(visitor.get_by_role("heading", name="Programs that others let you open")).to_have_count(0)

    # What is shared when the cluster goes is nobody's afterwards.
    assert ada.portal("POST", people, json={"person": "eve"}).status_code == 200
    assert ada.stop(server).status_code in (202, 204)
    wait_for(lambda: not eve.portal("GET", "/shared-ports").json()["items"], "it ended", seconds=20)


def test_language_theme_and_signing_out_hold_on_all_hosts(
    split: SplitProduct, eve: Person, tab: Callable[[], Page]
):
    page = tab()
    page.set_viewport_size({"width": 1600, "height": 900})  # narrower, both are in the account's menu
    home = at_home(page, split, eve)
    seen = "document.documentElement.lang + ' ' + document.documentElement.getAttribute('data-bs-theme')"
    assert page.evaluate(seen) == "en light"
    with page.expect_navigation():
        page.click("[data-language]")
    page.click("[data-theme-toggle]")
    assert page.evaluate(seen) == "zh-CN dark"
    page.goto(split.url + "/hub/token")
    assert page.evaluate(seen) == "zh-CN dark"
    page.wait_for_selector(
        "#meter-beside .meter:has-text('没有运行')"
    )  # from the portal's host, with its cookie
    with page.expect_navigation():
        page.click("[data-language]")
    page.click("[data-theme-toggle]")
    page.goto(home)
    assert page.evaluate(seen) == "en light"

    page.goto(split.url + "/hub/logout")
    page.goto(home)
    assert page.url.startswith(split.url + "/hub/login")


def test_jupyterlabs_log_out_is_leaving(split: SplitProduct, ada: Person, tab: Callable[[], Page]):
    """It comes from the host of the person's own programs, so the portal asks before it counts."""
    server = ada.running("Left alone", release="auto")
    page = tab()
    home = at_home(page, split, ada)
    page.goto(f"{host_of('ada', split.port)}/user/ada/{server}/lab")
    expect(page.locator("#jp-main-dock-panel")).to_be_visible()
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="Log Out").click()
    page.wait_for_url(home + "sign-out")
    expect(page.get_by_role("group", name="Left alone")).to_be_visible()
    page.get_by_role("main").get_by_role("button", name="Sign out").click()
    page.wait_for_url(split.url + "/hub/logout")
    wait_for(lambda: not ada.clusters(), "it went back", seconds=30)
    assert split.runs("ada")[0].reason == "signed_out"
    page.goto(home)
    assert page.url.startswith(split.url + "/hub/login")


def test_a_hostile_nodes_page_cannot_act_in_the_portal(
    split: SplitProduct, ada: Person, eve: Person, tab: Callable[[], Page]
):
    """Eve's host serves a page of hers to Ada, who is signed in: same site, another origin."""
    page = tab()
    home = at_home(page, split, ada)
    before = [item["slug"] for item in ada.portal("GET", "/projects").json()["items"]]
    evil = host_of("eve", split.port)
    page.route(
        evil + "/**",
        lambda route: route.fulfill(
            body=f"""<form method=post action="{home}api/v1/projects"><input name=name value=x></form>""",
            content_type="text/html",
        ),
    )
    page.goto(evil + "/user/eve/x/")
    tries = page.evaluate(
        """async ([home, hub]) => {
          document.cookie = '_xsrf=known; domain="""
        + DOMAIN
        + """; path=/services/portal/';
          const act = async (address, options) => {
            try { return (await fetch(address, {credentials: 'include', ...options})).status; } catch { return 'refused'; }
          };
          const json = {method: 'POST', headers: {'Content-Type': 'application/json', 'X-XSRFToken': 'known'}, body: '{"name": "x"}'};
          const plain = {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: '{"name": "x"}'};
          return [
            await act(home, {}), await act(home + 'api/v1/projects', {}), await act(home + 'api/v1/projects', json),
            await act(home + 'api/v1/projects?_xsrf=known', plain), await act(hub + '/hub/token', {}),
            await act(hub + '/hub/api/user', {}),
          ];
        }""",
        [home, split.url],
    )
    assert all(said in ("refused", 0) for said in tries), tries
    page.evaluate("document.forms[0].submit()")
    page.wait_for_load_state()
    assert [item["slug"] for item in ada.portal("GET", "/projects").json()["items"]] == before
    assert httpx.codes.is_success(ada.portal("GET", "/projects").status_code)


def test_a_name_that_is_no_host_name_gets_one_that_is(split: SplitProduct):
    odd = split.person("x.y_z--w")
    slug = odd.running("Odd")
    (cluster,) = odd.clusters()
    host = httpx.URL(cluster["url"]).host
    assert host.endswith("." + DOMAIN) and "." not in host.removesuffix("." + DOMAIN)
    assert odd.node(slug).status_code == 200
    assert odd.stop(slug).status_code in (202, 204)


def test_over_https_no_other_host_can_plant_a_sign_in(
    tmp_path_factory: pytest.TempPathFactory, chromium: Browser
):
    product = SplitProduct(tmp_path_factory.mktemp("https"), SETTINGS, scheme="https")
    try:
        product.start()
        ada = product.person("ada")
        product.give_password("ada")
        ada.running("Heat flow", nodes=2)
        context = chromium.new_context(ignore_https_errors=True, locale="en-US")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(product.url + "/")
        sign_in(page, ada)
        page.wait_for_url(address(product.port, "/services/portal/", "https"))
        page.goto(host_of("ada", product.port, "https") + "/user/ada/heat-flow/node-1/lab")
        expect(page.locator("#jp-main-dock-panel")).to_be_visible()
        assert page.evaluate(RUN_CELL) == "1 42"
        cookies: dict[str, Any] = {cookie.get("name", ""): cookie for cookie in context.cookies()}
        for name in ("jupyterhub-hub-login", "service-portal", "jupyterhub-user-ada-heat-flow"):
            assert name not in cookies
            cookie = cookies["__Host-" + name]
            assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Lax"
        page.goto(product.url + "/hub/logout")
        page.goto(address(product.port, "/services/portal/", "https"))
        assert page.url.startswith(product.url + "/hub/login")
        context.close()
        assert product.end() == 0
    finally:
        product.close()


def _socket(port: int) -> Any:
    import socket

    return socket.create_connection(("127.0.0.1", port))
