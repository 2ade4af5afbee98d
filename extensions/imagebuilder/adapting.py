"""Adapting an image: from what somebody else made to an image of ours that has the node's side, without running it.

Every layer is fetched once, compared with its digests, looked at (:mod:`extensions.imagebuilder.stock`) and put into our
registry; on top come the layers of the parts (``images.adapter``) and one of the image's own, and the manifest is put
last. So Docker and Kubernetes get the same image by the same work, and whatever ends it earlier leaves nothing that has
a name. The image below is taken by its digest from where its version says, under the rules of ``images`` for registries.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from extensions.imagebuilder import container, guard, looks, stock
from extensions.imagebuilder.logins import Login
from extensions.imagebuilder.names import ImageName, Pinned, repository
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor, Manifest
from extensions.imagebuilder.saving import GZIP_LAYER, OCI_NAMES, Result, Saver, Task, until_stopped
from extensions.imagebuilder.sources import Sources
from extensions.imagebuilder.stock import Node, View
from extensions.imagebuilder.tarstream import LIMIT_BYTES, Source, need_readable
from galilean import disk_reserve
from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from spawner.docker.api import ImageNotFound

#: What is done, in this order; words of the row's ``step``.
STEPS = ("base", "pushing", "placing")

_NO_PARTS = mark(
    "The parts that images are adapted with are not here ({image}). The administrators can see why."
)
_LAYERS = mark(
    "The image has {layers} layers; adapting adds {more}, and a machine can stack {most}. Flatten it and try again."
)
_LARGE = mark("The image has {size}; at most {most} are taken up.")
_KERNELS = mark("Notebooks of the image's own kernels run in JupyterLab of the product: {names}.")
_NO_KERNELS = mark(
    "The image has no kernel for notebooks: they run in the product's own Python. Install ipykernel in the image for its own."
)
_LEFT = mark("Kernels that cannot be started, for their Python is not where they say: {names}.")
_NO_DESKTOP = mark("The image has no desktop server (TigerVNC), so there is no desktop.")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be adapted: the image by digest, with what its registry wants to know."""

    owner: str
    image: str
    login: Login | None = None


@dataclass(frozen=True)
class _Parts:
    """The layers of the parts, where our registry has them."""

    repository: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]


@dataclass(frozen=True)
class _Own:
    """A layer that is made here."""

    packed: bytes
    descriptor: Descriptor
    diff_id: str
    what: str


