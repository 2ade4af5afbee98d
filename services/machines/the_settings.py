"""From ``galilean.yaml`` to this room's own words: pools, GPU models, and the backend's machines."""

from __future__ import annotations

from galilean.clock import Clock, utcnow
from galilean.settings import Settings
from services.machines.rules import GpuModel, Gpus, Pool
from services.machines.world import World


def pools_in(settings: Settings) -> list[Pool]:
    """All pools, in the settings' order."""
    return [
        Pool(
            name=name,
            title=pool.title,
            node_selector=pool.node_selector,
            tolerations=tuple(toleration.written() for toleration in pool.tolerations),
            open_to=pool.open_to,
        )
        for name, pool in settings.pools.items()
    ]


def gpus_in(settings: Settings) -> Gpus:
    """What counts as GPU cards."""
    resource = settings.kubernetes.gpu_resource
    return Gpus(
        resource=resource,
        models={
            name: GpuModel(
                resource=model.resource or resource,
                node_selector=model.node_selector or {"nvidia.com/gpu.product": name},
            )
            for name, model in settings.gpu_models.items()
        },
    )


def world_in(settings: Settings, clock: Clock = utcnow) -> World:
    """The machines of the settings' backend. On Kubernetes it reads the process's own account."""
    if settings.backend == "kubernetes":
        from kubespawner.clients import load_config

        from services.machines.kube import KubeMachines, MachineAPI, trusted_ca
        from spawner.kubernetes.use import HttpSource

        load_config()
        kube, use = settings.kubernetes, settings.use
        figures = HttpSource(port=use.kubelet_port, insecure_tls=use.kubelet_insecure_tls, gpu_url="")
        beside = [name for name in (kube.agents_namespace, kube.images_namespace) if name]
        return KubeMachines(
            MachineAPI(settings.kubernetes.namespace),
            gpu_resources=gpus_in(settings).resources,
            adds=settings.machines.add,
            server=settings.machines.api_server,
            command=settings.machines.join_command,
            ca=trusted_ca,
            beside=[MachineAPI(name) for name in beside],
            figures=figures if use.measured else None,
        )
    from services.machines.host import ThisMachine, overcommit_of

    return ThisMachine(overcommit_of(settings), clock)
