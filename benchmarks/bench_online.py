"""Administration → Online with a thousand held clusters: the page, its update, its file, and the API's list.

The rows are written by hand, as in part ``pages``: a thousand clusters of two nodes of 600 people, with what was last
measured of them. In Chromium: from the address to the first row, with nothing kept; and from the event that says
that something changed to the new table.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from sqlalchemy import insert
from ulid import ULID

from benchmarks.harness import Figure, Report, percentile
from services.release.terms import Terms
from spawner.tables import cluster_nodes, clusters, node_use
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.product.conftest import SETTINGS
from tests.product.product import Product, running_product

CLUSTERS, PEOPLE, REQUESTS, OPENINGS, UPDATES = 1000, 600, 100, 10, 30
PAGE, API = "/services/portal/admin/online", "/services/portal/api/v1/clusters"
UPDATE = """() => new Promise(resolve => {
    const begin = performance.now();
    document.getElementById("online").addEventListener(
        "htmx:afterSettle", () => resolve(performance.now() - begin), {once: true});
    document.body.dispatchEvent(new CustomEvent("galilean:online"));
})"""


def fill(product: Product) -> None:
    """A thousand clusters of two nodes that are held, seen and measured."""
    draw, now = random.Random(5), datetime.now(UTC)
    runs, nodes, uses = [], [], []
    for number in range(CLUSTERS):
        begin = now - timedelta(minutes=draw.randrange(1, 3000))
        run, user = str(ULID()), f"person{number % PEOPLE}"
        policy = draw.choice(("auto", "auto", "2h", "24h", "manual"))
        runs.append(
            {
                "id": run,
                "user": user,
                "server": f"s{number}",
                "project_id": str(ULID()),
                "project_owner": user,
                "project_slug": f"p{number}",
                "project_name": f"Project {number}",
                "environment": "jupyter",
                "backend": "process",
                "nodes": 2,
                "cpu_millicores": 2000,
                "memory_bytes": 2**32,
                "release_policy": policy,
                "release_terms": Terms(policy=policy).to_json(),
                "request": {"project": f"{user}/p{number}", "nodes": 2},
                "status": "running",
                "asked_by": user,
                "proxy_seen_at": now,
                "node_seen_at": now,
                "state": {},
            }
            | dict.fromkeys(("queued_at", "reserved_at", "placed_at", "ready_at"), begin)
        )
        for rank in (0, 1):
            key = {"cluster_id": run, "rank": rank, "attempt": 1}
            nodes.append({**key, "name": f"node-{rank}", "placed_at": begin, "ready_at": begin})
            used_at = now - timedelta(minutes=draw.choice((0, 0, 0, 30)))
            uses.append({**key, "measured_at": now, "cpu_permille": draw.randrange(2000), "used_at": used_at})
    with product.db.write() as conn:
        for table, rows in ((clusters, runs), (cluster_nodes, nodes), (node_use, uses)):
            conn.execute(insert(table), rows)


def asked(report: Report, name: str, most_ms: float, ask: Callable[[], httpx.Response]) -> None:
    """A request again and again."""
    taken = []
    for turn in range(REQUESTS + 3):
        begin = time.perf_counter()
        answer = ask()
        if turn >= 3:
            taken.append((time.perf_counter() - begin) * 1000)
        assert answer.status_code == 200, (answer.status_code, answer.url)
    tell(report, name, taken, most_ms)


def tell(report: Report, name: str, taken: list[float], most_ms: float) -> None:
    p95 = percentile(taken, 0.95)
    report.add(
        Figure(
            name=f"{name}, {CLUSTERS} clusters",
            ours=taken,
            unit="ms",
            bound=f"p95 ≤ {most_ms:g} ms",
            met=p95 <= most_ms,
            note=f"p95 {p95:.1f} ms",
        )
    )


def signed_in(browser: Browser, product: Product, visitor: httpx.Client) -> BrowserContext:
    """A browser that has nothing kept but the sign-in."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_cookies(
        [
            {"name": one.name, "value": one.value or "", "domain": "127.0.0.1", "path": one.path}
            for one in visitor.cookies.jar
        ]
    )
    return context


def in_chromium(report: Report, product: Product, visitor: httpx.Client) -> None:
    """Address → first row, and event → new table."""
    openings: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for turn in range(OPENINGS + 1):
            context = signed_in(browser, product, visitor)
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(product.url + PAGE, wait_until="commit")
            page.locator("#online tbody tr").first.wait_for()
            if turn:  # the browser itself is warm by then
                openings.append((time.perf_counter() - begin) * 1000)
            if turn == OPENINGS:
                page.wait_for_load_state("load")
                updates = [page.evaluate(UPDATE) for _ in range(UPDATES + 3)][3:]
            context.close()
        browser.close()
    tell(report, "Online in Chromium, address → first row", openings, 1000)
    tell(report, "Online in Chromium, event → new table", updates, 100)


def run(report: Report, directory: Path, _count: int) -> None:
    with running_product(directory, SETTINGS) as product:
        boss = product.person("boss", "admin")
        visitor = boss.sign_in()
        paused = [product.pid(name) for name in ("metering", "release", "queue")]
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        try:
            fill(product)
            asked(report, "Online, the page", 300, lambda: visitor.get(PAGE))
            asked(
                report,
                "Online, the table alone",
                100,
                lambda: visitor.get(PAGE, headers={"HX-Request": "true"}),
            )
            asked(
                report,
                "Online, searched and sorted",
                100,
                lambda: visitor.get(f"{PAGE}?q=person7&sort=-cpu_now", headers={"HX-Request": "true"}),
            )
            asked(report, "Online, the file of all", 300, lambda: visitor.get(f"{PAGE}.csv"))
            asked(report, "API, a page of clusters", 50, lambda: boss.api("GET", f"{API}?limit=50"))
            in_chromium(report, product, visitor)
        finally:
            with product.db.write() as conn:  # what nothing stands behind must not be left for the services
                for table in (node_use, cluster_nodes, clusters):
                    conn.execute(table.delete())
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