class Adapter:
    """Adapts images for one site.

    Parameters
    ----------
    site
        Where they go.
    parts
        The image of the parts, as Docker has it or at an address.
    node
        How nodes run.
    sources
        How registries are asked.
    most_bytes
        What an image may have, packed; 0 = no limit.
    """

    def __init__(
        self,
        site: Saver,
        parts: str,
        node: Node,
        sources: Sources,
        *,
        most_bytes: int = 0,
    ) -> None:
        self.site, self._parts, self._node, self._sources = site, parts, node, sources
        self._most = most_bytes

    async def adapt(self, task: Task, order: Order, name: ImageName) -> Result:
        """Adapt an image.

        Raises
        ------
        UserError
            Why it cannot be.
        GivenUp
            The task was told to stop.
        """
        self.site.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self.site.directory, prefix="adapt-") as folder:
            with disk_reserve.in_words(self.site.directory):
                return await self._adapt(task, order, name, Path(folder))

    async def _adapt(self, task: Task, order: Order, name: ImageName, folder: Path) -> Result:
        task.begin("base")
        pinned = Pinned.parse(order.image)
        path = self.site.place.repository(repository(order.owner, name))
        async with self.site.client() as registry:
            parts = await self._have_parts(task, registry, folder)
            view, manifest, config, sent = await self._below(
                task, registry, path, pinned, order, parts, folder
            )
            stock.check(view, self._node)
            made, image, told = await self._push(
                task, registry, path, name, view, manifest, config, parts, folder
            )
        try:
            task.begin("placing", sum(one.size_bytes for one in made.layers))
            await self.site.fetch(task, image)
        except BaseException:
            await asyncio.shield(self.site.forget(image))
            raise
        task.say(f"ready as {image}")
        own = sum(one.size_bytes for one in made.layers[len(manifest.layers) + len(parts.layers) :])
        return Result(
            image,
            sum(one.size_bytes for one in {*made.layers}) + made.config.size_bytes,
            len(made.layers),
            str(self._sources.platform),
            {"packed_bytes": sent + own, "told": told},
            "",
        )

    # ---------------------------------------------------------------------------------------------- the parts

    async def _have_parts(self, task: Task, registry: Registry, folder: Path) -> _Parts:
        """The parts in our registry; brought there when they are not."""
        path = await self._parts_here(task, registry)
        if path is None:
            path = await self._parts_from_afar(task, registry, folder)
        manifest, config = await registry.image(path, "1", self._sources.platform)
        if looks.NODE_LABEL not in config.labels:
            raise UserError(503, _NO_PARTS, reason="adapter", image=self._parts[:120])
        return _Parts(path, manifest.layers, config.diff_ids)

    async def _parts_here(self, task: Task, registry: Registry) -> str | None:
        """From this machine's Docker, where there is one that has them."""
        docker = getattr(self.site, "docker", None)
        if docker is None:
            return None

        def look() -> str:
            try:
                return str(docker.client().inspect_image(self._parts)["Id"])
            except ImageNotFound:
                return ""

        found = await docker.do(look)
        if not found:
            return None
        path = self.site.place.repository(f"bases/{found.removeprefix('sha256:')[:40]}")
        await task.books.base(path)
        if not await _there(registry, path):
            where = f"{self.site.place.name}/{path}"
            await docker.do(
                lambda: container.push_base(
                    docker.client(), found, where, "1", self.site.place.for_docker, task.at
                )
            )
        return path

    async def _parts_from_afar(self, task: Task, registry: Registry, folder: Path) -> str:
        reference = looks.parse(self._parts)
        if reference.registry == self.site.place.name:
            source, watch = self.site.client(), None
        else:
            source, watch = self._sources.open(reference.registry, None)
        async with source:
            try:
                manifest, _ = await source.image(
                    reference.repository, reference.reference, self._sources.platform
                )
                path = self.site.place.repository(f"bases/{manifest.digest.removeprefix('sha256:')[:40]}")
                await task.books.base(path)
                if not await _there(registry, path):
                    for blob in dict.fromkeys(manifest.blobs):
                        await self._bring(
                            task, source, reference.repository, registry, path, blob, folder, None
                        )
                    body, _ = await source.manifest(reference.repository, manifest.digest)
                    await registry.put_manifest(path, "1", body, manifest.media_type)
                return path
            except UserError as error:
                if watch is not None and watch.refused:
                    raise guard.forbidden(watch.refused) from error
                if error.status == 404:
                    raise UserError(503, _NO_PARTS, reason="adapter", image=self._parts[:120]) from error
                raise

    # ------------------------------------------------------------------------------------------ what is below

    async def _below(
        self,
        task: Task,
        registry: Registry,
        path: str,
        pinned: Pinned,
        order: Order,
        parts: _Parts,
        folder: Path,
    ) -> tuple[View, Manifest, dict[str, Any], int]:
        """Look at every layer, and have it in our registry: the view, documents, and bytes that were sent."""
        ours = pinned.registry == self.site.place.name
        login = order.login.of(pinned.registry) if order.login else None
        source, watch = (self.site.client(), None) if ours else self._sources.open(pinned.registry, login)
        begun = task.monotonic()
        async with source:
            try:
                manifest, config = await source.image(
                    pinned.repository, pinned.digest, self._sources.platform
                )
                looks.need_labels(config.labels)
                need_readable(one.media_type for one in manifest.layers)
                self._need_room(manifest, parts)
                if not ours:
                    await task.books.room(sum(one.size_bytes for one in {*manifest.layers}))
                body = io.BytesIO()
                await source.pull_blob(pinned.repository, manifest.config, body)
                document = _document(body.getvalue())
                view, sent = View(), 0
                task.begin("base", sum(one.size_bytes for one in manifest.layers))
                done = 0
                for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
                    seen = _Seen(view, diff_id, done, task)
                    how = await self._bring(
                        task, source, pinned.repository, registry, path, blob, folder, seen
                    )
                    sent += blob.size_bytes if how == "sent" and not ours else 0
                    done += blob.size_bytes
                    task.at(done)
                    task.say(f"layer {blob.digest[7:19]} of {blob.size_bytes} bytes: {how}")
            except UserError as error:
                if watch is not None and watch.refused:
                    raise guard.forbidden(watch.refused) from error
                raise
        task.say(f"looked at {len(manifest.layers)} layers in {task.monotonic() - begun:.1f} s")
        return view, manifest, document, sent

    def _need_room(self, manifest: Manifest, parts: _Parts) -> None:
        more, size = len(parts.layers) + 2, sum(one.size_bytes for one in {*manifest.layers})
        if len(manifest.layers) + more > manifests.LAYERS_AT_MOST:
            raise UserError(
                422, _LAYERS, reason="image-layers", layers=len(manifest.layers), more=more,
                most=manifests.LAYERS_AT_MOST,
            )  # fmt: skip
        if self._most and size > self._most:
            raise UserError(
                413, _LARGE, reason="image-large", size=format_bytes(size), most=format_bytes(self._most)
            )

    async def _bring(
        self,
        task: Task,
        source: Registry,
        repository: str,
        registry: Registry,
        path: str,
        blob: Descriptor,
        folder: Path,
        seen: _Seen | None,
    ) -> str:
        """Fetch a blob, look at it, and have it in a repository of ours."""
        if seen is None and await registry.blob_size(path, blob.digest) is not None:
            return "present"
        disk_reserve.need(folder, blob.size_bytes)
        with tempfile.TemporaryFile(dir=folder) as file:
            await until_stopped(task, source.pull_blob(repository, blob, file))
            if seen is not None:
                file.seek(0)
                await asyncio.to_thread(seen.look, file)
            mount = repository if source.name == registry.name else ""
            return str(await until_stopped(task, registry.push_blob(path, blob, file, mount_from=mount)))

    # -------------------------------------------------------------------------------------------------- the push

    async def _push(
        self,
        task: Task,
        registry: Registry,
        path: str,
        name: ImageName,
        view: View,
        manifest: Manifest,
        config: dict[str, Any],
        parts: _Parts,
        folder: Path,
    ) -> tuple[Manifest, Pinned, list[dict[str, Any]]]:
        task.begin("pushing", sum(one.size_bytes for one in parts.layers))
        own, told = await asyncio.to_thread(self._own_layers, view, config)
        empty = [one for one in own if one.what == _EMPTY]
        rest = [one for one in own if one.what != _EMPTY]
        for blob in parts.layers:
            with tempfile.TemporaryFile(dir=folder) as file:
                if await registry.blob_size(path, blob.digest) is None:
                    await until_stopped(task, _give(registry, path, blob, parts.repository, file))
        for one in own:
            await registry.push_blob(path, one.descriptor, io.BytesIO(one.packed))
        added = [
            *((one.diff_id, one.what) for one in empty),
            *((diff_id, "the node's side of Galilean") for diff_id in parts.diff_ids),
            *((one.diff_id, one.what) for one in rest),
        ]
        body = stock.config_of(
            config, added, self._node, notices="/opt/galilean/share/galilean/NOTICES", now=task.clock()
        )
        described = Descriptor(manifests.OCI_CONFIG, manifests.digest_of(body), len(body))
        await registry.push_blob(path, described, io.BytesIO(body))
        layers = [
            *manifest.layers,
            *(one.descriptor for one in empty),
            *parts.layers,
            *(one.descriptor for one in rest),
        ]
        document = manifests.written(
            described,
            [
                Descriptor(OCI_NAMES.get(one.media_type, one.media_type), one.digest, one.size_bytes)
                for one in layers
            ],
        )
        task.check()
        digest = await registry.put_manifest(path, name.tag, document, manifests.OCI_MANIFEST)
        task.say(f"pushed as {path}:{name.tag}")
        made = manifests.read_manifest(document, manifests.OCI_MANIFEST, digest=digest)
        assert isinstance(made, Manifest)
        return made, Pinned(registry.name, path, digest), told

    def _own_layers(self, view: View, config: Mapping[str, Any]) -> tuple[list[_Own], list[dict[str, Any]]]:
        """The layers that are this image's own, and what is told of it."""
        said = config.get("config") or {}
        found: list[_Own] = []
        if view.prefix:
            out = io.BytesIO()
            stock.write_empty_prefix(out, view)
            found.append(_own(out.getvalue(), _EMPTY))
        out = io.BytesIO()
        stock.write_layer(out, view, said, self._node)
        found.append(_own(out.getvalue(), "accounts, HOME and kernels of nodes"))
        known, left = stock.kernels(view, {})
        told: list[dict[str, Any]] = []
        names = ", ".join(str(one.spec.get("display_name") or one.name)[:60] for one in known[:8])
        told.append({"message": _KERNELS, "params": {"names": names}} if known else {"message": _NO_KERNELS})
        if left:
            told.append({"message": _LEFT, "params": {"names": ", ".join(left[:8])}})
        if not (view.named("Xtigervnc") or view.named("Xvnc")):
            told.append({"message": _NO_DESKTOP})
        return found, told


