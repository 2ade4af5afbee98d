"""JupyterLab's own item on a real node of the real product: what it says is so, and what it offers happens."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, serious_faults
from tests.product.product import PASSWORD, Person, Product, alive, wait_for

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("GALILEAN_PICTURES", "")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Lab:
    """Somebody's JupyterLab on a cluster of two nodes."""

    def __init__(self, chromium: Browser, product: Product, person: Person, server: str) -> None:
        self.product, self.person, self.server = product, person, server
        product.give_password(person.name)
        self.context = chromium.new_context(
            viewport={"width": 1400, "height": 860}, locale="en-GB", timezone_id="Asia/Shanghai"
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.goto(f"{product.url}/hub/login?next=/user/{person.name}/{server}/lab")
        self.page.get_by_label("User name").fill(person.name)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.usable()

    def usable(self) -> None:
        self.page.locator(".jp-LauncherCard").first.wait_for(timeout=60_000)
        expect(self.page.locator(".galilean-project")).to_have_text("Heat flow")

    @property
    def menu(self) -> Locator:
        """The menu, open."""
        menu = self.page.locator("#galilean-menu")
        if not menu.is_visible():
            self.page.locator(".galilean-pill").click()
        return menu

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.screenshot(path=f"{PICTURES}/node-{name}.png")


@pytest.fixture
def lab(chromium: Browser, product: Product, ada: Person) -> Iterator[Lab]:
    made = Lab(chromium, product, ada, ada.running("Heat flow", nodes=2, release="auto"))
    yield made
    made.context.close()


@pytest.mark.timeout(300)
def test_the_item_of_a_real_node_from_the_first_look_to_the_release(lab: Lab) -> None:
    page, product, person = lab.page, lab.product, lab.person
    (run,) = person.clusters()

    # It says what is so, and goes on counting.
    expect(page.locator(".galilean-node")).to_have_text("node-0")
    expect(page.locator(".galilean-until")).to_have_text(re.compile(r"after you leave$"))
    first = page.locator(".galilean-held").inner_text()
    expect(page.locator(".galilean-held")).not_to_have_text(first)
    expect(lab.menu).to_contain_text("2 nodes, each ")
    assert [fault for fault in serious_faults(page) if "galilean" in fault] == []
    lab.picture("menu")

    # Extending moves the time, there and in the portal's books.
    lab.menu.get_by_role("button", name="Extend").click()
    expect(page.locator(".galilean-until")).to_have_text(re.compile(r"^until \d\d:\d\d$"))
    with product.db.read() as conn:
        until = conn.exec_driver_sql(
            "SELECT extended_until FROM clusters WHERE id = ?", (run["id"],)
        ).scalar_one()
    assert until is not None
    lab.picture("extended")

    # The portal is away: one line, and JupyterLab goes on; then the line goes by itself.
    old = product.pid("portal")
    os.kill(old, signal.SIGSTOP)
    try:
        expect(page.locator(".galilean-line")).to_have_text(re.compile("portal is away"), timeout=60_000)
        expect(page.locator(".jp-Dialog")).to_have_count(0)
    finally:
        os.kill(old, signal.SIGCONT)
    expect(page.locator(".galilean-line")).to_have_text("", timeout=60_000)

    # The other node, in a page of its own; while it is in front this one is hidden and stays open.
    with page.expect_popup() as opened:
        lab.menu.get_by_role("link", name="Lab on node-1").click()
    other = opened.value
    other.wait_for_url("**/node-1/lab**")
    expect(other.locator(".galilean-node")).to_have_text("node-1", timeout=60_000)
    other.close()

    # A restart ends what the node held and heals by itself.
    page.keyboard.press("Escape")
    before = product.node_pid(person.name, lab.server, 0)
    lab.menu.get_by_role("button", name="Restart node …").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Restart node").click()
    expect(page.locator(".galilean-line")).to_have_text("The node restarts …")
    expect(page.locator(".galilean-line")).to_have_text("", timeout=60_000)
    expect(page.locator(".jp-Dialog")).to_have_count(0)
    assert person.node(lab.server, 0).status_code == 200
    assert [one["id"] for one in person.clusters()] == [run["id"]]

    # Release: named first, then done, and the way back is shown.
    lab.menu.get_by_role("button", name="Release …").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Release", exact=True).click()
    wait_for(lambda: not person.clusters(), "the cluster is released", seconds=60)
    expect(page.locator(".jp-Dialog")).to_contain_text("Heat flow was released", timeout=60_000)
    lab.picture("released")
    page.get_by_role("button", name="Back to the project").click()
    page.wait_for_url(f"**/projects/{person.name}/{lab.server}**")
    wait_for(lambda: not alive(before), "the node's process is gone")
