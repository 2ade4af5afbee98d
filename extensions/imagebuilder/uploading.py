"""Bringing a packed image into the registry: from the archive that came in to the image that can be run.

No Docker is needed for it: blobs go from the archive to the registry as they are, bare layers are packed one after the
other. Nothing is visible before it is whole: the manifest is put last. Whatever ends it earlier takes back what was
begun, and at the end, also of a refusal, the archive goes.

Archives wait in a folder of their own for each person, put there by the portal under a name that it chose; the row says
which, and a row that says anything else moves nothing. Where portal and image service are pods, on machines of their own
perhaps, that folder is on a volume that both have (:func:`folder`); else it is below the state directory.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from extensions.imagebuilder import archive as archives
from extensions.imagebuilder import looks
from extensions.imagebuilder.archive import Image, Layer, Section
from extensions.imagebuilder.container import GivenUp
from extensions.imagebuilder.looks import Look, Reference
from extensions.imagebuilder.names import ImageName, Pinned, name_space, repository
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor, Manifest, Platform
from extensions.imagebuilder.saving import Place, Result, Task
from extensions.imagebuilder.writing import THREADS, Packer
from galilean import disk_reserve
from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.settings import Settings

log = logging.getLogger("galilean.imagebuilder")

#: What is done, in this order; words of the row's ``step``.
STEPS = ("checking", "pushing", "placing")
#: Below the state directory, unless the settings name another place.
FOLDER = "image-uploads"
#: An archive that nobody's row names, which a portal that was killed may leave.
FORGOTTEN = timedelta(hours=1)
_NAME = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}\.tar")

_GONE = mark("The archive is not there any more. Upload it again.")
_LARGE = mark("The image unpacks to more than {most}, which is the most that is taken.")


def folder(settings: Settings) -> Path:
    """Where everybody's archives come in."""
    said = settings.images.registry.upload_folder
    return Path(said) if said else settings.state / FOLDER


def folder_of(settings: Settings, owner: str) -> Path:
    """Where a person's archives come in."""
    return folder(settings) / name_space(owner)


class Site(Protocol):
    """What brings images to where they run; :class:`extensions.imagebuilder.saving.Saver`."""

    place: Place
    directory: Path

    def client(self) -> Registry: ...

    async def fetch(self, task: Task, image: Pinned) -> None: ...

    async def forget(self, image: Pinned) -> None: ...


