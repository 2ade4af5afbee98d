"""The Run drawer and the files in a real browser: what is pressed, pushed, opened and refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from galilean.clock import utcnow
from services.catalog import store
from tests.browser.conftest import PATIENCE_MS
from tests.portal.live import Course, LiveSite
from tests.portal.test_pages import EVIL, directory

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, site: LiveSite) -> Iterator[Page]:
    """Alice's browser; an error in a script or an alert fails the test."""
    site.hub.whoever = "alice"
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.accept()))
    yield page
    context.close()
    assert faults == []


def test_from_the_list_to_jupyterlab_with_one_typed_name(page: Page, site: LiveSite) -> None:
    site.hub.course = Course(place=0.4, ready=0.6)
    page.goto(site.url + "projects")
    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Name", exact=True).fill("Heat flow")
    expect(page.locator("#slug")).to_have_text("alice/heat-flow")
    page.get_by_role("button", name="Make project").click()
    page.wait_for_url("**/projects/alice/heat-flow")
    page.get_by_role("button", name="Run …").first.click()
    page.get_by_role("button", name="More: Nodes").click()
    expect(page.locator("#run-sum")).to_contain_text("Together 4\u00a0cores, 16\u00a0GB")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#run-title")).to_have_text("Starting Heat flow")
    page.wait_for_url("**/user/alice/heat-flow/lab/tree/welcome.ipynb")
    page.go_back()
    page.wait_for_url("**/projects/alice/heat-flow")
    page.wait_for_timeout(600)
    assert page.url.endswith("/projects/alice/heat-flow"), "going back does not open JupyterLab again"
    expect(page.get_by_role("link", name="Open Lab").first).to_be_visible()


def test_closing_and_loading_again_loses_nothing(page: Page, site: LiveSite) -> None:
    site.project("alice", "Heat flow")
    site.hub.course = Course(place=0.5, ready=2)
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#run-title")).to_have_text("Starting Heat flow")
    page.reload()
    expect(page.locator("#run-title")).to_have_text("Starting Heat flow")
    page.keyboard.press("Escape")
    expect(page.locator("#run-drawer")).not_to_be_visible()
    page.wait_for_url(lambda url: "run=1" not in url)  # the browser tells of a closed dialog a moment later
    expect(page.get_by_role("link", name="Open Lab").first).to_be_visible()
    assert "/projects/" in page.url, "whoever closed the drawer is not carried away"


def test_a_start_can_be_cancelled_and_a_failed_one_tried_again(page: Page, site: LiveSite) -> None:
    site.project("alice", "Heat flow")
    site.hub.course = Course(place=0.2, ready=30)
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Cancel start").click()
    expect(page.locator("#run-title")).to_have_text("Heat flow was not started")
    assert site.open_run("alice", "heat-flow") is None
    site.hub.course = Course(ready=0.5, fails=0)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#run-title")).to_have_text("Heat flow did not start")
    expect(page.locator("#run-drawer")).to_contain_text("No machine time was counted.")
    page.get_by_role("button", name="Change").click()
    expect(page.locator("#run-form")).to_be_visible()


def test_a_refusal_stands_where_one_pressed(page: Page, site: LiveSite) -> None:
    site.project("alice", "Heat flow")
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    expect(page.locator("#run-form")).to_be_visible()
    for _ in range(4):
        site.cluster("alice", cpu_millicores=100, memory_bytes=2**20)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#run-refused")).to_contain_text("4")
    assert site.open_run("alice", "heat-flow") is None


def test_what_cannot_be_had_disables_start_with_the_reason(page: Page, site: LiveSite) -> None:
    site.hub.whoever = "bob"
    site.project("bob", "Heat flow")
    page.goto(site.url + "projects/bob/heat-flow?run=1")
    page.get_by_role("button", name="More: Nodes").click()
    expect(page.get_by_role("button", name="More: Nodes")).to_be_disabled()
    expect(page.locator('[data-why="nodes"]')).to_contain_text("Your role: at most 2\u00a0nodes")
    expect(page.locator(".choice.disabled").first).to_contain_text("Your role: at most 2\u00a0cores per node")
    page.get_by_text("Custom", exact=True).click()
    page.get_by_label("Cores per node", exact=True).fill("3")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    expect(page.locator("#run-sum")).to_contain_text("at most 2\u00a0cores per node")


