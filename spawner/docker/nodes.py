"""Nodes as containers of this machine: made together, looked at, removed as a whole.

:class:`ContainerNodes` knows nothing of the hub, of rows or of rules; :class:`~spawner.docker.cluster.DockerCluster`
glues it to them. It keeps nothing of its own: a cluster is its network, its containers and a directory with
its keys, all called after (user, server), and is removed in the reverse order, whoever made it.

A request that is on its way when a start is cancelled goes on to its end; a removal waits for it first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from galilean.errors import UserError
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.collaborators import PullLogin
from spawner.docker import again, cards, containers, names, scratch, setuid, subnets, troubles
from spawner.docker.again import ContainerAgain
from spawner.docker.api import APIError, Client, DockerAPI, ImageNotFound, NotFound, PullFailed, said
from spawner.docker.gate import Gate
from spawner.docker.keeper import KEEP_SECONDS
from spawner.docker.spec import GRACE_SECONDS, ClusterSpec, Given
from spawner.docker.troubles import Container
from spawner.docker.watch import ContainerWatch
from spawner.keys import ClusterKeys
from spawner.kubernetes.answers import answered
from spawner.node.place import node_prefix
from spawner.process.layout import base_name
from spawner.requests import OnTheWay, all_at_once
from spawner.steps import NodeEnd

#: Endpoints of a removed container leave its network a moment later.
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
LOG_LINES = 20


class StillThere(Exception):
    """Something of a cluster could not be removed; to be called again."""


class ContainerNodes:
    """The nodes of all clusters of one instance.

    Parameters
    ----------
    api
        The daemon.
    watch
        What its containers do.
    directory
        Where the clusters' keys are, a directory for each; nobody else may look in.
    pool
        The addresses that networks are taken from.
    gpus
        Ids of the machine's cards.
    gate
        Opens ways to licence servers in the machine's firewall.
    ask
        Waits until a node answers at an address, like :func:`spawner.kubernetes.answers.answered`.
    """

    def __init__(
        self,
        api: DockerAPI,
        watch: ContainerWatch,
        *,
        directory: Path,
        pool: IPv4Network,
        gpus: tuple[str, ...] = (),
        gate: Gate | None = None,
        ask: Callable[[str], Awaitable[bool]] = answered,
        log: Any = None,
    ) -> None:
        self.api, self.watch, self.instance = api, watch, watch.instance
        self._directory, self._pool, self._gpus, self._ask = Path(directory).absolute(), pool, gpus, ask
        self._gate = gate or Gate()
        self._log = log or logging.getLogger(__name__)
        self._on_the_way = OnTheWay()
        self._dealt: dict[str, set[str]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._placing = asyncio.Lock()
        self._guarding: asyncio.Task[None] | None = None

    def __deepcopy__(self, memo: Any) -> ContainerNodes:
        return self  # traitlets copies what is configured

    def guard(self) -> None:
        """Look after the firewall's table from now on, as long as the loop turns."""
        if self._guarding is None or self._guarding.done():
            self._guarding = asyncio.ensure_future(self._guard())

    async def _guard(self) -> None:
        while True:
            try:
                await self.api.do(self._gate.keep)
            except Exception as error:  # said each time: the machine is open
                self._log.error("%s", error)
            await asyncio.sleep(KEEP_SECONDS)

    def secrets(self, base: str) -> Path:
        """Where the keys of a cluster are, while it exists."""
        return self._directory / base / "secrets"

    # ------------------------------------------------------------------------------------------- making

    async def create(self, spec: ClusterSpec, progress: NodeProgress, login: PullLogin | None = None) -> None:
        """Make all nodes in parallel; come back when every one answers. Cancelled, it lets go at once.

        Raises
        ------
        NodeFailed
            As soon as one node cannot be made or ends before it answers.
        UserError
            503 when Docker does not answer, or there is no network or no card for it now.
        """
        try:
            await self.watch.look()
        except Exception as error:
            raise UserError(503, troubles.AWAY) from error
        if spec.sudo and not await self.api.ask(setuid.maps_users):
            way_out = await self.api.do(lambda: setuid.first_open(spec.mounts))
            if way_out is not None:
                raise UserError(503, troubles.SETUID, place=f"~/{way_out.target}")
        await self._image(spec, progress, login)
        name = names.network_name(spec.instance, spec.base)
        there = await self.api.ask(lambda client: client.networks(names=[name]))
        if self.watch.containers(spec.base) or any(network["Name"] == name for network in there):
            self._log.info("%s: leftovers are removed first", name)
            await self.remove(spec.user, spec.server)
        given = await self._place(spec)
        try:
            await self._on_the_way.send(spec.base, self.api.do(lambda: self._prepare(spec, given)))
        except OSError as error:
            message, params = troubles.why_not_prepared(error)
            raise NodeFailed(0, message, **params) from error
        # Also for a cluster without any: its interface has the name of the one before it.
        bridge = names.bridge_name(spec.instance, spec.base)
        await self._on_the_way.send(spec.base, self.api.do(lambda: self._gate.open(bridge, spec.ways)))
        with self.watch.follow(spec.base) as changed:
            tasks = [
                asyncio.ensure_future(self._node(spec, rank, given, progress)) for rank in range(spec.nodes)
            ]
            every = asyncio.ensure_future(all_at_once(tasks))
            watching = asyncio.ensure_future(self._until_one_ends(spec, changed))
            try:
                done, _ = await asyncio.wait({watching, every}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (*tasks, every, watching):
                    task.cancel()
                    task.add_done_callback(lambda over: over.cancelled() or over.exception())

    async def _node(self, spec: ClusterSpec, rank: int, given: Given, progress: NodeProgress) -> None:
        body = containers.container(spec, rank, given)
        try:
            await self._on_the_way.send(
                spec.base, self.api.ask(lambda client: _create_and_start(client, spec.name(rank), body))
            )
        except (APIError, NotFound) as error:
            message, params = troubles.why_not_made(said(error))
            raise NodeFailed(rank, message, **params) from error
        host = os.uname().nodename
        progress.placed(rank, host=host)
        url = containers.url(given, rank)
        while not await self._ask(f"{url}{node_prefix(spec.prefix, rank)}api"):
            pass
        progress.ready(rank, url=url, host=host)

    async def _until_one_ends(self, spec: ClusterSpec, changed: asyncio.Event) -> None:
        """Raise when a node of this run ends; else go on for ever."""
        while True:
            changed.clear()
            for rank, item in sorted(self.watch.containers(spec.base).items()):
                if item.run == spec.run and item.over:
                    log = await self._tail(item)
                    message, params = troubles.why_ended(item.reason, log)
                    raise NodeFailed(rank, message, **params)
            await changed.wait()

    async def _tail(self, item: Container) -> str:
        try:
            text = await self.api.ask(lambda client: client.logs(item.id, tail=LOG_LINES))
        except Exception as error:  # it is only to explain
            self._log.debug("%s: no log: %r", item.name, error)
            return ""
        return text.decode(errors="replace").strip()[-400:]

    async def _image(self, spec: ClusterSpec, progress: NodeProgress, login: PullLogin | None) -> None:
        if spec.pull_policy != "Always" and await self.api.ask(lambda client: _has_image(client, spec.image)):
            return
        if spec.pull_policy == "Never":
            raise NodeFailed(0, troubles.NO_IMAGE, image=spec.image)
        progress.trouble(0, troubles.PULLING, image=spec.image)
        pull = self._pulls.get(spec.image)
        if pull is None or pull.done():  # one for all who want it; a start that is cancelled leaves it going
            pull = self._pulls[spec.image] = asyncio.ensure_future(self.api.pull(spec.image, login))
            pull.add_done_callback(lambda over: over.cancelled() or over.exception())
        try:
            await asyncio.shield(pull)
        except PullFailed as error:
            why = troubles.why_not_pulled(str(error))
            raise NodeFailed(0, troubles.PULL_FAILED, image=spec.image, why=why) from error

    async def _place(self, spec: ClusterSpec) -> Given:
        """Cards and a network of the cluster's own; the network is made."""
        async with self._placing:
            dealt: Mapping[int, list[str]] = {}
            if spec.gpu:
                held = self.watch.cards().union(*self._dealt.values())
                found = cards.deal(self._gpus, held, spec.nodes, spec.gpu)
                if found is None:
                    raise UserError(503, troubles.NO_CARDS, reason="queued")
                dealt = found
                self._dealt[spec.base] = {card for each in dealt.values() for card in each}
            taken = await self.api.ask(_subnets)
            for network in subnets.free(self._pool, spec.nodes, taken):
                given = Given(network=network, gpus=dealt)
                body = containers.network(spec, given)
                try:
                    await self._on_the_way.send(
                        spec.base,
                        self.api.ask(lambda client, body=body: client.create_network(**body)),
                    )
                except APIError as error:
                    if "overlap" in said(error).lower():
                        continue  # with something that no list of networks tells
                    message, params = troubles.why_not_made(said(error))
                    raise NodeFailed(0, message, **params) from error
                return given
        raise UserError(503, troubles.NO_NETWORK, reason="queued")

    def _prepare(self, spec: ClusterSpec, given: Given) -> None:
        """Write the cluster's keys and its recipe, and give the project's directory to the nodes' account."""
        folder = Path(spec.secrets)
        # Closed above, open below: who is root here hands them to an account that is nobody here.
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        keys = ClusterKeys.new()
        for name, content in {**keys.ssh_files(), "cookie_secret": keys.cookie_secret}.items():
            path = folder / name
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)
        bodies = {str(rank): containers.container(spec, rank, given) for rank in range(spec.nodes)}
        again.keep(self._recipe(spec.base), spec.prefix, bodies)
        if os.geteuid() == 0:
            uid, _, gid = spec.account.partition(":")
            for mount in spec.mounts:  # what may only be read has to be readable
                hand_over(Path(mount.source), int(uid), int(gid or uid))

    # ------------------------------------------------------------------------------------------- looking

    async def look(self, user: str, server: str, run: str) -> dict[int, NodeLook]:
        """The nodes of a run by rank, as the stream of events tells; asks nobody while that is open.

        Raises
        ------
        Exception
            When it cannot look.
        """
        await self.watch.look()
        return {
            rank: NodeLook(alive=not item.over, ended_at=item.ended_at, exit_reason=item.reason)
            for rank, item in self.watch.containers(base_name(user, server)).items()
            if item.run == run
        }

    # ------------------------------------------------------------------------------- one node of a cluster

    def again(self, user: str, server: str) -> ContainerAgain:
        """Ends and makes single nodes of a cluster."""
        base = base_name(user, server)
        return ContainerAgain(
            self.api, self.watch, self._on_the_way, base, self._recipe(base), ask=self._ask, log=self._log
        )

    def _recipe(self, base: str) -> Path:
        """Where the bodies of a cluster's containers are kept: they name the hub's token."""
        return self._directory / base / "containers.json"

    # ------------------------------------------------------------------------------------------ removing

    async def remove(self, user: str, server: str) -> dict[int, NodeEnd]:
        """Remove everything of a cluster, whichever run made it; how its nodes ended, by rank.

        Raises
        ------
        Exception
            When it cannot be sure that nothing is left; to be called again.
        """
        base = base_name(user, server)
        await self._on_the_way.landed(base)
        before = {rank: item for rank, item in self.watch.containers(base).items() if item.over}
        ends: dict[int, NodeEnd] = {}
        for pause in PAUSES_SECONDS:
            ids = await self.api.ask(lambda client: _container_ids(client, self.instance, base))
            if not ids:
                break
            for item in await all_at_once(
                [self.api.ask(lambda client, i=i: _end(client, i, self.instance)) for i in ids]
            ):
                if item is not None:
                    ends.setdefault(item[0], item[1])
            await asyncio.sleep(pause)
        else:
            raise StillThere(f"{base}: {len(ids)} containers do not go")
        for pause in PAUSES_SECONDS:
            left = await self.api.ask(lambda client: _remove_networks(client, self.instance, base))
            if not left:
                break
            await asyncio.sleep(pause)
        else:
            raise StillThere(f"{base}: its network does not go")
        if await self.api.ask(lambda client: _container_ids(client, self.instance, base)):
            raise StillThere(f"{base}: a container came meanwhile")
        await self.api.ask(lambda client: scratch.remove_volumes(client, self.instance, base))
        bridge = names.bridge_name(self.instance, base)
        await self.api.do(lambda: self._gate.close(bridge))
        folder = self._directory / base
        await self.api.do(lambda: shutil.rmtree(folder, ignore_errors=True))
        self._dealt.pop(base, None)
        self.watch.forget(base)
        for rank, item in before.items():  # what had gone by itself, and was put away by somebody else
            ends.setdefault(rank, NodeEnd(at=item.ended_at, exit_reason=item.reason))
        return ends


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """Give what is root's in a directory to an account; follows no link, and asks for no name twice."""
    for _, folders, files, fd in os.fwalk(directory, follow_symlinks=False):
        if os.fstat(fd).st_uid == 0:
            os.fchown(fd, uid, gid)
        for name in (*files, *folders):
            entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if entry.st_uid == 0 and not stat.S_ISDIR(entry.st_mode):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)


