"""Limits and release policies in a real browser: set by an administrator, met by a student (CG-28 … CG-30, TI-14).

The administrator's task is counted: every click and every value that is typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from galilean.clock import utcnow
from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, overflow, serious_faults
from tests.portal.conftest import Sign
from tests.portal.live import Course, LiveSite

pytestmark = pytest.mark.browser

CLICKS_MOST, TYPED_MOST = 15, 6
ROLES = """
roles:
  student:
    title: Student
    limits: {clusters: 2, nodes: 4, cpu: 2, memory: 16G, gpu: 1, total_cpu: 8, total_memory: 64G, total_gpu: 1}
  admin: {title: Administrator, limits: {manual_release: true}}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """Where students may have four nodes of 16 GB with a GPU, and keep them as they like."""
    live = LiveSite(tmp_path / "state", ROLES)
    live.hub.add("jonas", "student")
    live.hub.add("lena", "student")
    live.hub.add("root", "admin")
    with live:
        yield live


class Hands:
    """A page of somebody, whose clicks and typed values are counted."""

    def __init__(self, chromium: Browser, site: LiveSite, name: str) -> None:
        site.hub.whoever = name
        self.context = chromium.new_context(
            viewport={"width": 1400, "height": 900}, locale="en-GB", reduced_motion="reduce"
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.clicks: list[str] = []
        self.typed: list[str] = []
        self.pages: set[str] = set()
        self.site = site

    def go(self, path: str) -> None:
        self.page.goto(self.site.url + path)

    def click(self, what: Locator, name: str) -> None:
        what.click()
        self.clicks.append(name)
        self.pages.add(self.page.url.partition("?")[0].partition("#")[0])

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.page.keyboard.type(text)
        self.typed.append(text)

    def cell(self, role: str, measure: str) -> Locator:
        return self.page.locator(f'[data-cell][data-role="{role}"][data-measure="{measure}"]')

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


def test_students_are_bounded_and_one_gets_a_gpu_until_friday_in_fifteen_clicks_and_six_values(
    chromium: Browser, site: LiveSite, sign: Sign
) -> None:
    admin = Hands(chromium, site, "root")
    admin.go("admin/quotas")
    for measure, value in (("nodes", "2"), ("memory", "8 GB"), ("gpu", "0")):
        admin.click(admin.cell("student", measure), measure)
        admin.type(value)
        admin.page.keyboard.press("Enter")
    expect(admin.page.locator("[data-bar]")).to_contain_text("Touches 2 people.")
    expect(admin.page.locator("[data-bar]")).to_contain_text("16 GB → 8 GB".replace(" GB", "\u00a0GB"))
    assert sign("jonas").get("/limits").json()["per_node"]["nodes"] == 4, (
        "nothing counts before it is applied"
    )
    admin.click(admin.button("Apply 3 changes"), "apply")
    expect(admin.page.locator("#toasts")).to_contain_text("3 changes count from now on.")

    admin.click(admin.button("Exception"), "exception")
    dialog = admin.page.get_by_role("dialog")
    expect(dialog.get_by_label("Person")).to_be_focused()
    admin.type("jonas")
    dialog.get_by_label("Of what").select_option("gpu")
    admin.clicks.append("of what")
    dialog.get_by_label("Of what").focus()
    admin.page.keyboard.press("Tab")
    expect(dialog.get_by_label("May hold")).to_be_focused()
    admin.type("1")
    expect(admin.page.locator("#exception-beside")).to_contain_text("Student says: 0.")
    dialog.get_by_label("Reason").focus()
    admin.type("Thesis")
    admin.click(admin.button("Friday"), "Friday")
    admin.click(admin.button("Give it"), "give")
    row = admin.page.locator("table.exceptions tbody tr")
    expect(row).to_contain_text("jonas")
    expect(row).to_contain_text("Thesis")

    admin.click(admin.page.locator(".side").get_by_role("link", name="Release policies"), "second page")
    admin.click(admin.cell("student", "offered"), "offered")
    admin.click(admin.button("None"), "none")
    admin.click(admin.page.get_by_role("checkbox", name="automatic", exact=True), "automatic")
    admin.click(admin.page.get_by_role("checkbox", name="2\u00a0h", exact=True), "2 h")
    expect(admin.page.locator("[data-bar]")).to_contain_text("automatic, 2\u00a0h")
    admin.click(admin.button("Apply 1 change"), "apply")
    expect(admin.page.locator("#toasts")).to_contain_text("1 change counts from now on.")
    admin.context.close()
    assert not admin.faults
    assert len(admin.clicks) <= CLICKS_MOST, admin.clicks
    assert len(admin.typed) <= TYPED_MOST, admin.typed
    assert {page.rpartition("/admin/")[2] for page in admin.pages} == {"quotas", "release"}

    _student_meets_the_limits(chromium, site, sign)


def _student_meets_the_limits(chromium: Browser, site: LiveSite, sign: Sign) -> None:
    site.hub.course = Course()
    site.project("lena", "Heat flow")
    site.project("jonas", "Heat flow")
    lena = Hands(chromium, site, "lena")
    lena.go("projects/lena/heat-flow?run=1")
    more = lena.page.get_by_role("button", name="More: Nodes")
    more.click()
    expect(more).to_be_disabled()
    expect(lena.page.locator('[data-why="nodes"]')).to_have_text("Your role: at most 2\u00a0nodes")
    expect(lena.page.locator("#run-release option")).to_have_text(
        ["Automatically, 5 min after I leave", "2 hours after I leave"]
    )
    expect(lena.page.get_by_role("button", name="More: GPUs per node")).to_have_count(0)
    lena.context.close()
    assert not lena.faults

    asked = {"nodes": 1, "cpu": 1, "memory": "1G", "gpu": 0, "release": "auto"}
    api = sign("lena")
    refused = _start(api, "lena", **{**asked, "nodes": 3})
    assert refused.status_code == 429
    assert "at most 2 nodes" in refused.json()["detail"] and "asks for 3" in refused.json()["detail"]
    refused = _start(api, "lena", **{**asked, "memory": "16G"})
    assert refused.status_code == 429 and "8.0\u00a0GB" in refused.json()["detail"]
    refused = _start(api, "lena", **{**asked, "gpu": 1})
    assert refused.status_code == 429 and "GPU" in refused.json()["detail"]
    assert _start(api, "lena", **{**asked, "release": "7d"}).status_code in (400, 403)
    assert _start(api, "lena", **asked).status_code == 202

    (item,) = [entry for entry in sign("jonas").get("/limits").json()["items"] if entry["measure"] == "gpu"]
    assert item["amount"] == 1
    assert item["exception"]["given_by"] == "root"
    today = utcnow().date()
    friday = today + timedelta(days=(4 - today.weekday()) % 7)
    assert item["exception"]["until"] == friday.isoformat()
    home = Hands(chromium, site, "jonas")
    home.go("")
    expect(home.page.locator("#may-hold")).to_contain_text("1\u00a0GPU per node until")
    expect(home.page.locator("#may-hold")).to_contain_text("by root")
    home.context.close()


def _start(api: httpx.Client, user: str, **asked: object) -> httpx.Response:
    return api.post(f"/projects/{user}/heat-flow/clusters", json=asked)


def test_the_matrix_is_edited_by_keys_alone_and_keeps_what_is_not_applied(
    chromium: Browser, site: LiveSite
) -> None:
    admin = Hands(chromium, site, "root")
    page = admin.page
    admin.go("admin/quotas")
    admin.cell("student", "clusters").focus()
    page.keyboard.press("ArrowDown")
    expect(admin.cell("student", "total_cpu")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("12")
    page.keyboard.press("Enter")
    expect(admin.cell("student", "total_cpu")).to_have_text("8 12")
    expect(admin.cell("student", "total_memory")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("999")
    page.keyboard.press("Escape")
    expect(admin.cell("student", "total_memory")).to_have_text("64\u00a0GB")
    page.keyboard.press("Enter")
    page.keyboard.type("minus one")
    page.keyboard.press("Tab")
    expect(page.locator(".cell-error")).to_contain_text("Say an amount such as 48 GB")
    page.keyboard.press("Escape")
    page.reload()
    expect(admin.cell("student", "total_cpu")).to_have_text("8 12")
    expect(page.locator("[data-bar]")).to_contain_text("1 change")
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("[data-bar]")).to_have_count(0)
    expect(admin.cell("student", "total_cpu")).to_have_text("8")
    admin.context.close()
    assert not admin.faults


def test_an_applied_change_can_be_undone(chromium: Browser, site: LiveSite, sign: Sign) -> None:
    admin = Hands(chromium, site, "root")
    admin.go("admin/quotas")
    admin.cell("student", "clusters").click()
    admin.page.keyboard.type("5")
    admin.page.keyboard.press("Enter")
    admin.button("Apply 1 change").click()
    expect(admin.cell("student", "clusters")).to_have_text("5")
    admin.button("Undo").click()
    expect(admin.cell("student", "clusters")).to_have_text("2")
    assert sign("jonas").get("/limits").json()["together"]["clusters"] == 2
    admin.context.close()


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_the_pages_fit_and_axe_finds_nothing_serious(
    chromium: Browser, site: LiveSite, language: str
) -> None:
    site.hub.whoever = "root"
    for width, scheme in ((1400, "light"), (360, "dark")):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            locale=language,
            reduced_motion="reduce",
        )
        page = context.new_page()
        for path in ("admin/quotas?row=total_gpu&row=gpu_hours%2Fweek", "admin/release"):
            page.goto(site.url + path)
            page.locator('[data-cell][data-role="student"]').first.click()
            if path.startswith("admin/quotas"):
                page.keyboard.type("7")
                page.keyboard.press("Enter")
                expect(page.locator("[data-bar]")).to_be_visible()
            assert overflow(page) <= 0, (path, width)
            assert serious_faults(page) == [], (path, width)
        page.goto(site.url + "admin/quotas")
        page.locator(".section-head button").click()
        expect(page.locator("#exception-title")).to_be_visible()
        assert serious_faults(page) == [], ("exception", width)
        assert overflow(page) <= 0
        context.close()
