"""Pictures of what people share: Explore, a project with its files, a data set, and what administrators see of it.

Called by ``scripts/screenshots.py``. Everything in the pictures was made by the API a moment before, on a product
that came with its starter projects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.product.product import PASSWORD, Person, Product, wait_for

Take = Callable[[Page, str], None]
ROWS = [(orbit, 10 * math.sin(orbit / 9) ** 2 + 0.5) for orbit in range(1, 241)]
SOURCE = "import pandas\n\ntable = pandas.read_csv('~/datasets/io-nims/heat.csv')\ntable.watts.mean()"


def notebook() -> str:
    """A small one that was run."""
    mean = sum(round(watts, 2) for _, watts in ROWS) / len(ROWS)
    result = {
        "output_type": "execute_result",
        "execution_count": 1,
        "metadata": {},
        "data": {"text/plain": f"{mean:.4f}"},
    }
    told = "# Tidal heating of Io\n\nHow much heat does each orbit see? The table comes from a data set."
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": told},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "execution_count": 1,
            "source": SOURCE,
            "outputs": [result],
        },
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def sent(person: Person, method: str, path: str, **body: object) -> dict[str, object]:
    """What the portal answers to somebody."""
    answer = person.portal(method, path, **body).raise_for_status()
    return answer.json() if answer.content else {}


def shared(product: Product) -> tuple[str, str]:
    """What stands in the pictures; the addresses of a project and of a data set."""
    galileo, kepler = product.person("galileo-g"), product.person("kepler", "student")
    facts = {
        "name": "Near-infrared spectra of Io (NIMS)",
        "mount": "io-nims",
        "field": "physics",
        "summary": "One table for each orbit of the Galileo orbiter",
        "tags": ["spectra", "木卫一"],
    }
    data = sent(galileo, "POST", "/datasets", json=facts)
    shelf = f"/datasets/galileo-g/{data['slug']}"
    lines = "".join(f"{orbit},{watts:.2f}\n" for orbit, watts in ROWS)
    files = {"heat.csv": "orbit,watts\n" + lines, "README.md": "# Spectra of Io\n\nHeat by orbit, in W/m².\n"}
    files |= {f"orbit-{number:02d}.dat": "0 1 2 3\n" * 20_000 * number for number in range(1, 5)}
    for name, text in files.items():
        sent(galileo, "PUT", f"{shelf}/files/{name}", content=text.encode())
    named = {
        "name": "Tidal heating of Io",
        "description": "Read the spectra, find the heat of each orbit, and plot it",
    }
    project = sent(galileo, "POST", "/projects", json=named)
    place = f"/projects/galileo-g/{project['slug']}"
    sent(galileo, "PATCH", place, json={"field": "physics", "tags": ["heat", "热流"]})
    for name, text in (
        ("heat.ipynb", notebook()),
        ("README.md", "# Tidal heating of Io\n\nOpen `heat.ipynb`.\n"),
        ("solver.py", "print('heat')\n"),
    ):
        sent(galileo, "PUT", f"{place}/files/{name}", content=text.encode())
    sent(galileo, "POST", f"{place}/datasets", json={"dataset": data["id"]})
    for what in (shelf, place):
        sent(galileo, "PUT", f"{what}/publication")
    sent(kepler, "POST", f"{place}/forks")
    sent(kepler, "PUT", f"/favourites/projects/{project['id']}")
    sent(kepler, "PUT", f"/favourites/datasets/{data['id']}")
    wait_for(lambda: sent(galileo, "GET", shelf)["size_bytes"], "the data set is counted", seconds=60)
    return place, shelf


def signed_in(product: Product, page: Page, name: str) -> None:
    """A page of somebody's."""
    page.goto(product.url)
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/services/portal/**")


def file_shown(page: Page, name: str, text: str) -> None:
    """Look at a file, and wait until it is there."""
    page.locator(f'.tree-item[data-name="{name}"] .tree-row').click()
    expect(page.locator("iframe.shown-frame").content_frame.get_by_text(text).first).to_be_visible()


def walk(product: Product, page: Page, take: Take) -> None:
    """What a student sees of it, and what an administrator does."""
    portal = product.url + "/services/portal/"
    page.goto(portal + "welcome")
    expect(page.frame_locator("iframe.own-page").get_by_role("heading").first).to_be_visible()
    take(page, "home-page")
    project, data = shared(product)
    product.give_password("kepler")
    signed_in(product, page, "kepler")
    page.goto(portal + "explore")
    expect(page.locator(".gcard").first).to_be_visible()
    take(page, "explore")
    page.goto(portal + project.lstrip("/"))
    file_shown(page, "heat.ipynb", "How much heat")
    take(page, "project-files")
    page.goto(portal + data.lstrip("/"))
    file_shown(page, "heat.csv", "watts")
    take(page, "data-set")
    page.context.clear_cookies()
    product.person("chief", "admin")
    product.give_password("chief")
    signed_in(product, page, "chief")
    page.goto(portal + "admin/projects")
    for row in range(2):
        page.locator("table.all-projects tbody .row-check").nth(row).check()
    take(page, "all-projects")
    page.goto(portal + "admin/volumes")
    # The directory of this one run says nothing to anybody.
    page.evaluate(
        """(state) => {
            const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (texts.nextNode())
                texts.currentNode.data = texts.currentNode.data.replace(state, "/srv/galilean");
        }""",
        str(product.state),
    )
    take(page, "volumes")
