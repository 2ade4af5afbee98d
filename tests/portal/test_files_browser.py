"""The file manager in a real browser: a folder dropped, an upload paused and gone on with later, and the rest."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect, sync_playwright

from tests.browser.conftest import PATIENCE_MS
from tests.portal.live import LiveSite
from tests.portal.test_pages import directory

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
    context = chromium.new_context(
        viewport={"width": 1400, "height": 900}, locale="en-US", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.accept()))
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def root(site: LiveSite) -> Path:
    """The files of alice's project ``heat-flow``."""
    found = directory(site, site.project("alice", "Heat flow").id)
    found.mkdir(parents=True)
    return found


def row(page: Page, name: str) -> Any:
    return page.locator(f'.tree-item[data-name="{name}"]')


def act(page: Page, name: str, what: str) -> None:
    row(page, name).locator("summary").click()
    row(page, name).get_by_role("button", name=what, exact=True).click()


def drop(page: Page, *paths: Path) -> None:
    """As somebody does who drags from the desktop; only so does a browser hand over folders."""
    box = page.locator("[data-drop]").bounding_box()
    assert box is not None
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send(
            "Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 80, "y": box["y"] + 120, "data": data}
        )


def test_a_folder_is_dropped_renamed_edited_packed_unpacked_and_downloaded(
    page: Page, root: Path, site: LiveSite, tmp_path: Path
) -> None:
    course = tmp_path / "course 课程"
    (course / "data" / "empty").mkdir(parents=True)
    (course / "README.md").write_text("# Tides\n")
    (course / "data" / "热流.csv").write_text("a,b\n1,2\n")
    page.goto(site.url + "projects/alice/heat-flow")
    expect(page.locator("[data-empty]")).to_contain_text("Nothing here yet")
    drop(page, course)
    expect(row(page, "course 课程")).to_be_visible()
    assert (root / "course 课程" / "data" / "热流.csv").read_text() == "a,b\n1,2\n"
    assert (root / "course 课程" / "data" / "empty").is_dir()

    row(page, "course 课程").locator(".tree-row").click()
    expect(page.locator("[data-shown-name]")).to_have_text("README.md")
    act(page, "README.md", "Rename")
    page.get_by_label("New name").fill("notes.md")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(row(page, "notes.md")).to_be_visible()
    act(page, "notes.md", "Edit text")
    page.get_by_role("textbox", name="Edit notes.md").fill("# Heat\n")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert (root / "course 课程" / "notes.md").read_text() == "# Heat\n"

    page.get_by_label("Top folder").click()
    act(page, "course 课程", "Pack …")
    page.get_by_role("dialog").get_by_role("button", name="Pack").click()
    expect(row(page, "course 课程.zip")).to_be_visible()
    act(page, "course 课程.zip", "Unpack")
    expect(row(page, "course 课程 (2)")).to_be_visible()
    assert (root / "course 课程 (2)" / "course 课程" / "notes.md").read_text() == "# Heat\n"

    with page.expect_download() as coming:
        act(page, "course 课程.zip", "Download")
    assert coming.value.suggested_filename == "course 课程.zip"
    assert Path(coming.value.path()).read_bytes() == (root / "course 课程.zip").read_bytes()
    with page.expect_download() as coming:
        act(page, "course 课程", "Download")
    with zipfile.ZipFile(coming.value.path()) as archive:
        assert "course 课程/notes.md" in archive.namelist()

    # Without a mouse: down to a row, marked, the next one, too, and away with both.
    row(page, "course 课程 (2)").locator(".tree-row").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("[data-count]")).to_have_text("2 selected")
    page.keyboard.press("Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row(page, "course 课程.zip")).to_have_count(0)
    assert [name for name in os.listdir(root) if not name.startswith(".")] == ["course 课程"]


def test_an_upload_is_paused_and_goes_on_after_the_page_was_loaded_again(
    page: Page, root: Path, site: LiveSite, tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(24 << 20))
    sent: list[Request] = []
    page.on("request", lambda one: sent.append(one) if "/uploads" in one.url else None)
    page.goto(site.url + "projects/alice/heat-flow")
    expect(page.locator("[data-empty]")).to_contain_text("Nothing here yet")
    devtools = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 3 << 20}
    devtools.send("Network.enable")
    devtools.send("Network.emulateNetworkConditions", slow)
    page.locator("[data-upload]").set_input_files([big])
    line = page.locator(".upload-line")
    expect(line).to_contain_text(re.compile(r"[3-9]\.\d\sMB / 24\.0"))
    line.get_by_role("button", name="Pause").click()
    expect(line).to_contain_text("Paused")
    page.reload()
    expect(line).to_contain_text("Paused")
    assert not (root / "big.bin").exists(), "half of a file has no name"
    devtools.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    sent.clear()
    with page.expect_file_chooser() as asked:
        line.get_by_role("button", name="Choose the file").click()
    asked.value.set_files(big)
    expect(row(page, "big.bin")).to_be_visible()
    expect(line).to_have_count(0)
    assert (root / "big.bin").read_bytes() == big.read_bytes()
    offsets = [int(one.headers["upload-offset"]) for one in sent if one.method == "PATCH"]
    assert offsets
    assert offsets[0] > 0, "it goes on, it does not begin again"
    assert "POST" not in [one.method for one in sent]


