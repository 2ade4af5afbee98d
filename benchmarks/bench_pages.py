"""Home and project page of somebody with a thousand projects, while a hundred clusters run.

The rows are written by hand: what is measured is the portal, not the start of a hundred clusters. The
services that would find out that nothing stands behind those rows are paused meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, select
from ulid import ULID

from benchmarks.harness import Figure, Report, percentile
from services.catalog.tables import projects
from spawner.tables import cluster_nodes, clusters
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product, running_product

PROJECTS, CLUSTERS, OWN, REQUESTS = 1000, 100, 5, 200
MOST_MS = 50.0


def fill(product: Product, person: Person, sample: str) -> None:
    """A thousand projects like the one that is there, a hundred running clusters, five of them the person's."""
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
            begin = now - timedelta(minutes=number + 1)
            run = str(ULID())
            conn.execute(
                insert(clusters).values(
                    id=run,
                    user=person.name if own else f"other{number}",
                    server=made[number]["slug"],
                    project_id=made[number]["id"],
                    project_owner=person.name,
                    project_slug=made[number]["slug"],
                    project_name=made[number]["name"],
                    environment="jupyter",
                    backend="process",
                    nodes=2,
                    cpu_millicores=2000,
                    memory_bytes=2**32,
                    release_policy="manual",
                    request={},
                    status="running",
                    target="running",
                    asked_by=person.name,
                    queued_at=begin,
                    reserved_at=begin,
                    placed_at=begin,
                    ready_at=begin,
                    state={},
                )
            )
            conn.execute(
                insert(cluster_nodes),
                [
                    {
                        "cluster_id": run,
                        "rank": rank,
                        "attempt": 1,
                        "name": f"node-{rank}",
                        "placed_at": begin,
                        "ready_at": begin,
                    }
                    for rank in (0, 1)
                ],
            )


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
