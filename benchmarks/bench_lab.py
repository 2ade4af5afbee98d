"""JupyterLab from its address to its first usable page, with our extension and without it, in Chromium.

Both sides are the same JupyterLab on Jupyter servers of their own, in a browser that has nothing kept. *Usable* is
when the launcher's cards can be pressed; the item in the top bar may come after that, and how much later is told.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.harness import Figure, Report, at_most, pairs
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.jupyterlab.conftest import TOKEN, Double, jupyterlab

MOST = 1.05


def opening(browser: Browser, server: Double, later: list[float] | None = None) -> Callable[[], float]:
    """Seconds to the first usable page; ``later`` takes how much longer the item took."""

    def measure() -> float:
        context = browser.new_context(viewport={"width": 1400, "height": 860})
        try:
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(f"{server.url}/lab?token={TOKEN}&reset", wait_until="commit")
            page.locator(".jp-LauncherCard").first.wait_for()
            seconds = time.perf_counter() - begin
            if later is not None:
                page.locator(".galilean-pill").wait_for()
                later.append(time.perf_counter() - begin - seconds)
            return seconds
        finally:
            context.close()

    return measure


def run(report: Report, directory: Path, count: int) -> None:
    later: list[float] = []
    with (
        jupyterlab(directory / "with") as ours,
        jupyterlab(directory / "without", extension=False) as plain,
        sync_playwright() as playwright,
    ):
        ours.says()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        sides = opening(browser, ours, later), opening(browser, plain)
        for side in sides:
            side()
        later.clear()
        left, right = pairs(*sides, count)
        browser.close()
    faster = sum(one <= other for one, other in zip(left, right, strict=True))
    report.add(
        at_most(
            "JupyterLab, address → first usable page",
            left,
            right,
            MOST,
            note=f"faster in {faster} of {count}",
        )
    )
    middle = statistics.median(later)
    report.add(Figure(name="the item in its top bar after that", ours=later, note=f"median {middle:.2f} s"))
