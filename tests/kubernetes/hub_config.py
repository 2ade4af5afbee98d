"""Configuration of the hub that the Kubernetes tests start, outside of the cluster; all of it from the environment."""

import json
import os
from pathlib import Path

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.limits import Limits as Bounds
from galilean.db import metadata
from galilean.settings import Limits
from hub_config.roles import SERVICE_SCOPES
from spawner import tables  # noqa: F401 - registers the tables
from spawner.collaborators import Collaborators
from spawner.kubernetes import mender, nodes
from spawner.kubernetes.cluster import KubeCluster
from spawner.kubernetes.nodes import PodNodes
from spawner.kubernetes.watch import PodWatch
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.proxy import ClusterProxy
from tests.kubernetes.faults import FaultyAPI, FaultyDatabase

told = json.loads(os.environ["TEST_HUB"])
state, work = Path(told["state"]), Path(told["work"])
port, hub_port, proxy_port = told["ports"]
host = told["host"]

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}/"
c.JupyterHub.hub_bind_url = f"http://0.0.0.0:{hub_port}"
c.JupyterHub.hub_connect_url = f"http://{host}:{hub_port}"
c.JupyterHub.db_url = f"sqlite:///{state}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(state / "hub_cookie_secret")
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
c.JupyterHub.proxy_class = ClusterProxy
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "proxy-token"
c.Spawner.start_timeout = told["start_timeout"]
c.Spawner.http_timeout = 60
c.VirtualCluster.gang_timeout = told["gang_timeout"]
c.VirtualCluster.poll_interval = 2
c.JupyterHub.services = [
    {"name": "tests", "api_token": told["token"]},
    {"name": "queue", "api_token": f"{told['token']}-queue"},
]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "list:users", "proxy"],
        "services": ["tests"],
    },
    {"name": "queue", "scopes": list(SERVICE_SCOPES["queue"]), "services": ["queue"]},
]
database = FaultyDatabase(f"sqlite:///{state}/galilean.sqlite", state / "faults")
metadata.create_all(database.engine)


class EveryRequest:
    """Resolves every request to a directory of its own on the claim."""

    async def resolve(self, person, server, request):
        folder = work / person.name / server
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder.parent, folder):
            os.chown(path, 1000, 1000)
        return ClusterPlan(
            user=person.name,
            server=server,
            project_id="0" * 26,
            project_owner=person.name,
            project_slug=server,
            project_name=server,
            environment=EnvironmentChoice(name="jupyter", image=told["images"].get(server, told["image"])),
            mounts=(Mount(source=f"/claims/projects/{person.name}/{server}", target="work"),),
            nodes=request.nodes or 1,
            cpu_millicores=request.cpu_millicores or 600,
            memory_bytes=request.memory_bytes or 512 * 2**20,
            gpu=request.gpu or 0,
            gpu_model=request.gpu_model or "",
            storage_bytes=100 * 2**20,
        )


every = EveryRequest()
c.JupyterHub.spawner_class = KubeCluster
plenty = Limits.model_validate(
    dict.fromkeys(("clusters", "nodes", "cpu", "gpu", "total_cpu", "total_gpu"), 1000)
    | dict.fromkeys(("memory", "total_memory", "storage"), "1000G")
)
admission = QuotaAdmission(database, Fixed(Bounds.from_settings(plenty)), backend="kubernetes")
c.VirtualCluster.collaborators = Collaborators(database=database, resolver=every, admission=admission)
c.ClusterProxy.collaborators = c.VirtualCluster.collaborators
c.LabHub.collaborators = c.VirtualCluster.collaborators
api = FaultyAPI(told["namespace"], state / "faults")
mender.EVERY_SECONDS = told.get("mend_seconds", mender.EVERY_SECONDS)
if told.get("patience"):
    nodes.COLLECT_SECONDS, nodes.FORCE_SECONDS = told["patience"]
c.KubeCluster.pods = PodNodes(api, PodWatch(api))
c.KubeCluster.claims = {"/claims/projects": "projects"}
c.KubeCluster.reaches = [
    {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"protocol": "TCP", "port": hub_port}]}
]
c.KubeCluster.reached_by = told.get("reached_by", [])
c.KubeCluster.gpu_resource = told.get("gpu_resource", "nvidia.com/gpu")
if told.get("light"):
    c.KubeCluster.cmd = ["python3", "-IS", "-c", told["light"]]
c.KubeCluster.image_pull_policy = "IfNotPresent"
c.KubeCluster.gpu_models = told.get("gpu_models", {})
c.KubeCluster.kueue_queue = told.get("kueue_queue", "")
c.KubeCluster.tolerations = told.get("tolerations", [])
