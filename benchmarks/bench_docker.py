"""From POST to ready on one machine with Docker: a cluster of ours against plain DockerSpawner.

Both sides use the same daemon, image, amounts and proxy, each a hub and a network of its own. Four nodes of ours
are one cluster; on the plain side they are four named servers of one person, asked for at the same time. The
daemon is one of the benchmark's own, in a network namespace, as the tests have it; needs root. Its image is built
first where it is not there.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import ROOT, Report, at_most
from tests.docker.daemon import Daemon, only_if_possible
from tests.docker.hub import DockerHub
from tests.product.product import at_once, free_port, wait_for

_numbers = itertools.count()
#: nodes → CPUs of each: what two real CPUs have room for.
CPUS = {1: 1.0, 4: 0.4}
MEMORY = "512M"
START_MOST = {1: 0.75, 4: 1.00}
#: Nobody ends what has just begun.
SETTLE_SECONDS = 1.0
WAIT_SECONDS = 600
PYTHON = "/opt/galilean/bin/python"
SUBNET, GATEWAY = "10.214.0.0/24", "10.214.0.1"
#: DockerSpawner's own defaults but for the network, without which nodes have no addresses that the proxy reaches.
PLAIN = """
c = get_config()
c.JupyterHub.bind_url = "http://{machine}:{port}/"
c.JupyterHub.hub_bind_url = "http://{gateway}:{hub_port}"
c.JupyterHub.hub_connect_url = "http://{gateway}:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{directory}/proxy.pid"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"],
    "scopes": ["admin:users", "admin:servers", "access:servers", "tokens"]}}]
