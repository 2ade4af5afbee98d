"""The gallery in a real browser: an instructor publishes, a student finds, forks and runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from services.portal import copying
from services.portal.chores import Chore, Chores
from tests.browser.conftest import PATIENCE_MS
from tests.portal.live import Course, LiveSite
from tests.portal.test_gallery import png

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def copies(site: LiveSite) -> Iterator[None]:
    """Forks are copied as in a portal that runs."""
    chores = Chores(site.portal, [Chore(name="copies", work=copying.go_on, interval_seconds=0.2)])
    site.portal.parts["chores"] = chores
    running = asyncio.run_coroutine_threadsafe(chores.run(), site.loop)
    yield
    running.cancel()


def as_person(chromium: Any, site: LiveSite, name: str, faults: list[str], language: str) -> Page:
    site.hub.whoever = name
    page = chromium.new_context(viewport={"width": 1400, "height": 900}, locale=language).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.accept()))
    return page


def test_an_instructor_publishes_and_a_student_finds_it_in_chinese_forks_and_runs_it(
    chromium: Any, site: LiveSite, copies: None
) -> None:
    site.hub.course = Course(place=0.1, ready=0.2)
    faults: list[str] = []
    project = site.project("alice", "木星的潮汐加热", description="<img src=x onerror=alert(1)>")
    folder = site.settings.state / "volumes" / "default" / "projects" / project.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("# 潮汐\n", encoding="utf-8")
    (folder / ".env").write_text("TOKEN=1\n", encoding="utf-8")
    page = as_person(chromium, site, "alice", faults, "en-US")
    page.goto(site.url + f"projects/alice/{project.slug}/settings")
    page.set_input_files(
        "[data-cover-file]", {"name": "c.png", "mimeType": "image/png", "buffer": png(900, 400)}
    )
    expect(page.locator(".cover-row img")).to_have_attribute("src", re.compile(r"/covers/[0-9a-f]{32}\.jpg$"))
    page.get_by_role("button", name="Publish …").click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("2 files")
    expect(asked).to_contain_text(".env")
    asked.get_by_role("button", name="Publish").click()
    expect(page.locator("#who-sees")).to_contain_text("Public")
    page.context.close()

    page = as_person(chromium, site, "bob", faults, "zh-CN")
    page.goto(site.url)
    page.keyboard.press("Control+k")
    page.keyboard.type("潮汐")
    expect(page.locator("#find-panel a")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/projects/alice/{project.slug}")
    expect(page.get_by_role("button", name="运行…")).to_have_count(0)
    page.locator(".project-head .star").click()
    expect(page.locator(".project-head .star")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="复刻", exact=True).click()
    page.wait_for_url(f"**/projects/bob/{project.slug}")
    page.get_by_role("button", name="运行…").first.click()
    page.get_by_role("button", name="启动").click()
    page.wait_for_url(f"**/user/bob/{project.slug}/lab**")
    page.goto(site.url + "explore")
    expect(page.locator(".gcard")).to_have_count(1)
    expect(page.locator(".gcard .star")).to_contain_text("1")
    page.context.close()
    assert faults == []
