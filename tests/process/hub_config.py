"""Configuration of the hub that the process tests start; everything comes from the environment."""

import json
import os
from pathlib import Path

from galilean.db import Database, metadata
from spawner import steps, tables  # noqa: F401 - registers the tables
from spawner.collaborators import Admitted, Collaborators
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.process.cluster import ProcessCluster

state = Path(os.environ["TEST_STATE"])
port, hub_port, proxy_port = (int(item) for item in os.environ["TEST_PORTS"].split())

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}/"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = f"sqlite:///{state}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(state / "hub_cookie_secret")
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.admin_access = True
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "proxy-token"
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
c.ConfigurableHTTPProxy.command = [
    str(Path(__file__).parents[2] / "node_modules/.bin/configurable-http-proxy")
]
c.Spawner.start_timeout = 90
c.Spawner.http_timeout = 60
c.JupyterHub.services = [{"name": "tests", "api_token": os.environ["TEST_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "list:users"],
        "services": ["tests"],
    }
]

if os.environ["TEST_SPAWNER"] == "plain":
    from jupyterhub.spawner import SimpleLocalProcessSpawner

    c.JupyterHub.spawner_class = SimpleLocalProcessSpawner
    c.SimpleLocalProcessSpawner.home_dir_template = str(state / "plain-home" / "{username}")
    if os.geteuid() == 0:
        c.Spawner.args = ["--allow-root"]
else:
    try:
        from spawner.proxy import ClusterProxy
    except ImportError:
        pass
    else:
        c.JupyterHub.proxy_class = ClusterProxy
        for name in ("api_url", "auth_token", "pid_file", "command"):
            setattr(c.ClusterProxy, name, c.ConfigurableHTTPProxy[name])
    database = Database(f"sqlite:///{state}/galilean.sqlite")
    metadata.create_all(database.engine)

    class EveryRequest:
        """Resolves every request to a directory of its own, and admits everything."""

        async def resolve(self, person, server, request):
            work = state / "volumes" / "default" / person.name / server
            work.mkdir(parents=True, exist_ok=True)
            return ClusterPlan(
                user=person.name,
                server=server,
                project_id="0" * 26,
                project_owner=person.name,
                project_slug=server,
                project_name=server,
                environment=EnvironmentChoice(
                    name="jupyter", variables=json.loads(os.environ.get("TEST_VARIABLES", "{}"))
                ),
                mounts=(Mount(source=str(work), target="work"),),
                nodes=request.nodes or 1,
                cpu_millicores=1000,
                memory_bytes=2**30,
            )

        async def admit(self, person, plan, request, names):
            from ulid import ULID

            from galilean.clock import utcnow

            run_id = str(ULID())

            def reserve(conn):
                steps.reserve(
                    conn,
                    run_id=run_id,
                    plan=plan,
                    request=request,
                    backend="process",
                    asked_by=person.name,
                    now=utcnow(),
                )
                return Admitted(run_id=run_id, run=steps.begin_start(conn, run_id, names=names))

            return await database.run_serialised("admission", reserve)

    every = EveryRequest()
    c.JupyterHub.spawner_class = ProcessCluster
    c.ProcessCluster.collaborators = Collaborators(database=database, resolver=every, admission=every)
    c.ProcessCluster.state_dir = str(state)
    c.ProcessCluster.zygote_socket = os.environ.get("TEST_ZYGOTE", "")
    c.ProcessCluster.portal_url = os.environ.get("TEST_PORTAL", "")
