"""From POST to ready: a cluster of ours against named servers of a plain hub on the same machine.

Both sides are asked by the hub's REST API and are *ready* when the hub says so (and a request through the
proxy is then answered 200: that is looked at, outside of the time).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.harness import Report, at_most, pairs
from benchmarks.plain import PlainHub
from tests.product.conftest import SETTINGS
from tests.product.product import Person, at_once, running_product, wait_for

_numbers = itertools.count()


def until_ready(http: httpx.Client, path: str, body: object, headers: dict[str, str]) -> float:
    """Seconds from the POST to the hub's word that the server is ready; never polls in between."""
    begin = time.perf_counter()
    answer = http.post(path, json=body, headers=headers)
    answer.raise_for_status()
    if answer.status_code == 202:  # it takes longer than the hub keeps a POST waiting: the stream tells
        with http.stream("GET", path + "/progress", headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    assert not event.get("failed"), event
                    if event.get("ready"):
                        break
    return time.perf_counter() - begin


def ours(person: Person, project: str, nodes: int) -> Callable[[], float]:
    """One start of a cluster of this many nodes; it is gone again when the call comes back."""

    def measure() -> float:
        path = f"/hub/api/users/{person.name}/servers/{project}"
        headers = {"Authorization": f"token {person.token}"}
        body = {"user_options": {"project": project, "nodes": nodes}}
        seconds = until_ready(person.product.http, path, body, headers)
        for rank in range(nodes):
            assert person.node(project, rank).status_code == 200
        person.stop(project)
        wait_for(lambda: project not in running(person), f"{project} is gone", seconds=30)
        return seconds

    return measure


def running(person: Person) -> set[str]:
    return {name for name, server in person.servers().items() if server["ready"] or server["pending"]}


def plain(hub: PlainHub, count: int) -> Callable[[], float]:
    """One start of this many named servers at once; they are gone again when the call comes back."""

    def measure() -> float:
        names = [f"s{next(_numbers)}" for _ in range(count)]
        begin = time.perf_counter()
        at_once(
            *(
                lambda name=name: until_ready(hub.http, f"/hub/api/users/plain/servers/{name}", None, {})
                for name in names
            )
        )
        seconds = time.perf_counter() - begin
        for name in names:
            assert hub.http.get(f"/user/plain/{name}/api/status").status_code == 200
        for name in names:
            hub.request("DELETE", name, json={"remove": True})
        wait_for(
            lambda: not hub.http.get("/hub/api/users/plain").json()["servers"], "all are gone", seconds=60
        )
        return seconds

    return measure


def run(report: Report, directory: Path, count: int) -> None:
    with PlainHub(directory / "plain") as hub:
        plain(hub, 1)()  # the first start of anything reads the disk
        for zygote, bounds in ((True, {1: 0.15, 4: 0.15}), (False, {1: 0.60})):
            settings = SETTINGS | {"process": SETTINGS["process"] | {"zygote": zygote}}
            place = directory / f"ours-{zygote}"
            place.mkdir()
            with running_product(place, settings) as product:
                person = product.person("bench")
                project = person.project("Bench")
                ours(person, project, 1)()
                how = "zygote" if zygote else "no zygote"
                for nodes, bound in bounds.items():
                    print(f"  {nodes} node(s), {how}", flush=True)
                    left, right = pairs(ours(person, project, nodes), plain(hub, nodes), count)
                    name = f"POST → ready, {nodes} node{'s' * (nodes > 1)}, {how}"
                    wins = sum(a < b for a, b in zip(left, right, strict=True))
                    report.add(at_most(name, left, right, bound, note=f"faster in {wins} of {count} pairs"))
