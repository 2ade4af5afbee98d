"""Two hubs beside a real Kubernetes: ours and one with plain KubeSpawner, the same in all but their spawners.

The hubs run outside of the cluster, each with a proxy, a database and a namespace of its own, and with one
account's rights in it. Their databases are SQLite files in memory: the Kubernetes of the lab keeps nothing
on a disk either, and a hub that commits twenty times for each start would only tell how slow the disk is. A POST comes back when its server is ready and a DELETE when it is gone, so that no
client needs to ask in between. ``GALILEAN_LAB_DIRECTORY`` names a Kubernetes that runs already; without it
one is started, which needs root.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import extensions.quota.tables  # noqa: F401 - registers the tables
import services.catalog.tables
import services.machines.tables
import services.metering.tables
import services.people.tables
import services.release.tables  # noqa: F401
import spawner.tables  # noqa: F401
from benchmarks.harness import ROOT
from galilean.clock import utcnow
from galilean.db import Database, metadata
from galilean.settings import Settings, parse_settings
from services.catalog.projects import Projects
from tests.lab.images import load, reference
from tests.lab.kubernetes import Kubernetes, _attached, archive
from tests.lab.lab import GATEWAY, Lab
from tests.product.product import free_port, wait_for

PROJECT = "bench"
SETTINGS = """
roles:
  admin: {}
  bench: {limits: {clusters: 8, nodes: 8, total_cpu: 64, total_memory: 64G, manual_release: true}}
defaults: {cpu: 0.1, memory: 64M, release: manual}
"""
WAIT_SECONDS = 900
RIGHTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: hub, namespace: $NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: hub, namespace: $NAMESPACE}
rules:
  - {apiGroups: [""], resources: [pods, secrets, services], verbs: [get, list, watch, create, delete]}
  - {apiGroups: [""], resources: [events], verbs: [get, list, watch]}
  - {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch, create, update, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: hub, namespace: $NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: hub}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
---
# Where Kubernetes itself is, by address.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: $NAMESPACE-hub}
rules:
  - {apiGroups: [""], resources: [nodes], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $NAMESPACE-hub}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: $NAMESPACE-hub}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: $NAMESPACE-hub, namespace: default}
rules:
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: $NAMESPACE-hub, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: $NAMESPACE-hub}
subjects: [{kind: ServiceAccount, name: hub, namespace: $NAMESPACE}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $NAMESPACE-projects}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteMany]
  hostPath: {path: $CLAIM}
  claimRef: {namespace: $NAMESPACE, name: projects}
  storageClassName: ""
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: projects, namespace: $NAMESPACE}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ""
  volumeName: $NAMESPACE-projects
  resources: {requests: {storage: 10Gi}}
"""
COMMON = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_bind_url = "http://0.0.0.0:{hub_port}"
c.JupyterHub.hub_connect_url = "http://{gateway}:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{databases}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": {wait}, "slow_stop_timeout": {wait}}}
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = "proxy-token"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"],
    "scopes": ["admin:users", "admin:groups", "admin:servers", "access:servers", "proxy"]}}]
c.Spawner.start_timeout = {wait}
c.Spawner.http_timeout = 120
c.KubeSpawner.image = "{image}"
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.node_selector = {selector!r}
c.KubeSpawner.tolerations = {tolerations!r}
"""
OURS = """
from benchmarks.kube import collaborators
from spawner.kubernetes.cluster import pod_nodes
c.JupyterHub.spawner_class = "spawner.kubernetes.cluster.KubeCluster"
c.JupyterHub.proxy_class = "spawner.proxy.ClusterProxy"
c.VirtualCluster.collaborators = collaborators("{directory}", "{databases}")
c.VirtualCluster.gang_timeout = {wait}
c.ClusterProxy.collaborators = c.VirtualCluster.collaborators
c.KubeCluster.pods = pod_nodes("{namespace}")
c.KubeCluster.claims = {{"{claim}": "projects"}}
c.KubeCluster.reaches = [{{"to": [{{"ipBlock": {{"cidr": "{gateway}/32"}}}}]}}]
"""
#: The image has no command of its own; all else is KubeSpawner's own default, or the site's choice on both sides.
PLAIN = """
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = "{namespace}"
c.KubeSpawner.cmd = ["/opt/galilean/bin/python", "-m", "jupyterhub.singleuser"]
c.KubeSpawner.working_dir = "/home/jovyan"
c.KubeSpawner.environment = {{"HOME": "/home/jovyan"}}
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 1000
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.delete_pvc = False
c.KubeSpawner.volumes = [{{"name": "work", "persistentVolumeClaim": {{"claimName": "projects"}}}}]
c.KubeSpawner.volume_mounts = [
    {{"name": "work", "mountPath": "/home/jovyan/work", "subPath": "{{username}}"}}]
