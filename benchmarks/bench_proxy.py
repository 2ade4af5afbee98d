"""A request to a node against the same request to a plain server, both through the same proxy.

The plain server belongs to a plain hub; its route is added to our proxy by hand, so that the way differs in
nothing but what answers at its end.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from benchmarks.bench_start import until_ready
from benchmarks.harness import Report, at_most, pairs
from benchmarks.plain import PlainHub
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product, running_product

REQUESTS = 200


def add_route(product: Product, path: str, target: str) -> None:
    """A route of somebody else in our proxy; the hub leaves alone what it did not make."""
    import json

    ports = json.loads((product.state / "run" / "ports.json").read_text(encoding="utf-8"))
    token = (product.state / "secrets" / "proxy").read_text(encoding="ascii").strip()
    answer = httpx.post(
        f"http://127.0.0.1:{ports['proxy_api']}/api/routes{path}",
        json={"target": target},
        headers={"Authorization": f"token {token}"},
    )
    answer.raise_for_status()


def request_ms(http: httpx.Client, path: str, token: str) -> float:
    """Milliseconds of one request, over many on one connection."""
    headers = {"Authorization": f"token {token}"}
    http.get(path, headers=headers).raise_for_status()  # who it is, is asked once and remembered
    begin = time.perf_counter()
    for _ in range(REQUESTS):
        answer = http.get(path, headers=headers)
        assert answer.status_code == 200, answer.status_code
    return (time.perf_counter() - begin) / REQUESTS * 1000


def run(report: Report, directory: Path, count: int) -> None:
    (directory / "ours").mkdir()
    with PlainHub(directory / "plain") as hub, running_product(directory / "ours", SETTINGS) as product:
        person: Person = product.person("bench")
        project = person.running("Bench", nodes=2)
        until_ready(hub.http, "/hub/api/users/plain/servers/s", None, {})
        token = hub.http.post("/hub/api/users/plain/tokens", json={}).json()["token"]
        routes = httpx.get(
            f"http://127.0.0.1:{hub.port}/hub/api/proxy", headers={"Authorization": f"token {hub.token}"}
        )
        target = next(
            r["target"]
            for key, r in routes.raise_for_status().json().items()
            if key.endswith("/user/plain/s/")
        )
        add_route(product, "/user/plain/s", target)
        for rank in (0, 1):
            path = f"/user/{person.name}/{project}/" + ("node-1/" if rank else "") + "api/status"
            print(f"  node-{rank}", flush=True)
            left, right = pairs(
                lambda path=path: request_ms(product.http, path, person.token),
                lambda: request_ms(product.http, "/user/plain/s/api/status", token),
                count,
            )
            report.add(
                at_most(f"a request to node-{rank}", left, right, 1.05, unit="ms", note=f"{REQUESTS} each")
            )