# ------------------------------------------------------------------------------- in the threads of the API


def _has_image(client: Client, image: str) -> bool:
    try:
        client.inspect_image(image)
    except ImageNotFound:
        return False
    return True


def _subnets(client: Client) -> list[IPv4Network]:
    found: list[IPv4Network] = []
    for network in client.networks():
        for config in (network.get("IPAM") or {}).get("Config") or ():
            if ":" not in config.get("Subnet", ":"):
                found.append(IPv4Network(config["Subnet"], strict=False))
    return found


def _create_and_start(client: Client, name: str, body: Mapping[str, Any]) -> None:
    try:
        made = client.create_container_from_config(dict(body), name)
    except APIError as error:
        if error.status_code != 409 or "already in use" not in said(error):
            raise
        client.remove_container(name, force=True, v=True)  # of a life whose directory was lost
        made = client.create_container_from_config(dict(body), name)
    scratch.hand_over(client, made["Id"], body)
    client.start(made["Id"])


def _container_ids(client: Client, instance: str, base: str) -> list[str]:
    chosen = [f"{names.INSTANCE}={instance}", f"{names.CLUSTER}={base}"]
    return [
        item["Id"]
        for item in client.containers(all=True, filters={"label": chosen})
        if names.told(item.get("Labels") or {}, instance) is not None
    ]


