"""Saving one node as an image, from the pause to the image that can be run: the order of things.

Nothing is visible before it is whole: the layer is written to a directory that goes at the end, blobs in the registry
have no name until the manifest is put, and the row becomes *ready* last. Whatever ends it earlier (an error, a full
disk, somebody who cancels) takes back what was begun. The image's config is the parent's with one layer more, never
the container's: of the environment of a run, its token among it, nothing was ever in there.

The parent's layers have to be in the same registry. The first save from an image brings them there by Docker's own
push, under ``bases/``; all later ones take them from there without sending anything.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from extensions.imagebuilder import container
from extensions.imagebuilder.changes import Changes
from extensions.imagebuilder.container import Copied, Found, GivenUp, Wanted
from extensions.imagebuilder.dockerfile import dockerfile
from extensions.imagebuilder.names import IMAGES, ImageName, Pinned, repository
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Descriptor, Manifest
from extensions.imagebuilder.secrets_scan import require_clean
from extensions.imagebuilder.space import Space
from extensions.imagebuilder.summary import Preview, as_record, difference, preview
from extensions.imagebuilder.tarstream import broken
from extensions.imagebuilder.writing import Written, write_layer
from galilean import disk_reserve
from galilean.errors import UserError, mark
from spawner.docker.api import DockerAPI, NotFound

log = logging.getLogger("galilean.imagebuilder")
T = TypeVar("T")
#: Whether somebody else has an image that is about to be forgotten.
Needed = Callable[[Pinned], Awaitable[bool]]

#: What is done, in this order; words of the row's ``step``.
STEPS = ("copying", "writing", "base", "pushing", "placing")
GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
#: The same bytes under the names of both specifications: one manifest has one kind of names.
OCI_NAMES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
}
STATUS_MOST_BYTES = 64 << 20
#: Of packages, before a save.
NAMES_MOST = 500

_LAYERS = mark(
    "The image has {layers} layers already, which is the most that a machine can stack. Save from a fresh environment "
    "instead."
)


@dataclass(frozen=True)
class Place:
    """The registry that images are pushed to.

    Attributes
    ----------
    address
        ``http://127.0.0.1:5000``.
    credentials
        None where nobody is asked.
    prefix
        Begins all repositories.
    """

    address: str
    credentials: Credentials | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """Host and port, as images are named."""
        return self.address.partition("://")[2].rstrip("/")

    def repository(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    @property
    def for_docker(self) -> Mapping[str, str] | None:
        """The same for the daemon, which forgets it after the call."""
        if self.credentials is None:
            return None
        return {"username": self.credentials.username, "password": self.credentials.password}


class Books(Protocol):
    """Where it is noted what an image takes, before it takes it (:mod:`extensions.imagebuilder.booking`)."""

    async def base(self, place: str) -> None:
        """It stands on what is in a place below ``bases/``, or will be."""
        ...

    async def room(self, own_bytes: int, below_bytes: int = 0) -> None:
        """It takes so many bytes; raises UserError where its owner may not have them."""
        ...


class NoBooks:
    """Where nobody counts."""

    async def base(self, place: str) -> None:
        """Is not noted."""

    async def room(self, own_bytes: int, below_bytes: int = 0) -> None:
        """Whatever it is."""


@dataclass
class Task:
    """A save that is under way: what it tells, and how it is given up.

    Attributes
    ----------
    step, done_bytes, total_bytes
        How far it is.
    stop
        Set when somebody wants it to end.
    lines
        Its log.
    books
        Asked before anything is pushed.
    """

    clock: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic
    step: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    lines: list[str] = field(default_factory=list)
    books: Books = field(default_factory=NoBooks)

    def say(self, text: str) -> None:
        self.lines.append(f"{self.clock():%Y-%m-%d %H:%M:%S}Z {text}")

    def begin(self, step: str, total_bytes: int | None = None) -> None:
        self.check()
        self.step, self.done_bytes, self.total_bytes = step, 0, total_bytes

    def at(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """So far; also the moment at which it can be given up."""
        self.done_bytes = done_bytes
        if total_bytes:
            self.total_bytes = total_bytes
        self.check()

    def check(self) -> None:
        if self.stop.is_set():
            raise GivenUp

    @property
    def log(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass(frozen=True)
class Result:
    """A saved image."""

    image: Pinned
    size_bytes: int
    layers: int
    platform: str
    changes: Mapping[str, Any]
    dockerfile: str
    #: Of a Python environment: its lock file, which is all that is kept of it.
    lock: str = ""


@dataclass(frozen=True)
class _Base:
    """The parent in the registry: where, and its documents."""

    repository: str
    manifest: Manifest
    config: dict[str, Any]


class NodeSaver(Protocol):
    """What saves the nodes of one backend; the rows, the turns and the words are the service's.

    Attributes
    ----------
    backends
        Whose nodes these are: an installation may have had another before.
    directory
        For what is on its way.
    needed
        Set by the service: whether somebody has an image.
    """

    backends: Sequence[str]
    directory: Path
    needed: Needed

    async def put_right(self) -> int:
        """Let go what a killed service held; how many."""
        ...

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        """Save a node: see :meth:`Saver.save`."""
        ...

    async def look(self, wanted: Wanted) -> Mapping[str, Any]:
        """What a save of a node would hold."""
        ...

    async def named(self, user: str, name: ImageName) -> Pinned | None:
        """What a save that was killed may have left under a name; None = nothing."""
        ...

    async def forget(self, image: Pinned) -> None:
        """Give back what an image takes, unless somebody needs it."""
        ...

    async def empty(self, place: str) -> None:
        """Give back what a place below ``bases/`` takes."""
        ...


class Saver:
    """Saves nodes of one Docker daemon to one registry.

    Parameters
    ----------
    docker
        The daemon.
    instance
        Whose containers.
    place
        The registry.
    directory
        For what is on its way; each save has a folder in it, gone at its end.
    registry
        Makes a client of the registry; handed in for tests.
    """

    backends: Sequence[str] = IMAGES

    def __init__(
        self,
        docker: DockerAPI,
        instance: str,
        place: Place,
        directory: Path,
        *,
        registry: Callable[[], Registry] | None = None,
        freeze_seconds: float = container.FREEZE_SECONDS,
    ) -> None:
        self.docker, self.instance, self.place, self.directory = docker, instance, place, directory
        self._registry = registry or (lambda: Registry(place.address, place.credentials))
        self._freeze = freeze_seconds
        self.space = Space(directory)
        self.needed: Needed = by_nobody

    def client(self) -> Registry:
        """A client of the registry, to be closed."""
        return self._registry()

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        """Save a node.

        Raises
        ------
        UserError
            Why it cannot be.
        GivenUp
            The task was told to stop.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="save-") as folder:
            with disk_reserve.in_words(self.directory):
                return await self._save(task, wanted, name, Path(folder), history)

    async def _save(self, task: Task, wanted: Wanted, name: ImageName, folder: Path, history: bool) -> Result:
        task.begin("copying")
        found = await self._blocking(
            task, lambda: container.find(self.docker.client(), self.instance, wanted)
        )
        task.say(
            f"node {found.name}, image {found.image_name} ({found.image[:19]}), {found.size_bytes} bytes changed"
        )
        with self.space.aside(folder, found.size_bytes) as enough:

            def at(done_bytes: int) -> None:
                enough(done_bytes)
                task.at(done_bytes)

            written, changes, copied = await self._blocking(
                task, lambda: self._written(task, found, folder, found.rules(history=history), at)
            )
        require_clean(written.findings)
        async with self._registry() as registry:
            base = await self._base(task, registry, found)
            image, manifest = await self._push(task, registry, base, written, folder, wanted.user, name)
            try:
                task.begin("placing", written.size_bytes)
                begun = task.monotonic()
                await self._blocking(
                    task,
                    lambda: container.fetch(self.docker.client(), str(image), self.place.for_docker, task.at),
                )
                task.say(f"placed in {task.monotonic() - begun:.2f} s, ready as {image}")
            except BaseException:
                await asyncio.shield(self.forget(image))
                raise
        config = base.config
        return Result(
            image,
            sum(one.size_bytes for one in manifest.layers) + manifest.config.size_bytes,
            len(manifest.layers),
            f"{config.get('os', 'linux')}/{config.get('architecture', '')}",
            as_record(changes)
            | {
                "unpacked_bytes": written.unpacked_bytes,
                "packed_bytes": written.size_bytes,
                "frozen_seconds": round(copied.frozen_seconds, 3),
                "one_moment": copied.one_moment,
                "left_out": dict(written.stripped.entries),
                "doubts": [[one.path, one.what] for one in written.findings[:20]],
            },
            dockerfile(found.image_name, changes, name=f"{wanted.user}/{name}"),
        )

    # --------------------------------------------------------------------------------------------- the layer

    def _written(
        self, task: Task, found: Found, folder: Path, rules: Any, progress: Callable[[int], None]
    ) -> tuple[Written, Changes, Copied]:
        client = self.docker.connect(timeout=container.LOOK_SECONDS)
        pauser = self.docker.connect()
        raw, packed = folder / "changes.tar", folder / "layer.tar.gz"
        try:
            with container.reader(client, self.instance, found) as source:
                status = container.read_file(client, source, container.DPKG, most=STATUS_MOST_BYTES)
                for attempt in range(container.TRIES):
                    task.begin("copying", found.size_bytes)
                    paths = container.changed_paths(client, found.id)
                    with open(raw, "wb") as out:
                        copied = container.copy_changes(
                            client, pauser, found, source, out, progress=progress, freeze_seconds=self._freeze
                        )
                    task.say(
                        f"copied {copied.size_bytes} bytes in {copied.seconds:.2f} s, held for "
                        f"{copied.frozen_seconds:.2f} s"
                        + (", all of one moment" if copied.one_moment else "")
                    )
                    task.begin("writing", copied.size_bytes)
                    begun = task.monotonic()
                    try:
                        with open(raw, "rb") as upper:
                            changes = difference(upper, paths, status.decode("utf-8", "replace"), rules)
                        with open(raw, "rb") as upper, open(packed, "wb") as out:
                            written = write_layer(
                                upper,
                                out,
                                folder=folder,
                                deleted={item.path for item in paths if item.kind == 2},
                                rules=rules,
                                secrets=found.secrets,
                                progress=progress,
                            )
                    except UserError as error:
                        if (
                            error.reason != "layer"
                            or error.params.get("what") != broken("ends early").params["what"]
                        ):
                            raise
                        task.say("a file became shorter while it was copied")
                        if attempt + 1 == container.TRIES:
                            raise container.written_to(_last_name(raw)) from error
                        continue
                    task.say(
                        f"written in {task.monotonic() - begun:.2f} s: {written.unpacked_bytes} bytes, "
                        f"{written.size_bytes} packed; left out: {dict(written.stripped.entries)}; "
                        f"secrets found: {len(written.findings)}"
                    )
                    raw.unlink()
                    return written, changes, copied
            raise AssertionError
        finally:
            client.close()
            pauser.close()

    # ------------------------------------------------------------------------------------------ the registry

    async def _base(self, task: Task, registry: Registry, found: Found) -> _Base:
        """The parent in the registry; brought there when it is not."""
        task.begin("base", found.image_bytes)
        for name in await self._blocking(
            task, lambda: self.docker.client().inspect_image(found.image).get("RepoDigests") or []
        ):
            host, _, rest = str(name).partition("/")
            path, _, digest = rest.partition("@")
            if host == self.place.name and digest:
                if path.startswith(self.place.repository("bases/")):
                    await task.books.base(path)
                with suppress(UserError):
                    return await self._read_base(registry, path, digest)
        path = self.place.repository(f"bases/{found.image.removeprefix('sha256:')[:40]}")
        await task.books.base(path)
        try:
            return await self._read_base(registry, path, "1")
        except UserError as error:
            if error.status != 404:
                raise
        begun = task.monotonic()
        where = f"{self.place.name}/{path}"
        await self._blocking(
            task,
            lambda: container.push_base(
                self.docker.client(), found.image, where, "1", self.place.for_docker, task.at
            ),
        )
        task.say(f"the image below was brought to the registry in {task.monotonic() - begun:.1f} s")
        return await self._read_base(registry, path, "1")

    async def _read_base(self, registry: Registry, path: str, reference: str) -> _Base:
        _, manifest = await registry.manifest(path, reference)
        if not isinstance(manifest, Manifest):
            raise UserError(
                404, mark("The image registry {registry} has no such image."), registry=registry.name
            )
        body = io.BytesIO()
        await registry.pull_blob(path, manifest.config, body)
        config = json.loads(body.getvalue())
        if not isinstance(config, dict) or not isinstance(config.get("rootfs"), dict):
            raise UserError(422, mark("This image's description is broken."), reason="image-broken")
        return _Base(path, manifest, config)

    async def _push(
        self,
        task: Task,
        registry: Registry,
        base: _Base,
        written: Written,
        folder: Path,
        user: str,
        name: ImageName,
    ) -> tuple[Pinned, Manifest]:
        if len(base.manifest.layers) + 1 > manifests.LAYERS_AT_MOST:
            raise UserError(422, _LAYERS, reason="image-layers", layers=len(base.manifest.layers))
        path = self.place.repository(repository(user, name))
        await task.books.room(written.size_bytes, sum(one.size_bytes for one in {*base.manifest.layers}))
        task.begin("pushing", written.size_bytes)
        begun = task.monotonic()
        for layer in base.manifest.layers:
            await self._give(registry, path, layer, base.repository, folder)
            task.check()
        own = Descriptor(GZIP_LAYER, written.digest, written.size_bytes)
        with open(folder / "layer.tar.gz", "rb") as file:  # noqa: ASYNC230 - read in threads
            await self._until_stopped(task, registry.push_blob(path, own, file, progress=task.at))
        body = config_of(base.config, written.diff_id, now=task.clock())
        config = Descriptor(manifests.OCI_CONFIG, manifests.digest_of(body), len(body))
        await registry.push_blob(path, config, io.BytesIO(body))
        layers = [
            Descriptor(OCI_NAMES.get(one.media_type, one.media_type), one.digest, one.size_bytes)
            for one in (*base.manifest.layers, own)
        ]
        document = manifests.written(config, layers)
        task.check()
        digest = await registry.put_manifest(path, name.tag, document, manifests.OCI_MANIFEST)
        task.say(f"pushed in {task.monotonic() - begun:.1f} s as {path}:{name.tag}")
        made = manifests.read_manifest(document, manifests.OCI_MANIFEST, digest=digest)
        assert isinstance(made, Manifest)
        return Pinned(registry.name, path, digest), made

    async def _give(self, registry: Registry, path: str, blob: Descriptor, source: str, folder: Path) -> None:
        """Have a layer of the parent in the image's repository, sent again only where a registry wants that."""
        if path == source:
            return
        try:
            await registry.push_blob(path, blob, io.BytesIO(), mount_from=source)
        except UserError as error:
            if error.reason != "registry-changed":
                raise
            disk_reserve.need(folder, blob.size_bytes)
            with tempfile.TemporaryFile(dir=folder) as file:
                await registry.pull_blob(source, blob, file)
                await registry.push_blob(path, blob, file)

    async def put_right(self) -> int:
        """After a service that was killed: let go whom it held; how many containers there were."""
        return await self.docker.ask(lambda client: container.put_right(client, self.instance))

    async def look(self, wanted: Wanted) -> Mapping[str, Any]:
        """What a save of a node would hold: sizes, what is left out, what the names of changed paths tell."""

        def ask() -> Mapping[str, Any]:
            client = self.docker.client()
            found = container.find(client, self.instance, wanted)
            told = preview(container.changed_paths(client, found.id), found.rules(history=True))
            return {
                "image": found.image_name,
                "size_bytes": found.size_bytes,
                "image_bytes": found.image_bytes,
                "mounted": list(found.mounted),
                "processes": found.processes,
                **answered(told),
            }

        return await self.docker.do(ask)

    async def fetch(self, task: Task, image: Pinned) -> None:
        """Have a pushed image on this machine."""
        await self._blocking(
            task, lambda: container.fetch(self.docker.client(), str(image), self.place.for_docker, task.at)
        )

    async def named(self, user: str, name: ImageName) -> Pinned | None:
        """What a person's name means in the registry now; None = nothing."""
        path = self.place.repository(repository(user, name))
        async with self._registry() as registry:
            try:
                _, found = await registry.manifest(path, name.tag)
            except UserError as error:
                if error.status == 404:
                    return None
                raise
            return Pinned(registry.name, path, found.digest)

    async def empty(self, place: str) -> None:
        """Take out of the registry what a place below ``bases/`` has; nothing is success. Images that stand on it have its
        layers in their own repositories.
        """
        async with self._registry() as registry:
            try:
                _, found = await registry.manifest(place, "1")
            except UserError as error:
                if error.status == 404:
                    return
                raise
            await registry.delete_manifest(place, found.digest)

    async def forget(self, image: Pinned) -> None:
        """Take an image out of the registry and off this machine; what is not there is success.

        One that is :attr:`needed` stays: the registry knows it once, whatever tags it has.
        """
        if await self.needed(image):
            return
        async with self._registry() as registry:
            await registry.delete_manifest(image.repository, image.digest)

        def remove() -> None:
            with suppress(NotFound):
                self.docker.client().remove_image(str(image))

        with suppress(Exception):  # one that a container uses stays until that is gone
            await self.docker.do(remove)

    # -------------------------------------------------------------------------------------------------- helpers

    async def _blocking(self, task: Task, function: Callable[[], T]) -> T:
        task.check()
        return await self.docker.do(function)

    async def _until_stopped(self, task: Task, work: Awaitable[T]) -> T:
        return await until_stopped(task, work)


