"""``~/scratch`` on the process backend: in the node's home, or on a disk that the centre gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from spawner.process.layout import ClusterDirectory
from spawner.process.nodes import remove_cluster
from spawner.process.prepare import ClusterSpec, prepare, prepare_again, read_recipe


@pytest.fixture
def directory(tmp_path: Path) -> ClusterDirectory:
    return ClusterDirectory.of(tmp_path / "clusters", "alice", "heat")


def made(tmp_path: Path, directory: ClusterDirectory, scratch: Path | None, **more: object) -> None:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    values: Mapping[str, object] = {
        "user": "alice",
        "server": "heat",
        "run": "R1",
        "nodes": 2,
        "work": work,
        "prefix": "/user/alice/heat/",
        "environment": lambda rank, bind: {},
        "scratch": scratch,
        **more,
    }
    for node in prepare(ClusterSpec(**values), directory):  # type: ignore[arg-type]
        node.ready.close()
        node.close()


def again(directory: ClusterDirectory, rank: int, *, empty: bool) -> None:
    recipe = read_recipe(directory, rank)
    assert recipe is not None
    node = prepare_again(directory, rank, recipe, empty=empty)
    node.ready.close()
    node.close()


def test_every_node_has_scratch_of_its_own_that_goes_with_the_cluster(
    tmp_path: Path, directory: ClusterDirectory
) -> None:
    made(tmp_path, directory, None)
    head, worker = (directory.home(rank) / "scratch" for rank in range(2))
    (head / "large").write_bytes(b"0" * 1000)
    assert not list(worker.iterdir())
    remove_cluster(directory)
    assert not directory.path.exists()


def test_scratch_lies_on_the_centres_disk_where_it_names_one_and_goes_from_there(
    tmp_path: Path, directory: ClusterDirectory
) -> None:
    disk = tmp_path / "nvme"
    disk.mkdir()
    (disk / "somebody else's").write_text("stays")
    made(tmp_path, directory, disk)
    place = directory.home(1) / "scratch"
    (place / "tensor").write_text("x")
    (place / "kept").mkdir(mode=0o500)
    assert Path(os.path.realpath(place)).is_relative_to(disk)
    assert os.stat(place).st_mode & 0o777 == 0o700
    # As a hub that was killed leaves it to the next one, or to the sweeper: they know the state directory alone.
    remove_cluster(ClusterDirectory(directory.path))
    assert [entry.name for entry in disk.iterdir()] == ["somebody else's"]


def test_a_restart_keeps_scratch_and_a_reset_empties_it(tmp_path: Path, directory: ClusterDirectory) -> None:
    for disk in (None, tmp_path / "nvme"):
        if disk:
            disk.mkdir()
        made(tmp_path, directory, disk)
        (directory.home(1) / "scratch" / "tensor").write_text("x")
        again(directory, 1, empty=False)
        assert (directory.home(1) / "scratch" / "tensor").read_text() == "x"
        again(directory, 1, empty=True)
        assert not list((directory.home(1) / "scratch").iterdir())
        remove_cluster(directory)


def test_nobody_meets_what_an_older_cluster_of_that_name_left(
    tmp_path: Path, directory: ClusterDirectory
) -> None:
    disk = tmp_path / "nvme"
    left = disk / directory.path.name / "node-0"
    left.mkdir(parents=True)
    (left / "old").write_text("of a state directory that was lost")
    made(tmp_path, directory, disk)
    assert not list((directory.home(0) / "scratch").iterdir())


def test_removal_follows_no_link_out_of_scratch(tmp_path: Path, directory: ClusterDirectory) -> None:
    disk, precious = tmp_path / "nvme", tmp_path / "precious"
    disk.mkdir()
    precious.mkdir()
    (precious / "thesis").write_text("x")
    made(tmp_path, directory, disk)
    (directory.home(0) / "scratch" / "way").symlink_to(precious)
    remove_cluster(directory)
    assert (precious / "thesis").exists()


def test_a_disk_that_is_not_there_is_told_before_anything_is_started(
    tmp_path: Path, directory: ClusterDirectory
) -> None:
    with pytest.raises(OSError, match="scratch space"):
        made(tmp_path, directory, tmp_path / "not-mounted")
