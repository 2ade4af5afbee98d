"""Headless Chromium (Debian's) on a portal with a fake hub beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.web.site import Site

CHROMIUM = "/usr/bin/chromium"
#: After how long something is broken, and not only slow.
PATIENCE_MS = 120_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
    "--disable-lcd-text",
]
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "state") as running:
        running.hub.add("alice", "researcher")
        running.hub.add("jonas", "student")
        running.hub.add("maria", "admin")
        running.hub.add("newcomer")
        yield running


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, site: Site) -> Iterator[OpenPage]:
    """``open_page(name, path, width=, theme=, language=)``: a signed-in page whose faults fail the test."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def opener(
        name: str,
        path: str = "",
        *,
        width: int = 1400,
        height: int = 900,
        theme: Any = "light",
        language: str = "en-GB",
        **more: Any,
    ) -> Page:
        site.hub.whoever = name
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            locale=language,
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",
            **more,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(f"{path}: {error}"))
        page.on(
            "console",
            lambda message: (
                faults.append(f"{path}: {message.text}")
                if ("Content Security Policy" in message.text or "Uncaught" in message.text)
                # axe-core tries inline styles of its own, which our policy refuses; ours are looked for below.
                and "Applying inline style" not in message.text
                else None
            ),
        )
        answer = page.goto(site.url + path)
        if answer is not None and ' style="' in answer.text():
            faults.append(f"{path}: an inline style, which our policy refuses")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert not faults, faults


def serious_faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical (WCAG 2.2 AA), one line for each place."""
    # As the browser's debugger: the page's own policy lets no foreign script in.
    page.evaluate(AXE.read_text() + "; undefined")
    # A bar that keeps to the window's edge covers a part of whatever is there by chance, until somebody scrolls.
    found = page.evaluate(
        """async () => {
            const kept = [...document.querySelectorAll('body *')].filter(
                (item) => getComputedStyle(item).position === 'sticky');
            for (const item of kept) Object.assign(item.style, {position: 'relative', inset: 'auto'});
            try {
                return (await axe.run(document, {runOnly: {type: 'tag',
                    values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}})).violations;
            } finally {
                for (const item of kept) Object.assign(item.style, {position: '', inset: ''});
            }
        }"""
    )
    return [
        f"{item['impact']} {item['id']}: {json.dumps(node['target'])} {node['failureSummary'][:300]}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]


def overflow(page: Page) -> int:
    """How many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
