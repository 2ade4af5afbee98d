"""The whole thread in a browser, on the real product, in English and in Chinese.

From the sign-up to machine time, as somebody new would go it; on the way every page of ours and of the hub is
looked at by axe-core and held against its width, wide and narrow, light and dark.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from galilean.i18n import translations
from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, overflow, serious_faults
from tests.product.product import PASSWORD, Person, Product, wait_for

pytestmark = pytest.mark.browser

#: How each page is looked at: wide and narrow, light and dark; in Chinese once, for the words' sake.
LOOKS = {"en": (("light", 1400), ("dark", 360)), "zh_CN": (("light", 360),)}
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "one",
            "metadata": {},
            "outputs": [],
            "source": 'import os\nprint("here", os.environ["GALILEAN_RANK"], 6 * 7)',
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
CLICKS_MOST = 7


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A browser of somebody's own: it counts what is pressed and typed, and collects faults of the pages."""

    def __init__(self, chromium: Browser, product: Product, language: str) -> None:
        self.product, self.language = product, language
        self.say: Callable[[str], str] = translations(language).gettext
        self.context: BrowserContext = chromium.new_context(
            viewport={"width": 1400, "height": 900},
            locale={"en": "en-GB", "zh_CN": "zh-CN"}[language],
            timezone_id="Asia/Shanghai",
            reduced_motion="reduce",
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.faults: list[str] = []
        self.clicks: list[str] = []
        self.typed: list[str] = []
        self.page.on("pageerror", lambda error: self._fault(str(error)))
        self.page.on("console", lambda message: self._console(message.text))
        self.kernels = 0
        self.page.on("websocket", lambda socket: self._count(socket.url))

    @property
    def _ours(self) -> bool:
        return "/user/" not in self.page.url.removeprefix(self.product.url + "/hub")

    def _fault(self, text: str) -> None:
        if self._ours:
            self.faults.append(f"{self.page.url}: {text}")

    def _console(self, text: str) -> None:
        # axe-core itself tries inline styles.
        if ("Content Security Policy" in text or "Uncaught" in text) and "Applying inline style" not in text:
            self._fault(text)

    def _count(self, address: str) -> None:
        self.kernels += "/channels" in address

    def go(self, path: str) -> None:
        self.page.goto(self.product.url + path)

    def click(self, what: Locator, name: str) -> None:
        what.click()
        self.clicks.append(name)

    def type(self, what: Locator, text: str) -> None:
        what.fill(text)
        self.typed.append(text)

    def button(self, message: str, *, within: Page | Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=self.say(message)).first

    def link(self, message: str, *, within: Page | Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("link", name=self.say(message)).first

    def look(self, name: str) -> None:
        """The page as it is now: nothing serious for axe-core, and not wider than its window."""
        for scheme, width in LOOKS[self.language]:
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.page.set_viewport_size({"width": width, "height": 900})
            if (wide := overflow(self.page)) > 0:
                self.faults.append(f"{name}, {width} px: {wide} px too wide")
            found = serious_faults(self.page)
            self.faults += [f"{name}, {scheme}, {width} px: {fault}" for fault in found]
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1400, "height": 900})

    def sign_in(self, name: str) -> None:
        self.go("/")
        self.page.get_by_label(self.say("User name")).fill(name)
        self.page.get_by_label(self.say("Password"), exact=True).fill(PASSWORD)
        self.button("Sign in").click()
        self.page.wait_for_url("**/services/portal/**")

    def run_cell(self, cell: Locator, output: str | re.Pattern[str]) -> None:
        """Click into a cell of the notebook that is shown, run it, and see its output."""
        # JupyterLab forgets what is run before it has its kernel.
        for _ in range(600):
            if self.kernels:
                break
            self.page.wait_for_timeout(100)
        self.kernels = 0
        self.click(cell, "a cell")
        shown = self.page.locator(".jp-OutputArea-output").filter(has_text=output).first
        for _ in range(6):
            self.page.keyboard.press("Shift+Enter")
            try:
                expect(shown).to_be_visible(timeout=30_000)
                return
            except AssertionError:  # forgotten all the same: the machine is busy, a person would press again
                cell.click()
        expect(shown).to_be_visible(timeout=30_000)


