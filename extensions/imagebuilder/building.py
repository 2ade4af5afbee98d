"""Building an image from a Dockerfile by the Docker daemon, from the checked text to the image that can be run.

The steps after the build are those of a save (:mod:`…saving`): looked through for secrets, pushed, placed, recorded, and
nothing is visible before it is whole. The layers are the daemon's own, unchanged, because a layer says what it deleted
in ways that only the daemon reads; so what a save leaves out silently is refused here, with the file's name.

While it runs, somebody watches: who cancels, the time, what is written to the disk. The end of a build is the end of the
connection to the daemon, which then kills what runs, and its network goes with all that is still in it. Steps are kept
by the daemon under a name of ours for some days, so that the next build goes on where something changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import re
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from extensions.imagebuilder import build_context, build_steps, container, looks, recipes
from extensions.imagebuilder.build_network import build_network, inhabitants, remove_left
from extensions.imagebuilder.changes import Changes
from extensions.imagebuilder.container import GivenUp
from extensions.imagebuilder.names import ImageName, Pinned, repository
from extensions.imagebuilder.registry.manifests import Manifest
from extensions.imagebuilder.saving import STATUS_MOST_BYTES, Result, Saver, Task
from extensions.imagebuilder.secrets_scan import Finding, scan
from extensions.imagebuilder.strip import Rules
from extensions.imagebuilder.summary import as_record, stacked
from galilean import disk_reserve
from galilean.errors import UserError, mark
from galilean.settings_builds import Builds
from spawner.docker.api import APIError, Client, ImageNotFound, said

log = logging.getLogger("galilean.imagebuilder")

#: What is done, in this order; words of the row's ``step``.
STEPS = ("building", "looking", "pushing", "placing")
LOOK_SECONDS = 0.5
#: Every so many looks sizes are asked for, which walks through what was written.
SIZES_EVERY = 6
#: Bytes of the machine's disk that no build takes.
RESERVE_BYTES = 2 << 30
PIDS = 4096
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
LINE_MOST = 2000

_FAILED = mark("The build ended with an error: {what}. The log tells more.")
_TIME = mark("The build took longer than the {minutes} minutes that it may take. Nothing was kept.")
_LARGE = mark("The build wrote more than the {most} MB that it may add to its image. Nothing was kept.")
_NO_BASE = mark(
    "{image} is not on this machine yet. Run a project in that environment once, then build again."
)
_TRIGGERS = mark(
    "{image} has instructions for whatever is built on it (ONBUILD). It cannot be built on here."
)
_SECRET = mark(
    "The image was not kept: there is a secret in {path} ({what}). Delete it in the very step that makes it, or do not "
    "copy it, then build again. Files with secrets in all: {count}."
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be built.

    Attributes
    ----------
    id
        Of the row.
    dockerfile
        As somebody wrote it; checked again.
    images
        What FROM says → the image by digest or as the settings name it.
    context
        The packed files; None = none.
    """

    id: str
    owner: str
    dockerfile: str
    images: Mapping[str, str]
    context: Path | None = None


@dataclass(frozen=True)
class _Stands:
    """What was built, and what of it is new: directories of the machine, the lowest first."""

    image: str
    base: str
    layers: tuple[str, ...]
    own_bytes: int
    base_layers: int


