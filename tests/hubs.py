"""What the configurations of all hubs that tests start have in common; each is a file that its hub reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extensions.quota.admission import Fixed, QuotaAdmission
from extensions.quota.limits import Limits as Bounds
from galilean.db import Database
from galilean.settings import Limits
from spawner.plan import ClusterPlan, EnvironmentChoice, Mount
from spawner.request import ClusterRequest

PROXY_TOKEN = "proxy-token"
SCOPES = ("admin:users", "admin:servers", "tokens", "access:servers", "list:users")


def configure(
    c: Any,
    state: Path,
    *,
    bind_url: str,
    hub_url: str,
    proxy_api: str,
    token: str,
    scopes: Sequence[str] = (),
) -> None:
    """A hub in which everybody is let in, with one service that may do what the tests do.

    Parameters
    ----------
    c
        The configuration that is being read.
    state
        Directory of its own files.
    bind_url, hub_url, proxy_api
        Addresses of the proxy's front, of the hub behind it, and of the proxy's API.
    token, scopes
        The service's, and what it may do besides :data:`SCOPES`.
    """
    c.JupyterHub.bind_url = bind_url
    c.JupyterHub.hub_bind_url = hub_url
    c.JupyterHub.db_url = f"sqlite:///{state}/hub.sqlite"
    c.JupyterHub.cookie_secret_file = str(state / "hub_cookie_secret")
    c.JupyterHub.authenticator_class = "dummy"
    c.Authenticator.allow_all = True
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.concurrent_spawn_limit = 0
    c.ConfigurableHTTPProxy.api_url = proxy_api
    c.ConfigurableHTTPProxy.auth_token = PROXY_TOKEN
    c.Spawner.http_timeout = 60
    c.JupyterHub.services = [{"name": "tests", "api_token": token}]
    c.JupyterHub.load_roles = [{"name": "tests", "scopes": [*SCOPES, *scopes], "services": ["tests"]}]


def beside(c: Any, told: dict[str, Any]) -> None:
    """A hub that may be killed and started again while its proxy and its clusters live on, and that never makes a
    request wait for a start."""
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.init_spawners_timeout = 1
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    c.ConfigurableHTTPProxy.should_start = False
    c.Spawner.start_timeout = told["start_timeout"]
    c.VirtualCluster.gang_timeout = told["gang_timeout"]


class EveryRequest:
    """Resolves every request to a directory of its own, in which everybody may have what is asked for.

    Parameters
    ----------
    mounts
        Of a person's server, whose directory has been made.
    work
        Where those are.
    environment
        Of a server.
    cpu_millicores, memory_bytes, storage_bytes
        Of a node, when nothing else is asked for.
    """

    def __init__(
        self,
        work: Path,
        *,
        mounts: Callable[[Path], tuple[Mount, ...]],
        environment: Callable[[str], EnvironmentChoice],
        cpu_millicores: int = 600,
        memory_bytes: int = 512 * 2**20,
        storage_bytes: int = 0,
    ) -> None:
        self._work, self._mounts, self._environment = work, mounts, environment
        self._cpu_millicores, self._memory_bytes = cpu_millicores, memory_bytes
        self._storage_bytes = storage_bytes

    async def resolve(self, person: Any, server: str, request: ClusterRequest) -> ClusterPlan:
        folder = self._work / person.name / server
        folder.mkdir(parents=True, exist_ok=True)
        return ClusterPlan(
            user=person.name,
            server=server,
            project_id="0" * 26,
            project_owner=person.name,
            project_slug=server,
            project_name=server,
            environment=self._environment(server),
            mounts=self._mounts(folder),
            nodes=request.nodes or 1,
            cpu_millicores=request.cpu_millicores or self._cpu_millicores,
            memory_bytes=request.memory_bytes or self._memory_bytes,
            gpu=request.gpu or 0,
            gpu_model=request.gpu_model or "",
            storage_bytes=request.storage_bytes or self._storage_bytes,
            on_node_loss=request.on_node_loss or "release",
        )


def plenty(database: Database, backend: str) -> QuotaAdmission:
    """Admission with room for everybody."""
    amounts = dict.fromkeys(("clusters", "nodes", "cpu", "gpu", "total_cpu", "total_gpu"), 1000)
    sizes = dict.fromkeys(("memory", "total_memory", "storage"), "1000G")
    bounds = Bounds.from_settings(Limits.model_validate({**amounts, **sizes}))
    return QuotaAdmission(database, Fixed(bounds), backend=backend)
