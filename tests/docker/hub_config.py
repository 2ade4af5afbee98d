"""Configuration of the hub that the Docker tests start; all of it from the environment."""

import json
import os
from pathlib import Path

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.limits import Limits as Bounds
from galilean.db import Database, metadata
from galilean.settings import Limits
from spawner import tables  # noqa: F401 - registers the tables
from spawner.collaborators import Collaborators
from spawner.docker.cluster import DockerCluster, container_nodes
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.proxy import ClusterProxy

told = json.loads(os.environ["TEST_HUB"])
state, work = Path(told["state"]), Path(told["work"])
port, hub_port, proxy_port = told["ports"]
host, machine = told["host"], told["machine"]

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
c.JupyterHub.bind_url = f"http://{machine}:{port}/"
c.JupyterHub.hub_bind_url = f"http://{host}:{hub_port}"
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
c.ConfigurableHTTPProxy.api_url = f"http://{machine}:{proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "proxy-token"
c.Spawner.start_timeout = told["start_timeout"]
c.Spawner.http_timeout = 60
c.VirtualCluster.gang_timeout = told["gang_timeout"]
c.VirtualCluster.poll_interval = 1
c.JupyterHub.services = [{"name": "tests", "api_token": told["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "list:users", "proxy"],
        "services": ["tests"],
    },
]

database = Database(f"sqlite:///{state}/galilean.sqlite", threads=1)
metadata.create_all(database.engine)


class EveryRequest:
    """Resolves every request to a directory of its own."""

    async def resolve(self, person, server, request):
        folder = work / person.name / server
        folder.mkdir(parents=True, exist_ok=True)
        return ClusterPlan(
            user=person.name,
            server=server,
            project_id="0" * 26,
            project_owner=person.name,
            project_slug=server,
            project_name=server,
            environment=EnvironmentChoice(
                name="jupyter",
                image=told["images"].get(server, told["image"]),
                variables={"PYTHONPATH": told["python_path"], "PYTHONDONTWRITEBYTECODE": "1"},
            ),
            mounts=(
                Mount(source=str(folder), target="work"),
                *(Mount(source=data, target="data", read_only=True) for data in told.get("data", ())),
            ),
            nodes=request.nodes or 1,
            cpu_millicores=request.cpu_millicores or 600,
            memory_bytes=request.memory_bytes or 512 * 2**20,
            gpu=request.gpu or 0,
            gpu_model=request.gpu_model or "",
            on_node_loss=request.on_node_loss or "release",
        )


plenty = Limits.model_validate(
    dict.fromkeys(("clusters", "nodes", "cpu", "gpu", "total_cpu", "total_gpu"), 1000)
    | dict.fromkeys(("memory", "total_memory", "storage"), "1000G")
)
c.JupyterHub.spawner_class = DockerCluster
admission = QuotaAdmission(database, Fixed(Bounds.from_settings(plenty)), backend="docker")
c.VirtualCluster.collaborators = Collaborators(
    database=database, resolver=EveryRequest(), admission=admission
)
c.ClusterProxy.collaborators = c.VirtualCluster.collaborators
c.LabHub.collaborators = c.VirtualCluster.collaborators
c.DockerCluster.containers = container_nodes(
    url=told["docker"], instance=told["instance"], state=state, pool=told["pool"]
)
c.DockerCluster.command = told["command"]
c.DockerCluster.extra_host_config = {"Mounts": told["mounts"]}
c.DockerCluster.pull_policy = told.get("pull_policy", "IfNotPresent")
