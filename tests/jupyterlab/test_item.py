"""What JupyterLab's top bar says and does, in Chromium, against a server that says what is wanted.

A real node with a real portal behind it is in ``tests/product/test_lab_item.py``.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import serious_faults
from tests.jupyterlab.conftest import Double, OpenLab, status
from tests.product.product import wait_for

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("GALILEAN_PICTURES", "")


def picture(page: Page, name: str) -> None:
    """Keep a picture for somebody's eyes, where a folder for them is named."""
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/lab-{name}.png")


def pill(page: Page) -> Locator:
    return page.locator(".galilean-pill")


def menu(page: Page) -> Locator:
    return page.locator("#galilean-menu")


def our_faults(page: Page) -> list[str]:
    """What axe-core finds wrong in what is ours; JupyterLab's own faults are its own."""
    return [fault for fault in serious_faults(page) if "galilean" in fault]


def warned(**changes: Any) -> dict[str, Any]:
    """A status three minutes before a release of which people are warned."""
    at = (datetime.now(UTC) + timedelta(minutes=3)).isoformat()
    release = status()["release"] | {"at": at, "kept_until": at}
    return status(release=release, warning={"id": "w1", "at": at, "why": "left", "busy": True}, **changes)


def test_the_item_says_project_node_time_and_end_and_its_time_goes_on(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    expect(page.locator(".galilean-project")).to_have_text("Galaxy classifier")
    expect(page.locator(".galilean-node")).to_have_text("node-0")
    expect(page.locator(".galilean-until")).to_contain_text("until ")
    first = page.locator(".galilean-held").inner_text()
    expect(page.locator(".galilean-held")).not_to_have_text(first)
    expect(pill(page)).to_have_accessible_name(
        re.compile(r"^Cluster: Galaxy classifier, node-0, held \d\d:\d\d:\d\d, until ")
    )
    picture(page, "item")


def test_the_menu_shows_everything_and_works_by_keyboard_alone(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    pill(page).focus()
    page.keyboard.press("Enter")
    expect(menu(page)).to_be_visible()
    for text in (
        "1 node, 4 cores · 16\u00a0GB · 1\u00a0A100",
        "38\u00a0%",
        "11.2 of 16.0\u00a0GB",
        "94\u00a0%",
    ):
        expect(menu(page).get_by_text(text)).to_be_visible()
    expect(menu(page)).to_contain_text("2 h 14 min left, then automatic")
    assert our_faults(page) == []
    picture(page, "menu")
    seen = []
    for _ in range(20):
        page.keyboard.press("ArrowDown")
        name = page.evaluate("document.activeElement.innerText.split('\\n')[0]")
        if name in seen:
            break
        seen.append(name)
    assert seen == [
        "View project", "Extend", "Open terminal", "Continue without me", "Warn me outside this tab, too",
        "Reconnect", "Restart node …", "Reset node …", "Release …", "Back to the project",
    ]  # fmt: skip
    page.keyboard.press("End")
    expect(menu(page).get_by_role("button", name="Back to the project")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu(page)).to_be_hidden()
    expect(pill(page)).to_be_focused()


def test_extend_moves_the_time_and_a_refusal_says_why(lab: OpenLab, double: Double) -> None:
    double.says()
    later = (datetime.now(UTC) + timedelta(hours=4, seconds=30)).isoformat()
    page = lab()
    release = status()["release"] | {"at": later, "kept_until": later}
    double(answers={"extend": {"release": release, "extend": None}})
    pill(page).click()
    menu(page).get_by_role("button", name="Extend").click()
    expect(menu(page)).to_contain_text("4 h left, then automatic")
    expect(menu(page).get_by_role("button", name="Extend")).to_have_count(0)
    expect(page.locator(".galilean-spoken")).to_contain_text("Kept until ")
    double.says()
    double(answers={"extend": {"message": "Your role keeps clusters for 4 h at most.", "reason": "maximum"}})
    menu(page).get_by_role("button", name="Extend").click()
    expect(page.locator(".Toastify__toast")).to_contain_text("Your role keeps clusters for 4 h at most.")


def test_other_nodes_are_opened_from_the_menu(lab: OpenLab, double: Double) -> None:
    nodes = [
        {"rank": rank, "name": f"node-{rank}", "lab_url": f"/lab?n={rank}", "terminal_url": f"/t{rank}", "state": state}
        for rank, state in enumerate(("ready", "ready", "lost"))
    ]  # fmt: skip
    for node in nodes[:2]:
        node["desktop_url"] = f"/d{node['rank']}/"
    double.says(nodes=nodes)
    page = lab()
    pill(page).click()
    expect(menu(page).get_by_role("link", name="Lab on node-1")).to_have_attribute("href", "/lab?n=1")
    expect(menu(page).get_by_role("link", name="Terminal on node-1")).to_have_attribute("href", "/t1")
    expect(menu(page).get_by_role("link", name="Lab on node-0")).to_have_count(0)
    for rank in (0, 1):
        door = menu(page).get_by_role("link", name=f"Desktop on node-{rank}")
        expect(door).to_have_attribute("href", f"/d{rank}/")
    expect(menu(page)).to_contain_text("lost")
    assert our_faults(page) == []
    picture(page, "nodes")
    with page.expect_popup() as opened:
        menu(page).get_by_role("link", name="Lab on node-1").click()
    assert opened.value.url.endswith("/lab?n=1")


def test_programs_and_ports_of_every_node_are_opened_from_the_menu(lab: OpenLab, double: Double) -> None:
    more = [
        {"title": "TensorBoard", "url": "/tb"},
        {"title": "Port 8080", "url": "/p/8080/"},
        {"title": "端口 6006 " + "long " * 12, "url": "/p/6006/"},
    ]
    (own,) = status()["nodes"]
    double.says(nodes=[own | {"more": more[:2]}])
    page = lab()
    pill(page).click()
    expect(menu(page).get_by_role("link", name="Port 8080 on node-0")).to_have_attribute("href", "/p/8080/")
    other = own | {"rank": 1, "name": "node-1", "more": more}
    double.says(nodes=[own, other, other | {"rank": 2, "name": "node-2", "state": "lost"}])
    expect(menu(page).get_by_role("link", name="TensorBoard on node-1")).to_have_attribute("href", "/tb")
    expect(menu(page).get_by_role("link", name="Port 8080 on node-2")).to_have_count(0)
    assert our_faults(page) == []
    picture(page, "ports")


def test_the_desktop_of_a_single_node_is_opened_from_the_menu(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    pill(page).click()
    expect(menu(page)).to_contain_text("Open terminal")
    expect(menu(page).get_by_role("link", name="Open desktop")).to_have_count(0)
    (node,) = status()["nodes"]
    double.says(nodes=[node | {"desktop_url": "/d/"}])
    expect(menu(page).get_by_role("link", name="Open desktop")).to_have_attribute("href", "/d/")
    assert our_faults(page) == []
    picture(page, "desktop")


def test_restart_and_release_name_the_loss_first_and_do_nothing_without_a_yes(
    lab: OpenLab, double: Double
) -> None:
    double.says()
    page = lab()
    dialog = page.locator(".jp-Dialog")
    for row, words, button, asked in (
        ("Restart node …", "Programs of this node end. Files stay.", "Restart node", "restart-node"),
        ("Reset node …", "Its home is emptied. Open documents are saved first.", "Reset node", "reset-node"),
        ("Release …", "All files in work stay", "Release", "release"),
        ("Continue without me", "go on and write their output", "Continue", "when-done"),
    ):
        pill(page).click()
        menu(page).get_by_role("button", name=row).click()
        expect(dialog).to_contain_text(words)
        expect(dialog).to_contain_text("1 kernel is busy")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)
        assert double()["asked"] == []
        pill(page).click()
        menu(page).get_by_role("button", name=row).click()
        if asked == "release":
            picture(page, "release")
        dialog.get_by_role("button", name=button, exact=True).click()
        wait_for(lambda asked=asked: asked in double()["asked"], f"{asked} was asked", seconds=10)
        double.says()


LOST = {
    "parts": [
        {"name": "node-0", "lines": ["1 system package: cowsay", "3 files added"], "save_url": "/save"},
        {"name": "node-1", "lines": ["<b>Could not be looked at.</b>"], "save_url": "javascript:alert(1)"},
    ],
    "nothing": "On 2 other nodes nothing was installed.",
}


def test_what_is_lost_outside_work_is_filled_in_while_the_dialog_is_open_and_nobody_waits_for_it(
    lab: OpenLab, double: Double
) -> None:
    (own,) = status()["nodes"]
    double.says(nodes=[own | {"save_url": "/save"}])
    asked: list[str] = []

    def tell(**body: Any) -> None:
        asked.extend(double(**body)["asked"])

    tell(answers={})
    page = lab()
    dialog = page.locator(".jp-Dialog")

    def ask(row: str) -> None:
        pill(page).click()
        menu(page).get_by_role("button", name=row).click()

    ask("Release …")
    expect(dialog).to_contain_text("Looking at what changed outside work")
    expect(dialog).to_contain_text("All files in work stay")
    tell(answers={"losses": LOST})
    expect(dialog).to_contain_text("1 system package: cowsay")
    expect(dialog).to_contain_text("<b>Could not be looked at.</b>")
    expect(dialog).to_contain_text("On 2 other nodes nothing was installed.")
    expect(dialog.get_by_role("link")).to_have_count(1)
    expect(dialog.get_by_role("link", name="Save image …")).to_have_attribute("href", "/save")
    assert our_faults(page) == []
    picture(page, "losses")
    dialog.get_by_role("button", name="Cancel").click()
    tell(answers={"losses": {"message": "away"}})
    ask("Reset node …")
    expect(dialog).to_contain_text("could not be looked at")
    dialog.get_by_role("button", name="Cancel").click()
    ask("Restart node …")
    expect(dialog).to_contain_text("Files stay.")
    expect(dialog.locator(".galilean-losses")).to_have_count(0)
    dialog.get_by_role("button", name="Cancel").click()
    tell(answers={})
    assert asked == ["losses", "losses of 0"]
    ask("Release …")
    expect(dialog).to_contain_text("Looking at what changed outside work")
    dialog.get_by_role("button", name="Release", exact=True).click()
    wait_for(lambda: "release" in double()["asked"], "released without waiting", seconds=10)
    double(answers={"losses": LOST})  # lets the page's question go


def test_what_the_backend_cannot_do_is_not_offered_and_a_lost_node_may_be_had_again(
    lab: OpenLab, double: Double
) -> None:
    (own,) = status()["nodes"]
    lost = own | {"rank": 1, "name": "node-1", "state": "lost", "why": "Node 1 did not answer in 60 s."}
    double.says(nodes=[own, lost], can={"when_done": True, "release": True, "reset": True})
    page = lab()
    pill(page).click()
    expect(menu(page).get_by_role("button", name="Reset node …")).to_be_visible()
    expect(menu(page).get_by_role("button", name="Restart node …")).to_be_hidden()
    expect(menu(page).get_by_title("Node 1 did not answer in 60 s.")).to_have_text("lost")
    menu(page).get_by_role("button", name="Try again on node-1").click()
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Reset node-1?")
    dialog.get_by_role("button", name="Reset node", exact=True).click()
    wait_for(lambda: "reset-node" in double()["asked"], "reset-node was asked", seconds=10)
    expect(page.locator(".galilean-line")).not_to_have_text("The node restarts …")


def test_a_node_that_restarts_says_so_until_it_is_back(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    (own,) = status()["nodes"]
    double(tell={"type": "restarting"})
    line = page.locator(".galilean-line")
    expect(line).to_have_text("The node restarts …")
    double.says(nodes=[own | {"state": "restarting"}])
    expect(line).to_have_text("The node restarts …")
    double.says()
    expect(line).to_have_text("")


def test_a_released_cluster_leaves_one_quiet_dialog_and_the_way_back(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    double(tell={"type": "released", "by": "maria", "explanation": "The machine is needed."})
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Galaxy classifier was released")
    expect(dialog).to_contain_text("maria: The machine is needed.")
    picture(page, "released")
    opened = double()["opened"]
    dialog.get_by_role("button", name="Back to the project").click()
    page.wait_for_url("**/project/page")
    assert double()["opened"] == opened


def test_a_warning_offers_to_extend_and_goes_when_it_is_over(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    double(status=warned(), answers={})
    toast = page.locator(".Toastify__toast")
    expect(toast).to_contain_text("something still runs")
    expect(page.locator(".galilean-soon")).to_be_visible()
    picture(page, "warning")
    assert our_faults(page) == []
    toast.get_by_role("button", name="When done").click()
    wait_for(lambda: "when-done" in double()["asked"], "when-done was asked", seconds=10)
    double(status=warned())
    page.locator(".galilean-pill-extend").click()
    wait_for(lambda: "extend" in double()["asked"], "extend was asked", seconds=10)
    double.says()
    expect(toast).to_have_count(0)
    expect(page.locator(".galilean-soon")).to_have_count(0)


def test_a_hidden_tab_is_told_by_the_browser_where_it_may(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    page.evaluate(
        """() => {
            window.told = [];
            window.Notification = class {
                static permission = 'granted';
                constructor(text) { window.told.push(text); }
                close() {}
            };
            Object.defineProperty(document, 'hidden', {get: () => true});
        }"""
    )
    double(status=warned())
    page.wait_for_function("window.told.length === 1")
    assert "Galaxy classifier goes back at" in page.evaluate("window.told[0]")
    double(status=warned(held_seconds=9000))  # the same warning once more
    expect(page.locator(".galilean-held")).to_contain_text("02:30:")
    assert page.evaluate("window.told.length") == 1


def test_a_lost_connection_is_one_quiet_line_that_heals_by_itself(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab()
    line = page.locator(".galilean-line")
    page.context.set_offline(True)
    double(close=True)
    expect(line).to_have_text("Connection lost. Trying again …")
    expect(page.locator(".jp-Dialog")).to_have_count(0)
    picture(page, "lost")
    page.context.set_offline(False)
    expect(line).to_have_text("")
    expect(page.locator(".galilean-spoken")).to_have_text("Connected again.")


def test_a_portal_that_is_away_is_said_and_what_needs_it_waits(lab: OpenLab, double: Double) -> None:
    double.says(portal_away=True)
    page = lab()
    expect(page.locator(".galilean-line")).to_have_text("The portal is away; your work here goes on.")
    pill(page).click()
    expect(menu(page).get_by_role("button", name="Release …")).to_be_disabled()
    expect(menu(page).get_by_role("button", name="Restart node …")).to_be_disabled()
    double.says()
    expect(menu(page).get_by_role("button", name="Release …")).to_be_enabled()


def test_what_the_portal_has_not_told_yet_leaves_a_plain_item(lab: OpenLab, double: Double) -> None:
    nothing = dict.fromkeys(("project", "size", "since", "held_seconds", "release", "extend", "use"))
    double(status=status(portal_away=True, **nothing))
    page = lab()
    expect(page.locator(".galilean-node")).to_have_text("node-0")
    pill(page).click()
    expect(menu(page).get_by_role("button", name="Reconnect")).to_be_visible()
    expect(menu(page).get_by_role("button", name="Back to the project")).to_have_count(0)


def test_it_speaks_chinese_with_jupyterlab_and_wears_its_dark_theme(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab(locale="zh_CN", dark=True)
    expect(page.locator(".galilean-until")).to_contain_text("至 ")
    pill(page).click()
    expect(menu(page)).to_contain_text("剩余 2 小时 14 分钟，之后自动释放")
    expect(menu(page).get_by_role("button", name="释放…")).to_contain_text("1 个内核正忙")
    assert our_faults(page) == []
    picture(page, "zh-dark")
    menu(page).get_by_role("button", name="释放…").click()
    expect(page.locator(".jp-Dialog")).to_contain_text("释放“Galaxy classifier”？")


def test_on_a_phone_it_is_short_and_its_menu_a_sheet(lab: OpenLab, double: Double) -> None:
    double.says()
    page = lab(width=360)
    expect(page.locator(".galilean-tiny")).to_be_visible()
    expect(page.locator(".galilean-held")).to_be_hidden()
    box = pill(page).bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360
    pill(page).click()
    expect(menu(page)).to_contain_text("Held 02:13:")
    sheet = menu(page).bounding_box()
    assert sheet is not None and sheet["width"] == 360 and sheet["y"] + sheet["height"] == 860
    picture(page, "phone")


def test_jupyterlab_somewhere_else_than_in_a_node_is_left_alone(lab: OpenLab, double: Double) -> None:
    double(status=None)
    page = lab(item=False)
    page.locator(".jp-Launcher, .jp-FileBrowser").first.wait_for()
    with page.expect_response("**/galilean/api/status*") as answer:
        page.reload()
    assert answer.value.status == 404
    page.wait_for_timeout(300)
    expect(page.locator("#galilean-item")).to_have_count(0)
