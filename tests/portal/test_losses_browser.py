"""The release dialog in Chromium: open at once, filled in beside, and answered before anybody has looked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import serious_faults
from tests.portal.live import Course, LiveSite
from tests.portal.test_browser import chromium, page  # noqa: F401 - fixtures
from tests.portal.test_losses import GONE, SOMETHING, Images, images  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("GALILEAN_PICTURES", "")


def picture(page: Page, name: str) -> None:  # noqa: F811
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"losses-{name}.png")


def test_what_would_be_lost_appears_in_the_open_dialog_and_the_release_waits_for_nobody(
    page: Page,  # noqa: F811
    site: LiveSite,
    images: Images,  # noqa: F811
) -> None:
    site.project("alice", "Heat flow")
    site.hub.course = Course(place=0.1, ready=0.2)
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    page.get_by_role("button", name="More: Nodes").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/alice/heat-flow/lab**")
    images.goes_on.clear()
    images.nodes = {0: SOMETHING, 1: GONE}
    page.goto(site.url)
    dialog = page.locator("#dialogs dialog")

    def ask() -> None:
        page.get_by_role("main").get_by_role("button", name="Release").first.click()
        expect(dialog).to_contain_text("Release Heat flow?")

    ask()
    expect(dialog).to_contain_text("Looking at what changed outside “work”")
    picture(page, "looking")
    images.goes_on.set()
    expect(dialog).to_contain_text("2 Python packages: heat 1.0, torch 2.9")
    expect(dialog).to_contain_text("Could not be looked at.")
    expect(dialog.get_by_role("link", name="Save image")).to_have_count(1)
    assert serious_faults(page) == []
    picture(page, "light")
    page.emulate_media(color_scheme="dark")
    picture(page, "dark")
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture(page, "narrow")
    page.set_viewport_size({"width": 1280, "height": 800})
    dialog.get_by_role("button", name="Go on working").click()
    page.goto(site.url + "sign-out")
    expect(page.get_by_role("main")).to_contain_text("2 Python packages: heat 1.0, torch 2.9")
    picture(page, "sign-out")
    page.context.add_cookies([{"name": "galilean_language", "value": "zh_CN", "url": site.url}])
    page.goto(site.url + "sign-out")
    expect(page.get_by_role("main")).to_contain_text("2 个 Python 软件包：heat 1.0, torch 2.9")
    picture(page, "sign-out-zh")
    page.context.clear_cookies(name="galilean_language")
    page.goto(site.url)
    images.goes_on.clear()
    ask()
    expect(dialog).to_contain_text("Looking at what changed")
    dialog.get_by_role("button", name="Release 1 cluster").click()
    expect(page.locator("#toasts")).to_contain_text("Heat flow goes back")