def _end(client: Client, container_id: str, instance: str) -> tuple[int, NodeEnd] | None:
    """End a container and remove it; its rank and how it ended, ``None`` when it is gone already."""
    try:
        before = troubles.container(client.inspect_container(container_id), instance)
        if before is not None and before.running:
            client.stop(container_id, timeout=GRACE_SECONDS)
        after = troubles.container(client.inspect_container(container_id), instance)
    except NotFound:
        return None
    try:
        client.remove_container(container_id, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:  # being removed by somebody else
            raise
    if before is None or after is None:
        return None
    if before.running:
        return before.rank, NodeEnd(at=after.ended_at or datetime.now(UTC), exit_reason="released")
    return before.rank, NodeEnd(at=before.ended_at, exit_reason=before.reason)


def _remove_networks(client: Client, instance: str, base: str) -> list[str]:
    """Remove the networks of a cluster; the names of those that did not go."""
    chosen = [f"{names.INSTANCE}={instance}", f"{names.CLUSTER}={base}"]
    left: list[str] = []
    for network in client.networks(filters={"label": chosen}):
        try:
            client.remove_network(network["Id"])
        except NotFound:
            pass
        except APIError as error:
            if error.status_code not in (403, 409):
                raise
            for endpoint in (client.inspect_network(network["Id"]).get("Containers") or {}).values():
                client.disconnect_container_from_network(endpoint["Name"], network["Id"], force=True)
            left.append(network["Name"])
    return left
