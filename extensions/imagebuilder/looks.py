"""What is at an address that somebody typed: the image by its digest, its size, and what would keep it from starting.

``registry.example.edu/group/name:tag``, ``name`` and ``name@sha256:…`` are understood as Docker does: without a host
it is Docker Hub's, without a tag ``latest`` is asked for and what it is *now* is kept. Nothing of the layers is
fetched, so what is told comes from manifest and config alone:

- refused: another processor, too many layers, layers kept elsewhere (:mod:`…registry.manifests`), and labels by which
  nodes are known;
- told: ``USER``, ``ENTRYPOINT``, ``VOLUME`` and ``ONBUILD``, each with what becomes of it here; and that the node's own part
  is missing, which images built on ours have (their label says so). Such an image runs as it is, by its own single-user
  server, or is adapted (:mod:`extensions.imagebuilder.adapting`).
"""

from __future__ import annotations

import asyncio
import platform as machine
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from extensions.imagebuilder import guard
from extensions.imagebuilder.names import Pinned
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import PROCESSORS, ImageConfig, Manifest, Platform, is_digest
from galilean.errors import UserError, mark
from galilean.reachable import Reachable
from galilean.settings import Settings
from spawner.labels import OURS

#: Docker's short names, and where its registry really is.
HUB, HUB_API = "docker.io", "registry-1.docker.io"
#: On every image that is built on images/base, which has the node's own part in /opt/galilean.
NODE_LABEL = "io.galilean.notices"
#: Of the finding that the node's own part is missing.
NODE = "node"
_STOCK = mark(
    "This image was not made for nodes here. It runs as it is by its own jupyterhub-singleuser, if it has one: on one node, "
    "without ssh, desktop and the buttons of this site. Adapting it adds what it lacks."
)
ADDRESS_MOST = 512

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-f:.]+\](?::[0-9]{1,5})?", re.I)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """An address, taken apart; ``reference`` is a tag or a digest."""

    registry: str
    repository: str
    reference: str

    @property
    def tag(self) -> str:
        """The tag; empty for a digest."""
        return "" if is_digest(self.reference) else self.reference

    def __str__(self) -> str:
        sign = "@" if is_digest(self.reference) else ":"
        return f"{self.registry}/{self.repository}{sign}{self.reference}"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found.

    Attributes
    ----------
    told
        Findings as they are kept with a version: ``message`` and ``params``.
    """

    reference: Reference
    image: Pinned
    size_bytes: int
    layers: int
    platform: str
    told: tuple[dict[str, Any], ...]


def parse(text: str) -> Reference:
    """Take an address apart.

    Raises
    ------
    UserError
        400 for what is none.
    """
    text = text.strip().removeprefix("docker://")
    path, at, digest = text.partition("@")
    first, slash, rest = path.partition("/")
    if slash and (":" in first or "." in first or first.lower() == "localhost"):
        host, path = first.lower(), rest
    else:
        host = HUB
    name, colon, tag = path.rpartition(":")
    if not colon:
        name, tag = path, ""
    if host in (HUB, "index.docker.io", HUB_API):
        host = HUB
        if "/" not in name:
            name = f"library/{name}"
    good = (
        len(text) <= ADDRESS_MOST
        and _HOST.fullmatch(host)
        and len(name) <= 255
        and _PATH.fullmatch(name)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or is_digest(digest))
    )
    if not good:
        raise UserError(
            400,
            mark("“{address}” is no address of an image, such as quay.io/jupyter/scipy-notebook:2026-11-02."),
            address=text[:120],
            reason="image-address",
        )
    return Reference(host, name, digest or tag or "latest")


def platform_of(settings: Settings) -> Platform:
    """What the machines of the site are."""
    if settings.images.platform:
        system, _, rest = settings.images.platform.partition("/")
        processor, _, variant = rest.partition("/")
        return Platform(system, processor, variant)
    name = machine.machine().lower()
    return Platform("linux", PROCESSORS.get(name, name))


def trust_of(settings: Settings) -> ssl.SSLContext | None:
    """Whom registries' certificates must be signed by."""
    return ssl.create_default_context(cafile=settings.images.ca_file) if settings.images.ca_file else None


