"""Data sets of a project on the process backend: links below ``~/datasets`` of every node."""

from __future__ import annotations

import os
from pathlib import Path

from spawner.node.home import write_links
from spawner.process.layout import ClusterDirectory
from spawner.process.prepare import ClusterSpec, prepare


def test_every_node_finds_the_data_sets_of_its_project(tmp_path: Path) -> None:
    work, data = tmp_path / "work", tmp_path / "volume" / "datasets" / "D1"
    for folder in (work, data):
        folder.mkdir(parents=True)
    (data / "io.csv").write_text("orbit,t\n")
    directory = ClusterDirectory(tmp_path / "clusters" / "alice--heat-flow")
    spec = ClusterSpec(
        user="alice",
        server="heat-flow",
        run="R1",
        nodes=2,
        work=work,
        prefix="/user/alice/heat-flow/",
        environment=lambda rank, bind: {},
        datasets={"io-nims": data},
    )
    made = prepare(spec, directory)
    try:
        for rank in range(2):
            found = directory.home(rank) / "datasets" / "io-nims"
            assert os.readlink(found) == str(data)
            assert (found / "io.csv").read_text() == "orbit,t\n"
    finally:
        for node in made:
            node.close()
            node.ready.close()


def test_a_project_without_data_sets_has_no_empty_folder_for_them(tmp_path: Path) -> None:
    write_links(tmp_path / "datasets", {})
    assert not (tmp_path / "datasets").exists()


def test_a_node_that_is_made_again_keeps_its_links(tmp_path: Path) -> None:
    for _ in range(2):
        write_links(tmp_path / "datasets", {"io": tmp_path})
    assert (tmp_path / "datasets" / "io").is_symlink()
