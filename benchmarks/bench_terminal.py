"""A key in the terminal of a node until its echo is drawn: our page against JupyterLab's terminal, on the same node.

Both pages are in Chromium and speak to the same Jupyter server; the shell is the same. A key counts from its
``keydown`` until the frame after the websocket's message that has the echo, in both pages by the same script. Keys
come one after another, as somebody types; of each pair the p95 of its keys is told.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import Figure, Report, at_most, pairs, percentile
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.process.jupyter import TOKEN, Jupyter

MOST = 1.2
KEYS = 120
LINE = 40  # keys until the line is thrown away, so that it never wraps
PAUSE_SECONDS = (0.02, 0.08)
PATIENCE_MS = 120_000

#: Notes when a key was pressed, and when a frame was drawn after its echo came.
WATCH = """(() => {
    window.echoes = [];
    let pressed = 0;
    addEventListener("keydown", event => {
        if (event.key === "x") pressed = performance.now();
    }, true);
    const Plain = window.WebSocket;
    window.WebSocket = class extends Plain {
        constructor(...words) {
            super(...words);
            if (!String(words[0]).includes("/terminals/websocket/")) return;
            this.addEventListener("message", event => {
                if (!pressed || typeof event.data !== "string") return;
                const [kind, text] = JSON.parse(event.data);
                if (kind !== "stdout" || !String(text).includes("x")) return;
                const began = pressed;
                pressed = 0;
                requestAnimationFrame(() => {
                    const drawn = new MessageChannel();
                    drawn.port1.onmessage = () => window.echoes.push(performance.now() - began);
                    drawn.port2.postMessage(0);
                });
            });
        }
    };
})()"""


def ours(browser: Browser, node: Jupyter) -> Page:
    """The terminal's own page."""
    page = _page(browser)
    page.goto(f"{node.url}galilean/terminal?token={TOKEN}", wait_until="commit")
    return page


def jupyterlab(browser: Browser, node: Jupyter) -> Page:
    """JupyterLab with a terminal open."""
    page = _page(browser)
    page.goto(f"{node.url}lab?token={TOKEN}&reset", wait_until="commit")
    page.locator('.jp-LauncherCard[data-category="Other"]', has_text="Terminal").click()
    return page


def _page(browser: Browser) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(WATCH)
    return page


def typed(page: Page) -> list[float]:
    """Seconds of each key of a terminal that is open."""
    field = page.locator(".xterm-helper-textarea").first
    field.wait_for(state="attached")
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate("echoes.length"):  # until the shell is there
        field.focus()
        page.keyboard.press("x")
        page.wait_for_timeout(300)
        assert time.monotonic() < deadline, "the terminal echoes nothing"
    page.wait_for_timeout(1000)
    page.keyboard.press("Control+u")
    page.evaluate("echoes.length = 0")
    for number in range(1, KEYS + 1):
        page.keyboard.press("x")
        page.wait_for_function("n => echoes.length >= n", arg=number, polling=5)
        if number % LINE == 0:
            page.keyboard.press("Control+u")
        time.sleep(random.uniform(*PAUSE_SECONDS))
    return [value / 1000 for value in page.evaluate("echoes")]


def run(report: Report, directory: Path, count: int) -> None:
    node = Jupyter(directory / "node")
    middles: dict[str, list[float]] = {"ours": [], "lab": []}
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)

            def side(name: str, visit: Callable[[Browser, Jupyter], Page]) -> Callable[[], float]:
                def measure() -> float:
                    page = visit(browser, node)
                    try:
                        seconds = typed(page)
                    finally:
                        page.context.close()
                    middles[name].append(percentile(seconds, 0.5))
                    return percentile(seconds, 0.95)

                return measure

            left, right = pairs(side("ours", ours), side("lab", jupyterlab), count)
            browser.close()
    finally:
        node.stop()
    report.add(
        at_most("Terminal: key → echo drawn, p95", left, right, MOST, note=f"{KEYS} keys a side of a pair"),
        Figure(name="Terminal: the same, medians", ours=middles["ours"], plain=middles["lab"]),
    )
