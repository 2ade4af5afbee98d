"""The backends by their names in the settings: which class makes nodes, which one lists what exists.

Imports stand inside the functions: a process loads the libraries of its own backend only.
"""

from __future__ import annotations

from galilean.settings import Settings
from spawner.inventory import Inventory
from spawner.use import UseMeter

SPAWNERS = {
    "process": "spawner.process.cluster.ProcessCluster",
    "docker": "spawner.docker.cluster.DockerCluster",
    "kubernetes": "spawner.kubernetes.cluster.KubeCluster",
}


def inventory_of(settings: Settings, *, leftovers: bool = True, by_hand: bool = False) -> Inventory:
    """The class that lists what really exists.

    Parameters
    ----------
    settings
        Of the site.
    leftovers
        Whether to tell also of objects that a node had and that compute nothing; who only counts nodes
        needs fewer rights without.
    by_hand
        Whether an administrator asks, at whose word also that is removed which only looks like ours.
    """
    if settings.backend == "kubernetes":
        from spawner.kubernetes.inventory import kube_inventory

        return kube_inventory(settings.kubernetes.namespace, leftovers=leftovers, by_hand=by_hand)
    if settings.backend == "docker":
        from spawner.docker.inventory import docker_inventory

        return docker_inventory(settings.docker, settings.state)
    from spawner.process.inventory import ProcessInventory

    return ProcessInventory(settings.state)


def use_meter_of(settings: Settings) -> UseMeter | None:
    """The class that measures what nodes really use; ``None`` = the site does not want to know."""
    if not settings.use.measured:
        return None
    if settings.backend == "kubernetes":
        from spawner.kubernetes.use import kube_use_meter

        return kube_use_meter(settings)
    if settings.backend == "docker":
        from spawner.docker.use import docker_use_meter

        return docker_use_meter(settings.docker)
    from spawner.process.use import ProcessUseMeter

    return ProcessUseMeter(settings.state)