def test_a_name_that_is_taken_is_asked_about_and_nothing_is_lost(
    page: Page, root: Path, site: LiveSite, tmp_path: Path
) -> None:
    (root / "a.txt").write_text("old")
    (tmp_path / "a.txt").write_text("new")
    page.goto(site.url + "projects/alice/heat-flow")
    expect(row(page, "a.txt")).to_be_visible()
    page.locator("[data-upload]").set_input_files([tmp_path / "a.txt"])
    page.get_by_role("dialog").get_by_role("button", name="Keep both").click()
    expect(row(page, "a (2).txt")).to_be_visible()
    assert ((root / "a.txt").read_text(), (root / "a (2).txt").read_text()) == ("old", "new")


def test_a_line_that_breaks_is_tried_again_without_a_word(
    page: Page, root: Path, site: LiveSite, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(os.urandom(1 << 20))
    cut: list[str] = []

    def breaks(route: Route) -> None:
        if route.request.method == "PATCH" and len(cut) < 2:
            cut.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/uploads/*", breaks)
    page.goto(site.url + "projects/alice/heat-flow")
    page.locator("[data-upload]").set_input_files([tmp_path / "a.bin"])
    expect(row(page, "a.bin")).to_be_visible()
    assert len(cut) == 2
    assert (root / "a.bin").read_bytes() == (tmp_path / "a.bin").read_bytes()
    expect(page.locator(".toastline.bad")).to_have_count(0)


def test_a_file_may_end_in_a_word_of_the_language(page: Page, root: Path, site: LiveSite) -> None:
    (root / "notes.constructor").write_text("a")
    page.goto(site.url + "projects/alice/heat-flow")
    expect(row(page, "notes.constructor")).to_be_visible()


@pytest.mark.parametrize("folder", ["../../..", "data/../../../..", "%252e%252E/..%255c..", ".."])
def test_an_address_does_not_lead_out_of_the_files(
    page: Page, root: Path, site: LiveSite, folder: str
) -> None:
    (root / "notes.txt").write_text("a")
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.partition("?")[0]))
    page.goto(f"{site.url}projects/alice/heat-flow?folder={folder}")
    expect(row(page, "notes.txt")).to_be_visible()
    api = site.url + "api/v1/"
    files = api + "projects/alice/heat-flow/"
    assert {url for url in asked if url.startswith(api)} <= {
        api + "notices",
        *(files + what for what in ("files", "jobs", "object-transfers")),
    }