class Builder:
    """Builds images beside a :class:`Saver`, with its daemon, registry and directory.

    Parameters
    ----------
    saver
        Whose they are.
    limits
        Section ``images.builds``.
    pool
        Where networks are taken from.
    contexts
        Where the portal leaves packed files.
    """

    def __init__(self, saver: Saver, limits: Builds, *, pool: IPv4Network, contexts: Path) -> None:
        self.saver, self.limits, self.contexts = saver, limits, contexts
        self._pool = pool
        self._going: set[str] = set()

    async def build(self, task: Task, order: Order, name: ImageName) -> Result:
        """Build an image.

        Raises
        ------
        UserError
            Why it cannot be.
        GivenUp
            The task was told to stop.
        """
        self.saver.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._going.add(order.id)
        with tempfile.TemporaryDirectory(dir=self.saver.directory, prefix="build-") as folder:
            try:
                with disk_reserve.in_words(self.saver.directory):
                    return await self._build(task, order, name, Path(folder))
            finally:
                self._going.discard(order.id)

    async def _build(self, task: Task, order: Order, name: ImageName, folder: Path) -> Result:
        task.begin("building")
        steps = recipes.parse(order.dockerfile)
        images = {text: await self._base(task, order, text) for text in recipes.bases(steps)}
        text = recipes.written(steps, images)
        stands = await self._blocking(task, lambda: self._built(task, order, text, images, folder))
        task.begin("looking", stands.own_bytes)
        begun = task.monotonic()
        findings, changes = await self._blocking(task, lambda: self._looked(task, stands, text, folder))
        _require_clean(findings)
        task.say(f"looked through in {task.monotonic() - begun:.1f} s; secrets found: {len(findings)}")
        image, manifest = await self._pushed(task, order, name, stands)
        try:
            own = sum(one.size_bytes for one in manifest.layers[stands.base_layers :])
            await task.books.room(own)
            task.begin("placing")
            await self._blocking(
                task,
                lambda: container.fetch(
                    self.saver.docker.client(), str(image), self.saver.place.for_docker, task.at
                ),
            )
            seen = await self._blocking(task, lambda: self.saver.docker.client().inspect_image(str(image)))
        except BaseException:
            await asyncio.shield(self.saver.forget(image))
            raise
        task.say(f"ready as {image}")
        return Result(
            image,
            sum(one.size_bytes for one in manifest.layers) + manifest.config.size_bytes,
            len(manifest.layers),
            f"{seen.get('Os', 'linux')}/{seen.get('Architecture', '')}",
            as_record(changes)
            | {
                "unpacked_bytes": stands.own_bytes,
                "packed_bytes": own,
                "doubts": [[one.path, one.what] for one in findings[:20]],
            },
            order.dockerfile,
        )

    async def _blocking(self, task: Task, function: Callable[[], Any]) -> Any:
        task.check()
        return await self.saver.docker.do(function)

    # -------------------------------------------------------------------------------------------- the build

    async def _base(self, task: Task, order: Order, text: str) -> str:
        """The id of an image that FROM names."""
        image = order.images.get(text)
        if image is None:
            raise recipes.unknown_base(1, text)

        def look() -> str:
            client = self.saver.docker.client()
            try:
                seen = client.inspect_image(image)
            except ImageNotFound:
                if image.partition("/")[0] != self.saver.place.name:
                    raise UserError(409, _NO_BASE, reason="no-base", image=text[:120]) from None
                container.fetch(client, image, self.saver.place.for_docker, task.at)
                seen = client.inspect_image(image)
            if (seen.get("Config") or {}).get("OnBuild"):
                raise UserError(422, _TRIGGERS, reason="on-build", image=text[:120])
            looks.need_labels((seen.get("Config") or {}).get("Labels") or ())
            return str(seen["Id"])

        found = await self._blocking(task, look)
        task.say(f"{text} is {image} ({found[:19]})")
        return found

    def _built(self, task: Task, order: Order, text: str, images: dict[str, str], folder: Path) -> _Stands:
        packed = folder / "context.tar"
        disk_reserve.need(folder, order.context.stat().st_size if order.context is not None else 0)
        with open(packed, "wb") as out:
            left_out = build_context.rewrite(order.context, out, text, most_bytes=self.limits.files)
        for one in left_out[:20]:
            task.say(f"left out: {one!r}")
        client = self.saver.docker.connect()
        try:
            with build_network(client, self.saver.instance, self._pool, order.id) as network:
                made = self._run(task, client, network, packed, order, next(reversed(images.values())))
        finally:
            client.close()
            packed.unlink(missing_ok=True)
        stands = _stands(self.saver.docker.client(), made, set(images.values()))
        if stands.own_bytes > self.limits.size:
            raise UserError(507, _LARGE, reason="build-large", most=self.limits.size >> 20)
        return stands

    def _run(self, task: Task, client: Client, network: str, packed: Path, order: Order, base: str) -> str:
        """Have the daemon build; the id of what it made."""
        limits = self.limits
        parameters = {
            "version": "1",
            "dockerfile": build_context.OURS,
            "networkmode": network,
            "rm": 1,
            "forcerm": 1,
            "memory": limits.memory,
            "memswap": limits.memory,  # the sum of both: no swap
            "cpuperiod": 100_000,
            "cpuquota": int(limits.cpu * 100_000),
        }
        watch = _Watch(self.saver, task, network, base, limits)
        made, what = "", ""
        steps = build_steps.Steps(self.saver.docker.client(), self.saver.instance, order.id)
        inner: Any = client
        try:
            with open(packed, "rb") as body:
                # docker-py's build() sends what the account of this process keeps of names and passwords.
                response = inner._post(
                    inner._url("/build"), data=body, params=parameters, stream=True, timeout=None,
                    headers={"Content-Type": "application/tar"},
                )  # fmt: skip
            inner._raise_for_status(response)
            watch.begin(inner._get_raw_response_socket(response))
            for line in inner._stream_helper(response, decode=True):
                made = str((line.get("aux") or {}).get("ID") or made)
                what = str(line.get("error") or what)
                told = str(line.get("stream") or "")
                steps.heard(told)
                _log(task, told or what)
        except (APIError, requests.RequestException, HTTPError, OSError, ValueError) as error:
            if not watch.why:
                log.warning("docker and a build: %s", said(error)[:500])
                what = what or said(error)
        finally:
            watch.end()
        if watch.why == "cancelled" or task.stop.is_set():
            raise GivenUp
        if watch.why == "time":
            raise UserError(504, _TIME, reason="build-time", minutes=limits.minutes)
        if watch.why == "size":
            raise UserError(507, _LARGE, reason="build-large", most=limits.size >> 20)
        if watch.why == "disk":
            raise disk_reserve.refused(RESERVE_BYTES, watch.free_bytes)
        if what or not made:
            raise UserError(422, _FAILED, reason="build-failed", what=_plain(what or "?")[:300])
        return made

    # ------------------------------------------------------------------------------------------ afterwards

    def _looked(self, task: Task, stands: _Stands, text: str, folder: Path) -> tuple[list[Finding], Changes]:
        client = self.saver.docker.connect(timeout=container.LOOK_SECONDS)
        findings = scan(_as_archive("Dockerfile", text), {})
        files: list[Path] = []
        done = 0
        disk_reserve.need(folder, stands.own_bytes)
        spare = disk_reserve.watch(folder)
        try:
            with container.reader_of(client, self.saver.instance, stands.base, {}) as source:
                status = container.read_file(client, source, container.DPKG, most=STATUS_MOST_BYTES)
            for number, place in enumerate(stands.layers):
                files.append(folder / f"layer-{number}.tar")
                places = {container.PLACE: place}
                with (
                    container.reader_of(client, self.saver.instance, stands.base, places) as source,
                    open(files[-1], "wb") as out,
                ):
                    for block in client.get_archive(
                        source, f"{container.PLACE}/.", chunk_size=container.CHUNK_BYTES
                    )[0]:
                        out.write(block)
                        done += len(block)
                        spare(done)
                        task.at(done)
                with open(files[-1], "rb") as layer:
                    findings += scan(layer, {})
            with contextlib.ExitStack() as opened:
                layers = [opened.enter_context(open(path, "rb")) for path in files]
                changes = stacked(layers, status.decode("utf-8", "replace"), Rules())
        finally:
            client.close()
        return findings, changes

    async def _pushed(
        self, task: Task, order: Order, name: ImageName, stands: _Stands
    ) -> tuple[Pinned, Manifest]:
        task.begin("pushing", stands.own_bytes)
        begun = task.monotonic()
        place = self.saver.place
        path = place.repository(repository(order.owner, name))
        await self._blocking(
            task,
            lambda: container.push_base(
                self.saver.docker.client(),
                stands.image,
                f"{place.name}/{path}",
                name.tag,
                place.for_docker,
                task.at,
            ),
        )
        async with self.saver.client() as registry:
            _, manifest = await registry.manifest(path, name.tag)
        if not isinstance(manifest, Manifest):
            raise UserError(422, mark("This image's description is broken."), reason="image-broken")
        task.say(f"pushed in {task.monotonic() - begun:.1f} s as {path}:{name.tag}")
        return Pinned(place.name, path, manifest.digest), manifest

    # --------------------------------------------------------------------------------------------- beside

    def put_right(self, wanted: set[str]) -> None:
        """After a service that was killed: networks and last steps of builds, and packed files that no row names."""
        remove_left(self.saver.docker.client(), self.saver.instance)
        build_steps.adopt(self.saver.docker.client(), self.saver.instance)
        for path in self.contexts.glob("*.tar") if self.contexts.is_dir() else ():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def forget_steps(self, now: datetime) -> None:
        """Give back what was kept for next builds and is old; never of a build that is under way."""
        build_steps.forget(
            self.saver.docker.client(), self.saver.instance, self._going, now, self.limits.cache_days
        )


