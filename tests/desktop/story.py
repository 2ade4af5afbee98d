"""What a person does with the desktops of a cluster, in Chromium on the whole product, whatever runs its nodes.

They sign in, run two nodes, open both desktops and a terminal on each, copy text both ways, run a parallel program over
both nodes from the terminal, and upload a file onto the desktop. The picture is read back from the page; what was
done is seen in the project's files. With ``GALILEAN_PICTURES=<folder>`` it leaves pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.product.product import PASSWORD, Person, Product, wait_for

PATIENCE_MS = 120_000
#: What a terminal of XFCE covers of a window of this size, with some of it hidden.
WINDOW = {"width": 1400, "height": 900}
PART_OF_A_TERMINAL = 0.08
TRIES = 4
SUM = "from mpi4py import MPI; c = MPI.COMM_WORLD; print(MPI.Get_processor_name(), c.allreduce(c.rank + 1))\n"
ENVIRONMENT = {"title": "Desktop", "interfaces": ["jupyter", "desktop"]}

GRID = """() => {
    const canvas = document.querySelector(".screen canvas");
    const small = new OffscreenCanvas(70, 45);
    const context = small.getContext("2d", {willReadFrequently: true});
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, 70, 45);
    const data = context.getImageData(0, 0, 70, 45).data;
    return Array.from({length: 70 * 45}, (_, at) => data[4 * at] << 16 | data[4 * at + 1] << 8 | data[4 * at + 2]);
}"""


@contextmanager
def chromium_for(url: str) -> Iterator[Browser]:
    """A browser that takes an address for as safe as https would make it, so that the clipboard can be had."""
    split = urlsplit(url)
    trusted = f"--unsafely-treat-insecure-origin-as-secure={split.scheme}://{split.netloc}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, trusted])
        yield browser
        browser.close()


class Desktop:
    """The desktop of a node, open in a page."""

    def __init__(self, page: Page, person: Person, slug: str, node: str) -> None:
        self.page, self.person, self.slug, self.node = page, person, slug, node
        page.set_default_timeout(PATIENCE_MS)
        page.wait_for_selector('.screen[data-state="connected"]')
        page.locator(".screen .wait").wait_for(state="detached")  # something was drawn
        self.empty: list[int] = self._settled()

    def grid(self) -> list[int]:
        """Colours at some thousands of places of the picture."""
        return self.page.evaluate(GRID)

    def _settled(self) -> list[int]:
        """The picture once nothing more is drawn."""
        before: list[int] = []

        def still() -> bool:
            nonlocal before
            now = self.grid()
            same, before = now == before, now
            return same and len({*now}) > 1

        wait_for(still, f"the desktop of {self.node} is drawn", seconds=120, every=1.5)
        return before

    def covered(self) -> float:
        """The part of the picture that is not as it was on the empty desktop."""
        now = self.grid()
        return sum(one != other for one, other in zip(now, self.empty, strict=True)) / len(now)

    def focus(self) -> None:
        self.page.evaluate("document.querySelector('.screen canvas').focus({preventScroll: true})")

    def open_terminal(self) -> None:
        """By the keys that XFCE has for it; its window is in the picture."""
        assert self.covered() < PART_OF_A_TERMINAL / 2

        def drawn() -> bool:
            return self.covered() > PART_OF_A_TERMINAL

        for last in range(TRIES):
            self.focus()
            self.page.keyboard.press("Control+Alt+t")
            try:
                wait_for(drawn, f"the window of a terminal is drawn on {self.node}", seconds=40, every=0.5)
                return
            except AssertionError:
                if last == TRIES - 1:
                    raise

    def file(self, name: str) -> str | None:
        """A file of the project; ``None`` when it is not there."""
        answer = self.person.portal("GET", f"/projects/{self.person.name}/{self.slug}/files/{name}")
        return answer.text if answer.status_code == 200 else None

    def says(self, command: str, name: str) -> str:
        """What a command says that is typed into the terminal; by a file of the project, which the portal has, too."""
        whole = f"({command}) > ~/work/{name}.part 2>&1; mv ~/work/{name}.part ~/work/{name}\n"
        for _ in range(TRIES):  # a terminal that is not quite there forgets the first keys
            self.focus()
            self.page.keyboard.press("Enter")
            self.page.keyboard.type(whole, delay=4)
            try:
                wait_for(lambda: self.file(name) is not None, f"{command!r} was done", seconds=30, every=0.5)
                break
            except AssertionError:
                continue
        said = self.file(name)
        assert said is not None, f"{command!r} typed on the desktop of {self.node} did nothing"
        return said.strip()

    def picture(self, name: str) -> None:
        if folder := os.environ.get("GALILEAN_PICTURES"):
            self.page.screenshot(path=f"{folder}/{name}.png")


def settings(environment: dict[str, Any]) -> dict[str, Any]:
    """What an installation is told so that runs have a desktop when nobody chooses."""
    return {
        "environments": {"desktop": {**ENVIRONMENT, **environment}},
        "defaults": {"environment": "desktop", "cpu": 1, "memory": "1G", "release": "manual"},
    }


def tell(product: Product, person: Person, tmp_path: Path) -> None:
    """The story; everything of it is released at the end."""
    name = person.name
    slug = person.project("Drawings")
    answer = person.portal("PUT", f"/projects/{name}/{slug}/files/sum.py", content=SUM.encode())
    assert answer.status_code == 201, answer.text
    product.give_password(name)
    with chromium_for(product.url) as browser:
        context = browser.new_context(viewport=WINDOW, locale="en-GB")  # pyright: ignore[reportArgumentType]
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=product.url)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{product.url}/hub/login?next=/services/portal/projects/{name}/{slug}?run=1")
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        drawer = page.locator("#run-drawer")
        drawer.locator('[data-stepper] [data-step="1"]').first.click()
        drawer.locator("#run-start").click()
        # Who watches is taken to the first node; a page that is opened before that would be taken along, too.
        page.wait_for_url(f"**/user/{name}/**", timeout=400_000, wait_until="commit")
        (cluster,) = person.clusters()
        assert cluster["nodes"] == 2
        desktops = []
        for node in ("node-0", "node-1"):
            page.goto(f"{product.url}/services/portal/projects/{name}/{slug}?run=1")
            row = drawer.locator(".door-row").filter(has_text=node)
            with context.expect_page() as opened:
                row.get_by_role("link", name="Desktop").click()
            desktops.append(Desktop(opened.value, person, slug, node))
        try:
            do(desktops, tmp_path)
        finally:
            for desktop in desktops:
                desktop.picture(f"desktop-{desktop.node}")
        context.close()
    assert person.stop(slug).status_code in (202, 204)
    wait_for(lambda: not person.clusters(), "the cluster is released", seconds=120)


def do(desktops: list[Desktop], tmp_path: Path) -> None:
    """What is done on both desktops."""
    for desktop in desktops:
        desktop.page.bring_to_front()
        desktop.open_terminal()
        assert desktop.says("hostname", f"{desktop.node}.txt") == desktop.node
    first = desktops[0]
    page = first.page
    page.bring_to_front()

    # Both nodes at once, from the terminal on the desktop.
    said = first.says("mpirun /usr/bin/python3 ~/work/sum.py", "sum.txt")
    assert sorted(said.splitlines()) == ["node-0 3", "node-1 3"], said

    # Text from the browser to the desktop, and from there to the browser.
    page.evaluate("navigator.clipboard.writeText('从浏览器 to the desktop')")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(1000)
    said = first.says("xclip -selection clipboard -o", "pasted.txt")
    assert said == "从浏览器 to the desktop"
    first.says("printf 'from the desktop' | xclip -selection clipboard", "copied.txt")
    wait_for(
        lambda: page.evaluate("navigator.clipboard.readText()") == "from the desktop",
        "the browser has the desktop's text",
    )

    # A file onto the desktop.
    page.get_by_role("button", name="Files").click()
    picked = tmp_path / "图.txt"
    picked.write_text("drawn elsewhere")
    page.locator(".files input[type=file]").set_input_files(picked)
    page.get_by_role("link", name="Download 图.txt").wait_for()
    assert first.file("Desktop/图.txt") == "drawn elsewhere"
    assert first.says("cat ~/Desktop/*.txt", "uploaded.txt") == "drawn elsewhere"
