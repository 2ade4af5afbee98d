"""Nodes as processes of this machine: made together, looked at, removed as a whole.

:class:`ProcessNodes` knows nothing of the hub, of rows or of rules; :class:`ProcessCluster` glues it to
them. It keeps no state of its own: everything is in the cluster's directory and in ``/proc``, so that a
hub that came back, or the sweeper beside it, sees the same.

Making and removing meet at the cluster's lock. A start holds it for each node while it starts the process
and writes it down; a removal marks the run as unwanted under the same lock, then ends every process. So a
node that is started a moment after the removal was asked for either was written down before, or is not
started any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from galilean.errors import mark
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.node.marks import Mark
from spawner.process.exits import ended_at, exit_reason, write_exit
from spawner.process.family import end_family
from spawner.process.handles import Handle
from spawner.process.layout import ClusterDirectory
from spawner.process.prepare import (
    ClusterSpec,
    PreparedNode,
    Recipe,
    prepare,
    prepare_again,
    read_recipe,
    write_node,
)
from spawner.process.pythons import whole
from spawner.process.start import Started, start_node

THREADS = 8
#: How long the record of an end may take from the death of a process to the disk.
RECORD_SECONDS = 1.0
#: How long a node's server may take to end what it started, before all that is left of the node is ended with it.
SERVER_SECONDS = 5.0

_ENDED = mark("Node {rank} ended before it answered ({how}). Its log says: {log}")
_NOT_STARTED = mark("Node {rank} could not be started: {why}")
_NO_PROGRAM = mark(
    "The program of its environment is missing on this machine: {program}. Choose another environment, or tell "
    "an administrator."
)
_NO_RECIPE = mark(
    "Node {rank} was made by an older version, which did not write down from what. Release the cluster and run it again."
)
_NO_WORK = mark("Node {rank} cannot be made again: the project's directory is not there.")
_NO_ROOM = mark("The cluster could not be prepared on this machine: {why}")


class Unwanted(Exception):
    """The run was removed while it was being started."""


class ProcessNodes:
    """The nodes of all clusters of one state directory.

    Parameters
    ----------
    state
        The state directory; clusters live in ``clusters/`` below it.
    zygote
        Socket of the zygote; ``None`` = always start plainly.
    log
        Told how each node was started.
    threads
        For everything that blocks; handed in so that many instances share one pool.
    """

    def __init__(self, state: Path, zygote: Path | None, *, log: Any, threads: ThreadPoolExecutor) -> None:
        self.clusters = Path(state).absolute() / "clusters"
        self._logs = Path(state).absolute() / "logs" / "nodes"
        self._zygote = zygote
        self._log = log
        self._threads = threads

    def directory(self, user: str, server: str) -> ClusterDirectory:
        """Where the cluster of (user, server) lives."""
        return ClusterDirectory.of(self.clusters, user, server)

    async def create(self, spec: ClusterSpec, progress: NodeProgress) -> None:
        """Make all nodes in parallel; come back when every one answers.

        What is left of an older run under the same name is removed first. Cancelled, it lets go at once.

        Raises
        ------
        NodeFailed
            As soon as one node cannot be started or ends before it answers.
        Unwanted
            When the run was removed meanwhile.
        """
        directory = self.directory(spec.user, spec.server)
        if directory.path.exists():
            await self.remove(spec.user, spec.server)
        try:
            prepared = await self._in_thread(self._prepare, spec, directory)
        except OSError as error:
            raise NodeFailed(0, _NO_ROOM, why=error.strerror or str(error)) from error
        loop = asyncio.get_running_loop()
        waits = [
            loop.create_task(self._answered(directory, node, _first_byte(loop, node), progress))
            for node in prepared
        ]
        try:
            await self._in_thread(
                self._start_all,
                spec,
                directory,
                prepared,
                lambda node, started: loop.call_soon_threadsafe(
                    self._placed, directory, node, started, progress
                ),
            )
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
                wait.add_done_callback(lambda task: task.cancelled() or task.exception())
            for node in prepared:
                loop.remove_reader(node.ready)
                node.ready.close()

    async def check(self, user: str, server: str, rank: int) -> None:
        """Whether a node can be made again.

        Raises
        ------
        NodeFailed
            When nobody wrote down what it was made from, or that is not there any more.
        """
        await self._in_thread(self._check, self.directory(user, server), rank)

    @staticmethod
    def _check(directory: ClusterDirectory, rank: int) -> None:
        recipe = read_recipe(directory, rank)
        if recipe is None:
            raise NodeFailed(rank, _NO_RECIPE)
        if recipe.python and not os.access(recipe.python, os.X_OK):
            raise NodeFailed(rank, _NO_PROGRAM, program=recipe.python)
        if recipe.layer and whole(Path(recipe.layer)) is None:
            raise NodeFailed(rank, _NO_PROGRAM, program=recipe.layer)
        if not Path(recipe.work).is_dir():
            raise NodeFailed(rank, _NO_WORK)

    async def end(self, user: str, server: str, run: str, rank: int) -> NodeLook | None:
        """End every process of one node; how it ended, ``None`` when nothing of it was there.

        Raises
        ------
        StillThere, OSError
            When it cannot be sure that nothing is left.
        """
        return await self._in_thread(end_one, self.directory(user, server), run, rank)

    async def make(
        self, user: str, server: str, run: str, rank: int, progress: NodeProgress, *, empty: bool
    ) -> None:
        """Make one node again, of which nothing runs; come back when it answers.

        Raises
        ------
        NodeFailed
            When it cannot be started or ends before it answers.
        Unwanted
            When the run was removed meanwhile.
        """
        directory = self.directory(user, server)
        recipe = await self._in_thread(read_recipe, directory, rank)
        if recipe is None:
            raise NodeFailed(rank, _NO_RECIPE)
        try:
            node = await self._in_thread(self._prepare_again, directory, run, rank, recipe, empty)
        except OSError as error:
            raise NodeFailed(rank, _NOT_STARTED, why=error.strerror or str(error)) from error
        loop = asyncio.get_running_loop()
        try:
            started = await self._in_thread(self._start_wanted, run, directory, node)
            self._placed(directory, node, started, progress)
            await self._answered(directory, node, _first_byte(loop, node), progress)
        finally:
            loop.remove_reader(node.ready)
            node.ready.close()
            node.close()

    @staticmethod
    def _prepare_again(
        directory: ClusterDirectory, run: str, rank: int, recipe: Recipe, empty: bool
    ) -> PreparedNode:
        with directory.locked():
            if directory.wanted_run() != run:
                raise Unwanted
            return prepare_again(directory, rank, recipe, empty=empty)

    def _start_wanted(self, run: str, directory: ClusterDirectory, node: PreparedNode) -> Started:
        with directory.locked():
            if directory.wanted_run() != run:
                raise Unwanted
            started = self._start_one(run, directory, node)
        node.close()
        return started

    async def remove(self, user: str, server: str) -> dict[int, NodeLook]:
        """End everything of the cluster and remove its directory; how each node ended, by rank.

        Raises
        ------
        StillThere, OSError
            When it cannot be sure that nothing is left.
        """
        return await self._in_thread(remove_cluster, self.directory(user, server), self._logs)

    def look(self, user: str, server: str, run: str) -> dict[int, NodeLook]:
        """The nodes of the run by rank; a few small files and one line of ``/proc`` for each.

        Raises
        ------
        OSError
            When it cannot look.
        """
        return look_at(self.directory(user, server), run)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    @staticmethod
    def _prepare(spec: ClusterSpec, directory: ClusterDirectory) -> list[PreparedNode]:
        with directory.locked():
            return prepare(spec, directory)

    def _start_all(
        self,
        spec: ClusterSpec,
        directory: ClusterDirectory,
        prepared: list[PreparedNode],
        placed: Callable[[PreparedNode, Started], object],
    ) -> None:
        """Start one node after the other: a start is milliseconds, what takes long runs in the nodes."""
        try:
            for node in prepared:
                started = self._start_wanted(spec.run, directory, node)
                with contextlib.suppress(RuntimeError):  # the loop is closed: the hub ends
                    placed(node, started)
        finally:
            for node in prepared:
                node.close()

    def _start_one(self, run: str, directory: ClusterDirectory, node: PreparedNode) -> Started:
        try:
            started = start_node(node.command, self._zygote)
        except FileNotFoundError as error:
            raise NodeFailed(node.rank, _NO_PROGRAM, program=str(error.filename or "?")) from error
        except OSError as error:
            raise NodeFailed(node.rank, _NOT_STARTED, why=error.strerror or str(error)) from error
        handle = Handle.of(started.pid)
        write_node(
            directory,
            node.rank,
            {
                "run": run,
                "rank": node.rank,
                "url": node.url,
                "zygote": started.popen is None,
                **(handle or Handle(started.pid, 0, "")).as_dict(),
            },
        )
        return started

    def _placed(
        self, directory: ClusterDirectory, node: PreparedNode, started: Started, progress: NodeProgress
    ) -> None:
        progress.placed(node.rank, host=os.uname().nodename)
        if started.why_plain:
            self._log.info("Node %s is started plainly: %s", node.rank, started.why_plain)
        if started.popen is not None:
            _collect_when_ended(started.popen, directory.exit_file(node.rank), self._threads)

    async def _answered(
        self,
        directory: ClusterDirectory,
        node: PreparedNode,
        byte: asyncio.Future[bytes],
        progress: NodeProgress,
    ) -> None:
        """Wait until the node answers, by the one byte it writes; an end without it is its death."""
        if await byte:
            progress.ready(node.rank, url=node.url, host=os.uname().nodename)
            return
        how, tail = await self._in_thread(_how_it_ended, directory, node.rank)
        raise NodeFailed(node.rank, _ENDED, how=how, log=tail)


def _first_byte(loop: asyncio.AbstractEventLoop, node: PreparedNode) -> asyncio.Future[bytes]:
    """What the node writes first; empty when it ended. The reader is removed by who asked for it."""
    byte: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        loop.remove_reader(node.ready)
        try:
            said = node.ready.recv(1)
        except OSError:
            said = b""
        if not byte.done():
            byte.set_result(said)

    loop.add_reader(node.ready, readable)
    return byte


def look_at(directory: ClusterDirectory, run: str | None = None) -> dict[int, NodeLook]:
    """The nodes that a cluster's directory tells of; only those of ``run`` when one is named."""
    found: dict[int, NodeLook] = {}
    for rank, said in directory.nodes().items():
        if run is not None and said.get("run") != run:
            continue
        handle = Handle.from_dict(said)
        if handle.alive():
            found[rank] = NodeLook(alive=True)
            continue
        record = directory.exit_of(rank)
        at = ended_at(record, handle.pid)
        reason = exit_reason(record["code"]) if record is not None and at is not None else "ended"
        found[rank] = NodeLook(alive=False, ended_at=at, exit_reason=reason)
    return found


