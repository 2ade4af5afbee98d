"""What we cost the hub: spawns per second with fifty at once, on a backend that does nothing.

Two hubs run side by side, each with its own proxy and database; rounds alternate between them. One has our
spawner, proxy class, resolver, admission and records, the other a plain spawner that also does nothing. Then
the processor time of each of our steps is taken alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import ROOT, Figure, Report, at_least, pairs, percentile
from galilean.clock import utcnow
from galilean.db import Database
from galilean.migrate import upgrade
from galilean.settings import Settings, parse_settings
from hub_config.seeding import seed
from services.catalog.projects import Projects
from tests.postgres import PostgresServer
from tests.product.product import free_port, wait_for

PEOPLE = 50
ROUNDS_TO_WARM = 1
SETTINGS = """
roles:
  admin: {}
  bench: {limits: {clusters: 8, nodes: 8, total_cpu: 64, total_memory: 64G, manual_release: true}}
defaults: {cpu: 0.1, memory: 64M, release: manual}
"""
CONFIG = """
import os
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "{hub_db}"
c.JupyterHub.cookie_secret_file = "{directory}/cookie"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{directory}/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.load_groups = {{"galilean:bench": {{"users": [f"u{{n}}" for n in range({people})]}}}}
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"],
    "scopes": ["admin:users", "admin:servers"]}}]
c.Spawner.poll_interval = 5
"""
OURS = """
from benchmarks.bench_hub import collaborators
c.JupyterHub.spawner_class = "benchmarks.noop.NothingCluster"
c.JupyterHub.proxy_class = "spawner.proxy.ClusterProxy"
c.VirtualCluster.collaborators = collaborators("{our_db}", "{directory}/state")
"""
PLAIN = """
c.JupyterHub.spawner_class = "benchmarks.noop.NothingSpawner"
"""


def collaborators(url: str, state: str) -> Any:
    """What our spawner is handed, as ``hub_config`` does it."""
    from hub_config.wiring import Wiring
    from hub_config.wiring import collaborators as wired

    settings = parse_settings(SETTINGS, environ={"GALILEAN_STATE": state})
    nothing: Any = None
    return wired(Wiring(settings=settings, database=Database(url, threads=1), inventory=nothing))


class Hub:
    """One hub as a process of its own."""

    def __init__(self, directory: Path, *, hub_db: str, our_db: str, sink: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.told = directory / "told.json"
        self.token = secrets.token_hex(16)
        port = free_port()
        values: dict[str, object] = {
            "port": port,
            "hub_port": free_port(),
            "api_port": free_port(),
            "directory": directory,
            "hub_db": hub_db,
            "our_db": our_db,
            "people": PEOPLE,
            "token": self.token,
            "proxy": ROOT / "node_modules" / ".bin" / "configurable-http-proxy",
        }
        config = directory / "jupyterhub_config.py"
        config.write_text((CONFIG + (OURS if our_db else PLAIN)).format(**values), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "GALILEAN_"))}
        environment |= {"BENCH_TOLD": str(self.told), "BENCH_SINK_PORT": str(sink), "PYTHONPATH": str(ROOT)}
        with (directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.hub_app", "-f", str(config)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{port}/hub/api"
        self.gaps: list[float] = []
        self.cpu_ms: list[float] = []
        wait_for(lambda: httpx.get(self.url + "/").status_code == 200, "the hub answers", seconds=60)

    def tell(self) -> dict[str, Any]:
        """What the hub saw since the last call."""
        self.told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        wait_for(self.told.exists, "the hub tells", seconds=30, every=0.02)
        return json.loads(self.told.read_text(encoding="utf-8"))

    def round(self) -> float:
        """Fifty starts at once; spawns per second until the last is ready. All are stopped afterwards."""
        return asyncio.run(self._round())

    async def _round(self) -> float:
        headers = {"Authorization": f"token {self.token}"}
        limits = httpx.Limits(max_connections=PEOPLE)
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120, limits=limits) as http:

            async def start(number: int) -> None:
                path = f"/users/u{number}/servers/bench"
                answer = await http.post(path, json={"user_options": {"project": "bench", "nodes": 1}})
                assert answer.status_code in (201, 202), answer.text
                while answer.status_code == 202:
                    await asyncio.sleep(0.2)
                    model = (await http.get(f"/users/u{number}")).json()
                    if model["servers"].get("bench", {}).get("ready"):
                        break

            async def stop(number: int) -> None:
                answer = await http.delete(f"/users/u{number}/servers/bench")
                assert answer.status_code in (202, 204), answer.text
                while answer.status_code == 202:
                    await asyncio.sleep(0.2)
                    model = (await http.get(f"/users/u{number}")).json()
                    if not model["servers"]:
                        break

            before = self.tell()["cpu"]
            begin = time.perf_counter()
            await asyncio.gather(*(start(number) for number in range(PEOPLE)))
            seconds = time.perf_counter() - begin
            told = self.tell()
            self.gaps += told["gaps"]
            self.cpu_ms.append((told["cpu"] - before) * 1000 / PEOPLE)
            await asyncio.gather(*(stop(number) for number in range(PEOPLE)))
        return PEOPLE / seconds

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sink:
    """Answers everything with 200: what the hub and the proxy take for a node."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        program = (
            "import asyncio, tornado.web\n"
            "class Yes(tornado.web.RequestHandler):\n"
            "    def get(self):\n"
            "        self.set_header('X-JupyterHub-Version', '6'); self.write('{}')\n"
            "async def main():\n"
            f"    tornado.web.Application([('.*', Yes)]).listen({self.port}, '127.0.0.1')\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        with (directory / "sink.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def prepare(url: str, state: Path) -> None:
    """Our tables and a project for each person."""
    settings = parse_settings(SETTINGS, environ={"GALILEAN_STATE": str(state)})
    upgrade(url)
    database = Database(url, threads=4)
    with database.write() as conn:
        seed(conn, settings, utcnow())
    catalogue = Projects(database, settings)

    async def all_projects() -> None:
        for number in range(PEOPLE):
            await catalogue.create(f"u{number}", "bench", slug="bench")

    state.mkdir(parents=True, exist_ok=True)
    asyncio.run(all_projects())
    catalogue.close()
    database.close()


