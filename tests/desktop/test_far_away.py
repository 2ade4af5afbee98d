"""The desktop's page from far away, after sleep, and with other keyboards than the node's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, CDPSession, Page

from tests.browser.conftest import PATIENCE_MS
from tests.desktop.conftest import TOKEN, Node
from tests.desktop.line import Line, line
from tests.desktop.test_page import colour, on_screen, red
from tests.product.product import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.process]

OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(desktop: Node, chromium: Browser) -> Iterator[OpenPage]:
    """A page of the desktop, by whatever address it is reached."""
    contexts = []

    def visit(app: str = "", *, url: str = desktop.url) -> Page:
        made = chromium.new_context(viewport={"width": 1200, "height": 760})
        contexts.append(made)
        made.set_default_timeout(PATIENCE_MS)
        page = made.new_page()
        page.goto(f"{url}/desktop/?token={TOKEN}" + (f"&app={app}" if app else ""))
        page.wait_for_selector('.screen[data-state="connected"]')
        return page

    yield visit
    for made in contexts:
        made.close()


@pytest.fixture
def far(desktop: Node) -> Iterator[Line]:
    """A line on which a question and its answer take a tenth of a second."""
    port = urlsplit(desktop.url).port
    assert port
    with line(port, 0.05) as made:
        yield made


def paint(desktop: Node, name: str) -> None:
    """Give the whole screen a colour."""
    on_screen(desktop, "xsetroot", "-solid", name)


def test_from_far_away_every_change_is_seen_and_every_key_arrives_in_its_order(
    desktop: Node, open_page: OpenPage, far: Line
) -> None:
    page = open_page("keys", url=far.url)
    wait_for(lambda: (desktop.home / "keys.log").exists(), "the program runs")
    page.wait_for_timeout(1000)
    page.evaluate("document.querySelector('.screen canvas').focus()")
    text = "the quick brown fox jumps over the lazy dog"
    page.keyboard.type(text)
    wait_for(lambda: typed(desktop)[-len(text) :] == keysyms(text), "every key arrived, in order")
    page = open_page(url=far.url)
    for name, seen in (("#cc2244", [204, 34, 68]), ("#22cc44", [34, 204, 68]), ("#cc2244", [204, 34, 68])):
        paint(desktop, name)
        wait_for(lambda seen=seen: near(colour(page), seen), f"the picture is {name}", seconds=60)


def near(one: list[int], other: list[int]) -> bool:
    """Pictures are compressed with some loss."""
    return all(abs(left - right) < 40 for left, right in zip(one, other, strict=True))


def test_a_page_that_slept_while_its_line_broke_shows_the_desktop_as_it_is_now(
    desktop: Node, open_page: OpenPage, far: Line
) -> None:
    page = open_page(url=far.url)
    paint(desktop, "#2244cc")
    wait_for(lambda: near(colour(page), [34, 68, 204]), "the picture is blue")
    devtools: CDPSession = page.context.new_cdp_session(page)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    far.cut()
    paint(desktop, "#cc2244")
    far.mend()
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    wait_for(lambda: red(colour(page)), "the picture is what was painted meanwhile", seconds=90)
    page.wait_for_selector('.screen[data-state="connected"]')


def test_a_line_that_is_away_for_a_while_is_told_and_mended(
    desktop: Node, open_page: OpenPage, far: Line
) -> None:
    page = open_page(url=far.url)
    far.cut()
    page.get_by_text("Connection lost. Trying again …").first.wait_for()
    far.mend()
    page.wait_for_selector('.screen[data-state="connected"]')


# ---- keyboards


def typed(desktop: Node) -> list[int]:
    """The keys that a program on the screen was given, by their keysyms; without modifiers."""
    text = (desktop.home / "keys.log").read_text(errors="replace")
    found = re.findall(r"KeyPress event.*?\(keysym (0x[0-9a-f]+)", text, re.DOTALL)
    return [int(one, 16) for one in found if not 0xFFE1 <= int(one, 16) <= 0xFFEE and int(one, 16) != 0xFE03]


def keysyms(text: str) -> list[int]:
    """As X names letters: Latin-1 by itself, all others by their number in Unicode."""
    return [ord(one) if ord(one) < 0x100 else 0x1000000 + ord(one) for one in text]


#: What keyboards tell: the letter, and where its key is on an American one.
GERMAN = [
    ("z", "KeyY"),
    ("y", "KeyZ"),
    ("ß", "Minus"),
    ("ö", "Semicolon"),
    ("Ä", "Quote"),
    ("#", "Backslash"),
]
CHINESE = [("中", ""), ("文", ""), ("，", "Comma")]


def test_letters_arrive_as_the_persons_keyboard_means_them(desktop: Node, open_page: OpenPage) -> None:
    page = open_page("keys")
    wait_for(lambda: (desktop.home / "keys.log").exists(), "the program runs")
    page.wait_for_timeout(1000)
    page.evaluate("document.querySelector('.screen canvas').focus()")
    devtools = page.context.new_cdp_session(page)

    def press(key: str, code: str, up: bool = True) -> None:
        for kind in ("keyDown", "keyUp") if up else ("keyDown",):
            devtools.send("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": code})

    for key, code in (*GERMAN, *CHINESE):
        press(key, code)
    # @ as on a German keyboard, by AltGr and Q.
    press("AltGraph", "AltRight", up=False)
    press("@", "KeyQ")
    devtools.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": "AltGraph", "code": "AltRight"})
    wanted = keysyms("zyßöÄ#中文，@")
    wait_for(lambda: typed(desktop)[-len(wanted) :] == wanted, "each letter is the one that was meant")


def test_the_programs_of_these_tests_are_there() -> None:
    for name in ("xev", "xsetroot"):
        assert subprocess.run(["which", name], capture_output=True, check=False).returncode == 0, name