@dataclass(frozen=True)
class Uploader:
    """Takes archives up.

    Attributes
    ----------
    site
        Registry and machine.
    folder
        Where archives wait (:func:`folder`).
    platform
        What the machines are.
    most_bytes
        What an archive may have (``images.registry.upload``).
    """

    site: Site
    folder: Path
    platform: Callable[[], Platform]
    most_bytes: int

    def path(self, owner: str, name: str) -> Path:
        """Where an archive waits.

        Raises
        ------
        UserError
            404 for a name that the portal never gives.
        """
        if not _NAME.fullmatch(name):
            raise UserError(404, _GONE, reason="archive-gone")
        return self.folder / name_space(owner) / name

    def drop(self, owner: str, name: str) -> None:
        """Delete an archive; one that is gone is success."""
        with suppress(UserError, OSError):
            self.path(owner, name).unlink(missing_ok=True)

    def sweep(self, known: set[tuple[str, str]], now: datetime) -> int:
        """Delete archives that came in whole and nobody takes up; ``known`` are name spaces and names of rows."""
        count = 0
        for path in self.folder.glob("*/*.tar"):
            with suppress(OSError):
                old = now.timestamp() - path.lstat().st_mtime > FORGOTTEN.total_seconds()
                if old and (path.parent.name, path.name) not in known:
                    path.unlink()
                    count += 1
        return count

    async def upload(self, task: Task, owner: str, archive: str, name: ImageName) -> Result:
        """Bring an archive's image to the registry and to this machine.

        Raises
        ------
        UserError
            Why it cannot be.
        GivenUp
            The task was told to stop.
        """
        self.site.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            file = open(self.path(owner, archive), "rb")  # noqa: SIM115, ASYNC230 - closed below, read in threads
        except OSError as error:
            raise UserError(404, _GONE, reason="archive-gone") from error
        with (
            disk_reserve.in_words(self.site.directory),
            file,
            tempfile.TemporaryDirectory(dir=self.site.directory, prefix="upload-") as folder,
        ):
            return await self._upload(task, file, owner, name, Path(folder))

    async def _upload(self, task: Task, file: BinaryIO, owner: str, name: ImageName, folder: Path) -> Result:
        begun = task.monotonic()
        size = file.seek(0, 2)
        task.begin("checking", size)
        task.say(f"archive of {size} bytes")
        with await asyncio.to_thread(self._whole, task, file, folder, size) as whole:
            image = await asyncio.to_thread(self._image, task, whole)
            path = self.site.place.repository(repository(owner, name))
            told = looks.judge(Reference(self.site.place.name, path, name.tag), image.manifest, image.config)
            task.say(
                f"{image.kind} archive, {told.layers} layers, {told.platform}: looked at in "
                f"{task.monotonic() - begun:.1f} s"
            )
            async with self.site.client() as registry:
                pinned, manifest, sent = await self._push(task, registry, path, name, image, whole, folder)
        try:
            task.begin("placing", sum(one.size_bytes for one in manifest.layers))
            await self.site.fetch(task, pinned)
        except BaseException:
            await asyncio.shield(self.site.forget(pinned))
            raise
        task.say(f"ready as {pinned}")
        return _result(pinned, manifest, told, sent)

    def _whole(self, task: Task, file: BinaryIO, folder: Path, size: int) -> BinaryIO:
        """The archive as a tar file, unpacked where it is packed as a whole."""
        if size > self.most_bytes:
            raise self._too_large()
        out = open(folder / "whole.tar", "w+b")  # noqa: SIM115 - handed on
        spare = disk_reserve.watch(folder)

        def at(bytes_read: int) -> None:
            task.at(bytes_read)
            spare(out.tell())

        try:
            packed = archives.unpack(
                file, out, most_bytes=self.most_bytes * archives.UNPACKED_TIMES, progress=at
            )
        except UserError as error:
            out.close()
            raise self._too_large() if error.reason == "layer-size" else error from error
        except BaseException:
            out.close()
            raise
        if packed:
            return out
        out.close()
        return open(file.name, "rb")

    def _image(self, task: Task, whole: BinaryIO) -> Image:
        task.begin("checking", whole.seek(0, 2))
        found = archives.members(whole, progress=task.at)
        return archives.image(whole, found, self.platform())

    def _too_large(self) -> UserError:
        most = format_bytes(self.most_bytes * archives.UNPACKED_TIMES)
        return UserError(413, _LARGE, reason="archive-large", most=most)

    # ------------------------------------------------------------------------------------------ the registry

    async def _push(
        self,
        task: Task,
        registry: Registry,
        path: str,
        name: ImageName,
        image: Image,
        whole: BinaryIO,
        folder: Path,
    ) -> tuple[Pinned, Manifest, int]:
        begun = task.monotonic()
        task.begin("pushing", sum(layer.member.size_bytes for layer in image.layers))
        left = self.most_bytes * archives.UNPACKED_TIMES
        done, sent, blobs = 0, 0, list[Descriptor]()
        known: dict[str, Descriptor] = {}
        for layer in image.layers:
            if layer.descriptor.digest not in known:
                blob, unpacked, file = await asyncio.to_thread(
                    self._layer, task, whole, layer, folder, done, left
                )
                left -= unpacked
                with file:
                    if await registry.blob_size(path, blob.digest) is None:
                        await task.books.room(sent + blob.size_bytes)
                    how = await _until_stopped(task, registry.push_blob(path, blob, file))
                sent += blob.size_bytes if how == "sent" else 0
                known[layer.descriptor.digest] = blob
                task.say(f"layer {blob.digest[7:19]} of {unpacked} bytes, {blob.size_bytes} packed: {how}")
                with suppress(OSError):
                    (folder / "layer.tar.gz").unlink()
            blobs.append(known[layer.descriptor.digest])
            done += layer.member.size_bytes
            task.at(done)
        config = image.manifest.config
        await registry.push_blob(path, config, io.BytesIO(image.config_body))
        if image.as_it_is:
            document, kind = image.document, image.manifest.media_type
        else:
            written = Descriptor(manifests.OCI_CONFIG, config.digest, config.size_bytes)
            document, kind = manifests.written(written, blobs), manifests.OCI_MANIFEST
        task.check()
        digest = await registry.put_manifest(path, name.tag, document, kind)
        task.say(f"pushed in {task.monotonic() - begun:.1f} s as {path}:{name.tag}")
        manifest = manifests.read_manifest(document, kind, digest=digest)
        assert isinstance(manifest, Manifest)
        return Pinned(registry.name, path, digest), manifest, sent

    def _layer(
        self, task: Task, whole: BinaryIO, layer: Layer, folder: Path, done: int, left: int
    ) -> tuple[Descriptor, int, BinaryIO]:
        """A layer looked through, and packed if it is bare: what the registry gets, and how much it unpacks to."""

        def at(bytes_read: int) -> None:
            task.at(done + bytes_read)

        try:
            if not layer.bare:
                length = archives.unpacked(whole, layer, most_bytes=left, progress=at)
                return layer.descriptor, length, io.BufferedReader(_Raw(whole, layer))
            disk_reserve.need(folder, layer.member.size_bytes)  # packed it is hardly ever more
            out = open(folder / "layer.tar.gz", "w+b")  # noqa: SIM115 - handed on
            try:
                with ThreadPoolExecutor(THREADS, thread_name_prefix="galilean-pack") as threads:
                    packer = Packer(out, threads)
                    length = archives.unpacked(whole, layer, most_bytes=left, take=packer.feed, progress=at)
                    digest = packer.close()
                out.seek(0)
            except BaseException:
                out.close()
                raise
            return Descriptor(archives.GZIP_LAYER, digest, packer.size_bytes), length, out
        except UserError as error:
            if error.reason == "layer-size":
                raise self._too_large() from error
            raise


class _Raw(io.RawIOBase):
    """A layer of the archive as a file for the registry."""

    def __init__(self, whole: BinaryIO, layer: Layer) -> None:
        self._section = Section(whole, layer.member)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        block = self._section.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._section.seek(offset, whence)

    def tell(self) -> int:
        return self._section.tell()


async def _until_stopped(task: Task, work: object) -> str:
    going = asyncio.ensure_future(work)  # type: ignore[arg-type]
    try:
        while not going.done():
            await asyncio.wait({going}, timeout=0.2)
            task.check()
        return str(going.result())
    finally:
        if not going.done():
            going.cancel()
            with suppress(asyncio.CancelledError, GivenUp, Exception):
                await going


def _result(pinned: Pinned, manifest: Manifest, told: Look, sent: int) -> Result:
    return Result(
        pinned,
        sum(one.size_bytes for one in {*manifest.layers}) + manifest.config.size_bytes,
        len(manifest.layers),
        told.platform,
        {"packed_bytes": sent, "told": [dict(one) for one in told.told]},
        "",
    )
