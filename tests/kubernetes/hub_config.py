"""Configuration of the hub that the Kubernetes tests start, outside of the cluster; all of it from the environment."""

import json
import os
from pathlib import Path

from galilean.db import Database, metadata
from spawner import steps, tables  # noqa: F401 - registers the tables
from spawner.collaborators import Admitted, Collaborators
from spawner.kubernetes.cluster import KubeCluster, pod_nodes
from spawner.leftovers import finish_leftovers  # noqa: F401
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.proxy import ClusterProxy

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
c.JupyterHub.services = [{"name": "tests", "api_token": told["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "list:users", "proxy"],
        "services": ["tests"],
    }
]
database = Database(f"sqlite:///{state}/galilean.sqlite", threads=1)
metadata.create_all(database.engine)


class EveryRequest:
    """Resolves every request to a directory of its own on the claim, and admits everything."""

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
            storage_bytes=100 * 2**20,
        )

    async def admit(self, person, plan, request, names):
        from ulid import ULID

        from galilean.clock import utcnow
        from spawner import records

        def reserve(conn):
            run_id = str(ULID())
            waiting = records.open_run(conn, plan.user, plan.server)
            if waiting is not None and waiting.status == "queued":
                run_id = waiting.id
                steps.take_up(conn, waiting, plan=plan, request=request, now=utcnow())
            else:
                steps.reserve(
                    conn,
                    run_id=run_id,
                    plan=plan,
                    request=request,
                    backend="kubernetes",
                    asked_by=person.name,
                    now=utcnow(),
                )
            return Admitted(run_id=run_id, run=steps.begin_start(conn, run_id, names=names))

        return await database.run_serialised("admission", reserve)


every = EveryRequest()
c.JupyterHub.spawner_class = KubeCluster
c.VirtualCluster.collaborators = Collaborators(database=database, resolver=every, admission=every)
c.ClusterProxy.collaborators = c.VirtualCluster.collaborators
c.KubeCluster.pods = pod_nodes(told["namespace"])
c.KubeCluster.claims = {"/claims/projects": "projects"}
c.KubeCluster.reaches = [{"to": [{"ipBlock": {"cidr": f"{host}/32"}}]}]
c.KubeCluster.image_pull_policy = "IfNotPresent"
