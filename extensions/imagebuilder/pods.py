"""Saving nodes that are pods: the image service asks the agent of the node's machine, and pushes what it made.

Who holds what: the agent (:mod:`extensions.imagebuilder.agent`) reads containers and knows no password; this service
knows the registry's, lists pods, gets the run's Secret by its name, and reads no container. It tells the agent which container is
meant, whose it must be, and the run's keys, which must not be in the layer; the agent looks for itself whether the
machine says the same. The packed layer comes here and goes into the registry with manifest and config as on Docker.

The parent is what Kubernetes says that the container runs: an image by its digest, never what a tag means by now. One
of another registry is copied layer by layer under ``bases/`` at the first save, with the name and password that the
run's own Secret has for it. An image that came from no registry has nothing that could be stacked upon; that is said.

A saved image is placed on no machine by this: :mod:`extensions.imagebuilder.pulling` has them fetch what the library shows.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from kubespawner.clients import load_config

from extensions.imagebuilder import guard
from extensions.imagebuilder.agent import PORT
from extensions.imagebuilder.container import SECRET_LEAST_BYTES, GivenUp, Wanted
from extensions.imagebuilder.looks import HUB
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Manifest
from extensions.imagebuilder.saving import Needed, Place, Result, Saver, Task, _Base, by_nobody
from extensions.imagebuilder.sources import Sources
from extensions.imagebuilder.writing import Written
from galilean import disk_reserve
from galilean.errors import UserError, mark
from galilean.settings import Settings
from spawner.kubernetes import names
from spawner.kubernetes.api import KubeAPI
from spawner.kubernetes.manifests import COOKIE_KEY, PULL_KEY, TOKEN_KEY

POLL_SECONDS = 0.3
ASK_SECONDS = 60.0
LOOK_SECONDS = 300.0
#: On every agent's pod: the namespace whose nodes it reads.
AGENT_OF = "galilean.io/agent-of"
#: Of a run's Secret: what must never be in an image.
_KEYS = (TOKEN_KEY, COOKIE_KEY, "host_ed25519", "id_ed25519")

_GONE = mark("This node does not run any more, so nothing of it can be saved.")
_NO_AGENT = mark(
    "On the machine of this node runs no part that could save it ({machine}). The administrators can see why."
)
_AGENT_AWAY = mark("The part that saves nodes does not answer on their machine. Try again in a moment.")
_NOWHERE = mark(
    "The image of this node came from no registry, so nothing can be stacked upon it. Save a node of an environment "
    "whose image is in a registry."
)


@dataclass(frozen=True)
class Pod:
    """A node as Kubernetes has it: its container, the image that it runs, and who reads that machine.

    Attributes
    ----------
    container
        Id of the container.
    image
        What it runs, as ``registry/repository@sha256:…``; empty when it came from no registry.
    machine
        Its machine's name.
    """

    container: str
    image: str
    machine: str


def pod_of(pods: Sequence[Mapping[str, Any]], wanted: Wanted) -> Pod:
    """The pod of a node among those of its run.

    Raises
    ------
    UserError
        409 when it does not run, or is not that person's.
    """
    name = names.pod_name(names.base_name(wanted.user, wanted.server), wanted.rank)
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        told = metadata.get("annotations") or {}
        if (
            metadata["name"] != name
            or metadata.get("deletionTimestamp")
            or (metadata.get("labels") or {}).get(names.RUN) != wanted.run
            or (told.get(names.USER), told.get(names.SERVER)) != (wanted.user, wanted.server)
        ):
            continue
        main, asked = (pod["spec"]["containers"][0].get(key, "") for key in ("name", "image"))
        for one in status.get("containerStatuses") or ():
            kind, _, container = str(one.get("containerID") or "").partition("://")
            if (
                one["name"] == main
                and kind == "containerd"
                and (one.get("state") or {}).get("running") is not None
            ):
                image = _known_as(asked, str(one.get("imageID") or "").rpartition("://")[2])
                return Pod(container, image, str(pod["spec"].get("nodeName", "")))
    raise UserError(409, _GONE, reason="node-gone")


def _known_as(asked: str, told: str) -> str:
    """Where an image is: as it was asked for when that says a registry and a digest, else as the kubelet calls it.

    A machine may have the same image by several registries' names, and the kubelet tells any of them, also that of a
    registry which is gone.
    """
    named, _, digest = asked.partition("@")
    host, _, path = named.partition("/")
    if digest.startswith("sha256:") and path and ("." in host or ":" in host or host == "localhost"):
        folder, _, last = path.rpartition("/")
        return f"{host}/{folder}/{last.partition(':')[0]}@{digest}".replace("//", "/")
    return told if "@" in told else ""


def agent_on(pods: Sequence[Mapping[str, Any]], machine: str) -> str:
    """Address of a machine's agent.

    Raises
    ------
    UserError
        501 when there is none; 503 when it is there but not ready yet, as just after it was started.
    """
    there = False
    for pod in pods:
        status = pod.get("status") or {}
        ready = any(
            one.get("type") == "Ready" and one.get("status") == "True"
            for one in status.get("conditions") or ()
        )
        if pod["spec"].get("nodeName") != machine or pod["metadata"].get("deletionTimestamp"):
            continue
        there = True
        if ready and status.get("podIP"):
            host = str(status["podIP"])
            return f"http://[{host}]:{PORT}" if ":" in host else f"http://{host}:{PORT}"
    if there:
        raise UserError(503, _AGENT_AWAY, reason="agent-away")
    raise UserError(501, _NO_AGENT, reason="no-agent", machine=machine[:80])


def keys_in(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """What of a run's Secret must never be in an image; keys without the lines around them, however they are broken."""
    found: dict[str, bytes] = {}
    for name in _KEYS:
        value = base64.b64decode((secret.get("data") or {}).get(name, ""))
        if value.startswith(b"-----BEGIN"):
            value = b"".join(line for line in value.splitlines() if not line.startswith(b"-----"))
        if len(value) >= SECRET_LEAST_BYTES:
            found[name] = value
    return found


