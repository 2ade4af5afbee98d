"""Configuration of the hub that the Docker tests start; all of it from the environment."""

import json
import os
from pathlib import Path

from galilean.db import Database, metadata
from spawner import tables  # noqa: F401 - registers the tables
from spawner.collaborators import Collaborators
from spawner.docker.cluster import DockerCluster, container_nodes
from spawner.docker.gate import Gate, run_nft
from spawner.docker.keeper import TableKeeper
from spawner.licences import LicenceServer
from spawner.plan import EnvironmentChoice, Mount
from spawner.proxy import ClusterProxy
from tests import hubs

told = json.loads(os.environ["TEST_HUB"])
state, work = Path(told["state"]), Path(told["work"])
port, hub_port, proxy_port = told["ports"]
host, machine = told["host"], told["machine"]

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
hubs.configure(
    c,
    state,
    bind_url=f"http://{machine}:{port}/",
    hub_url=f"http://{host}:{hub_port}",
    proxy_api=f"http://{machine}:{proxy_port}",
    token=told["token"],
    scopes=["proxy"],
)
hubs.beside(c, told)
if told.get("waits"):  # a request comes back when what it asked for is done
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 600, "slow_stop_timeout": 600}
c.JupyterHub.hub_connect_url = f"http://{host}:{hub_port}"
c.JupyterHub.proxy_class = ClusterProxy
c.VirtualCluster.poll_interval = 1
database = Database(f"sqlite:///{state}/galilean.sqlite", threads=1)
metadata.create_all(database.engine)
c.JupyterHub.spawner_class = DockerCluster
c.VirtualCluster.collaborators = Collaborators(
    database=database,
    resolver=hubs.EveryRequest(
        work,
        mounts=lambda folder: (
            Mount(source=str(folder), target="work"),
            *(Mount(source=data, target="data", read_only=True) for data in told.get("data", ())),
        ),
        environment=lambda server: EnvironmentChoice(
            name="jupyter",
            image=told["images"].get(server, told["image"]),
            variables={"PYTHONPATH": told["python_path"], "PYTHONDONTWRITEBYTECODE": "1"},
            sudo=server == "rooted",
            containers=server.startswith("nested"),
            hostname=told.get("hostnames", {}).get(server, ""),
            licences=tuple(
                LicenceServer(host=named, ports=tuple(ports))
                for named, ports in [told.get("licences", {}).get(server)]
            )
            if server in told.get("licences", {})
            else (),
        ),
    ),
    admission=hubs.plenty(database, "docker"),
)
c.ClusterProxy.collaborators = c.VirtualCluster.collaborators
c.LabHub.collaborators = c.VirtualCluster.collaborators
c.DockerCluster.containers = container_nodes(
    url=told["docker"],
    instance=told["instance"],
    state=state,
    pool=told["pool"],
    gate=Gate(
        not_outside=told.get("not_outside", ()),
        keeper=TableKeeper(lambda: told["rules"], run_nft) if told.get("rules") else None,
    ),
)
c.DockerCluster.not_licences = [told["pool"]]
c.DockerCluster.command = told["command"]
c.DockerCluster.extra_host_config = {"Mounts": told["mounts"]}
c.DockerCluster.pull_policy = told.get("pull_policy", "IfNotPresent")
