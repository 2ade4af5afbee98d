"""A real hub and a real proxy outside of the cluster, and what really exists inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from galilean.clock import utcnow
from galilean.db import Database
from spawner import records
from spawner.inventory import Sighting
from spawner.kubernetes import names
from spawner.kubernetes.api import KubeAPI
from spawner.kubernetes.inventory import KubeInventory
from spawner.sweeper import Report, Sweeper
from tests.kubernetes.faults import Faults
from tests.lab.waiting import eventually
from tests.process.hub import BUSY, clean_environment, free_ports

R = TypeVar("R")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOKEN = "test-token-of-the-service"
QUEUE_TOKEN = f"{TOKEN}-queue"
#: A node that answers and ends as a node does, at once even with a tenth of a processor.
LIGHT = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
server = socket.create_server(("", 8888))
while True:
    client, _ = server.accept()
    client.settimeout(5)
    try:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}")
    except OSError:
        pass
    client.close()
"""


class Namespace:
    """A namespace of a test's own, with Pod Security enforced, a claim and an account for the hub."""

    def __init__(
        self, kubectl: Callable[..., str], server: str, authority: Path, name: str, place: Path
    ) -> None:
        self.kubectl = kubectl
        self.name = name
        self.work = place / "work"
        self.work.mkdir(parents=True)
        self.work.chmod(0o755)
        place.chmod(0o755)
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        text = (HERE / "rights.yaml").read_text().replace("$NAMESPACE", name).replace("$WORK", str(self.work))
        kubectl("apply", "-f", "-", stdin=text)
        # A pod that comes before its claim is bound is tried again only after many seconds.
        kubectl("wait", "pvc", "--all", "-n", name, "--for=jsonpath={.status.phase}=Bound", "--timeout=240s")
        token = kubectl("create", "token", "hub", "-n", name, "--duration=3h").strip()
        self.kubeconfig = place / "hub.kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "lab",
                            "cluster": {"server": server, "certificate-authority": str(authority)},
                        }
                    ],
                    "users": [{"name": "hub", "user": {"token": token}}],
                    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "hub"}}],
                    "current-context": "lab",
                }
            )
        )

    def objects(self, base: str = "") -> dict[str, list[str]]:
        """Names by kind of all objects of ours (of one cluster, if named)."""
        selector = f"{names.CLUSTER}={base}" if base else names.CLUSTER
        said = self.kubectl(
            "get", "pods,secrets,services,networkpolicies", "-n", self.name, "-l", selector, "-o", "json"
        )
        found: dict[str, list[str]] = {}
        for item in json.loads(said)["items"]:
            found.setdefault(item["kind"], []).append(item["metadata"]["name"])
        return found

    def pods(self, base: str) -> dict[str, dict[str, Any]]:
        said = self.kubectl("get", "pods", "-n", self.name, "-l", f"{names.CLUSTER}={base}", "-o", "json")
        return {item["metadata"]["name"]: item for item in json.loads(said)["items"]}

    def nothing_left(self, base: str = "", seconds: float = 30) -> None:
        eventually(lambda: not self.objects(base), seconds, "nothing of the cluster is left")

    def execute(self, pod: str, *command: str) -> str:
        """What a command prints in a node."""
        return self.kubectl("exec", "-n", self.name, pod, "--", *command)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make objects as the administrator."""
        said = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-n", self.name, "-f", "-", stdin=said)

    def delete(self, kind: str, name: str, *more: str) -> None:
        """Delete an object as the administrator, without waiting for its end."""
        self.kubectl("delete", kind, name, "-n", self.name, "--wait=false", *more)

    def inventory(self) -> list[Sighting]:
        """The inventory with the hub's rights."""
        return self.with_inventory(lambda inventory: inventory.inventory())

    def with_inventory(self, do: Callable[[KubeInventory], Awaitable[R]], *, by_hand: bool = False) -> R:
        """Do something with an inventory that has the hub's rights."""

        async def done() -> R:
            configuration = Configuration()
            await config.load_kube_config(str(self.kubeconfig), client_configuration=configuration)
            api = KubeAPI(self.name, lambda: ApiClient(configuration))
            try:
                return await do(KubeInventory(api, by_hand=by_hand))
            finally:
                await api.close()

        return asyncio.run(done())


