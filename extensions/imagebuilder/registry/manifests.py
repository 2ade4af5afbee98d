"""What an image is, by its documents: manifest, index and config, as OCI and Docker (schema 2) write them.

Pure rules on bytes that somebody else wrote. An image is known by the digest of its manifest, the manifest
names config and layers by digest and size, an index names one manifest for each platform. All of it may come
from a registry that a person named, or an archive that a person uploaded: each document is bounded, checked
against the digest by which it was asked for, and against the other documents (a config of another processor
than the index promised is a lie, as are two sizes of one digest). What cannot run here is refused in words
that say why: another processor, more layers than a machine can stack, layers that are kept elsewhere.

Sizes are compressed bytes, as the registry keeps and sends them. A blob is kept once, however many images
name it: :func:`sizes_of` tells what a list of images takes, and what each alone would give back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
#: The OCI distribution specification asks registries to take manifests up to this; configs are like them.
DOCUMENT_BYTES_AT_MOST = 4 * 1024**2
#: What overlayfs in Docker stacks at most.
LAYERS_AT_MOST = 125
ENTRIES_AT_MOST = 500
BLOB_BYTES_AT_MOST = 2**50
#: The long names of processors that some builders write.
PROCESSORS = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9._-]{1,40}")


@dataclass(frozen=True, order=True)
class Platform:
    """What a machine is: ``linux``, ``amd64``, and for some processors a variant (``v8``)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self, image: Platform) -> bool:
        """Whether a machine of this platform runs such an image; an image without a variant runs on each."""
        if (self.os, self.architecture) != (image.os, image.architecture):
            return False
        if self.architecture == "arm64" and {self.variant, image.variant} <= {"", "v8"}:
            return True
        return image.variant in ("", self.variant)


@dataclass(frozen=True)
class Descriptor:
    """A pointer to bytes: their kind, digest and number; in an index also for which platform."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform | None = None


@dataclass(frozen=True)
class Manifest:
    """One image for one platform; ``size_bytes`` is the manifest's own."""

    media_type: str
    digest: str
    size_bytes: int
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (self.config, *self.layers)


@dataclass(frozen=True)
class Index:
    """One image for several platforms."""

    media_type: str
    digest: str
    entries: tuple[Descriptor, ...]


