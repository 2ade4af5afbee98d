"""Disks on the process backend: links below ``~/disks``, of a written one on the head alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spawner.process.layout import ClusterDirectory
from spawner.process.nodes import remove_cluster
from spawner.process.prepare import DiskLink
from tests.process.test_scratch import again, made


@pytest.fixture
def directory(tmp_path: Path) -> ClusterDirectory:
    return ClusterDirectory.of(tmp_path / "clusters", "alice", "heat")


def test_readers_are_all_nodes_and_the_writer_is_the_head_also_when_made_again(
    tmp_path: Path, directory: ClusterDirectory
) -> None:
    places = {name: tmp_path / "disks" / name for name in ("read", "written")}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "kept").write_text("kept")
    links = {name: DiskLink(path=place, written=name == "written") for name, place in places.items()}
    made(tmp_path, directory, None, disks=links)

    def found(rank: int) -> dict[str, str]:
        folder = directory.home(rank) / "disks"
        return {entry.name: os.readlink(entry) for entry in folder.iterdir()}

    everywhere = {"read": str(places["read"])}
    for _ in range(2):
        assert found(0) == {name: str(place) for name, place in places.items()}
        assert found(1) == everywhere
        for rank in (0, 1):
            again(directory, rank, empty=True)
    remove_cluster(directory)
    assert [(place / "kept").read_text() for place in places.values()] == ["kept", "kept"]
