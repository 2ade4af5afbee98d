"""Configuration of the hub that the process tests start; everything comes from the environment."""

import json
import os
from pathlib import Path

from ulid import ULID

from galilean.clock import utcnow
from galilean.db import Database, metadata
from spawner import steps, tables  # noqa: F401 - registers the tables
from spawner.collaborators import Admitted, Collaborators
from spawner.plan import EnvironmentChoice, Mount
from spawner.process.cluster import ProcessCluster
from spawner.proxy import ClusterProxy
from tests import hubs

state = Path(os.environ["TEST_STATE"])
port, hub_port, proxy_port = (int(item) for item in os.environ["TEST_PORTS"].split())

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
hubs.configure(
    c,
    state,
    bind_url=f"http://127.0.0.1:{port}/",
    hub_url=f"http://127.0.0.1:{hub_port}",
    proxy_api=f"http://127.0.0.1:{proxy_port}",
    token=os.environ["TEST_TOKEN"],
)
c.JupyterHub.admin_access = True
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
c.ConfigurableHTTPProxy.command = [
    str(Path(__file__).parents[2] / "node_modules/.bin/configurable-http-proxy")
]
c.Spawner.start_timeout = 90

if os.environ["TEST_SPAWNER"] == "plain":
    from jupyterhub.spawner import SimpleLocalProcessSpawner

    c.JupyterHub.spawner_class = SimpleLocalProcessSpawner
    c.SimpleLocalProcessSpawner.home_dir_template = str(state / "plain-home" / "{username}")
    if os.geteuid() == 0:
        c.Spawner.args = ["--allow-root"]
else:
    c.JupyterHub.proxy_class = ClusterProxy
    for name in ("api_url", "auth_token", "pid_file", "command"):
        setattr(c.ClusterProxy, name, c.ConfigurableHTTPProxy[name])
    database = Database(f"sqlite:///{state}/galilean.sqlite")
    metadata.create_all(database.engine)

    class Everybody:
        """Admits everything, limits or not."""

        async def admit(self, person, plan, request, names):
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

    variables = json.loads(os.environ.get("TEST_VARIABLES", "{}"))
    c.JupyterHub.spawner_class = ProcessCluster
    c.ProcessCluster.collaborators = Collaborators(
        database=database,
        resolver=hubs.EveryRequest(
            state / "volumes" / "default",
            mounts=lambda folder: (Mount(source=str(folder), target="work"),),
            environment=lambda _: EnvironmentChoice(name="jupyter", variables=variables),
            cpu_millicores=1000,
            memory_bytes=2**30,
        ),
        admission=Everybody(),
    )
    c.ProcessCluster.state_dir = str(state)
    c.ProcessCluster.zygote_socket = os.environ.get("TEST_ZYGOTE", "")
    c.ProcessCluster.portal_url = os.environ.get("TEST_PORTAL", "")

    from jupyterhub.handlers.base import BaseHandler

    from spawner.renewing import attend_all

    class Attend(BaseHandler):
        """What the product's hub does every second: see what was asked of single nodes."""

        async def get(self):
            await attend_all(self.settings["app"], database)
            self.finish("{}")

    c.JupyterHub.extra_handlers = [(r"/attend", Attend)]