class KubeHub:
    """A hub of a test's own, and a proxy that outlives it."""

    def __init__(self, state: Path, namespace: Namespace, *, host: str, image: str, **more: Any) -> None:
        self.state, self.namespace = state, namespace
        state.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(state / "faults")
        self._before: dict[tuple[str, str], str] = {}
        self.ports = free_ports(3)
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        told = {
            "state": str(state),
            "work": str(namespace.work),
            "ports": self.ports,
            "host": host,
            "token": TOKEN,
            "image": image,
            "images": {},
            "namespace": namespace.name,
            "gang_timeout": 180,
            "start_timeout": 300,
            **more,
        }
        self.environment = clean_environment() | {
            "TEST_HUB": json.dumps(told),
            "KUBECONFIG": str(namespace.kubeconfig),
        }
        self.api = httpx.Client(
            base_url=f"{self.url}/hub/api", headers={"Authorization": f"token {TOKEN}"}, timeout=120
        )
        self.proxy = subprocess.Popen(
            [
                str(ROOT / "node_modules/.bin/configurable-http-proxy"),
                "--ip", "127.0.0.1", "--port", str(self.ports[0]),
                "--api-ip", "127.0.0.1", "--api-port", str(self.ports[2]),
                "--error-target", f"http://127.0.0.1:{self.ports[1]}/hub/error",
                "--default-target", f"http://127.0.0.1:{self.ports[1]}",
                "--log-level", "error",
            ],
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
                [sys.executable, "-m", "tests.kubernetes.hub_main", "-f", str(HERE / "hub_config.py")],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        eventually(self.answers, 180, "the hub answers")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()[-3000:]
        try:
            return self.api.get("/").status_code == 200
        except httpx.HTTPError:
            return False

    def log(self) -> str:
        return (self.state / "hub.log").read_text()

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self.proxy.terminate()
        self.proxy.wait(10)
        self.api.close()

    # ------------------------------------------------------------------------------------------- requests

    def path(self, server: str, user: str) -> str:
        return f"/users/{quote(user, safe='')}/servers/{server}"

    def post(self, server: str, user: str = "ada", **options: Any) -> None:
        self.api.post(f"/users/{quote(user, safe='')}")
        self._before[user, server] = self.row(server, user)["id"]
        self._nothing_ends(server, user)
        answer = self.api.post(self.path(server, user), json={"user_options": options})
        assert answer.status_code in (201, 202), (answer.text, self.log()[-3000:])

    def post_refused(self, server: str, status: int, user: str = "ada", **options: Any) -> str:
        """Ask for a cluster that the hub refuses, in this way; what it says.

        This hub makes no request wait for a start, so the refusal is in the answer or, later, in the progress.
        """
        self._nothing_ends(server, user)
        answer = self.api.post(self.path(server, user), json={"user_options": options})
        if answer.status_code in (201, 202):
            return " ".join(self.progress(server, user))
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.text

    def _nothing_ends(self, server: str, user: str) -> None:
        """A row is closed, or waits, a moment before the hub has put its own things away; until then it takes nothing."""
        eventually(
            lambda: self.model(server, user).get("pending") != "stop", 30, "the hub has ended the last one"
        )

    def cancel(self, server: str, user: str = "ada") -> None:
        """End the wait of a run in line, as its page does."""
        database = Database(f"sqlite:///{self.state}/galilean.sqlite", threads=1)
        with database.write() as conn:
            run = records.open_run(conn, user, server)
            assert run is not None
            assert records.cancel_waiting(conn, run.id, reason="cancelled", asked_by=user, now=utcnow())
        database.close()

    def run(self, server: str, user: str = "ada", seconds: float = 150, **options: Any) -> float:
        """Start and wait until ready; seconds from the request to ready."""
        begun = time.monotonic()
        self.post(server, user, **options)
        self.runs(server, user, seconds)
        return time.monotonic() - begun

    def runs(self, server: str, user: str = "ada", seconds: float = 150) -> None:
        """Wait until a cluster that was asked for is ready; the one before it does not count."""
        before = self._before.get((user, server), "")

        def is_there_or_over() -> bool:
            row = self.row(server, user)
            return row["id"] != before and bool(row["released_at"] or self.ready(server, user))

        eventually(is_there_or_over, seconds, "ready")
        row = self.row(server, user)
        assert row["status"] == "running", (row, self.log()[-5000:])

    def model(self, server: str, user: str = "ada") -> dict[str, Any]:
        return self.api.get(f"/users/{quote(user, safe='')}").json()["servers"].get(server) or {}

    def ready(self, server: str, user: str = "ada") -> bool:
        return bool(self.model(server, user).get("ready"))

    def delete(self, server: str, user: str = "ada") -> None:
        answer = self.api.delete(self.path(server, user))
        assert answer.status_code in (202, 204), answer.text

    def ask_stop(self, server: str, user: str = "ada") -> None:
        """Ask for the end and do not wait for an answer."""
        with contextlib.suppress(httpx.TimeoutException):
            self.api.delete(self.path(server, user), timeout=0.3)

    def release(self, server: str, user: str = "ada") -> float:
        begun = time.monotonic()
        self.delete(server, user)
        self.closed(server, user)
        return time.monotonic() - begun

    def progress(
        self,
        server: str,
        user: str = "ada",
        seconds: float = 60,
        heard: Callable[[str], object] = lambda said: None,
    ) -> list[str]:
        """The sentences of the progress stream until it ends; ``heard`` is told each at once.

        Between the end of a start that failed and the end of its removal the hub answers 400, as if nothing had ever
        been asked for; once all is removed it tells why the start failed.
        """
        seconds *= BUSY
        patience = time.monotonic() + seconds
        while time.monotonic() < patience:
            with self.api.stream("GET", f"{self.path(server, user)}/progress", timeout=seconds) as answer:
                if answer.status_code == 200:
                    return self._told(answer, heard)
                answer.read()
                assert answer.status_code == 400, (answer.status_code, answer.text)
            time.sleep(0.05)
        raise AssertionError(
            f"no progress of {server} within {seconds} s: {answer.text}\n{self.log()[-3000:]}"
        )

    def _told(self, answer: httpx.Response, heard: Callable[[str], object]) -> list[str]:
        said: list[str] = []
        for line in answer.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                said.append(event.get("message", ""))
                heard(said[-1])
                if event.get("ready") or event.get("failed"):
                    break
        return said

    # ----------------------------------------------------------------------------------------------- rows

    def row(self, server: str, user: str = "ada") -> dict[str, Any]:
        """The newest run of a server."""
        with sqlite3.connect(f"file:{self.state}/galilean.sqlite?mode=ro", uri=True) as conn:
            conn.row_factory = sqlite3.Row
            found = conn.execute(
                'select * from clusters where "user" = ? and server = ? order by id desc limit 1',
                (user, server),
            ).fetchone()
        return dict(found) if found else {"id": "", "status": "", "released_at": None}

    def nodes(self, server: str, user: str = "ada") -> list[dict[str, Any]]:
        run = self.row(server, user)["id"]
        with sqlite3.connect(f"file:{self.state}/galilean.sqlite?mode=ro", uri=True) as conn:
            conn.row_factory = sqlite3.Row
            rows = conn.execute("select * from cluster_nodes where cluster_id = ? order by rank", (run,))
            return [dict(row) for row in rows]

    def closed(self, server: str, user: str = "ada", seconds: float = 45) -> dict[str, Any]:
        eventually(lambda: self.row(server, user)["released_at"], seconds, "the row is closed")
        return self.row(server, user)

    def open(self) -> list[tuple[str, str, str]]:
        """User, server and state of each run that is not over."""
        with sqlite3.connect(f"file:{self.state}/galilean.sqlite?mode=ro", uri=True) as conn:
            return list(
                conn.execute(
                    'select "user", server, status from clusters where released_at is null order by id'
                )
            )

    def end_all(self) -> None:
        """End what a test that failed left behind, so that the next finds what it expects."""
        self.faults.clear()
        if self.process.poll() is not None:
            self.start()
        for user, server, status in self.open():
            if status == "queued":
                self.cancel(server, user)
            else:
                self.ask_stop(server, user)
        eventually(lambda: not self.open(), 45, "all runs are over")

    def sweep(self, *, by_hand: bool = False) -> Report:
        """A sweep of everything, however young, with the hub's rights; ``by_hand`` = at an administrator's word."""
        database = Database(f"sqlite:///{self.state}/galilean.sqlite", threads=1)

        async def swept(inventory: KubeInventory) -> Report:
            sweeper = Sweeper(database, inventory, young=timedelta(0))
            return await sweeper.sweep(remove=True)

        try:
            return self.namespace.with_inventory(swept, by_hand=by_hand)
        finally:
            database.close()

    def fits(self) -> None:
        """Nothing is there without a row, and no row is open without pods; what waits in line has none."""
        report = self.sweep()
        assert not report.orphans and not report.ghosts, report

    def base(self, server: str, user: str = "ada") -> str:
        return names.base_name(user, server)

    def routes(self) -> set[str]:
        answer = httpx.get(
            f"http://127.0.0.1:{self.ports[2]}/api/routes", headers={"Authorization": "token proxy-token"}
        )
        return {path for path in answer.json() if path.startswith("/user/")}


def only_if_possible() -> str:
    """Why the tests with a real Kubernetes cannot run here; empty when they can."""
    return "" if os.geteuid() == 0 else "a lab needs root"