@pytest.fixture
def visit(chromium: Browser, product: Product) -> Iterator[Callable[..., Visit]]:
    """``visit(language)``: a new browser; faults of its pages fail the test."""
    made: list[Visit] = []

    def make(language: str = "en") -> Visit:
        made.append(Visit(chromium, product, language))
        return made[-1]

    yield make
    faults = [fault for one in made for fault in one.faults]
    for one in made:
        one.context.close()
    assert not faults, "\n".join(faults)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_the_thread(product: Product, visit: Callable[..., Visit], language: str) -> None:
    newcomer = {"en": "galileo", "zh_CN": "xuguangqi"}[language]
    project = {"en": "Heat flow", "zh_CN": "热传导"}[language]
    slug = {"en": "heat-flow", "zh_CN": "re-chuan-dao"}[language]
    mine = visit(language)
    page, say = mine.page, mine.say

    # Sign up, and be told that one waits.
    mine.go("/")
    expect(mine.button("Sign in")).to_be_visible()
    mine.look("sign-in")
    mine.link("Make one").click()
    mine.look("sign-up")
    page.get_by_label(say("User name")).fill(newcomer)
    page.get_by_label(say("Password"), exact=True).fill(PASSWORD)
    mine.button("Make the account").click()
    expect(page.get_by_role("heading", name=say("Your account waits for a role"))).to_be_visible()
    mine.look("waiting")

    # An administrator gives a role on the page of people; the other page changes by itself.
    chief = visit(language)
    administrator = f"chief-{language[:2]}"
    product.person(administrator, "admin")
    product.give_password(administrator)
    chief.sign_in(administrator)
    chief.page.locator("nav.wide summary").click()
    chief.link("People").click()
    row = chief.page.locator("tr").filter(has_text=newcomer)
    expect(row).to_be_visible()
    chief.look("people")
    row.locator("summary").click()
    row.get_by_role("button", name=say("Researcher"), exact=True).click()
    expect(
        page.get_by_text(say("Three steps, about a minute. Everything happens in this browser."))
    ).to_be_visible()

    # From the sign-in page to the first executed cell.
    page.goto("about:blank")
    mine.context.clear_cookies()
    mine.sign_in(newcomer)
    mine.click(mine.link("New project"), "New project")
    mine.type(page.get_by_label(say("Name"), exact=True), project)
    mine.click(mine.button("Make project"), "Make project")
    page.wait_for_url(f"**/projects/{newcomer}/{slug}")
    with page.expect_file_chooser() as chooser:
        mine.click(page.locator("label.upload-button"), "Upload")
    upload = {
        "name": "measure.ipynb",
        "mimeType": "application/json",
        "buffer": json.dumps(NOTEBOOK).encode(),
    }
    chooser.value.set_files([upload])  # type: ignore[list-item]
    expect(page.locator('.tree-item[data-name="measure.ipynb"]')).to_be_visible()
    mine.click(mine.button("Run …"), "Run …")
    drawer = page.locator("#run-drawer")
    mine.click(drawer.locator('[data-stepper] [data-step="1"]').first, "+")
    mine.click(drawer.locator("#run-start"), "Start")
    page.wait_for_url(f"**/user/{newcomer}/{slug}/**", timeout=240_000)
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    mine.run_cell(panel.locator(".jp-CodeCell").first, platform.node())
    assert len(mine.clicks) <= CLICKS_MOST, mine.clicks
    assert mine.typed == [project]
    expect(page.locator(".lm-MenuBar-itemLabel").first).to_have_text(
        {"en": "File", "zh_CN": "文件"}[language]
    )
    expect(page.get_by_text("Jupyter news")).to_have_count(0)

    # node-1, from the home page: JupyterLab, and a terminal.
    mine.go("/services/portal/")
    card = page.locator("article.cluster")
    card.get_by_text("node-1", exact=True).click()
    mine.link("Open Lab", within=card).click()
    page.wait_for_url(f"**/user/{newcomer}/{slug}/node-1/lab**")
    page.locator(".jp-DirListing-item", has_text="measure.ipynb").dblclick()
    mine.run_cell(panel.locator(".jp-CodeCell").first, "here 1 42")
    mine.go("/services/portal/")
    card.get_by_text("node-1", exact=True).click()
    mine.link("Terminal", within=card).click()
    page.wait_for_url("**/node-1/galilean/terminal**")
    page.locator(".xterm-helper-textarea").wait_for(state="attached")
    page.locator(".xterm").first.click()
    somebody = Person(product, newcomer, product.command("token", newcomer).strip().splitlines()[-1])

    def written() -> bool:
        answer = somebody.node(slug, 0, "api/contents/typed.txt")
        return answer.status_code == 200 and answer.json()["content"] == "1-42\n"

    page.wait_for_timeout(500)
    page.keyboard.type("echo $GALILEAN_RANK-$((6*7)) > ~/work/typed.txt\n")
    wait_for(written, "what was typed in the terminal of node-1 was done there")

    # Pages while it runs.
    (cluster,) = somebody.clusters()
    mine.go("/services/portal/")
    expect(card).to_be_visible()
    mine.look("home, running")
    page.locator("summary.meter").click()
    mine.look("the meter's menu")
    mine.go(f"/services/portal/projects/{newcomer}/{slug}?run=1")
    expect(drawer.locator(".door-row")).to_have_count(2)
    mine.look("drawer, running")
    chief.go("/services/portal/admin/online")
    expect(chief.page.locator("#main tr").filter(has_text=newcomer).first).to_be_visible()
    chief.look("online")

    # Release, and read what it cost.
    mine.go("/services/portal/")
    mine.button("Release", within=card).click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_be_visible()
    mine.look("release dialog")
    dialog.locator("[type=submit]").click()
    expect(card).to_have_count(0)
    wait_for(lambda: not somebody.clusters(), "the cluster is released")
    mine.link(project, within=page.locator("#main")).click()
    page.get_by_role("link", name=re.compile(re.escape(say("Runs and machine time")))).click()
    nodes = product.intervals(cluster["id"])
    assert len(nodes) == 2
    used = sum(
        (node.gone_at - node.ready_at).total_seconds() for node in nodes if node.gone_at and node.ready_at
    )
    held = max(node.gone_at for node in nodes) - min(node.ready_at for node in nodes)  # type: ignore[type-var, operator]
    line = page.locator("tbody tr")
    expect(line).to_have_count(1)
    heads, cells = page.locator("thead th").all_inner_texts(), line.locator("td").all_inner_texts()
    told = dict(zip((text.strip() for text in heads), (text.strip() for text in cells), strict=True))
    hours, minutes, seconds = map(
        int, next(text for text in told.values() if text.count(":") == 2).split(":")
    )
    assert abs(hours * 3600 + minutes * 60 + seconds - held.total_seconds()) <= 1
    assert told[say("Nodes")] == "2"
    (usage,) = somebody.portal("GET", "/usage", params={"by": "project"}).json()["items"]
    assert usage["cpu_core_minutes"] == pytest.approx(used / 60 * cluster["cpu"], abs=0.01)
    assert float(told[say("core·min")]) == pytest.approx(used / 60 * cluster["cpu"], abs=0.06)
    assert float(told[say("GB·min")]) == pytest.approx(used / 60 * cluster["memory_bytes"] / 2**30, abs=0.06)
    mine.look("project, runs")

    # Every other page of ours and of the hub; in Chinese those on the way are enough.
    if language != "en":
        return
    base = f"/services/portal/projects/{newcomer}/{slug}"
    for path, name in (
        ("/services/portal/", "home"),
        ("/services/portal/projects", "projects"),
        ("/services/portal/projects/new", "new project"),
        (base, "project"),
        (base + "/settings", "project, settings"),
        ("/services/portal/machine-time", "machine time"),
        ("/services/portal/nowhere", "404 of the portal"),
        ("/hub/token", "tokens"),
        ("/hub/change-password", "password"),
        (f"/hub/user/{newcomer}/{slug}", "not running"),
        ("/hub/nowhere", "404 of the hub"),
    ):
        mine.go(path)
        mine.look(name)
    mine.go(base + "?run=1")
    expect(drawer.locator("#run-start")).to_be_visible()
    mine.look("drawer, form")


