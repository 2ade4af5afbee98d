"""What happens to open documents, and to a page that nobody looks at: in Chromium, against the double."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.jupyterlab.conftest import Double, OpenLab
from tests.product.product import wait_for

pytestmark = pytest.mark.browser

NAME = "night.ipynb"


def write(double: Double, printed: str = "") -> None:
    """The notebook as the node has it: one cell, and what it printed."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    cell = {
        "id": "one", "cell_type": "code", "execution_count": None, "metadata": {}, "source": "work()",
        "outputs": outputs,
    }  # fmt: skip
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    body = {"type": "notebook", "format": "json", "content": notebook}
    double.http.put(f"{double.url}/api/contents/{NAME}", json=body).raise_for_status()


def read(double: Double) -> str:
    return json.dumps(double.http.get(f"{double.url}/api/contents/{NAME}").raise_for_status().json())


def headless(seconds: int) -> list[dict[str, Any]]:
    """That the node wrote into the notebook, so many seconds from now."""
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return [{"path": NAME, "cells": 0, "written_at": at}]


def open_notebook(page: Page) -> None:
    """Opened and saved: what a kernel that has come says of its language is a change of its own."""
    page.locator(".jp-DirListing-item", has_text=NAME).dblclick()
    expect(page.locator(".jp-Notebook .cm-content")).to_contain_text("work()")
    expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle")
    page.locator(".jp-Notebook").click()
    page.keyboard.press("Control+s")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty", has_text=NAME)).to_have_count(0)


def type_into(page: Page, text: str) -> None:
    page.locator(".jp-Notebook .cm-content").click()
    page.keyboard.press("End")
    page.keyboard.type(text)
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty", has_text=NAME)).to_have_count(1)


def test_a_tab_that_is_hidden_stays_present_and_one_that_is_closed_does_not(
    lab: OpenLab, double: Double
) -> None:
    double.says()
    page = lab()
    assert double()["sockets"] == 1
    page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {get: () => true});
            Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    opened = double()["opened"]
    double.says(held_seconds=9000)
    expect(page.locator(".galilean-held")).to_contain_text("02:30:")  # it is told all the same
    assert double()["sockets"] == 1
    double(close=True)  # and a tie that breaks is tied anew
    wait_for(lambda: double()["sockets"] == 1, "the hidden page is there again", seconds=20)
    assert double()["opened"] > opened
    page.close()
    wait_for(lambda: double()["sockets"] == 0, "the closed page is gone", seconds=10)


def test_what_the_node_wrote_is_shown_in_an_open_notebook_unless_it_was_changed_here(
    lab: OpenLab, double: Double
) -> None:
    write(double)
    double.says()
    page = lab()
    open_notebook(page)
    write(double, "done at night")
    double.says(headless=headless(1))
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("done at night")
    type_into(page, "  # mine")
    write(double, "written over")
    double.says(headless=headless(2), held_seconds=9000)
    expect(page.locator(".galilean-held")).to_contain_text("02:30:")
    expect(page.locator(".jp-Notebook .cm-content")).to_contain_text("# mine")
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("done at night")


def test_going_on_alone_saves_open_documents_first_and_does_not_when_that_fails(
    lab: OpenLab, double: Double
) -> None:
    write(double)
    double.says()
    page = lab()
    open_notebook(page)
    type_into(page, "  # kept")
    asked: list[str] = []
    for method, what in (("PUT", f"/contents/{NAME}"), ("POST", "/api/when-done")):
        page.on(
            "request",
            lambda request, method=method, what=what: (
                asked.append(what) if request.method == method and what in request.url else None
            ),
        )

    def go_on() -> None:
        page.locator(".galilean-pill").click()
        page.locator("#galilean-menu").get_by_role("button", name="Continue without me").click()
        page.locator(".jp-Dialog").get_by_role("button", name="Continue", exact=True).click()

    refuse = f"**/api/contents/{NAME}*"
    page.route(
        refuse,
        lambda route: route.fulfill(status=500) if route.request.method == "PUT" else route.fallback(),
    )
    go_on()
    page.locator(".jp-Dialog").get_by_role("button").last.click()  # JupyterLab's own, of the same
    expect(page.locator(".Toastify__toast", has_text="Documents could not be saved")).to_have_count(1)
    assert double()["asked"] == []
    page.unroute(refuse)
    asked.clear()
    with page.expect_request("**/api/when-done*"):
        go_on()
    assert asked == [f"/contents/{NAME}", "/api/when-done"]
    assert "# kept" in read(double)
