"""Configuration of the hub that the Kubernetes tests start, outside of the cluster; all of it from the environment."""

import json
import os
from pathlib import Path

from galilean.db import metadata
from hub_config.roles import SERVICE_SCOPES
from spawner import tables  # noqa: F401 - registers the tables
from spawner.collaborators import Collaborators
from spawner.kubernetes import mender, nodes
from spawner.kubernetes.cluster import KubeCluster
from spawner.kubernetes.nodes import PodNodes
from spawner.kubernetes.spec import NOT_OUTSIDE
from spawner.kubernetes.watch import PodWatch
from spawner.licences import LicenceServer
from spawner.plan import EnvironmentChoice, Mount
from spawner.proxy import ClusterProxy
from tests import hubs
from tests.kubernetes.faults import FaultyAPI, FaultyDatabase

told = json.loads(os.environ["TEST_HUB"])
state, work = Path(told["state"]), Path(told["work"])
port, hub_port, proxy_port = told["ports"]
host = told["host"]

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
hubs.configure(
    c,
    state,
    bind_url=f"http://127.0.0.1:{port}/",
    hub_url=f"http://0.0.0.0:{hub_port}",
    proxy_api=f"http://127.0.0.1:{proxy_port}",
    token=told["token"],
    scopes=["proxy"],
)
hubs.beside(c, told)
c.JupyterHub.hub_connect_url = f"http://{host}:{hub_port}"
c.JupyterHub.proxy_class = ClusterProxy
c.VirtualCluster.poll_interval = 2
c.JupyterHub.services += [{"name": "queue", "api_token": f"{told['token']}-queue"}]
c.JupyterHub.load_roles += [{"name": "queue", "scopes": list(SERVICE_SCOPES["queue"]), "services": ["queue"]}]
database = FaultyDatabase(f"sqlite:///{state}/galilean.sqlite", state / "faults")
metadata.create_all(database.engine)


def on_the_claim(folder: Path) -> tuple[Mount, ...]:
    for path in (folder.parent, folder):
        os.chown(path, 1000, 1000)
    return (Mount(source=f"/claims/projects/{folder.relative_to(work)}", target="work"),)


c.JupyterHub.spawner_class = KubeCluster
c.VirtualCluster.collaborators = Collaborators(
    database=database,
    resolver=hubs.EveryRequest(
        work,
        mounts=on_the_claim,
        environment=lambda server: EnvironmentChoice(
            name="jupyter",
            image=told["images"].get(server, told["image"]),
            licences=tuple(
                LicenceServer(host=named, ports=(number,))
                for name, named, number in told.get("licences", ())
                if name == server
            ),
        ),
        storage_bytes=100 * 2**20,
    ),
    admission=hubs.plenty(database, "kubernetes"),
)
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
c.KubeCluster.not_outside = told.get("not_outside", list(NOT_OUTSIDE))
c.KubeCluster.not_licences = told.get("not_licences", [])
c.KubeCluster.reached_by = told.get("reached_by", [])
c.KubeCluster.gpu_resource = told.get("gpu_resource", "nvidia.com/gpu")
if told.get("light"):
    c.KubeCluster.cmd = ["python3", "-IS", "-c", told["light"]]
c.KubeCluster.image_pull_policy = "IfNotPresent"
c.KubeCluster.gpu_models = told.get("gpu_models", {})
c.KubeCluster.kueue_queue = told.get("kueue_queue", "")
c.KubeCluster.tolerations = told.get("tolerations", [])
c.KubeCluster.machine_patience = told.get("machine_patience", 60)
