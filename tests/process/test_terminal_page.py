"""The terminal page of a real node in a real browser: one session, whoever comes back to it (SC-1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from spawner.node.terminal import SESSION, built
from tests.process.jupyter import TOKEN, Jupyter

CHROMIUM = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    made = Jupyter(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield started
        started.close()


def opened(browser: Browser, node: Jupyter, **options: object) -> Page:
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.goto(f"{node.url}galilean/terminal?token={TOKEN}", wait_until="domcontentloaded")
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile(r"[$#] "))
    return page


def typed(page: Page, text: str) -> None:
    page.locator(".xterm-helper-textarea").focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


@pytest.mark.browser
@pytest.mark.process
def test_a_session_goes_on_after_a_reload_and_in_another_browser(browser: Browser, node: Jupyter) -> None:
    assert built(), "scripts/assets makes the page's parts"
    page = opened(browser, node, locale="en")
    rows = page.locator(".xterm-rows")
    typed(page, "cd / && secret=$((6*7)); echo is-$secret")
    expect(rows).to_contain_text("is-42")
    page.reload(wait_until="domcontentloaded")
    expect(rows).to_contain_text("is-42")  # what was printed comes back
    typed(page, "echo again-$secret-in-$PWD")
    expect(rows).to_contain_text("again-42-in-/")
    other = opened(browser, node, locale="zh-CN", viewport={"width": 360, "height": 640}, color_scheme="dark")
    expect(other.locator(".xterm-rows")).to_contain_text("again-42-in-/")
    expect(other.get_by_role("button", name="复制")).to_be_visible()
    assert other.evaluate("document.documentElement.dataset.theme") == "dark"
    assert other.evaluate("document.documentElement.scrollWidth") <= 360
    assert [item["name"] for item in node.client.get("api/terminals").json()] == [SESSION]


@pytest.mark.browser
@pytest.mark.process
def test_an_ended_shell_and_a_lost_connection_are_said_and_mended(browser: Browser, node: Jupyter) -> None:
    page = opened(browser, node, locale="en")
    typed(page, "exit")
    expect(page.get_by_text("The shell has ended.")).to_be_visible()
    page.get_by_role("button", name="New shell").click()
    expect(page.locator("#told")).to_be_hidden()
    typed(page, "echo new-$((20+2))")
    expect(page.locator(".xterm-rows")).to_contain_text("new-22")
    assert page.locator("#node option").all_inner_texts() == ["node-0", "node-1"]
    page.route("**/galilean/terminal", lambda route: route.abort())
    assert node.client.delete(f"api/terminals/{SESSION}").status_code == 204
    expect(page.locator("#told")).to_be_visible()


@pytest.mark.process
def test_the_page_asks_for_the_sign_in_and_makes_the_session_once(node: Jupyter) -> None:
    stranger = httpx.get(node.url + "galilean/terminal")
    assert stranger.status_code == 302 and "login" in stranger.headers["location"]
    picture = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image"}
    assert node.client.get("galilean/terminal", headers=picture).status_code == 403
    for _ in range(2):
        answer = node.client.get("galilean/terminal")
        assert answer.status_code == 200 and TOKEN not in answer.text
    assert len(node.client.get("api/terminals").json()) == 1
    assert node.client.get("galilean/static/../terminal.py").status_code in (403, 404)
    assert node.client.get("galilean/static/%2e%2e/terminal.py").status_code in (403, 404)


def test_words_are_the_same_set_in_both_languages() -> None:
    from spawner.node import terminal

    english, chinese = terminal._WORDS["en"], terminal._WORDS["zh_CN"]
    assert english.keys() == chinese.keys()
    assert Path(terminal.STATIC / "terminal.js").read_text().count("words.") > 5