def compare(report: Report, directory: Path, kind: str, url_of: Callable[[str], str], count: int) -> None:
    """Both hubs on one kind of database."""
    print(f"  {PEOPLE} spawns at once, {kind}", flush=True)
    sink = Sink(directory)
    hubs: list[Hub] = []
    try:
        our_db = url_of("ours")
        prepare(our_db, directory / kind / "hub-ours" / "state")
        ours = Hub(directory / kind / "hub-ours", hub_db=url_of("hubours"), our_db=our_db, sink=sink.port)
        hubs.append(ours)
        plain = Hub(directory / kind / "hub-plain", hub_db=url_of("hubplain"), our_db="", sink=sink.port)
        hubs.append(plain)
        for hub in hubs:
            for _ in range(ROUNDS_TO_WARM):
                hub.round()
            hub.gaps.clear()
            hub.cpu_ms.clear()
        left, right = pairs(ours.round, plain.round, count)
        report.add(
            at_least(f"spawns per second, {PEOPLE} at once, {kind}", left, right, 0.85, unit="/s"),
            Figure(name=f"hub's CPU per spawn, {kind}", ours=ours.cpu_ms, plain=plain.cpu_ms, unit="ms"),
        )
        gaps = [percentile(hub.gaps, 0.99) * 1000 for hub in (ours, plain)]
        report.add(
            Figure(
                name=f"event-loop gap while spawning, {kind}",
                ours=[gaps[0]],
                plain=[gaps[1]],
                unit="ms",
                bound="p99 ratio ≤ 1.1",
                met=gaps[0] <= gaps[1] * 1.1,
                note=f"p99 of {len(ours.gaps)} and {len(plain.gaps)} gaps",
            )
        )
    finally:
        for hub in hubs:
            hub.close()
        sink.close()


async def steps_alone(database: Database, settings: Settings, count: int) -> dict[str, list[float]]:
    """Processor milliseconds of each of our steps, one at a time, threads included."""
    from hub_config.decisions import collaborators
    from spawner import steps
    from spawner.collaborators import Person
    from spawner.request import ClusterRequest
    from spawner.steps import NodeStart

    given = collaborators(database, settings)
    resolver, admission = given.resolver, given.admission
    taken: dict[str, list[float]] = {"parse": [], "resolve": [], "admit": [], "records": []}

    def note(step: str, begin: float) -> None:
        taken[step].append((time.process_time() - begin) * 1000)

    for number in range(count):
        user = f"u{number % PEOPLE}"
        person = Person(name=user, groups=("galilean:bench",))
        begin = time.process_time()
        request = ClusterRequest.parse({"project": "bench", "nodes": 2, "cpu": 0.1, "memory": "64M"})
        note("parse", begin)
        begin = time.process_time()
        plan = await resolver.resolve(person, "bench", request)
        note("resolve", begin)
        begin = time.process_time()
        admitted = await admission.admit(person, plan, request, ["node-0", "node-1"])
        note("admit", begin)
        begin = time.process_time()
        run = admitted.run
        assert run is not None
        starts = [NodeStart(rank=rank, host="bench", url="http://127.0.0.1:1") for rank in (0, 1)]
        assert await database.run(steps.begin_running, run, starts, now=utcnow())
        note("records", begin)
        ending = await database.run(steps.begin_stop, user, "bench", reason="asked")
        assert ending is not None
        await database.run(steps.close, ending, ends={}, now=utcnow())
    return taken


def run(report: Report, directory: Path, count: int) -> None:
    place = directory / "postgres"
    place.mkdir()
    directory.chmod(0o755)
    postgres = PostgresServer(place)
    postgres.start()
    try:
        kinds: dict[str, Callable[[str], str]] = {
            "SQLite": lambda name: f"sqlite:///{directory}/{name}.sqlite",
            "PostgreSQL": lambda name: postgres.create_database(f"bench_{name}"),
        }
        for kind, url_of in kinds.items():
            compare(report, directory, kind, url_of, count)
            url = url_of("alone")
            state = directory / kind / "alone"
            prepare(url, state)
            settings = parse_settings(SETTINGS, environ={"GALILEAN_STATE": str(state)})
            database = Database(url, threads=1)
            for step, taken in asyncio.run(steps_alone(database, settings, 200)).items():
                report.add(
                    Figure(
                        name=f"CPU of *{step}*, {kind}",
                        ours=[statistics.median(taken)],
                        unit="ms",
                        note=f"median of {len(taken)}",
                    )
                )
            database.close()
    finally:
        postgres.stop()