async def until_stopped(task: Task, work: Awaitable[T]) -> T:
    """What can be given up only by being cancelled."""
    going = asyncio.ensure_future(work)
    try:
        while not going.done():
            await asyncio.wait({going}, timeout=0.2)
            task.check()
        return going.result()
    finally:
        if not going.done():
            going.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await going


async def by_nobody(_: Pinned) -> bool:
    """Until somebody who knows the rows says otherwise."""
    return False


def answered(told: Preview) -> dict[str, Any]:
    """What names of changed paths tell, as the portal reads it."""
    return {
        key: list(value[:NAMES_MOST]) if isinstance(value, tuple) else value
        for key, value in asdict(told).items()
    }


def config_of(base: Mapping[str, Any], diff_id: str, *, now: datetime) -> bytes:
    """The config of an image with one layer more than its parent; nothing of a container is in it."""
    found = {
        key: value
        for key, value in base.items()
        if key not in ("container", "container_config", "id", "parent", "docker_version")
    }
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    found["created"] = stamp
    found["rootfs"] = {"type": "layers", "diff_ids": [*base["rootfs"]["diff_ids"], diff_id]}
    found["history"] = [
        *(base.get("history") or []),
        {"created": stamp, "created_by": "saved from a running node"},
    ]
    return json.dumps(found, separators=(",", ":")).encode()


def _last_name(archive: Path) -> str:
    """The file in whose middle an archive breaks off."""
    from extensions.imagebuilder.tarstream import Source, entries

    name = ""
    try:
        with open(archive, "rb") as file:
            for entry in entries(Source(file)):
                name = entry.path
    except UserError:
        pass
    return name
