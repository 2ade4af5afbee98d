"""Names of clusters' directories, and files that appear whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from spawner.node.marks import Mark, environment_mark, node_mark, read_mark
from spawner.node.place import Place, node_prefix, rank_of
from spawner.process.layout import ClusterDirectory, base_name, read_json, write_json

names = st.text(min_size=1, max_size=300)


@given(names, names)
def test_any_user_and_server_gives_a_plain_file_name(user: str, server: str) -> None:
    name = base_name(user, server)
    assert 0 < len(name) <= 80
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.startswith(("-", "."))


@given(st.tuples(names, names), st.tuples(names, names))
def test_two_clusters_never_share_a_directory(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (base_name(*one) == base_name(*other)) == (one == other)


def test_names_that_look_alike_are_kept_apart() -> None:
    pairs = [
        ("al", "ice-x"),
        ("alice", "x"),
        ("a-b", "c"),
        ("a_b", "c"),
        ("A-B", "c"),
        ("a", "b-c"),
        ("热流", "c"),
        ("热", "c"),
    ]
    assert len({base_name(*pair) for pair in pairs}) == len(pairs)


@given(names, names)
def test_a_mark_survives_environment_and_memory(user: str, server: str) -> None:
    user, server = user.replace("\0", ""), server.replace("\0", "")
    environ = {
        "GALILEAN_CLUSTER_DIR": "/state/clusters/x",
        "JUPYTERHUB_USER": user,
        "JUPYTERHUB_SERVER_NAME": server,
        "GALILEAN_CLUSTER": "01RUN",
        "GALILEAN_RANK": "3",
    }
    mark = Mark("/state/clusters/x", user, server, "01RUN", 3)
    assert read_mark(node_mark(environ)) == mark
    if user.isprintable() and server.isprintable():
        block = b"\0".join(f"{name}={value}".encode() for name, value in environ.items())
        assert environment_mark(block) == mark


def test_strangers_carry_no_mark() -> None:
    assert environment_mark(b"PATH=/bin\0HOME=/root\0") is None
    assert environment_mark(b"SAYS=GALILEAN_CLUSTER_DIR\0") is None
    assert read_mark(b"hello") is None
    assert read_mark(b'{"directory": 1}') is None


def test_only_plain_node_names_name_a_node() -> None:
    assert rank_of("node-0") == 0
    assert rank_of("node-17") == 17
    for name in ("node-", "node-01", "node--1", "node-1x", "Node-1", "node-٣", "node-1/..", ""):
        assert rank_of(name) is None, name


def test_the_head_has_the_clusters_path_and_workers_one_of_their_own() -> None:
    assert node_prefix("/user/al/c/", 0) == "/user/al/c/"
    assert node_prefix("/user/al/c/", 2) == "/user/al/c/node-2/"


def test_a_place_is_read_as_it_was_told() -> None:
    place = Place(run="r", server="热", nodes=3, rank=1, prefix="/user/a/b/", portal_url="http://x/portal")
    assert Place.read(place.variables()) == place


def test_files_are_private_and_half_a_file_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"run": "r"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_json(path) == {"run": "r"}
    path.write_text('{"run": ')
    assert read_json(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_run_that_is_being_removed_is_wanted_no_more(tmp_path: Path) -> None:
    directory = ClusterDirectory(tmp_path)
    assert directory.wanted_run() is None
    directory.write_run({"run": "r"})
    assert directory.wanted_run() == "r"
    directory.write_run({"run": "r", "removing": True})
    assert directory.wanted_run() is None


def test_an_exit_file_is_not_taken_for_a_node(tmp_path: Path) -> None:
    directory = ClusterDirectory(tmp_path)
    write_json(directory.node_file(1), {"pid": 1})
    write_json(directory.exit_file(1), {"pid": 1})
    write_json(directory.exit_file(2), {"pid": 1})
    assert list(directory.nodes()) == [1]