def login_in(secret: Mapping[str, Any], registry: str) -> Credentials | None:
    """The name and password that a run's Secret has for a registry."""
    try:
        told = json.loads(base64.b64decode((secret.get("data") or {}).get(PULL_KEY, "")) or b"{}")
        for address, entry in (told.get("auths") or {}).items():
            host = address.partition("://")[2].partition("/")[0] or address.partition("/")[0]
            if (HUB if host == "index.docker.io" else host) == registry:
                return Credentials(str(entry["username"]), str(entry["password"]))
    except (ValueError, KeyError, AttributeError):
        return None
    return None


def apis_of(settings: Settings) -> tuple[KubeAPI, KubeAPI]:
    """The namespaces of nodes and of agents, by the process's own account in the cluster, else by a kubeconfig."""
    load_config()
    return KubeAPI(settings.kubernetes.namespace), KubeAPI(settings.kubernetes.agents_namespace)


class PodSaver(Saver):
    """Saves nodes of one Kubernetes to one registry.

    Parameters
    ----------
    nodes, agents
        Pods and Secrets of the installation's namespace, and pods of its agents'.
    key
        What the agents know this service by.
    place, directory, registry
        As :class:`~extensions.imagebuilder.saving.Saver`.
    sources
        Registries of parents.
    client
        Makes what speaks to agents; handed in for tests.
    """

    def __init__(
        self,
        nodes: KubeAPI,
        agents: KubeAPI,
        key: str,
        place: Place,
        directory: Path,
        *,
        sources: Sources | None = None,
        registry: Callable[[], Registry] | None = None,
        client: Callable[..., httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._nodes, self._agents, self._key = nodes, agents, key
        self.place, self.directory, self.instance = place, directory, nodes.namespace
        self._registry = registry or (lambda: Registry(place.address, place.credentials))
        self._sources = sources or Sources()
        self._client = client
        self.needed: Needed = by_nobody

    # ----------------------------------------------------------------------------------------- what is asked of it

    async def put_right(self) -> int:
        """Nothing: agents let go whom they held, and forget saves of which nobody asks."""
        return 0

    async def fetch(self, task: Task, image: Pinned) -> None:
        """Nothing, for the same reason."""

    async def forget(self, image: Pinned) -> None:
        """Take an image out of the registry unless it is :attr:`needed`; kubelets clear their own disks."""
        if await self.needed(image):
            return
        async with self._registry() as registry:
            await registry.delete_manifest(image.repository, image.digest)

    async def look(self, wanted: Wanted) -> Mapping[str, Any]:
        """What a save of a node would hold."""
        pod, address, _ = await self._find(wanted, secret=False)
        async with self.speak(address, LOOK_SECONDS) as agent:
            told = await asked(agent, "POST", "/look", _question(pod, wanted))
        return {**told, "image_bytes": await self._bytes_of(pod)}

    async def _bytes_of(self, pod: Pod) -> int:
        """Of the image below, where our own registry has it; asking others for it would take too long."""
        registry_name, _, path = pod.image.partition("@")[0].partition("/")
        if registry_name != self.place.name:
            return 0
        try:
            async with self._registry() as registry:
                manifest, _ = await registry.image(path, pod.image.partition("@")[2], self._sources.platform)
        except UserError:
            return 0
        return sum(one.size_bytes for one in set(manifest.layers))

    # ------------------------------------------------------------------------------------------------- a save

    async def _save(self, task: Task, wanted: Wanted, name: ImageName, folder: Path, history: bool) -> Result:
        task.begin("copying")
        pod, address, secret = await self._find(wanted)
        if not pod.image:
            raise UserError(422, _NOWHERE, reason="image-nowhere")
        told = await self._made(task, address, pod, wanted, secret, name, folder)
        written = Written(
            str(told["diff_id"]), str(told["digest"]), int(told["size_bytes"]), int(told["unpacked_bytes"])
        )
        async with self._registry() as registry:
            base = await self._base_of(task, registry, pod, secret, folder)
            image, manifest = await self._push(task, registry, base, written, folder, wanted.user, name)
        task.say(f"ready as {image}")
        return Result(
            image,
            sum(one.size_bytes for one in manifest.layers) + manifest.config.size_bytes,
            len(manifest.layers),
            f"{base.config.get('os', 'linux')}/{base.config.get('architecture', '')}",
            dict(told["changes"]),
            str(told["dockerfile"]),
        )

    async def _find(self, wanted: Wanted, *, secret: bool = True) -> tuple[Pod, str, Mapping[str, Any]]:
        selector = f"{names.RUN}={wanted.run}"
        pods, _ = await self._nodes.list("Pod", selector)
        pod = pod_of(pods, wanted)
        agents, _ = await self._agents.list("Pod", f"{AGENT_OF}={self._nodes.namespace}")
        address = agent_on(agents, pod.machine)
        if not secret:
            return pod, address, {}
        found = await self._nodes.get("Secret", names.base_name(wanted.user, wanted.server))
        if found is None or (found["metadata"].get("labels") or {}).get(names.RUN) != wanted.run:
            raise UserError(409, _GONE, reason="node-gone")
        return pod, address, found

    async def _made(
        self,
        task: Task,
        address: str,
        pod: Pod,
        wanted: Wanted,
        secret: Mapping[str, Any],
        name: ImageName,
        folder: Path,
    ) -> dict[str, Any]:
        """Have the agent make the layer, and fetch it."""
        keys = {key: base64.b64encode(value).decode() for key, value in keys_in(secret).items()}
        question = {**_question(pod, wanted), "secrets": keys, "name": f"{wanted.user}/{name}"}
        async with self.speak(address, ASK_SECONDS) as agent:
            job = await asked(agent, "POST", "/saves", question)
            where = f"/saves/{job['id']}"
            before = len(task.lines)
            try:
                while True:
                    job = await asked(agent, "GET", where)
                    task.lines[before:] = [str(line) for line in job["lines"]]
                    task.step = job["step"] or task.step
                    task.at(int(job["done_bytes"]), job["total_bytes"])
                    if job["state"] != "going":
                        break
                    await asyncio.sleep(POLL_SECONDS)
                if job["state"] == "cancelled":
                    raise GivenUp
                if job["state"] != "done":
                    raise _told(job.get("error"))
                result: dict[str, Any] = job["result"]
                disk_reserve.need(folder, int(result["size_bytes"]))
                await self._fetch_layer(task, agent, f"{where}/layer", result, folder / "layer.tar.gz")
            finally:
                with suppress(httpx.HTTPError):
                    await asyncio.shield(agent.delete(where))
        return result

    async def _fetch_layer(
        self, task: Task, agent: httpx.AsyncClient, where: str, result: Mapping[str, Any], path: Path
    ) -> None:
        size, hashed = int(result["size_bytes"]), hashlib.sha256()
        task.begin("writing", size)
        done = 0
        try:
            with open(path, "wb") as file:  # noqa: ASYNC230 - a megabyte at a time, in threads
                async with agent.stream("GET", where) as answer:
                    if answer.status_code != 200:
                        raise UserError(503, _AGENT_AWAY, reason="agent-away")
                    async for piece in answer.aiter_bytes(1 << 20):
                        done += len(piece)
                        if done > size:
                            break
                        hashed.update(piece)
                        await asyncio.to_thread(file.write, piece)
                        task.at(done)
        except httpx.HTTPError as error:
            raise UserError(503, _AGENT_AWAY, reason="agent-away") from error
        if done != size or f"sha256:{hashed.hexdigest()}" != result["digest"]:
            raise UserError(503, _AGENT_AWAY, reason="agent-away")

    def speak(self, address: str, seconds: float) -> httpx.AsyncClient:
        """A client of an agent, to be closed."""
        return self._client(
            base_url=address,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(seconds, connect=10),
            trust_env=False,
        )

    # ----------------------------------------------------------------------------------------------- the parent

    async def _base_of(
        self, task: Task, registry: Registry, pod: Pod, secret: Mapping[str, Any], folder: Path
    ) -> _Base:
        """The parent in our registry; copied there when it is not."""
        task.begin("base")
        named, _, digest = pod.image.partition("@")
        host, _, repository = named.partition("/")
        if host == self.place.name:
            manifest, _ = await registry.image(repository, digest, self._sources.platform)
            return await self._read_base(registry, repository, manifest.digest)
        path = self.place.repository(f"bases/{digest.removeprefix('sha256:')[:40]}")
        await task.books.base(path)
        try:
            return await self._read_base(registry, path, "1")
        except UserError as error:
            if error.status != 404:
                raise
        begun = task.monotonic()
        source, watch = self._sources.open(host, login_in(secret, host))
        async with source:
            try:
                manifest, _ = await source.image(repository, digest, self._sources.platform)
                await self._copy(task, source, repository, manifest, registry, path, folder)
            except UserError as error:
                if watch.refused:
                    raise guard.forbidden(watch.refused) from error
                raise
        task.say(f"the image below was brought to the registry in {task.monotonic() - begun:.1f} s")
        return await self._read_base(registry, path, "1")

    async def _copy(
        self,
        task: Task,
        source: Registry,
        repository: str,
        manifest: Manifest,
        registry: Registry,
        path: str,
        folder: Path,
    ) -> None:
        blobs = list(dict.fromkeys(manifest.blobs))
        task.begin("base", sum(one.size_bytes for one in blobs))
        done = 0
        for blob in blobs:
            if await registry.blob_size(path, blob.digest) is None:
                disk_reserve.need(folder, blob.size_bytes)
                with tempfile.TemporaryFile(dir=folder) as file:
                    await self._until_stopped(task, source.pull_blob(repository, blob, file))
                    await self._until_stopped(task, registry.push_blob(path, blob, file))
            done += blob.size_bytes
            task.at(done)
        body, _ = await source.manifest(repository, manifest.digest)
        await registry.put_manifest(path, "1", body, manifest.media_type)


def _question(pod: Pod, wanted: Wanted) -> dict[str, Any]:
    return {
        "container": pod.container,
        "user": wanted.user,
        "server": wanted.server,
        "run": wanted.run,
        "rank": wanted.rank,
    }


async def asked(
    agent: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """An answer of an agent.

    Raises
    ------
    UserError
        What it says; 503 when it does not answer.
    """
    try:
        answer = await agent.request(method, path, json=body)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise UserError(503, _AGENT_AWAY, reason="agent-away") from error
    if answer.status_code >= 400 or not isinstance(told, dict):
        raise _told({"status": answer.status_code, **told} if isinstance(told, dict) else None)
    return told


def _told(error: Mapping[str, Any] | None) -> UserError:
    if not error or "params" not in error:
        return UserError(503, _AGENT_AWAY, reason="agent-away")
    return UserError(
        int(error["status"]), str(error["message"]), reason=str(error.get("reason", "")), **error["params"]
    )
