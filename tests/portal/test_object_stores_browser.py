"""Object stores in a real browser: added, a folder imported, results exported, what broke off gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import insert, select

from services.object_stores.tables import object_stores, object_transfers
from tests.browser.conftest import PATIENCE_MS
from tests.object_stores.server import ACCESS, SECRET, ObjectStore
from tests.portal.live import LiveSite
from tests.portal.test_pages import directory

pytestmark = pytest.mark.browser


@pytest.fixture
def site(tmp_path: Path, object_store: ObjectStore) -> Iterator[LiveSite]:
    live = LiveSite(tmp_path / "state", f"object_stores: {{reachable: ['{object_store.host}']}}")
    live.hub.add("alice", "researcher")
    live.hub.add("root", "admin")
    with live:
        yield live


@pytest.fixture
def page(site: LiveSite) -> Iterator[Page]:
    site.hub.whoever = "alice"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US").new_page()
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page
        browser.close()
    assert faults == []


def picture(page: Page, name: str) -> None:
    """A picture to look at, where ``GALILEAN_PICTURES`` names a folder."""
    folder = os.environ.get("GALILEAN_PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def looks(page: Page, name: str) -> None:
    """Light, dark and narrow."""
    picture(page, name)
    if os.environ.get("GALILEAN_PICTURES"):
        page.evaluate("document.documentElement.setAttribute('data-bs-theme', 'dark')")
        picture(page, f"{name}-dark")
        page.evaluate("document.documentElement.setAttribute('data-bs-theme', 'light')")
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        picture(page, f"{name}-narrow")
        page.set_viewport_size({"width": 1400, "height": 900})


def add(page: Page, site: LiveSite, store: ObjectStore, bucket: str) -> None:
    page.goto(site.url + "object-stores")
    form = page.locator(".store-new")
    form.get_by_label("Name", exact=True).fill("Lab")
    form.get_by_label("Address").fill(store.endpoint)
    form.get_by_label("Bucket", exact=True).fill(bucket)
    form.get_by_label("Access key id").fill(ACCESS)
    form.get_by_label("Secret key").fill("wrong")
    form.get_by_role("button", name="Ask it and keep it").click()
    expect(page.get_by_text("or the secret key is wrong")).to_be_visible()
    form.get_by_label("Secret key").fill(SECRET)
    form.get_by_label("Files may be written to it").check()
    looks(page, "object-store-new")
    form.get_by_role("button", name="Ask it and keep it").click()
    expect(page.locator(".store-list li")).to_have_count(1)
    page.get_by_role("button", name="Test Lab").click()
    expect(page.get_by_text("Lab answers.")).to_be_visible()
    assert SECRET not in page.content()


def test_a_folder_is_imported_results_are_exported_and_a_store_is_forgotten(
    page: Page, site: LiveSite, object_store: ObjectStore
) -> None:
    bucket = "seen-in-a-browser"
    objects = {f"runs/2026/r{n}.csv": b"1,2\n" * n for n in range(3)}
    object_store.bucket(bucket, {**objects, "notes.txt": b"n", "运行/说明.txt": b"x"})
    project = site.project("alice", "Heat flow")
    root = directory(site, project.id)
    root.mkdir(parents=True)
    (root / "result.txt").write_text("42")
    add(page, site, object_store, bucket)
    looks(page, "object-stores")

    page.goto(site.url + "projects/alice/heat-flow")
    page.locator("summary[aria-label='New or a whole folder']").click()
    page.get_by_role("button", name="Import from object store …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="runs/")).to_be_visible()
    looks(page, "object-import")
    dialog.get_by_role("button", name="runs/").click()
    dialog.get_by_label("Select 2026/").check()
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("3 files came in.")).to_be_visible()
    expect(page.locator('.tree-item[data-name="2026"]')).to_be_visible()
    assert (root / "2026/r2.csv").read_bytes() == objects["runs/2026/r2.csv"]

    page.locator('.tree-item[data-name="result.txt"] .check').check()
    page.get_by_role("button", name="Export …", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Folder in the store").fill("results")
    looks(page, "object-export")
    dialog.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("1 files were written to Lab.")).to_be_visible()
    assert object_store.keys(bucket)["results/result.txt"] == 2

    page.goto(site.url + "object-stores")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete Lab").click()
    expect(page.get_by_text("No object store yet")).to_be_visible()


def test_a_copy_that_broke_off_is_told_at_the_files_and_goes_on(
    page: Page, site: LiveSite, object_store: ObjectStore
) -> None:
    bucket = "broken-off"
    object_store.bucket(bucket, {"a.txt": b"a", "b.txt": b"b"})
    project = site.project("alice", "Heat flow")
    directory(site, project.id).mkdir(parents=True)
    add(page, site, object_store, bucket)
    with site.portal.db.read() as conn:
        store = conn.execute(select(object_stores.c.id)).scalar_one()
    asked: dict[str, Any] = {
        "do": "import", "store": store, "prefix": "", "names": [], "folder": "", "paths": [], "taken": "leave",
    }  # fmt: skip
    now = site.portal.clock()
    row = {"id": "0" * 26, "by": "alice", "kind": "project", "item_id": project.id, "store_id": store}
    row |= {"store_name": "Lab", "asked": asked, "state": "broken", "process": "x", "job_id": "x"}
    row |= {"objects": 0, "size_bytes": 0, "began_at": now, "seen_at": now, "ended_at": now}
    with site.portal.db.write() as conn:
        conn.execute(insert(object_transfers).values(**row))
    page.goto(site.url + "projects/alice/heat-flow")
    expect(page.get_by_text("A copy from or to Lab was broken off.")).to_be_visible()
    looks(page, "object-broken-off")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("2 files came in.")).to_be_visible()
    expect(page.get_by_text("was broken off")).to_have_count(0)