@contextlib.contextmanager
def held_still(*pids: int) -> Iterator[None]:
    """Processes that do nothing for the time of a ``with``."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_pages_of_a_start_and_of_a_release_that_take_their_time(
    product: Product, visit: Callable[..., Visit], ada: Person
) -> None:
    slug = ada.project("Slow one")
    product.give_password(ada.name)
    mine = visit()
    page, drawer = mine.page, mine.page.locator("#run-drawer")
    mine.sign_in(ada.name)
    # Without the zygote a node takes the seconds that it takes a Python to import all of it; time to hold it, too.
    with held_still(product.pid("zygote")):
        mine.go(f"/services/portal/projects/{ada.name}/{slug}?run=1")
        drawer.locator("#run-start").click()
        node = wait_for(lambda: product.node_pid(ada.name, slug, 0), "the node has begun", seconds=60)
        with held_still(node):
            expect(drawer.locator(".steps")).to_be_visible()
            mine.look("drawer, starting")
            mine.go(f"/hub/spawn-pending/{ada.name}/{slug}")
            expect(page.locator("[data-spawn-progress]")).to_be_visible()
            mine.look("spawn_pending")
            # While the hub puts a failed start away it has no progress to tell: the page looks again by itself.
            page.route("**/progress*", lambda route: route.fulfill(status=400), times=1)
            page.reload()
            expect(page.locator("#progress-message")).not_to_be_empty(timeout=90_000)
            mine.go(f"/services/portal/projects/{ada.name}/{slug}?run=1")
            drawer.locator("[data-release]").click()
            expect(page.locator("#run-title")).to_contain_text("Slow one")
        expect(drawer.locator("[data-again]")).to_be_visible()
        mine.look("drawer, cancelled")
    assert ada.run(slug, project=slug).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready", seconds=60)
    with ThreadPoolExecutor(1) as pool, held_still(product.node_pid(ada.name, slug, 0)):
        deletion = pool.submit(ada.stop, slug)
        wait_for(lambda: ada.servers()[slug]["pending"] == "stop", "the release is under way")
        mine.go(f"/hub/spawn-pending/{ada.name}/{slug}")
        expect(page.get_by_role("heading", name=mine.say("The cluster is being released"))).to_be_visible()
        mine.look("stop_pending")
        assert deletion.result().status_code in (202, 204)


def test_no_id_of_a_form_is_in_the_logs(product: Product, visit: Callable[..., Visit]) -> None:
    visit().go("/hub/login")
    for path in (product.state / "logs").rglob("*.log"):
        assert "new xsrf cookie" not in path.read_text(encoding="utf-8", errors="replace"), path