class _Watch:
    """Looks at a build that is under way, and ends it; ``why`` tells why it did."""

    def __init__(self, saver: Saver, task: Task, network: str, base: str, limits: Builds) -> None:
        self._saver, self._task, self._network, self._base, self._limits = saver, task, network, base, limits
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._until = task.monotonic() + limits.minutes * 60
        self._bounded: set[str] = set()
        self.why = ""
        self.free_bytes = 0

    def begin(self, line: Any) -> None:
        self._line = line
        self._thread = threading.Thread(target=self._go, name="galilean-build", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _go(self) -> None:
        client: Any = None
        look = 0
        try:
            while not self.why and not self._over.wait(LOOK_SECONDS):
                try:
                    self.why = self._asked()
                    if not self.why:
                        client = client or self._saver.docker.connect()
                        self.why = self._look(client, sizes=look % SIZES_EVERY == 0)
                except Exception as error:  # whatever it is: a build that nobody watches has no limits
                    log.warning("a build could not be looked at: %s", error)
                look += 1
            if self.why:
                with contextlib.suppress(OSError):
                    getattr(self._line, "_sock", self._line).shutdown(socket.SHUT_RDWR)
                with contextlib.suppress(Exception):
                    client = client or self._saver.docker.connect()
                    for one in inhabitants(client, self._network):
                        with contextlib.suppress(APIError, requests.RequestException):
                            client.kill(one)
        finally:
            if client is not None:
                client.close()

    def _asked(self) -> str:
        if self._task.stop.is_set():
            return "cancelled"
        return "time" if self._task.monotonic() > self._until else ""

    def _look(self, client: Any, *, sizes: bool) -> str:
        there = inhabitants(client, self._network)
        for one in there:
            if one not in self._bounded:
                url = client._url("/containers/{0}/update", one)
                if client._post_json(url, data={"PidsLimit": PIDS}).ok:
                    self._bounded.add(one)
        if not sizes:
            return ""
        root = str(client.info().get("DockerRootDir") or "/")
        if os.path.isdir(root):
            place = os.statvfs(root)
            self.free_bytes = place.f_bavail * place.f_frsize
            if self.free_bytes < RESERVE_BYTES:
                return "disk"
        below = int(client.inspect_image(self._base).get("Size") or 0)
        for one in there:
            for listed in client.containers(size=True, filters={"id": one}):
                image = int(client.inspect_image(listed["ImageID"]).get("Size") or 0)
                written = int(listed.get("SizeRw") or 0) + max(0, image - below)
                if written > self._limits.size:
                    return "size"
        return ""


def _stands(client: Client, image: str, bases: set[str]) -> _Stands:
    """Which layers of what was built are its own."""
    seen = client.inspect_image(image)
    looks.need_labels((seen.get("Config") or {}).get("Labels") or ())
    layers = list((seen.get("RootFS") or {}).get("Layers") or ())
    found = ""
    below: list[str] = []
    for base in bases:
        its: list[str] = list((client.inspect_image(base).get("RootFS") or {}).get("Layers") or ())
        if layers[: len(its)] == its and len(its) >= len(below):
            found, below = base, its
    driver = seen.get("GraphDriver") or {}
    data: Mapping[str, str] = driver.get("Data") or {}
    own = len(layers) - len(below)
    # The topmost directory first.
    places = [data.get("UpperDir", ""), *data.get("LowerDir", "").split(":")][:own]
    if not found or (own and (driver.get("Name") != "overlay2" or not all(places) or len(places) < own)):
        raise UserError(501, container._UNKNOWN_DRIVER, reason="driver", driver=str(driver.get("Name"))[:40])
    size = int(seen.get("Size") or 0) - int(client.inspect_image(found).get("Size") or 0)
    return _Stands(str(seen["Id"]), found, tuple(reversed(places)), max(0, size), len(below))


def _as_archive(name: str, text: str) -> io.BytesIO:
    """One file as a layer, to be looked through like one."""
    out = io.BytesIO()
    body = text.encode()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(body)
        archive.addfile(entry, io.BytesIO(body))
    out.seek(0)
    return out


def _plain(text: str) -> str:
    text = _ANSI.sub("", text)
    return "".join(sign if sign.isprintable() or sign == "\t" else " " for sign in text).strip()


def _pieces(text: str) -> Iterator[str]:
    for line in text.replace("\r", "\n").split("\n"):
        if plain := _plain(line):
            yield plain[:LINE_MOST]


def _log(task: Task, text: str) -> None:
    """What the daemon said, as lines of the log; the middle of a very long one is not kept."""
    task.lines.extend(_pieces(text))
    if len(task.lines) > 12_000:
        del task.lines[1000:4000]


def _require_clean(findings: list[Finding]) -> None:
    sure = [one for one in findings if one.sure]
    if sure:
        raise UserError(
            422,
            _SECRET,
            reason="secret",
            path="/" + sure[0].path.encode("utf-8", "backslashreplace").decode(),
            what=sure[0].what,
            count=len({one.path for one in sure}),
        )
