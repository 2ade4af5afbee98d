"""``python -m extensions.imagebuilder``: the image service; where nodes are processes it saves Python environments."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from extensions.imagebuilder.adapting import Adapter
from extensions.imagebuilder.building import Builder
from extensions.imagebuilder.collecting import Collector
from extensions.imagebuilder.distributing import Distributor, DockerMachine
from extensions.imagebuilder.distribution import Image, Machines, images_named
from extensions.imagebuilder.looks import platform_of
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.saving import Place, Saver
from extensions.imagebuilder.service import Look, Savers, TakeLogin
from extensions.imagebuilder.sources import sources_of
from extensions.imagebuilder.stock import Node
from extensions.imagebuilder.uploading import Uploader, folder
from galilean.service import Beside, Context, Tick, run_service
from galilean.settings import Settings
from spawner.docker.api import DockerAPI

INTERVAL_SECONDS = 1.0
COLLECT_SECONDS = 60.0
#: The registry that the product itself started, for this process alone.
OWN_ADDRESS, OWN_PASSWORD, OWN_SETTINGS = (
    "GALILEAN_REGISTRY",
    "GALILEAN_REGISTRY_PASSWORD",
    "GALILEAN_REGISTRY_SETTINGS",
)
OWN_ACCOUNT = "galilean"
#: By which the agents of a Kubernetes' machines know this service.
AGENT_KEY = "GALILEAN_AGENT_KEY"


def place_of(settings: Settings, environ: dict[str, str]) -> Place:
    """The registry: the settings', else our own."""
    said = settings.images.registry
    if not said.address:
        return Place(environ[OWN_ADDRESS], Credentials(OWN_ACCOUNT, environ[OWN_PASSWORD]))
    password = Path(said.password_file).read_text(encoding="utf-8").strip() if said.password_file else ""
    return Place(said.address, Credentials(said.username, password) if said.username else None, said.prefix)


def saver_of(
    settings: Settings, place: Place, environ: dict[str, str], registry: Callable[[], Registry]
) -> Saver:
    """What saves nodes of this backend."""
    directory = settings.state / "images"
    if settings.backend != "kubernetes":
        return Saver(
            DockerAPI(settings.docker.url), settings.docker.instance, place, directory, registry=registry
        )
    from extensions.imagebuilder.pods import PodSaver, apis_of

    nodes, agents = apis_of(settings)
    sources = sources_of(settings)
    return PodSaver(nodes, agents, environ[AGENT_KEY], place, directory, sources=sources, registry=registry)


def machines_of(settings: Settings, saver: Saver) -> tuple[Machines, tuple[Image, ...]] | None:
    """What has images fetched to the machines of this backend, and which besides those of the catalogue."""
    if settings.backend == "docker":
        return DockerMachine(saver), ()
    if not settings.kubernetes.images_namespace:
        return None
    from extensions.imagebuilder.pods import PodSaver, apis_of
    from extensions.imagebuilder.pulling import KubeMachines, NodesAPI

    assert isinstance(saver, PodSaver)
    nodes, agents = apis_of(settings)
    images = NodesAPI(settings.kubernetes.images_namespace)
    secrets = settings.kubernetes.image_pull_secrets
    machines = KubeMachines(nodes, agents, images, secrets=secrets, speak=saver.speak)
    return machines, tuple(Image(image=image) for image in images_named(settings))


def builder_of(settings: Settings, saver: Saver) -> Builder | None:
    """What builds images from files, where the settings allow it."""
    if settings.backend != "docker" or not settings.images.builds.allowed:
        return None
    return Builder(
        saver,
        settings.images.builds,
        pool=IPv4Network(settings.docker.network_pool),
        contexts=settings.state / "builds",
    )


def adapter_of(settings: Settings, saver: Saver) -> Adapter | None:
    """What adapts images, where the parts for it are named."""
    if not settings.images.adapter:
        return None
    docker = settings.docker
    # On Kubernetes nodes run as the spawner says: 1000, in the same HOME.
    node = Node(account=docker.account, home=docker.home_dir) if settings.backend == "docker" else Node()
    return Adapter(
        saver,
        settings.images.adapter,
        node,
        sources_of(settings),
        most_bytes=settings.images.registry.upload,
    )


def build(context: Context) -> Tick:
    """The tick of this service."""
    if context.settings.backend == "process":
        return of_processes(context)
    settings, environ = context.settings, dict(context.environ)
    place = place_of(settings, environ)
    os.environ.pop(OWN_PASSWORD, None)
    authority = settings.images.registry.ca_file
    tls = ssl.create_default_context(cafile=authority) if authority else None
    saver = saver_of(settings, place, environ, lambda: Registry(place.address, place.credentials, tls=tls))
    os.environ.pop(AGENT_KEY, None)
    program = shutil.which("docker-registry")
    own = environ.get(OWN_SETTINGS, "")
    collector = (
        Collector(program, Path(own)) if program and own and not settings.images.registry.address else None
    )
    most = settings.images.registry.upload
    uploader = Uploader(saver, folder(settings), lambda: platform_of(settings), most) if most else None
    savers = Savers(
        context.db,
        saver,
        context.clock,
        collector=collector,
        uploader=uploader,
        builder=builder_of(settings, saver),
        adapter=adapter_of(settings, saver),
        per_person_bytes=settings.images.registry.per_person,
        details=context.details,
    )
    _serve(context, savers)
    if (found := machines_of(settings, saver)) is not None:
        machines, fixed = found
        limits = settings.images.distribution
        ours = place.name if settings.backend == "docker" else ""
        distributor = Distributor(context.db, machines, context.clock, limits=limits, fixed=fixed, ours=ours)
        context.beside.append(Beside(name="images", work=distributor.run, interval_seconds=1.0))
    return savers.tick


def of_processes(context: Context) -> Tick:
    """The same where there are no images: no registry, no archives, no builds."""
    from extensions.imagebuilder.python_saving import PythonSaver
    from spawner.process.installer import Index, Installer
    from spawner.process.pythons import Pythons

    settings = context.settings
    pythons = Pythons(
        settings.state,
        Installer(Index(settings.process.index_url, settings.process.find_links), context.environ),
    )
    saver = PythonSaver(context.db, pythons, settings.state)
    savers = Savers(context.db, saver, context.clock, details=context.details)
    _serve(context, savers)
    context.beside.append(Beside(name="pythons", work=saver.collect, interval_seconds=COLLECT_SECONDS))
    return savers.tick


def _serve(context: Context, savers: Savers) -> None:
    """Let requests find it, and what is under way end with the service."""
    context.parts["savers"] = savers

    async def until_it_ends() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await savers.close()

    context.beside.append(Beside(name="saves", work=until_it_ends, interval_seconds=1.0))


def routes(context: Context) -> list[Any]:
    """Addresses of this service besides ``/health`` and ``/metrics``."""
    return [(r"/look", Look, {"context": context}), (r"/logins", TakeLogin, {"context": context})]


if __name__ == "__main__":
    run_service("imagebuilder", build, interval_seconds=INTERVAL_SECONDS, routes=routes)
