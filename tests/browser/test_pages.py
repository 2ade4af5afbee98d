"""Home and administration in a real browser: live, reachable, readable, at every width."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import expect

from spawner import records
from tests.browser.conftest import OpenPage, overflow, serious_faults
from tests.web.site import Site

pytestmark = pytest.mark.browser

PAGES = [
    ("alice", ""),
    ("jonas", ""),
    ("newcomer", ""),
    ("maria", "admin/online"),
    ("maria", "admin/people"),
    ("maria", "components"),
    ("alice", "no/such/page"),
]


@pytest.fixture
def furnished(site: Site) -> Site:
    project = site.project(
        "alice", "Tidal heating of Io, with a name that is long because people write long names"
    )
    site.project("alice", "热传导模拟")
    site.cluster("alice", "Heat flow", nodes=2)
    site.cluster("alice", "Starting up", status="starting", nodes=2)
    site.cluster("alice", status="released", released=True, project_id=project.id, held=timedelta(minutes=30))
    return site


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 1400), ("light", 360)])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    furnished: Site, open_page: OpenPage, theme: str, width: int
) -> None:
    found = []
    for name, path in PAGES:
        page = open_page(name, path, theme=theme, width=width)
        page.wait_for_timeout(150)
        found += [f"{path or 'home'} of {name}: {fault}" for fault in serious_faults(page)]
        if overflow(page):
            found.append(f"{path or 'home'} of {name}: {overflow(page)} px too wide")
        page.context.close()
    assert not found, "\n".join(found)


def test_a_cluster_that_starts_and_ends_is_seen_without_reloading(site: Site, open_page: OpenPage) -> None:
    page = open_page("alice")
    expect(page.locator("#meter")).to_contain_text("Nothing running")
    page.wait_for_timeout(1300)
    run = site.cluster("alice", "Heat flow", nodes=2)
    expect(page.locator("#running")).to_contain_text("Heat flow")
    expect(page.locator("#meter .meter")).to_contain_text("1 cluster")
    site.write(
        lambda conn: conn.exec_driver_sql("UPDATE clusters SET released_at = queued_at WHERE id = ?", (run,))
    )
    expect(page.locator("#running")).not_to_contain_text("Heat flow")


def test_held_time_goes_on_by_itself(site: Site, open_page: OpenPage) -> None:
    site.cluster("alice")
    page = open_page("alice")
    first = page.locator("#running .held-time").inner_text()
    expect(page.locator("#running .held-time")).not_to_have_text(first)


def test_choosing_a_node_points_the_doors_at_it(site: Site, open_page: OpenPage) -> None:
    site.cluster("alice", nodes=2)
    page = open_page("alice")
    page.locator("#running .seg label").nth(1).click()
    assert "/node-1/lab" in (page.locator("[data-door=lab]").get_attribute("href") or "")
    assert "/node-1/" in (page.locator("[data-door=terminal]").get_attribute("href") or "")


def test_release_takes_two_steps_and_tells_what_happened(site: Site, open_page: OpenPage) -> None:
    run = site.cluster("alice", "Heat flow")
    page = open_page("alice")
    page.locator("#running").get_by_role("button", name="Release").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Stays:")
    dialog.get_by_role("button", name="Release 1 cluster").click()
    expect(page.locator("#toasts")).to_contain_text("Heat flow goes back")
    expect(page.get_by_role("dialog")).to_have_count(0)
    with site.portal.db.read() as conn:
        row = records.get(conn, run)
    assert row is not None
    assert row.stop_asked_by == "alice"


def test_the_meter_opens_by_keyboard_and_closes_with_escape(site: Site, open_page: OpenPage) -> None:
    site.cluster("alice", nodes=2)
    page = open_page("alice")
    page.locator("#meter summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#meter .panel")).to_be_visible()
    assert page.locator("#meter .doors").count() == 2
    page.keyboard.press("Escape")
    expect(page.locator("#meter .panel")).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('#meter') !== null")


def test_slash_goes_to_the_search(open_page: OpenPage) -> None:
    page = open_page("alice")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"


def test_theme_and_language_are_remembered(open_page: OpenPage) -> None:
    page = open_page("alice", width=1600)
    page.locator("#dark-theme-toggle").click()
    page.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_contain_text("欢迎")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    expect(page.locator("h1")).to_contain_text("欢迎")


def test_a_lost_connection_is_one_quiet_line_and_heals(site: Site, open_page: OpenPage) -> None:
    page = open_page("alice")
    page.wait_for_timeout(800)
    page.route("**/events?*", lambda route: route.abort())
    site.loop.call_soon_threadsafe(site.portal.parts["watcher"].close)
    expect(page.locator("#connection")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("Your clusters run on")
    site.portal.parts["watcher"].closing = False
    page.unroute("**/events?*")
    expect(page.locator("#connection")).to_be_hidden(timeout=20_000)


def test_an_admin_finds_chooses_and_releases_with_a_reason(site: Site, open_page: OpenPage) -> None:
    run = site.cluster("bob", "Night run", nodes=2)
    site.cluster("carol", "Other")
    page = open_page("maria", "admin/online")
    page.get_by_role("searchbox", name="Person or project").fill("night")
    expect(page.locator("#online-chips .count")).to_have_text("1 of 2 clusters")
    assert "q=night" in page.url
    page.locator(".row-check").check()
    bar = page.locator("[data-selection-bar]")
    expect(bar).to_contain_text("Night run, of bob")
    bar.get_by_role("button", name="Release 1 cluster").click()
    page.get_by_label("What should they be told?").fill("maintenance")
    page.get_by_role("dialog").get_by_role("button", name="Release 1 cluster").click()
    expect(page.locator("#toasts")).to_contain_text("told why")
    with site.portal.db.read() as conn:
        row = records.get(conn, run)
    assert row is not None
    assert "maintenance" in str(row.explanation)


def test_a_newcomers_page_turns_into_home_when_the_role_is_given(site: Site, open_page: OpenPage) -> None:
    waiting = open_page("newcomer")
    expect(waiting.locator("h2").first).to_contain_text("waits for a role")
    waiting.wait_for_timeout(500)
    admin = open_page("maria", "admin/people")
    site.hub.whoever = "newcomer"
    admin.locator("#people summary.btn").first.click()
    admin.locator("#people .panel").get_by_role("button", name="Student").first.click()
    expect(admin.locator("#toasts")).to_contain_text("newcomer is Student now")
    expect(waiting.get_by_text("Make a project")).to_be_visible()
