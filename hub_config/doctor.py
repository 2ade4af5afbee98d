"""What of this machine is missing, and how to get it: each check is one function and one finding."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from galilean.errors import UserError
from galilean.settings import Settings
from hub_config.parts import find_proxy, node_version
from hub_config.ports import is_free
from hub_config.start import LEAST_FREE_BYTES
from hub_config.supervisor import read_status

LOOK_SECONDS = 15.0
Level = Literal["good", "note", "bad"]
_SIGNS = {"good": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level
        ``bad`` must be mended before the product runs well; ``note`` is worth knowing.
    cure
        What to do, empty when nothing.
    """

    what: str
    level: Level
    found: str
    cure: str = ""

    @property
    def sign(self) -> str:
        return _SIGNS[self.level]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: Settings, environ: dict[str, str]) -> list[Finding]:
    """Every check, in the order in which a newcomer meets the things."""
    checks: list[Callable[[Settings], Finding]] = [
        _python,
        _node,
        _proxy,
        _state,
        _disk,
        _memory,
        _database,
        _port,
        {"process": _sshd, "docker": _docker}.get(settings.backend, _kubernetes),
        _origins,
        _isolation,
        _mail,
    ]
    return [check(settings) for check in checks]


def _python(_: Settings) -> Finding:
    # Older than 3.11 cannot come here: the package does not install there.
    return Finding("Python", "good", f"{platform.python_version()} ({sys.executable})")


def _node(_: Settings) -> Finding:
    version = node_version()
    if not version:
        return Finding("Node.js", "note", "not found", "For the fast proxy: install Node.js 20 or newer.")
    words = ".".join(map(str, version))
    if version < (20,):
        return Finding("Node.js", "bad", words, "The proxy needs Node.js 20 or newer.")
    return Finding("Node.js", "good", words)


def _proxy(_: Settings) -> Finding:
    try:
        return Finding("Proxy", "good", find_proxy()[0])
    except UserError as error:
        return Finding("Proxy", "bad", "not found", str(error))


def _state(settings: Settings) -> Finding:
    place: Path = settings.state
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            "State directory", "bad", f"{place} cannot be written", "Choose another: GALILEAN_STATE=…"
        )
    return Finding("State directory", "good", str(settings.state))


def _disk(settings: Settings) -> Finding:
    place: Path = settings.state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    words = f"{free / 2**30:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return Finding("Disk", "bad", words, "At least 200 MB are needed to start.")
    if free < 5 * 2**30:
        return Finding("Disk", "note", words, "People's files are on this disk: 5 GB is little.")
    return Finding("Disk", "good", words)


def _memory(_: Settings) -> Finding:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{size:.1f} GB, {len(os.sched_getaffinity(0))} processors"
    if size < 2:
        return Finding("Machine", "note", words, "2 GB carry the product and a few nodes of 0.1 GB each.")
    return Finding("Machine", "good", words)


def _database(settings: Settings) -> Finding:
    from galilean.db import Database, plain_words
    from galilean.migrate import newest, present

    if not settings.database.url and not (settings.state / "galilean.sqlite").exists():
        return Finding("Database", "good", "SQLite, made at the first start")
    database = Database(settings.database_url)
    try:
        with plain_words(), database.read() as conn:
            revision = present(conn)
    except Exception as error:
        return Finding("Database", "bad", str(error).splitlines()[0], "See database.url in galilean.yaml.")
    finally:
        database.close()
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    if revision != newest():
        return Finding(
            "Database",
            "note",
            f"{kind}, revision {revision or 'none'}, newest is {newest()}",
            "galilean db upgrade; galilean up does it too.",
        )
    return Finding("Database", "good", f"{kind}, revision {revision}")


def _port(settings: Settings) -> Finding:
    address = f"{settings.web.host}:{settings.web.port}"
    if read_status(settings.state):
        return Finding("Address", "good", f"{address}, Galilean runs there")
    try:
        free = is_free(settings.web.host, settings.web.port)
    except UserError as error:
        return Finding("Address", "bad", address, str(error))
    if not free:
        return Finding("Address", "bad", f"{address} is taken", "Choose another port: PORT=9000 make up")
    return Finding("Address", "good", address)


def _sshd(_: Settings) -> Finding:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not found:
        return Finding(
            "ssh among nodes",
            "note",
            "sshd not found",
            "Nodes cannot reach one another by ssh (MPI needs it). Debian: apt install openssh-server",
        )
    return Finding("ssh among nodes", "good", found)


def _docker(settings: Settings) -> Finding:
    from hub_config.docker_ground import first_image
    from spawner.docker.api import DockerAPI, said

    place = settings.docker.url or os.environ.get("DOCKER_HOST", "the usual socket")
    try:
        client = DockerAPI(settings.docker.url).connect(timeout=LOOK_SECONDS)
    except Exception as error:
        return Finding(
            "Docker",
            "bad",
            f"{place}: {' '.join(said(error).split())[:200]}",
            "Install Docker, and let this account use it (Debian: apt install docker.io; group docker).",
        )
    try:
        version = str(client.version().get("Version", ""))
        image = first_image(settings)
        there = bool(client.images(name=image, quiet=True))
    finally:
        client.close()
    if not there:
        return Finding(
            "Docker",
            "note",
            f"{version} at {place}; the image {image} is not here yet",
            "The first start fetches it.",
        )
    return Finding("Docker", "good", f"{version} at {place}, image {image}")


def _kubernetes(settings: Settings) -> Finding:
    place = f"namespace {settings.kubernetes.namespace}"
    try:
        pods = asyncio.run(_pods_of(settings))
    except Exception as error:  # whatever keeps us from it: no kubeconfig, no route, no right
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Finding(
            "Kubernetes",
            "bad",
            f"{place}: {said}",
            "KUBECONFIG names a file whose account has the rights of the hub (the reference of the chart lists them).",
        )
    return Finding("Kubernetes", "good", f"{place} answers; it has {pods} nodes of clusters")


async def _pods_of(settings: Settings) -> int:
    from kubespawner.clients import load_config

    from spawner.kubernetes import names
    from spawner.kubernetes.api import KubeAPI
    from spawner.kubernetes.own_addresses import OwnAddresses

    load_config()
    api = KubeAPI(settings.kubernetes.namespace)
    try:
        if settings.kubernetes.network.outside:  # else no cluster is made
            await asyncio.wait_for(OwnAddresses(api).read(), LOOK_SECONDS)
        found, _ = await asyncio.wait_for(api.list("Pod", names.RUN, only_metadata=True), LOOK_SECONDS)
        return len(found)
    finally:
        await api.close()


def _origins(settings: Settings) -> Finding:
    if settings.web.subdomain_host:
        return Finding(
            "Origins", "good", f"each person's nodes have an origin below {settings.web.subdomain_host}"
        )
    return Finding(
        "Origins",
        "note",
        "all pages share one origin: sharing and other people's ports are off",
        "With more than one person set web.subdomain_host; it needs a wildcard name and certificate.",
    )


def _isolation(settings: Settings) -> Finding:
    if settings.backend == "process":
        return Finding(
            "Isolation",
            "note",
            "the process backend has none between people, and limits are recorded, not enforced",
            "For trying out and for people who trust one another.",
        )
    return Finding("Isolation", "good", settings.backend)


def _mail(settings: Settings) -> Finding:
    if settings.mail.host:
        return Finding("Mail", "good", f"{settings.mail.host}:{settings.mail.port}")
    return Finding(
        "Mail",
        "note",
        "no server is set",
        "Administrators see who waits for a role in the page only (mail.host).",
    )