_EMPTY = "nothing at the place of the node's side"


class _Seen:
    """Looks at a layer while it is compared with what the config says of it."""

    def __init__(self, view: View, diff_id: str, done: int, task: Task) -> None:
        self._view, self._diff_id, self._done, self._task = view, diff_id, done, task

    def look(self, file: BinaryIO) -> None:
        hashed = hashlib.sha256()

        def watch(block: bytes) -> None:
            hashed.update(block)
            self._task.at(self._done + file.tell())

        self._view.add(Source(file, limit_bytes=LIMIT_BYTES, watch=watch))
        if f"sha256:{hashed.hexdigest()}" != self._diff_id:
            raise manifests.lie()


def _own(raw: bytes, what: str) -> _Own:
    packed = gzip.compress(raw, 6, mtime=0)
    descriptor = Descriptor(GZIP_LAYER, f"sha256:{hashlib.sha256(packed).hexdigest()}", len(packed))
    return _Own(packed, descriptor, f"sha256:{hashlib.sha256(raw).hexdigest()}", what)


def _document(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    assert isinstance(found, dict)  # manifests.read_config has looked
    return found


async def _there(registry: Registry, path: str) -> bool:
    try:
        await registry.manifest(path, "1")
    except UserError as error:
        if error.status != 404:
            raise
        return False
    return True


async def _give(registry: Registry, path: str, blob: Descriptor, source: str, file: BinaryIO) -> None:
    """A blob of our own registry in another repository; sent again only where a registry wants that."""
    try:
        await registry.push_blob(path, blob, io.BytesIO(), mount_from=source)
    except UserError as error:
        if error.reason != "registry-changed":
            raise
        await registry.pull_blob(source, blob, file)
        await registry.push_blob(path, blob, file)
