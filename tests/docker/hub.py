"""A real hub and a real proxy on the machine of the tests' Docker daemon."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx

from galilean.db import Database
from spawner.docker import names, scratch
from spawner.docker.api import DockerAPI
from spawner.docker.inventory import DockerInventory
from spawner.docker.subnets import gateway, own_network
from spawner.inventory import Sighting
from spawner.process.layout import base_name
from spawner.sweeper import Report, Sweeper
from tests.docker.daemon import IMAGE, POOL, Daemon
from tests.kubernetes.hub import LIGHT, TOKEN, KubeHub
from tests.process.hub import clean_environment, eventually, free_ports

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class DockerHub(KubeHub):
    """A hub of a test's own, and a proxy that outlives it; requests, rows and waits as on Kubernetes.

    Parameters
    ----------
    light
        Nodes that answer and end as nodes do, and take a twentieth of a second to begin; else whole ones.
    """

    def __init__(self, state: Path, daemon: Daemon, *, light: bool = True, **more: Any) -> None:
        self.state, self.daemon = state, daemon
        state.mkdir(parents=True, exist_ok=True)
        self._before: dict[tuple[str, str], str] = {}
        self.ports = free_ports(3)
        self.instance = f"t{self.ports[1]}"
        self.work = state.parent / "work"
        self.work.mkdir(exist_ok=True)
        self.gateway = str(gateway(own_network(IPv4Network(POOL))))
        host = daemon.machine.address
        daemon.machine.run("ip", "addr", "add", f"{self.gateway}/32", "dev", "lo", check=False)
        self.url = f"http://{host}:{self.ports[0]}"
        told = {
            "state": str(state),
            "work": str(self.work),
            "ports": self.ports,
            "host": self.gateway,
            "machine": host,
            "token": TOKEN,
            "image": IMAGE,
            "images": {},
            "docker": daemon.url,
            "instance": self.instance,
            "pool": POOL,
            "gang_timeout": 180,
            "start_timeout": 300,
            "mounts": daemon.mounts(),
            "command": [sys.executable, "-IS", "-c", LIGHT]
            if light
            else [sys.executable, "-m", "spawner.node.container"],
            "python_path": str(ROOT),
            **more,
        }
        self.environment = clean_environment() | {"TEST_HUB": json.dumps(told), "PYTHONPATH": str(ROOT)}
        self.api = httpx.Client(
            base_url=f"{self.url}/hub/api",
            headers={"Authorization": f"token {TOKEN}"},
            timeout=60,
            trust_env=False,
        )
        self.proxy = subprocess.Popen(
            daemon.machine.command(
                str(ROOT / "node_modules/.bin/configurable-http-proxy"),
                "--ip", host, "--port", str(self.ports[0]),
                "--api-ip", host, "--api-port", str(self.ports[2]),
                "--error-target", f"http://{self.gateway}:{self.ports[1]}/hub/error",
                "--default-target", f"http://{self.gateway}:{self.ports[1]}",
                "--log-level", "error",
            ),
            env=self.environment | {"CONFIGPROXY_AUTH_TOKEN": "proxy-token"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        with open(self.state / "hub.log", "ab") as log:
            self.process = subprocess.Popen(
                self.daemon.machine.command(
                    sys.executable, "-m", "tests.kubernetes.hub_main", "-f", str(HERE / "hub_config.py")
                ),
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        eventually(self.answers, 180, "the hub answers")

    def base(self, server: str, user: str = "ada") -> str:
        return base_name(user, server)

    def container(self, server: str, rank: int = 0, user: str = "ada") -> str:
        """The name of a node's container."""
        return names.container_name(self.instance, self.base(server, user), rank)

    def containers(self, server: str, user: str = "ada") -> list[dict[str, Any]]:
        label = {names.INSTANCE: self.instance, names.CLUSTER: self.base(server, user)}
        return self.daemon.containers(**label)

    def network(self, server: str, user: str = "ada") -> str:
        return names.network_name(self.instance, self.base(server, user))

    def nothing_left(self, server: str, user: str = "ada") -> None:
        assert not self.containers(server, user)
        assert self.network(server, user) not in self.daemon.networks()
        assert not self.volumes(server, user)
        assert not (self.state / "clusters" / self.base(server, user)).exists()

    def volumes(self, server: str, user: str = "ada") -> list[str]:
        """Docker's volumes of a cluster: its nodes' scratch space."""
        return scratch.volumes(self.daemon.client, self.instance, self.base(server, user))

    def inventory(self) -> list[Sighting]:
        return asyncio.run(self._with(lambda inventory: inventory.inventory()))

    def sweep(self, *, by_hand: bool = False) -> Report:
        """A sweep of everything, however young."""
        database = Database(f"sqlite:///{self.state}/galilean.sqlite", threads=1)
        try:
            return asyncio.run(
                self._with(
                    lambda inventory: Sweeper(database, inventory, young=timedelta(0)).sweep(remove=True)
                )
            )
        finally:
            database.close()

    async def _with(self, do: Any) -> Any:
        inventory = DockerInventory(DockerAPI(self.daemon.url), self.instance, self.state / "clusters")
        try:
            return await do(inventory)
        finally:
            await inventory.close()

    def routes(self) -> set[str]:
        answer = httpx.get(
            f"http://{self.daemon.machine.address}:{self.ports[2]}/api/routes",
            headers={"Authorization": "token proxy-token"},
            trust_env=False,
        )
        return {path for path in answer.json() if path.startswith("/user/")}