def end_one(directory: ClusterDirectory, run: str, rank: int) -> NodeLook | None:
    """End every process of one node of a run, what it left running too; how it ended. Blocks.

    What is written of it stays until it is made again: whoever looks meanwhile learns when it ended.

    Raises
    ------
    StillThere, OSError
        When it cannot be sure that nothing is left; to be called again.
    """
    path = str(directory.path)

    def belongs(mark: Mark) -> bool:
        return (mark.directory, mark.run, mark.rank) == (path, run, rank)

    with directory.locked():
        before = look_at(directory, run).get(rank)
        said = directory.nodes().get(rank)
    handle = Handle.from_dict(said) if said and said.get("run") == run else None
    # Its server first: it ends its kernels by itself, and takes none for one that died.
    found = end_family(belongs, first=[handle] if handle else [], first_seconds=SERVER_SECONDS)
    if before is None or handle is None:
        return NodeLook(alive=False, ended_at=datetime.now(UTC)) if found else None
    if not before.alive:
        return before
    until = time.monotonic() + RECORD_SECONDS
    while (at := ended_at(directory.exit_of(rank), handle.pid)) is None and time.monotonic() < until:
        time.sleep(0.01)
    return NodeLook(alive=False, ended_at=at or datetime.now(UTC))


def remove_cluster(directory: ClusterDirectory, logs: Path | None = None) -> dict[int, NodeLook]:
    """End every process of a cluster, then remove its directory; how each node ended. Blocks.

    Nothing there is success. The last log of each node is kept in ``logs`` for whoever asks why.

    Raises
    ------
    StillThere, OSError
        When it cannot be sure that nothing is left; to be called again.
    """
    with directory.locked():
        run = directory.run()
        if run is not None:
            directory.write_run({**run, "removing": True})
        before = look_at(directory)
        handles = {rank: Handle.from_dict(said) for rank, said in directory.nodes().items()}
    path = str(directory.path)

    def belongs(mark: Mark) -> bool:
        return mark.directory == path

    end_family(belongs, list(handles.values()))
    ends: dict[int, NodeLook] = {}
    for rank, node in before.items():
        if node.alive:
            at = ended_at(directory.exit_of(rank), handles[rank].pid) or datetime.now(UTC)
            ends[rank] = NodeLook(alive=False, ended_at=at, exit_reason="released")
        else:
            ends[rank] = node
    with directory.locked():
        if logs is not None:
            _keep_logs(directory, logs)
        directory.remove()
    return ends


