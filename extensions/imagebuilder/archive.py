"""A packed image as somebody hands it in: what ``docker save`` writes, and the OCI image layout, as one tar file.

It is read as hostile, once from front to back, and nothing of it is ever put on a disk under a name of its own: files
are known as places in the archive. Two files of one name, names that climb, hard links and devices are refused, so
that no two readers see two images. Every byte is hashed: a blob that is not what its name, the manifest or the config
says of it is refused, as are another processor, more layers than a machine stacks, and several images in one file.

The image that is kept is the archive's own, with its digest, where its layers are packed as registries keep them; else
(``docker save`` writes bare layers) they are packed on the way, and the manifest is written anew.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from extensions.imagebuilder import tarstream
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.manifests import Descriptor, ImageConfig, Index, Manifest, Platform
from extensions.imagebuilder.tarstream import Source
from galilean.errors import UserError, mark

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BARE_LAYER = "application/vnd.oci.image.layer.v1.tar"
_BARE = (BARE_LAYER, "application/vnd.docker.image.rootfs.diff.tar")
#: Layers, configs and folders; an image of 125 layers has some 400.
MEMBERS_MOST = 5000
#: What layers may unpack to, as a multiple of the most that may be uploaded.
UNPACKED_TIMES = 4
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_CONFIG = re.compile(r"([0-9a-f]{64})\.json")

#: What a file that is no tar archive at all looks like to its reader.
_NO_TAR = ("a checksum", "a number", "ends early")

_OTHER = mark(
    "This is no packed image: neither what docker save writes nor an OCI archive. It may be packed by gzip, by nothing "
    "else."
)
_TWO = mark("The archive holds {count} images. Save one image into it, by one name.")


def refused(what: str) -> UserError:
    """An archive that plays tricks or is broken; ``what`` is a technical word, not translated."""
    return UserError(
        422,
        mark("The archive cannot be trusted and nothing of it is used: {what}."),
        reason="archive",
        what=what,
    )


@dataclass(frozen=True)
class Member:
    """A file of the archive: where its bytes lie, and what they are."""

    path: str
    offset: int
    size_bytes: int
    digest: str


class Section:
    """A file of the archive, read and sought as a file of its own."""

    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file, self._member, self._at = file, member, 0

    def read(self, size: int = -1) -> bytes:
        left = self._member.size_bytes - self._at
        self._file.seek(self._member.offset + self._at)
        block = self._file.read(left if size < 0 else min(size, left))
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._member.size_bytes}[whence]
        self._at = max(0, min(self._member.size_bytes, base + offset))
        return self._at

    def tell(self) -> int:
        return self._at


@dataclass(frozen=True)
class Layer:
    """One layer: as the archive has it, and what it is unpacked."""

    member: Member
    descriptor: Descriptor
    diff_id: str

    @property
    def bare(self) -> bool:
        """Whether it is yet to be packed."""
        return self.descriptor.media_type in _BARE


@dataclass(frozen=True)
class Image:
    """What an archive holds, checked as far as documents and hashes tell; ``document`` is its manifest, byte by byte."""

    kind: str
    manifest: Manifest
    document: bytes
    config: ImageConfig
    config_body: bytes
    layers: tuple[Layer, ...]

    @property
    def as_it_is(self) -> bool:
        """Whether it keeps its manifest and so its digest."""
        return self.kind == "oci" and not any(layer.bare for layer in self.layers)


def unpack(archive: BinaryIO, out: BinaryIO, *, most_bytes: int, progress: Callable[[int], None]) -> bool:
    """Unpack an archive that is packed by gzip as a whole; whether it was.

    Raises
    ------
    UserError
        413 for what unpacks to more than ``most_bytes``; 422 for another way of packing.
    """
    archive.seek(0)
    first = archive.read(6)
    archive.seek(0)
    if first[:4] == b"\x28\xb5\x2f\xfd" or first[:3] == b"BZh" or first == b"\xfd7zXZ\0":
        raise UserError(422, _OTHER, reason="archive-kind")
    if first[:2] != b"\x1f\x8b":
        return False
    source = Source(archive, limit_bytes=most_bytes)
    for block in source.rest():
        out.write(block)
        progress(archive.tell())
    return True


def members(archive: BinaryIO, *, progress: Callable[[int], None] = lambda _: None) -> dict[str, Member]:
    """Every file of an archive, hashed; symbolic links to other files of it are followed.

    Raises
    ------
    UserError
        422.
    """
    archive.seek(0)
    source = Source(archive, limit_bytes=manifests.BLOB_BYTES_AT_MOST)
    found: dict[str, Member] = {}
    links: dict[str, str] = {}
    seen: set[str] = set()
    try:
        for entry in tarstream.entries(source, limit_entries=MEMBERS_MOST):
            if entry.kind == tarstream.DIRECTORY:
                continue
            if entry.path in seen or not entry.path:
                raise refused("a name that is there twice")
            seen.add(entry.path)
            if entry.kind == tarstream.SYMLINK:
                links[entry.path] = entry.link
                continue
            if (
                not entry.is_file
                or entry.kind == b"S"
                or any(key.startswith(b"GNU.sparse") for key in entry.pax)
            ):
                raise refused("a link, a device or a file with holes")
            offset, hashed = source.offset, hashlib.sha256()
            for block in tarstream.data(source, entry):
                hashed.update(block)
                progress(source.offset)
            found[entry.path] = Member(entry.path, offset, entry.size, f"sha256:{hashed.hexdigest()}")
    except UserError as error:
        if error.reason == "layer" and not seen and error.params.get("what") in _NO_TAR:
            raise UserError(422, _OTHER, reason="archive-kind") from error
        if error.reason == "layer":
            raise refused(str(error.params.get("what", ""))) from error
        raise
    for path, link in links.items():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if target not in found:
            raise refused("a link to what is not in it")
        found[path] = found[target]
    for path, member in found.items():
        match = _BLOB.fullmatch(path)
        if match and member.digest != f"sha256:{match[1]}":
            raise manifests.lie()
    return found


def image(archive: BinaryIO, found: Mapping[str, Member], machine: Platform) -> Image:
    """The one image of an archive.

    Raises
    ------
    UserError
        422: no image, several, broken, of another processor, with too many layers, not what digests say.
    """
    if "index.json" in found and "oci-layout" in found:
        return _oci(archive, found, machine)
    if "manifest.json" in found:
        return _docker(archive, found, machine)
    raise UserError(422, _OTHER, reason="archive-kind")


def _oci(archive: BinaryIO, found: Mapping[str, Member], machine: Platform) -> Image:
    index = manifests.read_manifest(_small(archive, found["index.json"]), manifests.OCI_INDEX)
    assert isinstance(index, Index)
    pointer = _one(index, machine)
    body = _small(archive, _blob(found, pointer))
    manifest = manifests.read_manifest(body, pointer.media_type, digest=pointer.digest)
    if isinstance(manifest, Index):
        pointer = manifests.choose(manifest, machine)
        body = _small(archive, _blob(found, pointer))
        manifest = manifests.read_manifest(body, pointer.media_type, digest=pointer.digest)
    if isinstance(manifest, Index):
        raise refused("an index in an index")
    tarstream.need_readable(one.media_type for one in manifest.layers)
    config_body = _small(archive, _blob(found, manifest.config))
    config = manifests.read_config(config_body, manifest, machine)
    layers = tuple(
        Layer(_blob(found, one), one, diff_id)
        for one, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )
    return Image("oci", manifest, body, config, config_body, layers)


def _one(index: Index, machine: Platform) -> Descriptor:
    """Without platforms there must be one; with them, one that fits."""
    entries = [one for one in index.entries if one.platform is None or one.platform.os != "unknown"]
    if len({one.digest for one in entries}) == 1:
        return entries[0]
    if any(one.platform is None for one in entries) or not entries:
        raise UserError(422, _TWO, reason="archive-two", count=len(entries))
    return manifests.choose(index, machine)


def _docker(archive: BinaryIO, found: Mapping[str, Member], machine: Platform) -> Image:
    try:
        listed = json.loads(_small(archive, found["manifest.json"]))
    except (ValueError, RecursionError):
        raise refused("manifest.json") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise refused("manifest.json")
    if len(listed) != 1:
        raise UserError(422, _TWO, reason="archive-two", count=len(listed))
    said: dict[str, Any] = listed[0]
    names = said.get("Layers")
    if not isinstance(names, list) or not isinstance(said.get("Config"), str):
        raise refused("manifest.json")
    config_member = _named(found, said["Config"])
    match = _CONFIG.fullmatch(said["Config"])
    if match and config_member.digest != f"sha256:{match[1]}":
        raise manifests.lie()
    config_body = _small(archive, config_member)
    files = [_named(found, name) for name in names]
    document = manifests.written(
        Descriptor(manifests.OCI_CONFIG, config_member.digest, config_member.size_bytes),
        [Descriptor(_kind(archive, one), one.digest, one.size_bytes) for one in files],
    )
    manifest = manifests.read_manifest(document, manifests.OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    config = manifests.read_config(config_body, manifest, machine)
    layers = tuple(
        Layer(member, one, diff_id)
        for member, one, diff_id in zip(files, manifest.layers, config.diff_ids, strict=True)
    )
    return Image("docker", manifest, document, config, config_body, layers)


def _kind(archive: BinaryIO, member: Member) -> str:
    return GZIP_LAYER if Section(archive, member).read(2) == b"\x1f\x8b" else BARE_LAYER


def _named(found: Mapping[str, Member], name: object) -> Member:
    if not isinstance(name, str) or name not in found:
        raise refused("a layer or config that is not in it")
    return found[name]


def _blob(found: Mapping[str, Member], pointer: Descriptor) -> Member:
    member = _named(found, f"blobs/sha256/{pointer.digest.removeprefix('sha256:')}")
    if member.size_bytes != pointer.size_bytes:
        raise manifests.lie()
    return member


def _small(archive: BinaryIO, member: Member) -> bytes:
    if member.size_bytes > manifests.DOCUMENT_BYTES_AT_MOST:
        raise refused(f"{Path(member.path).name} is too large")
    return Section(archive, member).read()


def unpacked(
    archive: BinaryIO,
    layer: Layer,
    *,
    most_bytes: int,
    take: Callable[[bytes], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Read a layer to its end: that it is a tar archive, climbs nowhere, and is what the config says.

    Parameters
    ----------
    archive, layer
        Where it lies.
    most_bytes
        More than this after unpacking is refused.
    take
        Is given the unpacked bytes in order.
    progress
        Called with the bytes of the archive that are read; what it raises ends the reading.

    Returns
    -------
    int
        Bytes of the unpacked layer.

    Raises
    ------
    UserError
        413, 422.
    """
    hashed = hashlib.sha256()
    length = 0

    def watch(block: bytes) -> None:
        nonlocal length
        hashed.update(block)
        take(block)
        length += len(block)
        progress(section.tell())

    section = Section(archive, layer.member)
    source = Source(section, limit_bytes=most_bytes, watch=watch)  # type: ignore[arg-type]  # read is enough
    for _ in _all(source):
        pass
    if f"sha256:{hashed.hexdigest()}" != layer.diff_id:
        raise manifests.lie()
    return length


def _all(source: Source) -> Iterator[object]:
    yield from tarstream.entries(source)
    yield from source.rest()
