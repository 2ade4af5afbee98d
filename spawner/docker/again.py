"""One node of a cluster of containers ended and made anew, while the others go on (:mod:`spawner.renewal`).

A restart is the same container, stopped and started: what was written into it stays. A reset removes it and makes
it from what it was made from, of the image that it had, also when its name means another image by now. It has the
same address and cards. What it was made from names the hub's token: it is kept beside the cluster's keys, in a file
that only the hub's account reads (:func:`keep`), and goes with them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from galilean.errors import mark
from spawner.backend import NodeFailed, NodeProgress
from spawner.docker import names, scratch, troubles
from spawner.docker.api import APIError, Client, DockerAPI, ImageNotFound, NotFound, said
from spawner.docker.spec import GRACE_SECONDS, HTTP_PORT
from spawner.docker.watch import ContainerWatch
from spawner.node.place import node_prefix
from spawner.process.layout import read_json, write_secret
from spawner.renewal import RESET
from spawner.requests import OnTheWay
from spawner.steps import NodeEnd

LOG_LINES = 20
#: How long the stream of events may take to tell what was done to a container.
TOLD_SECONDS = 30.0

_NO_RECIPE = mark(
    "Node {rank} was made by an older version, which did not write down from what. Release the cluster and run it again."
)
_NO_IMAGE = mark("The image of node {rank} is not on this machine any more, so the node cannot be reset.")


def keep(path: Path, prefix: str, bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down from what the nodes of a cluster are made."""
    write_secret(path, json.dumps({"prefix": prefix, "containers": bodies}).encode())


class ContainerAgain:
    """Single nodes of one cluster.

    Parameters
    ----------
    api, watch, on_the_way
        The daemon, what its containers do, and requests that are under way.
    base
        What all objects of the cluster are called after.
    recipe
        Where :func:`keep` wrote.
    ask
        Waits until a node answers at an address.
    """

    def __init__(
        self,
        api: DockerAPI,
        watch: ContainerWatch,
        on_the_way: OnTheWay,
        base: str,
        recipe: Path,
        *,
        ask: Callable[[str], Awaitable[bool]],
        log: Any,
    ) -> None:
        self._api, self._watch, self._on_the_way = api, watch, on_the_way
        self._base, self._recipe, self._ask, self._log = base, recipe, ask, log

    async def check(self, rank: int, how: str) -> None:
        """Whether a node can be made again.

        Raises
        ------
        NodeFailed
            When nobody wrote down what it was made from, or its image is gone.
        """
        body = (await self._kept(rank))["body"]
        name = self._name(rank)
        if not await self._api.ask(lambda client: _can_be_made(client, name, body, fresh=how == RESET)):
            raise NodeFailed(rank, _NO_IMAGE)

    async def end(self, run: str, rank: int) -> NodeEnd | None:
        """Stop the node's container; it stays for a restart.

        Raises
        ------
        Exception
            When it cannot be sure that nothing of it runs.
        """
        await self._on_the_way.landed(self._base)
        name, instance = self._name(rank), self._watch.instance
        return await self._api.ask(lambda client: _stop(client, name, instance, run))

    async def make(self, run: str, rank: int, how: str, progress: NodeProgress) -> None:
        """Start the node's container, or make it anew; come back when it answers.

        Raises
        ------
        NodeFailed
            When it cannot be made or ends before it answers.
        """
        kept = await self._kept(rank)
        name, instance = self._name(rank), self._watch.instance
        # Else its end, told late, would be taken for one of the new container.
        await self._until_told(run, rank, runs=False)
        try:
            await self._on_the_way.send(
                self._base,
                self._api.ask(
                    lambda client: _start(client, name, kept["body"], instance, run, fresh=how == RESET)
                ),
            )
        except ImageNotFound as error:
            raise NodeFailed(rank, _NO_IMAGE) from error
        except (APIError, NotFound) as error:
            message, params = troubles.why_not_made(said(error))
            raise NodeFailed(rank, message, **params) from error
        host = os.uname().nodename
        progress.placed(rank, host=host)
        url = f"http://{_address(kept['body'])}:{HTTP_PORT}"
        watching = asyncio.ensure_future(self._until_it_ends(run, rank))
        answering = asyncio.ensure_future(
            self._until_it_answers(run, rank, f"{url}{node_prefix(kept['prefix'], rank)}api")
        )
        try:
            done, _ = await asyncio.wait({watching, answering}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watching, answering):
                task.cancel()
                task.add_done_callback(lambda over: over.cancelled() or over.exception())
        progress.ready(rank, url=url, host=host)

    async def _until_it_answers(self, run: str, rank: int, url: str) -> None:
        while not await self._ask(url):
            pass
        # The next look reads what the events have told; an end without its new start would be a loss.
        await self._until_told(run, rank, runs=True)

    async def _until_told(self, run: str, rank: int, *, runs: bool) -> None:
        """Wait until the events have told whether the node runs, for as long as that is of use."""
        self._watch.start()
        try:
            async with asyncio.timeout(TOLD_SECONDS):
                with self._watch.follow(self._base) as changed:
                    while self._told_running(run, rank) is not runs:
                        changed.clear()
                        await changed.wait()
        except TimeoutError:
            self._log.warning("%s: Docker's events are late, going on without them", self._name(rank))

    def _told_running(self, run: str, rank: int) -> bool:
        item = self._watch.containers(self._base).get(rank)
        return item is not None and item.run == run and item.running

    async def _until_it_ends(self, run: str, rank: int) -> None:
        """Raise when the node ends; the daemon is asked, for the watch may still tell of its end before."""
        name, instance = self._name(rank), self._watch.instance
        with self._watch.follow(self._base) as changed:
            while True:
                changed.clear()
                how = await self._api.ask(lambda client: _how_it_ended(client, name, instance))
                if how is not None:
                    message, params = troubles.why_ended(*how)
                    raise NodeFailed(rank, message, **params)
                await changed.wait()

    async def _kept(self, rank: int) -> dict[str, Any]:
        found = await self._api.do(lambda: read_json(self._recipe))
        body = ((found or {}).get("containers") or {}).get(str(rank))
        if found is None or body is None:
            raise NodeFailed(rank, _NO_RECIPE)
        return {"prefix": found["prefix"], "body": body}

    def _name(self, rank: int) -> str:
        return names.container_name(self._watch.instance, self._base, rank)


