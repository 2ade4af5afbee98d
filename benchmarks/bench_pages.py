"""Home and project pages of somebody with a thousand projects, while a hundred clusters run.

Five hundred runs of the last three weeks are the person's own history, so that machine time has to be added up.

The rows are written by hand: what is measured is the portal, not the start of a hundred clusters. The
services that would find out that nothing stands behind those rows are paused meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select
from ulid import ULID

from benchmarks.harness import Figure, Report, percentile
from services.catalog.tables import projects
from spawner.tables import cluster_nodes, clusters
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product, running_product

PROJECTS, CLUSTERS, OWN, FINISHED, REQUESTS = 1000, 100, 5, 500, 200
MOST_MS = 50.0


def fill(product: Product, person: Person, sample: str) -> None:
    """A thousand projects like the one that is there, a hundred running clusters, five of them the person's, and history."""
    now = datetime.now(UTC)
    with product.db.write() as conn:
        row = dict(conn.execute(select(projects).where(projects.c.slug == sample)).mappings().one())
        made = [
            row | {"id": str(ULID()), "slug": f"p{number}", "name": f"Project {number}"}
            for number in range(PROJECTS - 1)
        ]
        conn.execute(insert(projects), made)
        for number in range(CLUSTERS):
            own = number < OWN
            add_run(
                conn,
                made[number],
                begin=now - timedelta(minutes=number + 1),
                user=person.name if own else f"other{number}",
            )
        for number in range(
            FINISHED
        ):  # of the last three weeks; every tenth is of the project that is looked at
            project = row if number % 10 == 0 else made[number % len(made)]
            begin = now - timedelta(days=number % 21, hours=3)
            add_run(conn, project, begin=begin, user=person.name, end=begin + timedelta(hours=1))


def add_run(
    conn: Connection, project: dict[str, Any], *, begin: datetime, user: str, end: datetime | None = None
) -> None:
    """The rows of one cluster of two nodes; it still runs when there is no ``end``."""
    run = str(ULID())
    values: dict[str, Any] = {
        "id": run,
        "user": user,
        "server": project["slug"],
        "project_id": project["id"],
        "project_owner": project["owner"],
        "project_slug": project["slug"],
        "project_name": project["name"],
        "environment": "jupyter",
        "backend": "process",
        "nodes": 2,
        "cpu_millicores": 2000,
        "memory_bytes": 2**32,
        "release_policy": "manual",
        "request": {},
        "status": "released" if end else "running",
        "target": "released" if end else "running",
        "reason": "asked" if end else "",
        "asked_by": user,
        "released_at": end,
        "state": {},
    } | dict.fromkeys(("queued_at", "reserved_at", "placed_at", "ready_at"), begin)
    conn.execute(insert(clusters).values(values))
    node = {"cluster_id": run, "attempt": 1, "placed_at": begin, "ready_at": begin, "gone_at": end}
    conn.execute(insert(cluster_nodes), [{**node, "rank": rank, "name": f"node-{rank}"} for rank in (0, 1)])


def run(report: Report, directory: Path, _count: int) -> None:
    with running_product(directory, SETTINGS) as product:
        person = product.person("bench")
        sample = person.project("Bench")
        paused = [product.pid(name) for name in ("metering", "release", "queue")]
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        try:
            fill(product, person, sample)
            browser = person.sign_in()
            for name, path in (
                ("home page", "/services/portal/"),
                ("project page", f"/services/portal/projects/{person.name}/{sample}"),
                ("a project's machine time", f"/services/portal/projects/{person.name}/{sample}/runs"),
                ("a project's settings", f"/services/portal/projects/{person.name}/{sample}/settings"),
                ("list of projects", "/services/portal/projects"),
                ("one's machine time", "/services/portal/machine-time"),
            ):
                taken = []
                for _ in range(REQUESTS):
                    begin = time.perf_counter()
                    answer = browser.get(path)
                    taken.append((time.perf_counter() - begin) * 1000)
                    assert answer.status_code == 200 and answer.url.path == path, (
                        answer.status_code,
                        answer.url,
                    )
                p95 = percentile(taken, 0.95)
                report.add(
                    Figure(
                        name=f"{name}, {PROJECTS} projects, {CLUSTERS} running clusters",
                        ours=taken,
                        unit="ms",
                        bound=f"p95 ≤ {MOST_MS:g} ms",
                        met=p95 <= MOST_MS,
                        note=f"p95 {p95:.1f} ms",
                    )
                )
        finally:
            with product.db.write() as conn:  # what nothing stands behind must not be left for the services
                conn.execute(cluster_nodes.delete())
                conn.execute(clusters.delete())
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
