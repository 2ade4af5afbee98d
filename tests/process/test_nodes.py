"""Nodes without a hub's rules: deaths before they answer, removals that meet starts, leftovers."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spawner.backend import NodeFailed
from spawner.process.family import look
from spawner.process.handles import Handle
from spawner.process.inventory import ProcessInventory
from spawner.process.layout import ClusterDirectory
from spawner.process.nodes import ProcessNodes, Unwanted
from spawner.process.prepare import ClusterSpec

pytestmark = pytest.mark.process

NODE = """#!/bin/bash
{body}
"""
#: Answers at once and then does nothing, as the launcher would: one byte through the descriptor.
ANSWERS = "printf r >&$GALILEAN_READY_FD; exec sleep 600"


class Told:
    def __init__(self) -> None:
        self.places: list[int] = []
        self.urls: dict[int, str] = {}

    def placed(self, rank: int, *, host: str = "") -> None:
        self.places.append(rank)

    def ready(self, rank: int, *, url: str, host: str = "") -> None:
        self.urls[rank] = url


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[ProcessNodes]:
    with ThreadPoolExecutor(4) as threads:
        yield ProcessNodes(tmp_path / "state", None, log=logging.getLogger("test"), threads=threads)


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "node.sh"
    path.write_text(NODE.format(body=body))
    path.chmod(0o700)
    return str(path)


def spec(
    tmp_path: Path, body: str, *, run: str = "01RUN", count: int = 1, server: str = "heat"
) -> ClusterSpec:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return ClusterSpec(
        user="热流",
        server=server,
        run=run,
        nodes=count,
        work=work,
        prefix="/user/x/heat/",
        environment=lambda rank, bind: {
            "PATH": os.environ["PATH"],
            "JUPYTERHUB_USER": "热流",
            "JUPYTERHUB_API_TOKEN": "very secret",
            "BIND": bind,
        },
        python=program(tmp_path, body),
    )


def processes(nodes: ProcessNodes) -> list[int]:
    return [item.pid for item in look() if item.mark and Path(item.mark.directory).parent == nodes.clusters]


async def test_nodes_are_placed_and_answer_each_with_its_own_address(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    told = Told()
    await nodes.create(spec(tmp_path, ANSWERS, count=3), told)
    assert sorted(told.places) == [0, 1, 2]
    assert len(set(told.urls.values())) == 3
    assert {rank: look.alive for rank, look in nodes.look("热流", "heat", "01RUN").items()} == {
        0: True,
        1: True,
        2: True,
    }
    assert nodes.look("热流", "heat", "another run") == {}
    ends = await nodes.remove("热流", "heat")
    assert {rank: end.exit_reason for rank, end in ends.items()} == {
        0: "released",
        1: "released",
        2: "released",
    }
    assert all(end.ended_at is not None for end in ends.values())
    assert processes(nodes) == []
    assert not nodes.directory("热流", "heat").path.exists()
    assert await nodes.remove("热流", "heat") == {}, "nothing there is success"


async def test_a_node_that_dies_before_it_answers_is_told_at_once_with_its_log(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    body = 'if [ $GALILEAN_RANK = 1 ]; then echo "no {space} left" >&2; exit 3; fi; ' + ANSWERS
    with pytest.raises(NodeFailed) as failed:
        await asyncio.wait_for(nodes.create(spec(tmp_path, body, count=2), Told()), 20)
    assert failed.value.rank == 1
    assert failed.value.params["how"] == "exited 3"
    assert "no {space} left" in str(failed.value.params["log"])
    assert failed.value.message.format(**failed.value.params)
    assert len(processes(nodes)) == 1, "a start never cleans up"
    await nodes.remove("热流", "heat")
    assert processes(nodes) == []
    assert list((tmp_path / "state/logs/nodes").glob("*node-1.log")), "the log is kept for whoever asks why"


async def test_an_interpreter_that_is_not_there_is_told(nodes: ProcessNodes, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(NodeFailed) as failed:
        await nodes.create(replace(spec(tmp_path, ANSWERS), python="/no/such/python"), Told())
    assert failed.value.params["program"] == "/no/such/python"
    await nodes.remove("热流", "heat")


async def test_a_project_without_a_directory_is_told(nodes: ProcessNodes, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(NodeFailed) as failed:
        await nodes.create(replace(spec(tmp_path, ANSWERS), work=tmp_path / "gone"), Told())
    assert "project's directory" in str(failed.value.params["why"])


async def test_a_start_that_is_cancelled_leaves_nothing_that_a_removal_does_not_find(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    for turns in range(0, 12, 2):
        start = asyncio.ensure_future(nodes.create(spec(tmp_path, "sleep 600", count=3), Told()))
        for _ in range(turns):
            await asyncio.sleep(0.005)
        start.cancel()
        await nodes.remove("热流", "heat")
        await asyncio.gather(start, return_exceptions=True)
        await asyncio.sleep(0.05)
        leftover = processes(nodes)
        if leftover:  # the removal came before the start had written that it wants anything
            await nodes.remove("热流", "heat")
        assert processes(nodes) == []


async def test_no_node_is_started_once_the_removal_was_asked_for(nodes: ProcessNodes, tmp_path: Path) -> None:
    wanted = spec(tmp_path, ANSWERS, count=2)
    directory = nodes.directory("热流", "heat")
    prepared = nodes._prepare(wanted, directory)
    await nodes.remove("热流", "heat")
    with pytest.raises(Unwanted):
        nodes._start_all(wanted, directory, prepared, lambda *_: None)
    assert processes(nodes) == []


async def test_what_an_older_run_left_is_removed_before_a_new_one_starts(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    await nodes.create(spec(tmp_path, ANSWERS, run="01OLD", count=2), Told())
    old = processes(nodes)
    await nodes.create(spec(tmp_path, ANSWERS, run="01NEW"), Told())
    assert not set(old) & set(processes(nodes))
    assert nodes.look("热流", "heat", "01OLD") == {}
    assert set(nodes.look("热流", "heat", "01NEW")) == {0}
    await nodes.remove("热流", "heat")


async def test_the_end_of_a_node_is_known_with_time_and_reason(nodes: ProcessNodes, tmp_path: Path) -> None:
    await nodes.create(spec(tmp_path, ANSWERS, count=2), Told())
    directory = nodes.directory("热流", "heat")
    os.kill(int(directory.nodes()[1]["pid"]), 9)
    for _ in range(200):
        found = nodes.look("热流", "heat", "01RUN")
        if found[1].ended_at:
            break
        await asyncio.sleep(0.02)
    assert found[0].alive
    assert not found[1].alive
    assert found[1].exit_reason == "killed by signal 9"
    await nodes.remove("热流", "heat")


async def test_what_hid_from_a_node_ends_with_it_and_the_others_go_on(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    body = (
        "env -i setsid sleep 600 & echo $! > $HOME/work/hidden-$GALILEAN_RANK; trap 'exit 0' TERM; "
        "printf r >&$GALILEAN_READY_FD; while :; do sleep 0.1; done"
    )
    await nodes.create(spec(tmp_path, body, count=2), Told())
    hidden = [Handle.of(int((tmp_path / "work" / f"hidden-{rank}").read_text())) for rank in (0, 1)]
    ended = await nodes.end("热流", "heat", "01RUN", 1)
    assert ended is not None
    assert [handle is not None and handle.alive() for handle in hidden] == [True, False]
    assert nodes.look("热流", "heat", "01RUN")[0].alive
    await nodes.remove("热流", "heat")
    assert [handle is not None and handle.alive() for handle in hidden] == [False, False]


async def test_secrets_are_in_private_files_and_no_argument(nodes: ProcessNodes, tmp_path: Path) -> None:
    await nodes.create(spec(tmp_path, ANSWERS), Told())
    directory: ClusterDirectory = nodes.directory("热流", "heat")
    for file in [*directory.secrets.iterdir(), *directory.ssh.iterdir(), directory.path / "run.json"]:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    for file in directory.path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            # What a node is made from names its token: to make it again, in a folder that only the hub's account opens.
            recipe = file == directory.recipe_file(0)
            assert (b"very secret" in file.read_bytes()) is recipe, file
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    await nodes.remove("热流", "heat")


async def test_a_removal_spares_the_projects_files(nodes: ProcessNodes, tmp_path: Path) -> None:
    await nodes.create(spec(tmp_path, "echo hello > $HOME/work/kept; " + ANSWERS), Told())
    await nodes.remove("热流", "heat")
    assert (tmp_path / "work" / "kept").read_text() == "hello\n"


@pytest.fixture
def written_into_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next directory that is removed gets the zygote's word of an end, a moment late."""
    really = shutil.rmtree

    def disturbed(path: Path, **more: Any) -> None:
        monkeypatch.setattr(shutil, "rmtree", really)
        really(path, **more)
        path.mkdir()
        (path / "node-0.exit").touch()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    monkeypatch.setattr(shutil, "rmtree", disturbed)


