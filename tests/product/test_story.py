"""What people share, on the real product: published with its data, found, made one's own, and run.

In a browser as an instructor and a student would go it, the student's in Chinese; and by API, as scripts do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.portal.test_gallery import png
from tests.product.code import in_node
from tests.product.product import Person, Product, wait_for
from tests.product.story import READ, WATTS, found_forked_and_run, published
from tests.product.test_browser_thread import Visit, chromium, visit  # noqa: F401 - fixtures


def test_by_api_a_project_with_its_data_is_published_found_forked_and_run(
    product: Product, ada: Person, person: Callable[..., Person]
) -> None:
    student = person("student")
    published(ada)
    slug = found_forked_and_run(student, ada)
    assert in_node(student, slug, READ) == f"{WATTS}\n"
    answer = student.portal("GET", f"/projects/{student.name}/{slug}/datasets").json()["items"]
    assert [(link["mount"], link["writable"], link["available"]) for link in answer] == [
        ("io-nims", False, True)
    ]


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_an_instructor_publishes_with_data_and_a_student_finds_it_in_chinese_forks_and_runs_it(
    product: Product,
    visit: Callable[..., Visit],  # noqa: F811
    ada: Person,
    person: Callable[..., Person],
) -> None:
    # Nodes here are processes of one account, so read-only is asked for, and said to be no more than that.
    the_story(product, visit, ada, person("student"), links_say="“read-only” is a request, not a lock")


def the_story(
    product: Product,
    visit: Callable[..., Visit],  # noqa: F811
    ada: Person,
    bob: Person,
    *,
    links_say: str = "",
    while_it_runs: Callable[[str], None] = lambda slug: None,
) -> None:
    """As the instructor and the student go it; the same wherever the product is installed.

    Parameters
    ----------
    links_say
        What the page of a project's data sets says besides where it is mounted.
    while_it_runs
        Called with the fork's slug while the student's cluster is there.
    """
    for one in (ada, bob):
        product.give_password(one.name)

    # A data set, its file, and its publication, which is for ever.
    hers = visit()
    page = hers.page
    hers.sign_in(ada.name)
    hers.go("/services/portal/datasets/new")
    page.get_by_label("Name", exact=True).fill("伽利略号红外谱")
    page.get_by_label("Mount directory").fill("io-nims")
    hers.button("Make data set").click()
    page.wait_for_url(re.compile(rf"/datasets/{ada.name}/[^/]+$"))
    data = {"name": "heat.csv", "mimeType": "text/csv", "buffer": b"watts\n1.5\n2.5\n"}
    page.locator("[data-upload]").first.set_input_files([data])  # type: ignore[list-item]
    expect(page.locator('.tree-item[data-name="heat.csv"]')).to_be_visible()
    hers.look("data set")
    place = page.url
    page.goto(place + "/settings")
    hers.button("Publish for ever …").click()
    asked = page.get_by_role("dialog")
    asked.get_by_role("checkbox").check()
    asked.get_by_role("button", name="Publish for ever").click()
    expect(page.locator("#who-reads")).to_contain_text("Everybody who can sign in here reads it")
    hers.look("data set, settings")

    # A project with a notebook that reads it.
    hers.go("/services/portal/projects/new")
    page.get_by_label("Name", exact=True).fill("木卫一的潮汐加热")
    page.get_by_role("checkbox", name="Begin with a small notebook").uncheck()
    hers.button("Make project").click()
    page.wait_for_url(re.compile(rf"/projects/{ada.name}/[^/?]+"))
    project = page.url.partition("?")[0]
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "metadata": {},
        "outputs": [],
        "source": READ,
    }
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    written = {
        "name": "heat.ipynb",
        "mimeType": "application/json",
        "buffer": json.dumps(notebook).encode(),
    }
    page.locator("[data-upload]").first.set_input_files([written])  # type: ignore[list-item]
    expect(page.locator('.tree-item[data-name="heat.ipynb"]')).to_be_visible()
    page.goto(project + "/datasets")
    page.get_by_placeholder("Search data sets").fill("红外")
    page.locator("#found button", has_text="伽利略号红外谱").click()
    expect(page.locator("#links")).to_contain_text("~/datasets/io-nims")
    expect(page.locator("#links")).to_contain_text(links_say)
    page.goto(project + "/settings")
    cover = {"name": "c.png", "mimeType": "image/png", "buffer": png(900, 400)}
    page.locator("[data-cover-file]").set_input_files([cover])  # type: ignore[list-item]
    expect(page.locator(".cover-row img")).to_have_attribute("src", re.compile(r"/covers/[0-9a-f]{32}\.jpg$"))
    hers.button("Publish …").click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("1 notebook with its outputs")
    asked.get_by_role("button", name="Publish").click()
    expect(page.locator("#who-sees")).to_contain_text("Public")

    # A student, whose browser is Chinese, finds it among what is public by two characters out of its middle.
    his = visit("zh_CN")
    page, say = his.page, his.say
    his.sign_in(bob.name)
    page.get_by_role("link", name=say("Explore")).first.click()
    page.get_by_placeholder(say("Search title, text, author")).fill("潮汐")
    card = page.locator(".gcard").filter(has_text="木卫一的潮汐加热")
    expect(card).to_be_visible()
    his.look("explore")
    card.get_by_role("link", name="木卫一的潮汐加热").click()
    page.wait_for_url(project)
    expect(his.button("Run …")).to_have_count(0)
    his.look("somebody else's project")
    his.button("Fork").click()
    page.wait_for_url(re.compile(rf"/projects/{bob.name}/"))
    slug = page.url.partition("?")[0].rpartition("/")[2]
    his.button("Run …").click()
    page.locator("#run-start").click()
    page.wait_for_url(f"**/user/{bob.name}/{slug}/**", timeout=240_000)
    page.locator(".jp-DirListing-item", has_text="heat.ipynb").dblclick()
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    his.run_cell(panel.locator(".jp-CodeCell").first, WATTS)

    # What was used is counted; the original stays as it was.
    page.goto(project)
    expect(page.locator(".project-head .facts")).to_contain_text("1")
    page.goto(place + "/used-by")
    expect(page.get_by_role("row").filter(has_text=ada.name)).to_be_visible()
    his.go("/services/portal/projects")
    his.look("one's projects")
    while_it_runs(slug)
    bob.stop(slug)
    wait_for(lambda: not bob.clusters(), "the cluster is released")
