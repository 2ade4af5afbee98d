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

from extensions.imagebuilder import container
from extensions.imagebuilder.building import Builder
from extensions.imagebuilder.collecting import Collector
from extensions.imagebuilder.distribution import Distributor
from extensions.imagebuilder.looks import platform_of, trust_of
from extensions.imagebuilder.names import Pinned
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.saving import Place, Saver
from extensions.imagebuilder.service import Look, Savers
from extensions.imagebuilder.uploading import Uploader
from galilean.service import Beside, Context, Tick, run_service
from galilean.settings import Settings
from spawner.docker.api import DockerAPI, ImageNotFound

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
    from extensions.imagebuilder.pods import PodSaver, Sources, apis_of

    sources = Sources(
        reachable=settings.images.reachable,
        plain_http=settings.images.plain_http,
        tls=trust_of(settings),
        platform=platform_of(settings),
    )
    nodes, agents = apis_of(settings)
    return PodSaver(nodes, agents, environ[AGENT_KEY], place, directory, sources=sources, registry=registry)


class DockerMachine:
    """The machine that all of it runs on, by its Docker."""

    def __init__(self, saver: Saver) -> None:
        self.name = os.uname().nodename
        self._saver = saver

    def has(self, image: str) -> bool:
        """Whether it is here."""
        try:
            self._saver.docker.client().inspect_image(image)
        except ImageNotFound:
            return False
        return True

    def fetch(self, image: str, progress: Callable[[int, int], None]) -> None:
        """Bring it here; only our own registry is told our password."""
        place = self._saver.place
        ours = Pinned.parse(image).registry == place.name
        container.fetch(self._saver.docker.client(), image, place.for_docker if ours else None, progress)


def builder_of(settings: Settings, saver: Saver) -> Builder | None:
    """What builds images from files, where the settings allow it."""
    if settings.backend != "docker" or not settings.images.builds.allowed:
        return None
    return Builder(
        saver,
        settings.images.builds,
        pool=IPv4Network(settings.docker.network_pool),
        contexts=settings.state / "builds",
        per_person_bytes=settings.images.registry.per_person,
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
    uploader = Uploader(saver, settings.state, lambda: platform_of(settings), most) if most else None
    savers = Savers(
        context.db,
        saver,
        context.clock,
        collector=collector,
        uploader=uploader,
        builder=builder_of(settings, saver),
        details=context.details,
    )
    _serve(context, savers)
    if settings.backend == "docker":
        distributor = Distributor(context.db, DockerMachine(saver), context.clock, do=saver.docker.do)
        context.beside.append(Beside(name="images", work=distributor.tick, interval_seconds=5.0))
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
    return [(r"/look", Look, {"context": context})]


if __name__ == "__main__":
    run_service("imagebuilder", build, interval_seconds=INTERVAL_SECONDS, routes=routes)
