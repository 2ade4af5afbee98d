"""Data sets and archives in a real browser, as an instructor, a student and two administrators use them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from services.portal import storage
from tests.browser.conftest import PATIENCE_MS, chromium  # noqa: F401 - a fixture
from tests.portal.live import LiveSite
from tests.portal.test_gallery import png
from tests.portal.test_pages import directory

pytestmark = pytest.mark.browser
Browse = Callable[..., Page]


@pytest.fixture
def browse(chromium: Any, site: LiveSite) -> Iterator[Browse]:  # noqa: F811
    """``browse(name, language=, at=)``: somebody's browser; an error in a script or an alert fails the test."""
    faults: list[str] = []
    contexts: list[Any] = []

    def opener(name: str, language: str = "en-GB", at: LiveSite = site) -> Page:
        at.hub.whoever = name
        context = chromium.new_context(
            viewport={"width": 1400, "height": 900}, locale=language, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.accept()))
        return page

    yield opener
    for context in contexts:
        context.close()
    assert faults == []


def test_a_data_set_is_made_filled_shown_published_and_used(browse: Browse, site: LiveSite) -> None:
    site.project("alice", "Tides")
    page = browse("alice")
    page.goto(site.url + "datasets")
    page.get_by_role("link", name="New data set").first.click()
    page.get_by_label("Name", exact=True).fill("伽利略号红外谱")
    expect(page.locator("#mount-shown")).to_have_text("jia-li-lue-hao-hong-wai-pu")
    page.get_by_label("Mount directory").fill("io-nims")
    expect(page.locator("#mount-shown")).to_have_text("io-nims")
    page.get_by_label("In a sentence").fill("每一条光谱")
    page.get_by_role("button", name="Make data set").click()
    page.wait_for_url(re.compile(r"/datasets/alice/[^/]+$"))
    place = page.url
    expect(page.locator("[data-empty]")).to_contain_text("Nothing here yet")
    table = b"orbit,watts\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(50))
    files = [
        {"name": "README.md", "mimeType": "text/markdown", "buffer": "# 红外谱\n".encode()},
        {"name": "heat.csv", "mimeType": "text/csv", "buffer": table},
    ]
    page.locator("[data-upload]").first.set_input_files(files)  # type: ignore[arg-type]
    page.locator('.tree-item[data-name="heat.csv"] .tree-row').click()
    shown = page.locator("iframe.shown-frame").content_frame
    expect(shown.get_by_text("watts").first).to_be_visible()

    page.get_by_role("link", name="Settings").click()
    page.locator("[data-cover-file]").set_input_files(
        [{"name": "c.png", "mimeType": "image/png", "buffer": png(900, 400)}]
    )
    expect(page.locator(".cover-row img")).to_have_attribute("src", re.compile(r"/covers/[0-9a-f]{32}\.jpg$"))
    cover = page.locator(".cover-row img").get_attribute("src") or ""
    page.get_by_label("Description").fill("From *NIMS*, all orbits.")
    page.locator("#dataset-settings").get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).not_to_be_empty()
    page.get_by_role("button", name="Publish for ever …").click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("2 files")
    expect(asked).to_contain_text("This cannot be taken back")
    publish = asked.get_by_role("button", name="Publish for ever")
    expect(publish).to_be_disabled()
    asked.get_by_role("checkbox").check()
    publish.click()
    expect(page.locator("#who-reads")).to_contain_text("for ever")
    expect(page.get_by_role("button", name="Publish for ever …")).to_have_count(0)

    page.get_by_role("button", name="Add to a project").click()
    asked = page.get_by_role("dialog")
    expect(asked.get_by_label("Found at")).to_have_value("io-nims")
    asked.get_by_role("button", name="Add").click()
    expect(asked).to_have_count(0)
    page.goto(site.url + "projects/alice/tides/datasets")
    expect(page.locator("#links")).to_contain_text("~/datasets/io-nims")

    # Somebody else, in Chinese: found, looked at, made a favourite, mounted; and nothing of it can be changed.
    page = browse("bob", "zh-CN")
    site.project("bob", "潮汐")
    page.goto(site.url + "explore/datasets")
    page.get_by_placeholder("搜索标题、内容、作者").fill("红外")
    card = page.locator(".gcard")
    expect(card).to_have_count(1)
    expect(card.locator("img.cover")).to_have_attribute("src", cover)
    card.get_by_role("link", name="伽利略号红外谱").click()
    page.wait_for_url(place)
    page.locator(".dataset-head .star").click()
    expect(page.locator(".dataset-head .star")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-upload]")).to_have_count(0)
    expect(page.get_by_role("link", name="设置", exact=True)).to_have_count(0)
    page.goto(site.url + "datasets?show=favourites")
    expect(page.locator(".gcard")).to_contain_text("伽利略号红外谱")
    page.goto(site.url + "projects/bob/chao-xi/datasets")
    page.get_by_placeholder("搜索数据集").fill("红外")
    page.locator("#found button", has_text="伽利略号红外谱").click()
    expect(page.locator("#links")).to_contain_text("~/datasets/io-nims")
    expect(page.locator("#links")).to_contain_text("只读")


def test_ten_projects_move_to_a_fresh_installation(browse: Browse, site: LiveSite, tmp_path: Path) -> None:
    for number in range(10):
        project = site.project("alice", f"Project {number}")
        folder = directory(site, project.id)
        folder.mkdir(parents=True)
        (folder / "热流.txt").write_text(f"watts {number}\n", encoding="utf-8")
    asyncio.run_coroutine_threadsafe(storage.count_sizes(site.portal), site.loop).result(30)
    page = browse("root")
    page.goto(site.url + "admin/projects")
    page.get_by_label("Choose all on this page").check()
    expect(page.locator("[data-selection-bar]")).to_contain_text("Chosen: 10")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Export").click()
    archive = tmp_path / coming.value.suggested_filename
    coming.value.save_as(archive)
    assert archive.name.endswith(".galilean.tar.gz")

    with LiveSite(tmp_path / "fresh") as fresh:
        for name, role in (("chief", "admin"), ("alice", "researcher"), ("bob", "student")):
            fresh.hub.add(name, role)
        fresh.project("alice", "Project 3")  # somebody was quicker
        page = browse("chief", at=fresh)
        page.goto(fresh.url + "admin/archives")
        page.get_by_label("Archive (.galilean.tar.gz)").set_input_files(archive)
        page.get_by_role("button", name="Look at it …").click()
        rows = page.locator("table.archive tbody tr")
        expect(rows).to_have_count(10)
        taken = rows.filter(has_text="already")
        expect(taken).to_have_count(1)
        expect(taken).to_contain_text("Project 3")
        rows.filter(has_text="Project 7").get_by_label("What is done with").select_option("skip")
        rows.filter(has_text="Project 8").get_by_label("Owner of").fill("bob")
        page.get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_text("9 of 9 projects are there")).to_be_visible()
        expect(rows.filter(has_text="left out")).to_contain_text("Project 7")
        page.get_by_role("link", name="project-3-2").click()
        page.locator('.tree-item[data-name="热流.txt"] .tree-row').click()
        expect(page.locator("iframe.shown-frame").content_frame.get_by_text("watts 3")).to_be_visible()
        page.goto(fresh.url + "admin/projects?author=bob")
        expect(page.locator("table.all-projects tbody tr")).to_have_count(1)