async def look(
    settings: Settings,
    address: str,
    credentials: Credentials | None = None,
    *,
    resolver: guard.Resolve = guard.resolve,
    open_registry: Callable[..., Registry] = Registry,
) -> Look:
    """Ask a registry what is at an address.

    Raises
    ------
    UserError
        400 for no address; 403 for a registry that may not be asked or does not let us in; 404 when there is no
        such image; 422 when it cannot run here; 502, 503 for the registry's faults.
    """
    reference = parse(address)
    plain = reference.registry in settings.images.plain_http
    if plain and credentials is not None:
        raise UserError(
            400,
            mark("Passwords are not sent to {registry}, which is spoken to without TLS."),
            registry=reference.registry,
        )
    host = HUB_API if reference.registry == HUB else reference.registry
    watch = guard.Guard(Reachable.parse(settings.images.reachable), resolver)
    registry = open_registry(
        f"{'http' if plain else 'https'}://{host}",
        credentials,
        transport=watch.transport(trust_of(settings)),
        wait=_shortly,
    )
    async with registry:
        try:
            manifest, config = await registry.image(
                reference.repository, reference.reference, platform_of(settings)
            )
        except UserError as error:
            if watch.refused:
                raise guard.forbidden(watch.refused) from error
            raise
    return judge(reference, manifest, config)


async def _shortly(seconds: float) -> None:
    """Between tries: somebody waits at a page, so the pauses stay short."""
    await asyncio.sleep(min(seconds, 0.5))


def judge(reference: Reference, manifest: Manifest, config: ImageConfig) -> Look:
    """What is kept of an image, and what is told of it.

    Raises
    ------
    UserError
        422 for labels that are ours.
    """
    need_labels(config.labels)
    return Look(
        reference=reference,
        image=Pinned(reference.registry, reference.repository, manifest.digest),
        size_bytes=manifest.size_bytes + sum(blob.size_bytes for blob in set(manifest.blobs)),
        layers=len(manifest.layers),
        platform=str(config.platform),
        told=tuple(findings(config)),
    )


def is_stock(told: Iterable[Mapping[str, Any]]) -> bool:
    """Whether findings say that the node's own part is missing."""
    return any(one.get("lacks") == NODE for one in told)


def need_labels(labels: Iterable[str]) -> None:
    """Refuse labels that are ours: containers have those of their image, and by these we know whose nodes they are.

    Raises
    ------
    UserError
        422.
    """
    for name in labels:
        if name.startswith(OURS):
            raise UserError(
                422,
                mark("The image has a label {label}. Labels that begin with {ours} are the product's own: build it without."),
                reason="image-labels", label=name[:80], ours=OURS,
            )  # fmt: skip


def findings(config: ImageConfig) -> list[dict[str, Any]]:
    """What an image says of its start that does not hold here, each as message and values."""
    found: list[dict[str, Any]] = []

    def tell(message: str, **params: Any) -> None:
        found.append({"message": message, "params": params})

    if NODE_LABEL not in config.labels:
        found.append({"message": _STOCK, "params": {}, "lacks": NODE})
    user = config.user.partition(":")[0]
    if user and user not in ("1000", "jovyan"):
        tell(
            mark(
                "USER {user}: nodes run as 1000, whatever the image says. What belongs to {user} alone cannot be read."
            ),
            user=config.user[:60],
        )
    elif not user:
        tell(mark("No USER: nodes run as 1000, not as root. What only root may read cannot be read."))
    if config.entrypoint:
        tell(
            mark("ENTRYPOINT {command}: it is not run; a node starts with its own command."),
            command=" ".join(config.entrypoint)[:120],
        )
    for volume in config.volumes[:10]:
        tell(
            mark("VOLUME {path}: what lies there is not kept, and not saved with an image."),
            path=volume[:120],
        )
    if config.on_build:
        tell(
            mark("ONBUILD: {count} steps run only when another image is built on this one, not here."),
            count=len(config.on_build),
        )
    return found