def test_nothing_that_people_wrote_runs(page: Page, site: LiveSite) -> None:
    project = site.project("alice", EVIL[:100], description=EVIL)
    root = directory(site, project.id)
    root.mkdir(parents=True)
    (root / "README.md").write_text(EVIL + "\n\n[x](javascript:alert(5))")
    (root / "<img src=x onerror=alert(3)>.md").write_text(EVIL)
    (root / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    base = f"{site.url}projects/alice/{project.slug}"
    for path in (
        "",
        "?file=x.svg",
        "?file=%3Cimg%20src%3Dx%20onerror%3Dalert(3)%3E.md",
        "/settings",
        "/runs",
        "?run=1",
    ):
        page.goto(base + path)
        page.wait_for_timeout(300)
    page.goto(site.url + "projects")
    page.wait_for_timeout(200)


def test_deleting_a_project_asks_for_its_name(page: Page, site: LiveSite) -> None:
    project = site.project("alice", "Heat flow")
    directory(site, project.id).mkdir(parents=True)
    page.goto(site.url + "projects/alice/heat-flow/settings")
    page.get_by_role("button", name="Delete project …").click()
    confirm = page.get_by_role("dialog").get_by_role("button", name="Delete project")
    expect(confirm).to_be_disabled()
    page.locator("#confirm").fill("Heat flow")
    confirm.click()
    page.wait_for_url("**/projects")
    expect(page.locator("#main")).to_contain_text("No projects yet")


def test_saving_settings_changes_of_the_request_only_what_was_changed(page: Page, site: LiveSite) -> None:
    project = site.project("alice", "Heat flow")
    before = {
        "nodes": 2, "cpu_millicores": 1500, "memory_bytes": 4 << 30, "gpu": 1, "gpu_model": "a100", "pool": "physics",
        "storage_bytes": 3 << 30, "ports": [8080], "release": "2h", "on_node_loss": "keep",
    }  # fmt: skip

    def request(**change: object) -> Any:
        with site.portal.db.write() as conn:
            found = store.get(conn, "alice", "heat-flow")
            assert found is not None
            if change:
                store.update(conn, found, now=utcnow(), default_request=change)
            return found.default_request

    request(**before)
    page.goto(f"{site.url}projects/alice/{project.slug}/settings")
    page.locator("#description").fill("Changed")
    page.locator("#project-settings").get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).to_have_text("Saved")
    assert request() == before
    page.reload()
    page.get_by_label("If a node is lost").select_option(label="Give everything back")
    page.get_by_label("Pool").select_option(label="Site’s default")
    page.get_by_label("Local storage per node, GB").fill("")
    page.locator("#project-settings").get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).to_have_text("Saved")
    left = {key: value for key, value in before.items() if key not in ("pool", "storage_bytes")}
    assert request() == {**left, "on_node_loss": "release"}


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_axe_finds_nothing_serious(
    chromium: Any, site: LiveSite, width: int, scheme: Any
) -> None:
    project = site.project(
        "alice", "热传导 " + "a very long name that wants to be broken " * 2, description="x" * 300
    )
    root = directory(site, project.id)
    root.mkdir(parents=True)
    (root / ("long-" * 40 + ".ipynb")).write_text("{}")
    site.cluster(
        "alice", project_id=project.id, slug=project.slug, status="released", released=True, target="released"
    )
    site.hub.whoever = "alice"
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    axe = (Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js").read_text()
    base = f"projects/alice/{project.slug}"
    for path in (
        "projects",
        "projects/new",
        base,
        base + "?run=1",
        base + "/runs",
        base + "/settings",
        "machine-time",
    ):
        page.goto(site.url + path)
        page.wait_for_timeout(500)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
        page.evaluate(axe)
        found = page.evaluate(
            "axe.run({exclude: [['.topbar']]}, {iframes: false}).then(r => r.violations.filter(v => ['serious','critical'].includes(v.impact))"
            ".map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + (n.failureSummary||'')).join(' | ')))"
        )
        assert found == [], f"{path}: {found}"
    context.close()


def test_the_administration_fits_a_narrow_screen_with_its_menu_folded(chromium: Any, site: LiveSite) -> None:
    site.hub.whoever = "root"
    context = chromium.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    for path in (
        "admin",
        "admin/people",
        "admin/people/bob",
        "admin/people-import",
        "admin/roles",
        "account",
    ):
        page.goto(site.url + path)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
    page.goto(site.url + "admin/people-import")
    fold = page.locator(".side-fold")
    expect(fold.locator("summary")).to_have_text("Administration: People")
    fold.locator("summary").click()
    links = fold.get_by_role("link")
    assert links.count() == page.locator(".side .sidelink").count() > 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    fold.get_by_role("link", name="Audit").click()
    expect(page.locator("h1")).to_have_text("Audit")
    context.close()
