"""JupyterLab's own item on a real node of the real product: what it says is so, and what it offers happens."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, serious_faults
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
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.goto(f"{product.url}/hub/login?next=/user/{person.name}/{server}/lab")
        self.page.get_by_label("User name").fill(person.name)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.usable()

    def usable(self) -> None:
        self.page.locator(".jp-LauncherCard").first.wait_for()
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


@pytest.mark.timeout(900)
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
        expect(page.locator(".galilean-line")).to_have_text(re.compile("portal is away"))
        expect(page.locator(".jp-Dialog")).to_have_count(0)
    finally:
        os.kill(old, signal.SIGCONT)
    expect(page.locator(".galilean-line")).to_have_text("")

    # The other node, in a page of its own; while it is in front this one is hidden and stays open.
    with page.expect_popup() as opened:
        lab.menu.get_by_role("link", name="Lab on node-1").click()
    other = opened.value
    other.wait_for_url("**/node-1/lab**")
    expect(other.locator(".galilean-node")).to_have_text("node-1")
    other.close()

    # A restart ends what the node held and heals by itself, without the other node; a reset, too.
    page.keyboard.press("Escape")
    before = product.node_pid(person.name, lab.server, 0)
    lab.menu.get_by_role("button", name="Restart node …").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Restart node").click()
    expect(page.locator(".galilean-line")).to_have_text("The node restarts …")
    expect(page.locator(".galilean-line")).to_have_text("")
    assert page.locator(".jp-Dialog").all_inner_texts() == []
    assert person.node(lab.server, 0).status_code == 200
    assert [one["id"] for one in person.clusters()] == [run["id"]]
    assert not alive(before)
    worker = product.node_pid(person.name, lab.server, 1)
    lab.menu.get_by_role("button", name="Reset node …").click()
    expect(page.locator(".jp-Dialog")).to_contain_text("The node's home is emptied")
    page.locator(".jp-Dialog").get_by_role("button", name="Reset node").click()
    expect(page.locator(".galilean-line")).to_have_text("The node restarts …")
    expect(page.locator(".galilean-line")).to_have_text("")
    assert product.node_pid(person.name, lab.server, 1) == worker, "the other goes on"
    nodes = person.portal("GET", f"/clusters/{run['id']}").json()["node_list"]
    assert [(node["rank"], node["attempt"], node["state"]) for node in nodes] == [
        (0, 3, "ready"),
        (1, 1, "ready"),
    ]
    before = product.node_pid(person.name, lab.server, 0)

    # Release: named first, then done, and the way back is shown.
    lab.menu.get_by_role("button", name="Release …").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Release", exact=True).click()
    wait_for(lambda: not person.clusters(), "the cluster is released", seconds=60)
    expect(page.locator(".jp-Dialog")).to_contain_text("Heat flow was released")
    lab.picture("released")
    page.get_by_role("button", name="Back to the project").click()
    page.wait_for_url(f"**/projects/{person.name}/{lab.server}**")
    wait_for(lambda: not alive(before), "the node's process is gone")


def written(source: str, cell_id: str) -> dict[str, object]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }


@pytest.mark.timeout(900)
def test_cells_go_on_when_the_page_is_closed_and_then_the_cluster_goes_back(
    chromium: Browser, product: Product, ada: Person
) -> None:
    """As JupyterLab itself asks for it, in the binary form of the kernel's messages."""
    grace = {seconds: {"everybody": {"grace_seconds": seconds}} for seconds in (30, 300)}
    assert product.admin.portal("PATCH", "/release-rules", json=grace[30]).status_code == 200
    server = ada.running("Heat flow", release="auto-when-done")  # what holds at the start is frozen
    assert product.admin.portal("PATCH", "/release-rules", json=grace[300]).status_code == 200
    cells = [
        written("import time\nfor step in range(100):\n    print('step', step)\n    time.sleep(1)", "first"),
        written("print('second', 6 * 7)", "second"),
        written("raise ValueError('third')", "third"),
    ]
    answer = product.http.put(
        f"/user/{ada.name}/{server}/api/contents/count.ipynb",
        headers={"Authorization": f"token {ada.token}"},
        json={
            "type": "notebook",
            "format": "json",
            "content": {
                "cells": cells,
                "metadata": {
                    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
                },
                "nbformat": 4,
                "nbformat_minor": 5,
            },
        },
    )
    assert answer.status_code == 201, answer.text
    lab = Lab(chromium, product, ada, server)
    page = lab.page
    page.goto(f"{product.url}/user/{ada.name}/{server}/lab/tree/count.ipynb")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    # Before its kernel is there, JupyterLab answers *Run* with a question.
    page.get_by_text(re.compile(r"\(ipykernel\) \| Idle")).wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    page.get_by_text("step 1").first.wait_for()
    lab.context.close()

    (file,) = product.state.glob("volumes/**/count.ipynb")

    def outputs() -> str:
        return "\n".join(str(cell["outputs"]) for cell in json.loads(file.read_text())["cells"])

    wait_for(lambda: "third" in outputs(), "all three cells have written what they gave", seconds=180)
    for said in ("step 0", "step 99", "second 42", "ValueError"):
        assert outputs().count(said) >= 1, said
    assert outputs().count("step 55") == 1
    wait_for(lambda: not ada.clusters(), "the cluster went back when nothing ran any more", seconds=180)
    run = product.runs(ada.name)[0]
    assert run.reason == "done"
    told = ada.portal("GET", "/notices").json()["items"]
    assert [notice["kind"] for notice in told] == ["released"]
