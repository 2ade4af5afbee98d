"""The desktop's page in Chromium, on a real X server: what is drawn is seen, what is copied and sent arrives."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.desktop.conftest import TOKEN, Node
from tests.product.product import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.process]

OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(desktop: Node, chromium: Browser) -> Iterator[OpenPage]:
    contexts = []

    def visit(app: str = "", *, until: str = "connected", permissions: Any = (), **options: Any) -> Page:
        made = chromium.new_context(viewport={"width": 1200, "height": 760}, **options)
        contexts.append(made)
        made.set_default_timeout(PATIENCE_MS)
        made.grant_permissions(list(permissions))
        page = made.new_page()
        page.goto(f"{desktop.url}/desktop/?token={TOKEN}" + (f"&app={app}" if app else ""))
        page.wait_for_selector(f'.screen[data-state="{until}"]')
        return page

    yield visit
    for made in contexts:
        made.close()


def colour(page: Page) -> list[int]:
    """Red, green and blue in the middle of the picture; nothing of each while there is none."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector(".screen canvas");
            if (!canvas || !canvas.width) return [0, 0, 0];
            const at = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1);
            return [...at.data].slice(0, 3);
        }"""
    )


def on_screen(desktop: Node, *words: str, text: str | None = None) -> str:
    """Run a program on the desktop's screen; what it says."""
    # Who puts a text there stays to hand it out, with its output open.
    out = subprocess.PIPE if text is None else subprocess.DEVNULL
    environment = os.environ | desktop.display()
    return subprocess.run(
        words, env=environment, input=text, stdout=out, text=True, timeout=120, check=False
    ).stdout


def test_a_window_of_an_application_fills_the_picture(open_page: OpenPage) -> None:
    page = open_page("paper")
    wait_for(lambda: red(colour(page)), "the red window is in the picture", seconds=60)
    expect(page.locator(".screen .wait")).to_have_count(0)
    expect(page.locator(".bar .name strong")).to_have_text("Paper")
    size = page.evaluate("(c => [c.width, c.height])(document.querySelector('.screen canvas'))")
    assert size == [1200, 760 - 44]


def red(seen: list[int]) -> bool:
    return seen[0] > 180 and seen[1] < 60 and seen[2] < 100


def test_text_is_copied_both_ways(desktop: Node, open_page: OpenPage) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('从浏览器 to the desktop')")
    page.evaluate("window.dispatchEvent(new Event('focus'))")

    def pasted(text: str) -> bool:
        return on_screen(desktop, "xclip", "-selection", "clipboard", "-o") == text

    wait_for(lambda: pasted("从浏览器 to the desktop"), "the desktop has the browser's text")
    on_screen(desktop, "xclip", "-selection", "clipboard", text="从桌面 to the browser")
    wait_for(
        lambda: page.evaluate("navigator.clipboard.readText()") == "从桌面 to the browser",
        "the browser has the desktop's text",
    )


def test_where_the_browser_refuses_text_goes_through_the_panel(desktop: Node, open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Clipboard").click()
    field = page.get_by_label("Text on the clipboard of the desktop")
    on_screen(desktop, "xclip", "-selection", "clipboard", text="copied there")
    wait_for(lambda: field.input_value() == "copied there", "the panel has the desktop's text")
    field.fill("typed here")
    wait_for(
        lambda: on_screen(desktop, "xclip", "-selection", "clipboard", "-o") == "typed here",
        "the desktop has the panel's text",
    )


def test_a_file_is_put_onto_the_desktop_and_taken_from_it(
    desktop: Node, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page()
    page.get_by_role("button", name="Files").click()
    big = tmp_path / "图.bin"
    big.write_bytes(os.urandom(2_000_000))
    page.locator(".files input[type=file]").set_input_files(big)
    link = page.get_by_role("link", name="Download 图.bin")
    link.wait_for()
    assert (desktop.home / "work/Desktop/图.bin").read_bytes() == big.read_bytes()
    with page.expect_download() as taken:
        link.click()
    assert Path(taken.value.path()).read_bytes() == big.read_bytes()


def test_a_file_is_dropped_anywhere_on_the_page(desktop: Node, open_page: OpenPage) -> None:
    page = open_page()
    data = page.evaluate_handle(
        "() => { const d = new DataTransfer(); d.items.add(new File(['dropped'], 'd.txt')); return d; }"
    )
    page.dispatch_event("#screen", "dragenter", {"dataTransfer": data})
    expect(page.locator(".drop")).to_contain_text("work/Desktop")
    page.dispatch_event("#screen", "drop", {"dataTransfer": data})
    page.get_by_role("link", name="Download d.txt").wait_for()
    assert (desktop.home / "work/Desktop/d.txt").read_text() == "dropped"


def test_a_note_is_kept_as_it_is_typed_and_not_over_another(desktop: Node, open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Notes").click()
    page.get_by_label("Your note").fill("# Today\n步长 0.1")
    expect(page.locator(".notes .foot")).to_contain_text("Saved")
    note = desktop.home / "work/notes.md"
    assert note.read_text() == "# Today\n步长 0.1"
    note.write_text("by somebody else")
    page.get_by_label("Your note").fill("mine")
    page.get_by_role("button", name="Keep mine").click()
    wait_for(lambda: note.read_text() == "mine", "the person's own text is kept where they said so")


def test_a_restart_ends_programs_and_the_picture_comes_back(desktop: Node, open_page: OpenPage) -> None:
    page = open_page()
    program = subprocess.Popen(["xmessage", "old"], env=os.environ | desktop.display())
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="Restart desktop").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("not saved")
    dialog.get_by_role("button", name="Restart desktop").click()
    page.wait_for_selector('.screen[data-state="waiting"]')
    page.wait_for_selector('.screen[data-state="connected"]')
    assert program.wait(20) != 0


def test_an_application_that_does_not_start_tells_why_in_the_persons_language(open_page: OpenPage) -> None:
    page = open_page("broken", until="down", locale="zh-CN")
    card = page.get_by_role("alert")
    expect(card).to_contain_text("Broken 未能启动")
    expect(card.locator("pre")).to_contain_text("no licence was found")
    card.get_by_role("button", name="重新启动").click()
    page.wait_for_selector('.screen[data-state="waiting"]')
    page.wait_for_selector('.screen[data-state="down"]')
