"""Disks in a real browser: made, chosen in the Run drawer, held by that run, told to the next one, deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, overflow, serious_faults
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("GALILEAN_PICTURES", "")
POOLS = """
pools:
  default: {title: Everybody}
  physics: {title: Physics}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    live = LiveSite(tmp_path / "state", POOLS)
    live.hub.add("alice", "researcher")
    with live:
        yield live


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def a_page(chromium: Browser, width: int = 1400, **more: object) -> Page:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        reduced_motion="reduce",
        **({"locale": "en-GB"} | more),  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/disks-{name}.png")


def test_a_disk_is_made_chosen_held_and_deleted(chromium: Browser, site: LiveSite, sign: Sign) -> None:
    site.hub.whoever = "alice"
    projects = [made(sign("alice"), name) for name in ("Writer", "Reader")]
    page = a_page(chromium)
    page.goto(site.url + "datasets")
    page.get_by_role("link", name="Disks").click()
    expect(page.get_by_text("No disks yet")).to_be_visible()
    page.get_by_role("button", name="New disk …").click()
    page.get_by_label("Name", exact=True).fill("io-data")
    page.get_by_label("Size in GiB").fill("20")
    page.get_by_label("Pool").select_option("physics")
    picture(page, "new")
    page.get_by_role("button", name="Make disk").click()
    expect(page.get_by_role("cell", name="20 GiB")).to_be_visible()

    def drawer(number: int) -> None:
        project = projects[number]
        page.goto(f"{site.url}projects/{project['owner']}/{project['slug']}?run=1")
        expect(page.locator("#run-form")).to_be_visible()

    drawer(0)
    page.get_by_role("combobox", name="io-data").select_option(label="To write")
    expect(
        page.locator('input[name="pool"][value="physics"]')
    ).to_be_checked()  # the disk takes the run there
    page.locator('label:has(input[name="pool"][value="default"])').click()
    expect(page.locator("#run-sum")).to_contain_text("is in the pool “physics”")
    expect(page.locator("#run-start")).to_be_disabled()
    page.locator('label:has(input[name="pool"][value="physics"])').click()
    expect(page.locator("#run-start")).to_be_enabled()
    page.get_by_role("combobox", name="io-data").scroll_into_view_if_needed()
    picture(page, "drawer")
    page.locator("#run-start").click()
    run = None
    for _ in range(100):
        run = site.open_run("alice", projects[0]["slug"])
        if run is not None:
            break
        page.wait_for_timeout(100)
    assert run is not None
    assert (run.pool, run.request["disks"]) == ("physics", {"io-data": "write"})

    drawer(1)
    expect(page.get_by_text("Writer writes it")).to_be_visible()
    for words in ("To read", "To write"):
        option = page.get_by_role("combobox", name="io-data").locator("option", has_text=words)
        assert option.get_attribute("disabled") is not None
    page.goto(site.url + "disks")
    expect(page.get_by_text("Writer writes it")).to_be_visible()
    expect(page.get_by_role("button", name="Delete …")).to_have_count(0)
    assert serious_faults(page) == []
    picture(page, "list")
    if PICTURES:
        for name, more in (
            ("narrow", {"width": 360}),
            ("dark", {"color_scheme": "dark"}),
            ("chinese", {"locale": "zh-CN"}),
        ):
            other = a_page(chromium, **more)  # type: ignore[arg-type]
            other.goto(site.url + "disks")
            picture(other, name)
            other.goto(f"{site.url}projects/{projects[1]['owner']}/{projects[1]['slug']}?run=1")
            other.locator(".disk-mode").scroll_into_view_if_needed()
            picture(other, f"{name}-drawer")
            other.context.close()
    narrow = a_page(chromium, 360)
    narrow.goto(site.url + "disks")
    assert overflow(narrow) <= 0

    sign("alice").delete(f"/clusters/{run.id}")
    page.reload()
    page.get_by_role("button", name="Delete …").click()
    page.get_by_label("Type “io-data”").fill("io")
    page.get_by_role("button", name="Delete disk").click()
    expect(page.get_by_text("to confirm")).to_be_visible()
    page.get_by_label("Type “io-data”").fill("io-data")
    picture(page, "delete")
    page.get_by_role("button", name="Delete disk").click()
    expect(page.get_by_text("No disks yet")).to_be_visible()