c.Spawner.start_timeout = {wait}
c.Spawner.http_timeout = 120
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": {wait}, "slow_stop_timeout": {wait}}}
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{image}"
c.DockerSpawner.cmd = ["{python}", "-m", "jupyterhub.singleuser"]
c.DockerSpawner.network_name = "plain"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.volumes = {{"{work}": "/home/jovyan/work"}}
c.DockerSpawner.cpu_limit = {cpu}
c.DockerSpawner.mem_limit = "{memory}"
"""


class PlainHub:
    """A hub with DockerSpawner, on the machine of the daemon, with one person in it."""

    def __init__(self, directory: Path, daemon: Daemon, image: str, cpu: float) -> None:
        directory.mkdir(parents=True)
        work = directory / "work"
        work.mkdir()
        os.chown(work, 1000, 1000)
        self.port, self.token, self.directory = free_port(), secrets.token_hex(16), directory
        machine = daemon.machine.address
        config = directory / "jupyterhub_config.py"
        config.write_text(
            PLAIN.format(
                machine=machine, port=self.port, gateway=GATEWAY, hub_port=free_port(), api_port=free_port(),
                directory=directory, work=work, token=self.token, image=image, cpu=cpu, memory=MEMORY,
                proxy=ROOT / "node_modules/.bin/configurable-http-proxy", python=PYTHON, wait=WAIT_SECONDS,
            )
        )  # fmt: skip
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("JUPYTERHUB_", "GALILEAN_", "DOCKER_"))
        } | {"DOCKER_HOST": daemon.url, "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16)}
        with (directory / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                daemon.machine.command(sys.executable, "-m", "jupyterhub", "-f", str(config)),
                cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.http = httpx.Client(
            base_url=f"http://{machine}:{self.port}/hub/api",
            headers={"Authorization": f"token {self.token}"},
            timeout=WAIT_SECONDS,
            trust_env=False,
        )
        wait_for(lambda: self.http.get("/").status_code == 200, "the plain hub answers", seconds=180)
        self.http.post("/users/u0").raise_for_status()

    def life(self, nodes: int) -> tuple[float, float]:
        """Seconds until so many servers are ready, and until they are gone again."""
        servers = [f"s{next(_numbers)}" for _ in range(nodes)]
        begin = time.perf_counter()
        at_once(*(lambda name=name: self._ask("POST", name, 201) for name in servers))
        started = time.perf_counter() - begin
        for name in servers:
            self._answers(f"/user/u0/{name}/")
        time.sleep(SETTLE_SECONDS)
        begin = time.perf_counter()
        at_once(*(lambda name=name: self._ask("DELETE", name, 204) for name in servers))
        return started, time.perf_counter() - begin

    def _ask(self, method: str, server: str, code: int) -> None:
        answer = self.http.request(method, f"/users/u0/servers/{server}")
        log = (self.directory / "hub.log").read_text()
        assert answer.status_code == code, (answer.status_code, answer.text, log[-3000:])

    def _answers(self, path: str) -> None:
        at = str(self.http.base_url).partition("/hub/api")[0]
        headers = {"Authorization": f"token {self.token}"}
        answer = httpx.get(f"{at}{path}api/status", headers=headers, timeout=30, trust_env=False)
        assert answer.status_code == 200, (path, answer.status_code)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def ours(hub: DockerHub, nodes: int) -> tuple[float, float]:
    """The same of one cluster."""
    server = f"c{next(_numbers)}"
    options = {"nodes": nodes, "cpu": CPUS[nodes], "memory": MEMORY}
    begin = time.perf_counter()
    answer = hub.api.post(hub.path(server, "ada"), json={"user_options": options}, timeout=WAIT_SECONDS)
    started = time.perf_counter() - begin
    assert answer.status_code == 201, (answer.status_code, answer.text, hub.log()[-3000:])
    for rank in range(nodes):
        suffix = f"node-{rank}/" if rank else ""
        answer = httpx.get(
            f"{hub.url}/user/ada/{server}/{suffix}api/status",
            headers=dict(hub.api.headers), timeout=30, trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 200, (rank, answer.status_code)
    time.sleep(SETTLE_SECONDS)
    begin = time.perf_counter()
    answer = hub.api.delete(hub.path(server, "ada"), timeout=WAIT_SECONDS)
    assert answer.status_code == 204, answer.text
    return started, time.perf_counter() - begin


def pairs_of(report: Report, left: DockerHub, right: PlainHub, nodes: int, count: int) -> None:
    sides: dict[str, Any] = {"ours": lambda: ours(left, nodes), "plain": lambda: right.life(nodes)}
    for side in sides.values():  # the first start of anything reads the disk
        side()
    both: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(count):
        for name in sides if number % 2 == 0 else reversed(sides):
            both[name].append(sides[name]())
        said = " against ".join(f"{both[name][-1][0]:.2f} + {both[name][-1][1]:.2f} s" for name in both)
        print(f"    pair {number + 1}/{count}: {said}; load {os.getloadavg()[0]:.0f}", flush=True)
    what = f"{nodes} node{'s' * (nodes > 1)}"
    mine, others = ([taken[0] for taken in both[name]] for name in both)
    wins = sum(a < b for a, b in zip(mine, others, strict=True))
    note = f"faster in {wins} of {count} pairs; load {os.getloadavg()[0]:.0f}"
    report.add(at_most(f"Docker: POST → ready, {what}", mine, others, START_MOST[nodes], note=note))
    gone, others_gone = ([taken[1] for taken in both[name]] for name in both)
    report.add(at_most(f"Docker: DELETE → gone, {what}", gone, others_gone, 1.0))


def run(report: Report, directory: Path, count: int, **_: Any) -> None:
    why = only_if_possible()
    if why:
        raise SystemExit(why)
    built = [sys.executable, str(ROOT / "scripts" / "images.py"), "jupyter"]
    said = subprocess.run(built, stdout=subprocess.PIPE, text=True, check=True).stdout
    _, image, archive = said.strip().split("\t")
    directory.chmod(0o755)
    daemon = Daemon(directory / "d")
    left: DockerHub | None = None
    right: PlainHub | None = None
    try:
        daemon.load(archive)
        pool = {"Driver": "default", "Config": [{"Subnet": SUBNET, "Gateway": GATEWAY}]}
        daemon.client.create_network("plain", driver="bridge", ipam=pool)
        left = DockerHub(
            directory / "ours" / "state", daemon, image=image, python_path="", mounts=[], waits=True,
            command=[PYTHON, "-m", "spawner.node.container"],
        )  # fmt: skip
        left.api.post("/users/ada").raise_for_status()
        for nodes, cpu in CPUS.items():
            print(f"  {nodes} node(s) on Docker", flush=True)
            right = PlainHub(directory / f"plain-{nodes}", daemon, image, cpu)
            pairs_of(report, left, right, nodes, count)
            right.close()
    finally:
        for hub in (left, right):
            if isinstance(hub, DockerHub):
                hub.stop()
            elif hub is not None:
                hub.close()
        daemon.stop()