def _address(body: Mapping[str, Any]) -> str:
    (endpoint,) = body["NetworkingConfig"]["EndpointsConfig"].values()
    return str(endpoint["IPAMConfig"]["IPv4Address"])


# ------------------------------------------------------------------------------- in the threads of the API


def _inspect(client: Client, name: str) -> dict[str, Any] | None:
    try:
        return client.inspect_container(name)
    except NotFound:
        return None


def _image_of(client: Client, name: str, body: Mapping[str, Any]) -> str | None:
    """The image to make a container of: the one that it has; ``None`` when there is none."""
    there = _inspect(client, name)
    for image in ([str(there["Image"])] if there is not None else []) + [str(body["Image"])]:
        try:
            found = str(client.inspect_image(image)["Id"])
        except (ImageNotFound, NotFound):
            continue
        try:
            same = str(client.inspect_image(str(body["Image"]))["Id"]) == found
        except (ImageNotFound, NotFound):
            same = False
        return str(body["Image"]) if same else found
    return None


def _can_be_made(client: Client, name: str, body: Mapping[str, Any], *, fresh: bool) -> bool:
    if not fresh and _inspect(client, name) is not None:
        return True
    return _image_of(client, name, body) is not None


def _stop(client: Client, name: str, instance: str, run: str) -> NodeEnd | None:
    found = _inspect(client, name)
    before = troubles.container(found, instance) if found is not None else None
    if before is None or before.run != run:
        return None
    if not before.running:
        return NodeEnd(at=before.ended_at, exit_reason=before.reason) if before.begun else None
    try:
        client.stop(before.id, timeout=GRACE_SECONDS)
    except NotFound:
        return NodeEnd(at=datetime.now(UTC))
    after = _inspect(client, name)
    seen = troubles.container(after, instance) if after is not None else None
    if seen is not None and seen.running:
        raise RuntimeError(f"{name} goes on although it was stopped")
    return NodeEnd(at=(seen.ended_at if seen is not None else None) or datetime.now(UTC))


def _start(
    client: Client, name: str, body: Mapping[str, Any], instance: str, run: str, *, fresh: bool
) -> None:
    found = _inspect(client, name)
    there = troubles.container(found, instance) if found is not None else None
    if there is not None and there.run == run and not fresh:
        client.start(there.id)
        return
    image = _image_of(client, name, body)
    if image is None:
        raise ImageNotFound(f"no such image: {body['Image']}")
    if found is not None:
        try:
            client.remove_container(found["Id"], force=True, v=True)
        except NotFound:
            pass
    made = client.create_container_from_config({**body, "Image": image}, name)
    scratch.hand_over(client, made["Id"], body)
    client.start(made["Id"])


def _how_it_ended(client: Client, name: str, instance: str) -> tuple[str, str] | None:
    """How a container ended that was started, with the end of its log; ``None`` while it runs."""
    found = _inspect(client, name)
    item = troubles.container(found, instance) if found is not None else None
    if item is None:
        return "deleted", ""
    if not item.over:
        return None
    try:
        text = client.logs(item.id, tail=LOG_LINES)
    except Exception:  # it is only to explain
        text = b""
    return item.reason, text.decode(errors="replace").strip()[-400:]