def _keep_logs(directory: ClusterDirectory, logs: Path) -> None:
    for file in directory.path.glob("node-*.log"):
        try:
            logs.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(file, logs / f"{directory.path.name}.{file.name}")
        except OSError:
            return


def _how_it_ended(directory: ClusterDirectory, rank: int) -> tuple[str, str]:
    """How a node ended that did not answer, as soon as that is written down, and the end of its log."""
    until = time.monotonic() + RECORD_SECONDS
    record = directory.exit_of(rank)
    while record is None and time.monotonic() < until:
        time.sleep(0.02)
        record = directory.exit_of(rank)
    how = exit_reason(record["code"]) if record else "no exit code is known"
    return how, directory.log_tail(rank)


def _collect_when_ended(popen: subprocess.Popen[bytes], exit_file: Path, threads: ThreadPoolExecutor) -> None:
    """Collect a plainly started node at the moment it ends, and write that moment down."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(popen.pid)
    except OSError:
        return

    def ended() -> None:
        at = time.time()
        loop.remove_reader(fd)
        os.close(fd)
        code = popen.wait()
        threads.submit(write_exit, exit_file, popen.pid, code, at)

    loop.add_reader(fd, ended)


def described(ends: Mapping[int, NodeLook]) -> str:
    """The ends of nodes in one line, for logs."""
    return ", ".join(f"node {rank}: {end.exit_reason}" for rank, end in sorted(ends.items())) or "no nodes"
