"""What two people do with an environment that one of them extends, in Chromium on the whole product, whatever runs nodes.

The first opens a workbench, installs there what is missing (the test's own part), looks at what an image would hold, saves
it, follows the save and adds it to the library for the second, who starts two nodes of it from their project's page.
With ``GALILEAN_PICTURES=<folder>`` it leaves pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, serious_faults
from tests.product.product import PASSWORD, Person, Product, wait_for

PICTURES = os.environ.get("GALILEAN_PICTURES", "")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def signed_in(browser: Browser, product: Product, person: Person, **more: Any) -> Page:
    """A page of somebody who came in by the form."""
    product.give_password(person.name)
    said: dict[str, Any] = {"viewport": {"width": 1400, "height": 900}, "locale": "en-GB"}
    page = browser.new_context(**(said | more)).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{product.url}/hub/login?next=/services/portal/images")
    page.locator("#username_input, input[name=username]").first.fill(person.name)
    page.locator("input[type=password]").first.fill(PASSWORD)
    page.locator("form button[type=submit], form input[type=submit]").first.click()
    page.wait_for_url("**/services/portal/images")
    return page


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/images-{name}.png", full_page=True)


def start(page: Page, cpu: float, memory_gb: float) -> None:
    """Start what the page's form of a run asks for, with nodes of that size."""
    drawer = page.locator("#run-drawer")
    drawer.get_by_text("Custom", exact=True).click()
    drawer.get_by_label("Cores per node", exact=True).fill(str(cpu))
    drawer.get_by_label("Memory per node in GB", exact=True).fill(str(memory_gb))
    drawer.get_by_role("button", name="Start").click()


@dataclass
class Bench:
    """A workbench that is open in a page."""

    page: Page
    person: Person
    server: str
    cluster: str

    @classmethod
    def open(
        cls, page: Page, product: Product, person: Person, *, cpu: float, memory_gb: float, seconds: float
    ) -> Bench:
        """From the page of the environment."""
        page.goto(f"{product.url}/services/portal/environments/jupyter")
        page.get_by_role("button", name="Open workbench").click()
        page.wait_for_url(re.compile("/workbenches/"))
        expect(page.locator("#run-form")).to_be_visible()  # it opens by itself
        start(page, cpu, memory_gb)
        bench = wait_for(
            lambda: [one for one in person.portal("GET", "/workbenches").json()["items"] if one["cluster"]],
            "it is asked for",
            seconds=30,
        )[0]
        wait_for(lambda: person.is_ready(bench["server"]), "the workbench is ready", seconds=seconds)
        return cls(page, person, bench["server"], bench["cluster"])

    def save(self, name: str, *, holds: str, project: str) -> dict[str, Any]:
        """By its page, to the end of the save; the image as the interface tells it."""
        page = self.page
        page.goto(f"{page.url.partition('/services/')[0]}/services/portal/workbenches/{project}")
        page.get_by_role("link", name="Save image …").first.click()
        expect(page.locator(".image-packages")).to_contain_text(holds)
        page.get_by_label("Name and tag").fill(name)
        expect(page.locator("#image-name-check")).to_contain_text(name)
        assert serious_faults(page) == []
        picture(page, "save")
        page.get_by_role("button", name="Save image").click()
        page.wait_for_url(re.compile(r"/images/[0-9A-Z]{26}$"))
        picture(page, "saving")
        address = f"/images/{page.url.rpartition('/')[2]}"

        def over() -> dict[str, Any]:
            image = self.person.portal("GET", address).json()
            return image if image["state"] != "saving" else {}

        image = wait_for(over, "it is saved or not", seconds=240)
        assert image["state"] == "ready", image
        page.get_by_role("button", name="Add to library").wait_for()
        expect(page.locator(".image-packages")).to_contain_text(holds)
        picture(page, "saved")
        return image

    def add_to_library(self, to: Person) -> None:
        """For one person, from the page of the image."""
        page = self.page
        page.get_by_role("button", name="Add to library").click()
        dialog = page.locator("#library-dialog")
        dialog.get_by_label("Named people and groups").check()
        dialog.get_by_label("People", exact=True).fill(to.name)
        dialog.get_by_role("button", name="Add to library").click()
        page.wait_for_url(re.compile(r"/environments/[0-9A-Z]{26}$"))
        picture(page, "entry")


def run_two(
    page: Page, product: Product, person: Person, environment: str, *, cpu: float, memory_gb: float
) -> str:
    """Two nodes of it, started from the page of a new project; the name of their server."""
    slug = person.project("Class")
    page.goto(f"{product.url}/services/portal/projects/{person.name}/{slug}?run=1")
    drawer = page.locator("#run-drawer")
    drawer.locator("#run-environment").select_option(environment)
    drawer.get_by_label("Nodes", exact=True).fill("2")
    picture(page, "run")
    start(page, cpu, memory_gb)
    return slug


def tell(
    product: Product,
    ada: Person,
    bob: Person,
    *,
    install: Callable[[Bench], None],
    holds: str,
    size: tuple[float, float],
    check_saved: Callable[[Bench, dict[str, Any]], None],
    seconds: float,
) -> str:
    """The whole story; the server's name of the second person's two nodes, which are ready.

    Parameters
    ----------
    install
        Installs what is missing in the workbench.
    holds
        A package with its version that the pages must then name.
    size
        Cores and gigabytes of a node.
    check_saved
        Looks through what was saved, while the workbench still runs.
    seconds
        For a start, on a quiet machine.
    """
    cpu, memory_gb = size
    with chromium() as browser:
        bench = Bench.open(
            signed_in(browser, product, ada), product, ada, cpu=cpu, memory_gb=memory_gb, seconds=seconds
        )
        install(bench)
        (project,) = [one["id"] for one in ada.portal("GET", "/workbenches").json()["items"]]
        image = bench.save("heat-tools:1", holds=holds, project=project)
        check_saved(bench, image)
        assert image["id"] not in str(bob.portal("GET", "/environments").json())
        bench.add_to_library(bob)
        theirs = signed_in(browser, product, bob)
        environment = f"{ada.name}/heat-tools"
        slug = run_two(theirs, product, bob, environment, cpu=cpu, memory_gb=memory_gb)
        wait_for(lambda: bob.is_ready(slug), f"{slug} is ready", seconds=seconds)
        theirs.wait_for_url(re.compile(f"/user/{bob.name}/"))  # the page goes there by itself
        picture(theirs, "running")
        (cluster,) = bob.clusters()
        assert (cluster["environment"], cluster["nodes"]) == (environment, 2)
    return slug