c.KubeSpawner.cpu_limit = c.KubeSpawner.cpu_guarantee = {cpu}
c.KubeSpawner.mem_limit = c.KubeSpawner.mem_guarantee = "{memory}"
"""


@contextmanager
def kubernetes(directory: Path, *, image: bool) -> Iterator[Kubernetes]:
    """The Kubernetes that runs already, else one for the while; with the node image if it is needed."""
    running = os.environ.get("GALILEAN_LAB_DIRECTORY")
    node_image = archive() if image else None
    name = reference(node_image) if node_image else "galilean.lab/none:1"
    if running:
        if node_image:
            load(Path(running), node_image)
        yield _attached(Path(running), name)
        return
    lab = Lab(directory / "lab")
    try:
        lab.up()
        if node_image:
            lab.load_image(node_image)
        yield Kubernetes(lab.kubectl, lab.server, lab.directory / "pki" / "ca.crt", name, lab.directory, lab)
    finally:
        lab.down()


def settings_of(directory: Path) -> Settings:
    return parse_settings(SETTINGS, environ={"GALILEAN_STATE": str(directory / "state")})


def database_of(directory: Path, threads: int = 1) -> Database:
    return Database(f"sqlite:///{directory}/galilean.sqlite", threads=threads)


def collaborators(place: str, databases: str) -> Any:
    """What our spawner is handed: the real resolver and admission; whether there is room, the scheduler says."""
    from hub_config import decisions, seeding

    settings, database = settings_of(Path(place)), database_of(Path(databases))
    with database.serialised("seed") as conn:
        seeding.seed(conn, settings, utcnow())
    return decisions.collaborators(database, settings, None, utcnow, backend="kubernetes")


class Place:
    """A namespace with a claim and an account that a hub uses; everything goes with it."""

    def __init__(self, kubernetes: Kubernetes, name: str, claim: Path) -> None:
        self.name = name
        self.claim = claim
        self.kubectl = kubernetes.kubectl
        claim.mkdir(parents=True, exist_ok=True)
        self.kubectl("create", "namespace", name)
        text = RIGHTS.replace("$NAMESPACE", name).replace("$CLAIM", str(claim))
        self.kubectl("apply", "-f", "-", stdin=text)
        token = self.kubectl("create", "token", "hub", "-n", name, "--duration=6h").strip()
        self.kubeconfig = claim.parent / f"{name}.kubeconfig"
        cluster = {"server": kubernetes.server, "certificate-authority": str(kubernetes.authority)}
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "hub", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "hub"}}],
            "current-context": "lab",
        }
        self.kubeconfig.write_text(json.dumps(told), encoding="utf-8")
        self.kubeconfig.chmod(0o600)

    def close(self) -> None:
        """Delete it, and come back when its pods are gone: the next measurement starts on a quiet cluster."""
        self.kubectl("delete", "namespace", self.name, "--wait=false", check=False)
        self.kubectl("delete", "pv", f"{self.name}-projects", "--wait=false", check=False)
        deadline = time.monotonic() + WAIT_SECONDS
        while self.kubectl("get", "namespace", self.name, "--ignore-not-found", "-o", "name", check=False):
            if time.monotonic() > deadline:
                return
            time.sleep(1)


class KubeHub:
    """One hub, and a proxy that outlives it.

    Parameters
    ----------
    directory
        All of its files.
    place
        Its namespace.
    spawner
        ``OURS`` or ``PLAIN``.
    people
        Who may start.
    more
        ``image``, ``cpu``, ``memory`` (of the plain side's servers), ``selector``, ``tolerations``.
    """

    def __init__(
        self, directory: Path, place: Place, spawner: str, people: list[str], more: Mapping[str, Any]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.place = directory, place
        in_memory = Path("/dev/shm")
        self._in_memory = tempfile.TemporaryDirectory(
            prefix="galilean-bench-", dir=in_memory if in_memory.is_dir() else None
        )
        self.databases = Path(self._in_memory.name)
        self.token, self.told = secrets.token_hex(16), directory / "told.json"
        self.port, self.hub_port, self.api_port = free_port(), free_port(), free_port()
        if spawner == OURS:
            prepare(directory, self.databases, people)
        values = {
            "port": self.port, "hub_port": self.hub_port, "api_port": self.api_port, "gateway": GATEWAY,
            "directory": directory, "databases": self.databases, "wait": WAIT_SECONDS, "token": self.token,
            "namespace": place.name, "claim": place.claim, "selector": {}, "tolerations": [], **more,
        }  # fmt: skip
        self.config = directory / "jupyterhub_config.py"
        self.config.write_text((COMMON + spawner).format(**values), encoding="utf-8")
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("JUPYTERHUB_", "GALILEAN_", "KUBE"))
        } | {"BENCH_TOLD": str(self.told), "PYTHONPATH": str(ROOT), "KUBECONFIG": str(place.kubeconfig)}
        self.url = f"http://127.0.0.1:{self.port}/hub/api"
        self.headers = {"Authorization": f"token {self.token}"}
        self.http = httpx.Client(base_url=self.url, headers=self.headers, timeout=WAIT_SECONDS)
        with (directory / "proxy.log").open("ab") as log:
            self.proxy = subprocess.Popen(
                [
                    str(ROOT / "node_modules/.bin/configurable-http-proxy"),
                    "--ip", "127.0.0.1", "--port", str(self.port),
                    "--api-ip", "127.0.0.1", "--api-port", str(self.api_port),
                    "--default-target", f"http://127.0.0.1:{self.hub_port}",
                    "--error-target", f"http://127.0.0.1:{self.hub_port}/hub/error",
                    "--log-level", "error",
                ],
                env=self.environment | {"CONFIGPROXY_AUTH_TOKEN": "proxy-token"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self.start()
            # Not by load_groups, which goes through all of them again at every start of a hub.
            self.http.post("/users", json={"usernames": people}).raise_for_status()
            self.http.post("/groups/galilean:bench").raise_for_status()
            self.http.post("/groups/galilean:bench/users", json={"users": people}).raise_for_status()
        except BaseException:
            self.close()
            raise

    def start(self) -> float:
        """Start the hub; seconds until it answers."""
        begin = time.perf_counter()
        with (self.directory / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.hub_app", "-f", str(self.config)],
                cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the hub ended: {self.log()[-3000:]}")
            return self.http.get("/").status_code == 200

        wait_for(answers, "the hub answers", seconds=120, every=0.05)
        return time.perf_counter() - begin

    def log(self) -> str:
        return (self.directory / "hub.log").read_text(encoding="utf-8")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def tell(self) -> dict[str, Any]:
        """What the hub saw since the last call: gaps of its loop, processor time."""
        self.told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        wait_for(self.told.exists, "the hub tells", seconds=60, every=0.02)
        return json.loads(self.told.read_text(encoding="utf-8"))

    def memory_mb(self) -> float:
        """What the hub's process holds in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def ready(self) -> int:
        """How many servers are ready, by the hub's word."""
        found, offset = 0, 0
        while True:
            page = self.http.get("/users", params={"offset": offset, "limit": 200, "state": "ready"}).json()
            found += sum(server["ready"] for user in page for server in user["servers"].values())
            if len(page) < 200:
                return found
            offset += 200

    def close(self) -> None:
        for process in (getattr(self, "process", None), self.proxy):
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.http.close()
        self._in_memory.cleanup()


def prepare(directory: Path, databases: Path, people: list[str]) -> None:
    """Our tables, and a project for each person whose files the account in the image may write."""
    settings, database = settings_of(directory), database_of(databases, threads=4)
    settings.state.mkdir(parents=True, exist_ok=True)
    metadata.create_all(database.engine)
    catalogue = Projects(database, settings)

    async def all_projects() -> None:
        for person in people:
            await catalogue.create(person, PROJECT, slug=PROJECT)

    asyncio.run(all_projects())
    catalogue.close()
    database.close()
    for folder, _, files in os.walk(settings.state):
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            os.chown(path, 1000, 1000)


def volume_of(directory: Path) -> Path:
    """The directory of our only volume: what the claim stands for."""
    settings = settings_of(directory)
    return settings.volume_path(next(iter(settings.volumes)))