@dataclass(frozen=True)
class ImageConfig:
    """How an image starts; ``environment`` as ``NAME=value``."""

    platform: Platform
    diff_ids: tuple[str, ...]
    user: str
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    volumes: tuple[str, ...]
    on_build: tuple[str, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Sizes:
    """Bytes of several images in one registry.

    ``apparent_bytes`` counts each image whole, ``stored_bytes`` each blob once; ``freed_bytes`` says of
    each manifest digest what would come back if that image alone were deleted.
    """

    apparent_bytes: int
    stored_bytes: int
    freed_bytes: Mapping[str, int]


def digest_of(body: bytes) -> str:
    """The digest under which a registry keeps these bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def is_digest(text: object) -> bool:
    """Whether it is a digest that this product trusts: SHA-256, lower case, nothing around it."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def read_manifest(body: bytes, media_type: str, *, digest: str = "") -> Manifest | Index:
    """A manifest or an index, checked.

    Parameters
    ----------
    body
        The bytes as they came.
    media_type
        What the registry or archive said they are; parameters such as ``; charset`` are left out of it.
    digest
        By which they were asked for; empty if by a tag.

    Raises
    ------
    UserError
        422, when it is broken, lies, or is of a kind that cannot be run here.
    """
    found = digest_of(body)
    if digest and digest != found:
        raise lie()
    media_type = media_type.partition(";")[0].strip()
    data = _document(body)
    if data.get("schemaVersion") == 1:
        raise UserError(
            422,
            mark("This image is in Docker's old format, which is no longer supported. Push it again with a current tool."),
            reason="image-old",
        )  # fmt: skip
    said = data.get("mediaType", media_type)
    if data.get("schemaVersion") != 2 or said != media_type or media_type not in (*MANIFESTS, *INDEXES):
        raise _broken()
    if media_type in INDEXES:
        # Documents that are both, for two readers to see two things: CVE-2021-41190.
        if "config" in data or "layers" in data:
            raise _broken()
        entries = [_descriptor(item) for item in _items(data.get("manifests"), ENTRIES_AT_MOST)]
        return Index(media_type, found, tuple(entries))
    if "manifests" in data:
        raise _broken()
    layers = data.get("layers")
    if isinstance(layers, list) and len(layers) > LAYERS_AT_MOST:
        raise UserError(
            422,
            mark("This image has {layers} layers; a machine can stack {most}. Flatten it and try again."),
            reason="image-layers", layers=len(layers), most=LAYERS_AT_MOST,
        )  # fmt: skip
    manifest = Manifest(
        media_type,
        found,
        len(body),
        _descriptor(data.get("config")),
        tuple(_descriptor(item) for item in _items(layers, LAYERS_AT_MOST)),
    )
    if manifest.config.media_type not in CONFIGS or not manifest.layers:
        raise UserError(422, mark("This is not an image that can be started."), reason="image-kind")
    for layer in manifest.layers:
        if layer.media_type not in LAYERS:
            raise UserError(
                422,
                mark("A layer of this image is of a kind that is not supported (kept elsewhere, or encrypted)."),
                reason="image-layer",
            )  # fmt: skip
    _known_sizes([manifest])
    return manifest


def choose(index: Index, machine: Platform) -> Descriptor:
    """The manifest of an index that runs on a machine; the nearest variant first.

    Raises
    ------
    UserError
        422 ``image-platform``, with what the image is made for.
    """
    fitting = [
        entry
        for entry in index.entries
        if entry.platform and entry.media_type in MANIFESTS and machine.runs(entry.platform)
    ]
    if fitting:
        return max(fitting, key=lambda entry: entry.platform == machine)
    offered = sorted(
        {str(entry.platform) for entry in index.entries if entry.platform and entry.platform.os != "unknown"}
    )
    raise _elsewhere(", ".join(offered[:8]) or "?", machine)


def read_config(body: bytes, manifest: Manifest, machine: Platform) -> ImageConfig:
    """The config of an image, checked against its manifest and the machine that shall run it.

    Raises
    ------
    UserError
        422, when it is not what the manifest names, or made for another processor.
    """
    if len(body) != manifest.config.size_bytes or digest_of(body) != manifest.config.digest:
        raise lie()
    data = _document(body)
    rootfs = data.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise _broken()
    if not all(is_digest(one) for one in diff_ids):
        raise _broken()
    platform = _platform(data)
    if platform is None:
        raise _broken()
    if not machine.runs(platform):
        raise _elsewhere(str(platform), machine)
    start = data.get("config") or {}
    if not isinstance(start, dict):
        raise _broken()
    labels = start.get("Labels") or {}
    volumes = start.get("Volumes") or {}
    if not isinstance(labels, dict) or not isinstance(volumes, dict):
        raise _broken()
    if not all(isinstance(value, str) for value in labels.values()):
        raise _broken()
    user = start.get("User") or ""
    if not isinstance(user, str):
        raise _broken()
    return ImageConfig(
        platform=platform,
        diff_ids=tuple(diff_ids),
        user=user,
        environment=_texts(start.get("Env")),
        entrypoint=_texts(start.get("Entrypoint")),
        command=_texts(start.get("Cmd")),
        volumes=tuple(sorted(volumes)),
        on_build=_texts(start.get("OnBuild")),
        labels=labels,
    )


def sizes_of(images: Iterable[Manifest]) -> Sizes:
    """What images take in one registry, counted whole and counted once.

    An image that is listed under several tags is one image.

    Raises
    ------
    UserError
        422, when two of them give one digest two sizes.
    """
    distinct = {image.digest: image for image in images}
    known = _known_sizes(distinct.values())
    used: dict[str, int] = {}
    apparent = 0
    for image in distinct.values():
        blobs = {blob.digest for blob in image.blobs}
        apparent += image.size_bytes + sum(known[digest] for digest in blobs)
        for digest in blobs:
            used[digest] = used.get(digest, 0) + 1
    freed = {
        image.digest: image.size_bytes
        + sum(known[digest] for digest in {blob.digest for blob in image.blobs} if used[digest] == 1)
        for image in distinct.values()
    }
    return Sizes(apparent, sum(known.values()) + sum(image.size_bytes for image in distinct.values()), freed)


def written(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """An OCI manifest of these blobs; the same bytes for the same blobs."""

    def pointer(blob: Descriptor) -> dict[str, Any]:
        return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size_bytes}

    data = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": pointer(config),
        "layers": [pointer(layer) for layer in layers],
    }
    return json.dumps(data, separators=(",", ":")).encode()


def _document(body: bytes) -> dict[str, Any]:
    if len(body) > DOCUMENT_BYTES_AT_MOST:
        raise _broken()
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise _broken() from None
    if not isinstance(data, dict):
        raise _broken()
    return data


def _items(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise _broken()
    return value


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _broken()
    return tuple(value)


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise _broken()
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str) or not is_digest(digest):
        raise _broken()
    if type(size) is not int or not 0 <= size <= BLOB_BYTES_AT_MOST:  # True is an int, too
        raise _broken()
    platform = value.get("platform")
    return Descriptor(media_type, digest, size, _platform(platform) if platform is not None else None)


def _platform(value: object) -> Platform | None:
    """None for what names no platform: such an entry is simply not chosen."""
    if not isinstance(value, dict):
        return None
    names = [value.get("os"), value.get("architecture"), value.get("variant") or ""]
    if not all(isinstance(name, str) for name in names):
        return None
    system, processor, variant = (str(name).lower() for name in names)
    processor = PROCESSORS.get(processor, processor)
    if not _WORD.fullmatch(system) or not _WORD.fullmatch(processor):
        return None
    return Platform(system, processor, variant if _WORD.fullmatch(variant) else "")


def _known_sizes(images: Iterable[Manifest]) -> dict[str, int]:
    known: dict[str, int] = {}
    for image in images:
        for blob in image.blobs:
            if known.setdefault(blob.digest, blob.size_bytes) != blob.size_bytes:
                raise lie()
    return known


def _broken() -> UserError:
    return UserError(422, mark("This image's description is broken."), reason="image-broken")


def lie() -> UserError:
    """For bytes that are not what was promised of them."""
    return UserError(
        422, mark("This image is not what its digest says. Nothing of it is used."), reason="image-digest"
    )


def _elsewhere(offered: str, machine: Platform) -> UserError:
    return UserError(
        422,
        mark("This image is made for {offered}; the machines here are {machine}. Build or choose one for them."),
        reason="image-platform", offered=offered, machine=str(machine),
    )  # fmt: skip
