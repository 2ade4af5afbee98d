"""A node restarted from the project's page in Chromium: what is lost is named, and the drawer follows it until it is back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from galilean.clock import utcnow
from spawner import attempts
from spawner.records import present
from spawner.steps import NodeEnd
from tests.portal.live import Course, LiveSite
from tests.portal.test_browser import chromium, page  # noqa: F401 - fixtures
from tests.portal.test_renewals import came_back, nodes

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("GALILEAN_PICTURES", "")


def picture(page: Page, name: str) -> None:  # noqa: F811
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"renewal-{name}.png")


def test_a_node_is_restarted_from_the_projects_page_and_followed_until_it_is_back(
    page: Page,  # noqa: F811
    site: LiveSite,
) -> None:
    site.project("alice", "Heat flow")
    site.hub.course = Course(place=0.2, ready=0.4)
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    page.get_by_role("button", name="More: Nodes").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/alice/heat-flow/lab**")
    run = site.open_run("alice", "heat-flow")
    assert run is not None
    page.goto(site.url + "projects/alice/heat-flow?run=1")
    drawer = page.locator("#run-drawer")
    row = drawer.locator(".door-row", has_text="node-1")
    row.get_by_role("button", name="Reset …").click()
    dialog = page.locator("#dialogs dialog")
    expect(dialog).to_contain_text("home is emptied")
    picture(page, "dialog")
    dialog.get_by_role("button", name="Go on working").click()
    expect(row.get_by_role("button", name="Restart …")).to_be_visible()
    row.get_by_role("button", name="Restart …").click()
    dialog.get_by_role("button", name="Restart node-1").click()
    expect(row).to_contain_text("being made anew")
    expect(drawer).to_be_visible()
    expect(drawer.locator(".door-row", has_text="node-0").get_by_role("link", name="Lab")).to_be_visible()
    picture(page, "restarting")
    came_back(site, run.id, 1)
    expect(row.get_by_role("button", name="Restart …")).to_be_visible()
    expect(row).not_to_contain_text("being made anew")

    row.get_by_role("button", name="Reset …").click()  # and once more, and it does not come back
    dialog.get_by_role("button", name="Reset node-1").click()
    expect(row).to_contain_text("being made anew")
    asked = present(nodes(site, run.id))[1]
    why = {"message": "Node {rank} did not answer in {seconds} s.", "params": {"rank": 1, "seconds": 60}}
    with site.portal.db.write() as conn:
        attempts.begin(conn, asked, NodeEnd(at=utcnow(), exit_reason="reset"), now=utcnow())
        attempts.fail(conn, asked, why, now=utcnow())
    expect(row).to_contain_text("node-1 did not come back: Node 1 did not answer in 60 s.")
    expect(row.get_by_role("button", name="Reset …")).to_be_visible()
    picture(page, "lost")
    page.set_viewport_size({"width": 360, "height": 740})
    picture(page, "narrow")