@pytest.mark.usefixtures("written_into_meanwhile")
async def test_an_end_is_known_although_something_is_still_written_while_the_directory_goes(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    await nodes.create(spec(tmp_path, ANSWERS), Told())
    ends = await nodes.remove("热流", "heat")
    assert ends[0].ended_at is not None
    assert not nodes.directory("热流", "heat").path.exists()


@pytest.mark.usefixtures("written_into_meanwhile")
async def test_the_sweeper_removes_what_is_still_written_into(nodes: ProcessNodes, tmp_path: Path) -> None:
    await nodes.create(spec(tmp_path, ANSWERS, count=2), Told())
    inventory = ProcessInventory(tmp_path / "state")
    for item in await inventory.inventory():
        await inventory.remove(item)
    assert await inventory.inventory() == []
    assert not nodes.directory("热流", "heat").path.exists()


async def test_the_inventory_sees_nodes_ends_and_orphans_and_removes_them(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    inventory = ProcessInventory(tmp_path / "state")
    assert await inventory.inventory() == []
    await nodes.create(spec(tmp_path, ANSWERS, count=2), Told())
    await nodes.create(spec(tmp_path, ANSWERS, run="02RUN", server="other"), Told())
    seen = {(item.user, item.server, item.run, item.rank): item for item in await inventory.inventory()}
    assert set(seen) == {
        ("热流", "heat", "01RUN", 0),
        ("热流", "heat", "01RUN", 1),
        ("热流", "other", "02RUN", 0),
    }
    assert all(item.alive and item.started_at for item in seen.values())
    os.kill(int(nodes.directory("热流", "heat").nodes()[1]["pid"]), 9)
    ended = None
    for _ in range(200):
        ended = next(item for item in await inventory.inventory() if item.run == "01RUN" and item.rank == 1)
        if ended.finished_at:
            break
        await asyncio.sleep(0.02)
    assert ended is not None
    assert not ended.alive
    assert ended.finished_at
    shutil.rmtree(nodes.directory("热流", "other").path)  # the directory is lost: the process still tells
    orphan = next(item for item in await inventory.inventory() if item.run == "02RUN")
    assert (orphan.user, orphan.server, orphan.alive) == ("热流", "other", True)
    for item in await inventory.inventory():
        await inventory.remove(item)
        await inventory.remove(item)
    assert await inventory.inventory() == []
    assert processes(nodes) == []


async def test_the_inventory_of_another_state_directory_sees_nothing_of_it(
    nodes: ProcessNodes, tmp_path: Path
) -> None:
    await nodes.create(spec(tmp_path, ANSWERS), Told())
    assert await ProcessInventory(tmp_path / "elsewhere").inventory() == []
    sighting = (await ProcessInventory(tmp_path / "state").inventory())[0]
    with pytest.raises(ValueError, match="not a cluster of this state"):
        await ProcessInventory(tmp_path / "elsewhere").remove(sighting)
    await nodes.remove("热流", "heat")
