"""Files that somebody else wrote, looked at in a real browser: nothing in them runs, wherever they are shown.

Each of them tries to sing in every way that it has: by a function of the page, by an alert, by asking an address
elsewhere and one of ours, and by changing the page around it. A page without protection shows that all of these
would be heard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect
from playwright.sync_api import Error as PlaywrightError

from services.catalog import datasets, lifecycle
from services.catalog.shares import Actor
from tests.browser.conftest import PATIENCE_MS, chromium  # noqa: F401 - a fixture
from tests.portal.live import LiveSite
from tests.portal.test_datasets import put
from tests.portal.test_pages import directory

pytestmark = pytest.mark.browser

ELSEWHERE = "https://canary.invalid/"


def song(of: str) -> str:
    """What a script does that runs."""
    return (
        f"try {{ canary('{of}') }} catch (e) {{}} try {{ alert('{of}') }} catch (e) {{}}"
        f" fetch('{ELSEWHERE}{of}'); fetch('/services/portal/api/v1/projects?canary={of}');"
        f" top.document.title = 'canary {of}'"
    )


def html(of: str) -> str:
    """Markup with every usual way to a script, and ways to load, to leave and to send."""
    return (
        f"<h2>Nice {of}</h2><script>{song(of)}</script>"
        f'<img src="x" onerror="{song(of)}"><svg onload="{song(of)}"><circle r="9"/></svg>'
        f'<iframe srcdoc="<script>{song(of).replace(chr(39), "&#39;")}</script>"></iframe>'
        f'<object data="data:text/html,<script>{song(of)}</script>"></object>'
        f'<meta http-equiv="refresh" content="0;url={ELSEWHERE}{of}-left">'
        f'<link rel="stylesheet" href="{ELSEWHERE}{of}.css"><img src="{ELSEWHERE}{of}.png">'
        f"<style>body {{ background: url({ELSEWHERE}{of}-style.png) }}</style>"
        f'<form action="{ELSEWHERE}{of}-sent"><input name="a" autofocus onfocus="{song(of)}"></form>'
        f'<a href="javascript:{song(of)}">a link</a><base href="{ELSEWHERE}">'
    )


def notebook() -> str:
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{song('svg-output')}\"><script>{song('svg-output')}</script></svg>"
    data = {
        "text/html": html("output"),
        "image/svg+xml": svg,
        "application/javascript": song("javascript"),
        "text/plain": "plain",
    }
    outputs = [
        {"output_type": "display_data", "metadata": {}, "data": {kind: text}} for kind, text in data.items()
    ]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": html("cell")},
        {
            "cell_type": "code",
            "metadata": {},
            "source": f"# </script>{html('code')}",
            "outputs": outputs,
            "execution_count": 1,
        },
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


FILES = {
    "table.csv": f'name,value\n{html("csv").replace(",", ";")},1\n"=HYPERLINK(""{ELSEWHERE}csv"")",2\n',
    "work.ipynb": notebook(),
    "picture.svg": f"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90' onload=\"{song('svg')}\">"
    f"<script>{song('svg')}</script><foreignObject><div xmlns='http://www.w3.org/1999/xhtml'>x</div>"
    "</foreignObject><circle r='9'/></svg>",
    "page.html": f"<!doctype html><title>x</title>{html('page')}",
    "text.md": f"# Nice\n\n{html('markdown')}\n\n[a link](javascript:canary('link'))\n",
    "x<img src=x onerror=canary('name')>.txt": html("text"),
}


@dataclass
class Heard:
    """What was heard of canaries."""

    said: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext) -> None:
        context.expose_function("canary", lambda of: self.said.append(f"function {of}"))
        context.route(f"{ELSEWHERE}**", lambda route: route.abort())
        context.on("request", self._asked)
        context.on("dialog", self._dialog)

    def _asked(self, request: Request) -> None:
        if request.url.startswith(ELSEWHERE) or "?canary=" in request.url:
            self.said.append(f"asked {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"alert {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def page(chromium: Any, site: LiveSite, heard: Heard) -> Iterator[Page]:  # noqa: F811
    """Bob's browser, who looks at what alice wrote."""
    site.hub.whoever = "bob"
    context = chromium.new_context(
        viewport={"width": 1400, "height": 900}, locale="en-GB", accept_downloads=True
    )
    heard.listen(context)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def write(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")


def test_a_page_without_protection_would_be_heard(page: Page, site: LiveSite, heard: Heard) -> None:
    page.goto(site.url)
    page.route("**/plain", lambda route: route.fulfill(content_type="text/html", body=FILES["page.html"]))
    page.goto(site.url + "plain", wait_until="commit")
    for way in ("function", "alert", f"asked {ELSEWHERE}", f"asked {site.url}api/v1/projects"):
        for _ in range(100):
            if any(one.startswith(way) for one in heard.said):
                break
            page.wait_for_timeout(50)
        assert any(one.startswith(way) for one in heard.said), (way, heard.said)


def alone(page: Page, address: str) -> str:
    """The origin of what stands at an address when it is opened in a tab of its own."""
    tab = page.context.new_page()
    try:
        tab.goto(address)
    except PlaywrightError as error:
        if "Download is starting" in str(error):
            return "downloaded"
        raise
    else:
        tab.wait_for_timeout(100)
        return tab.evaluate("origin")
    finally:
        tab.close()


@pytest.mark.parametrize("kind", ["project", "dataset"])
def test_nothing_that_somebody_wrote_runs_where_it_is_shown(
    page: Page, site: LiveSite, heard: Heard, kind: str
) -> None:
    if kind == "project":
        project = site.project("alice", "Heat flow", description=html("description")[:2000])
        write(directory(site, project.id))
        (directory(site, project.id) / "README.md").write_text(html("readme"), encoding="utf-8")
        address, item = "projects/alice/heat-flow", ("project", project.id)
    else:
        data = site.write(
            datasets.create,
            owner="alice",
            name="Heat flow",
            summary=html("summary")[:200],
            description=html("about"),
            volume_id="default",
            now=site.portal.clock(),
        )
        write(put(site, {"id": data.id}, "README.md", html("readme").encode()).parent)
        address, item = "datasets/alice/heat-flow", ("dataset", data.id)
    site.write(lifecycle.publish, *item, actor=Actor(name="alice"), now=site.portal.clock())

    page.goto(site.url + address)
    title = page.title()
    for name in FILES:
        page.locator(f".tree-item[data-name={json.dumps(name)}] .tree-row").click()
        expect(page.locator("[data-shown-name]")).to_have_text(name)
        frame = page.locator("iframe.shown-frame")
        expect(frame).to_be_visible()
        expect(frame.content_frame.locator("body")).to_be_visible()
        page.wait_for_timeout(300)
    if kind == "dataset":
        page.goto(site.url + address + "/about")
        expect(page.locator("iframe.about-frame").content_frame.get_by_text("Nice about")).to_be_visible()
        title = page.title()
    page.goto(site.url + "explore" + ("/datasets" if kind == "dataset" else ""))
    expect(page.locator(".gcard")).to_have_count(1)

    # Their addresses alone, as a link that somebody is sent.
    for name in FILES:
        for word in ("preview", "files"):
            there = f"{site.url}api/v1/{address}/{word}/{quote(name)}"
            assert alone(page, there) in ("null", "downloaded"), there
    assert heard.said == []
    assert "canary" not in title
