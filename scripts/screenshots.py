"""Take the pictures of the documentation from the running product, along the tutorial's own steps.

Starts the product on a state directory of its own, walks with Chromium through what
``docs/tutorial/first-cluster.md`` tells, then through what people share, and writes ``docs/pictures/*.png``. So a
picture never shows what the product does not do, and a step of the tutorial that no longer works fails here.
``tutorial`` or ``gallery`` as an argument takes these alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import gallery_pictures  # noqa: E402
from tests.product.product import PASSWORD, Product, running_product  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
SETTINGS = {"site": {"name": "Galilean", "timezone": "Asia/Shanghai"}, "process": {"cpu_overcommit": 8}}
ARGUMENTS = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def take(page: Page, name: str) -> None:
    """One picture, when the page has come to rest."""
    page.wait_for_timeout(400)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    if smaller := shutil.which("convert"):
        subprocess.run([smaller, path, "-strip", "+dither", "-colors", "200", f"PNG8:{path}"], check=True)
    print(f"docs/pictures/{name}.png", flush=True)


def walk(product: Product, page: Page) -> None:
    """The tutorial, step by step."""
    product.person("galileo")
    product.give_password("galileo")
    page.goto(product.url)
    take(page, "sign-in")
    page.get_by_label("User name").fill("galileo")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/services/portal/**")
    take(page, "home-first")

    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Name").fill("Heat flow")
    page.get_by_label("Description").fill("How heat spreads through a plate of two metals")
    take(page, "project-new")
    page.get_by_role("button", name="Make project").click()
    page.wait_for_url("**/projects/galileo/heat-flow**")
    page.wait_for_timeout(1000)
    take(page, "project")

    if not page.locator("#run-drawer[open]").count():
        page.get_by_role("button", name=re.compile("^Run")).first.click()
    drawer = page.locator("#run-drawer")
    expect(drawer.locator("#run-start")).to_be_visible()
    nodes = drawer.locator('input[name="nodes"]')
    nodes.fill("2")
    nodes.dispatch_event("change")
    page.wait_for_timeout(600)
    take(page, "run-form")

    # The start is over in a second: its picture is taken at the first sign of it.
    drawer.locator("#run-start").click()
    drawer.locator(".steps").wait_for()
    page.screenshot(path=PICTURES / "starting.png", animations="disabled")
    # JupyterLab forgets what is run before it has its kernel.
    with page.expect_websocket(lambda socket: "/channels" in socket.url, timeout=90_000):
        page.wait_for_url("**/user/galileo/heat-flow/**", timeout=60_000)
    cells = page.locator(".jp-CodeCell")
    for number in range(cells.count()):
        cells.nth(number).click()
        page.keyboard.press("Shift+Enter")
        expect(cells.nth(number).locator(".jp-OutputArea-output").first).to_be_visible(timeout=60_000)
    page.locator(".jp-Notebook").hover()
    page.mouse.wheel(0, -5000)
    take(page, "lab")

    page.goto(product.url + "/services/portal/")
    expect(page.get_by_text("Running now")).to_be_visible()
    page.wait_for_timeout(5000)
    take(page, "home")
    page.get_by_role("button", name=re.compile("^Release")).first.click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_be_visible()
    take(page, "release")
    dialog.get_by_role("button", name=re.compile("^Release")).click()
    expect(page.get_by_text("Running now")).to_have_count(0, timeout=30_000)

    page.goto(product.url + "/services/portal/projects/galileo/heat-flow/runs")
    page.wait_for_timeout(1000)
    take(page, "machine-time")


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (
        tempfile.TemporaryDirectory(prefix="galilean-pictures-") as directory,
        running_product(Path(directory), SETTINGS) as product,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        page = browser.new_page(
            viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="Asia/Shanghai"
        )
        try:
            if "gallery" not in sys.argv[1:]:
                walk(product, page)
                page.context.clear_cookies()
            if "tutorial" not in sys.argv[1:]:
                gallery_pictures.walk(product, page, take)
        except BaseException:
            page.screenshot(path=ROOT / "build" / "screenshots-failed.png")
            raise
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
