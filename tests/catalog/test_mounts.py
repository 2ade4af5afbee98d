"""Where data sets are found in nodes, and which of them a run gets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from services.catalog.access import Share, Viewer
from services.catalog.mounts import Linked, alias, check_mount, is_mount, mount_key, run_mounts

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LINK = Linked(
    id="D1",
    owner="alice",
    slug="io",
    name="Io",
    mount="io",
    writable=False,
    visibility="private",
    deleted_at=None,
    taken_down_at=None,
    busy="",
    path="/volumes/a/datasets/D1",
)
OTHER = replace(LINK, id="D2", mount="europa", owner="bob", path="/volumes/a/datasets/D2")
mounts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(is_mount)


@pytest.mark.parametrize("good", ["io", "CIFAR10", "a", "io-nims_2.v1", "0", "x" * 64])
def test_a_directory_may_be_called(good: str) -> None:
    assert check_mount(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/a",
        "a b",
        "a\n",
        "a.",
        "-a",
        ".a",
        "x" * 65,
        "é",
        "数据",
        "a:b",
        "con",
        "NUL.txt",
        "a\0",
    ],
)
def test_a_directory_may_not_be_called(bad: str) -> None:
    with pytest.raises(UserError) as caught:
        check_mount(bad)
    assert caught.value.status == 400


@given(mounts, st.text(max_size=40), st.integers(0, 6))
def test_the_alias_that_is_offered_is_free_and_can_be_taken(mount: str, owner: str, more: int) -> None:
    taken = {mount_key(mount)}
    for _ in range(more):
        free = alias(mount, owner, taken)
        assert is_mount(free)
        assert mount_key(free) not in taken
        taken.add(mount_key(free))


def test_the_alias_names_the_owner_first() -> None:
    assert alias("io", "Sofia Brandt", {"io"}) == "io-sofia-brandt"
    assert alias("io", "sofia", {"io", "io-sofia"}) == "io-sofia-2"
    assert alias("io", "木", {"io"}) == "io-2"


@given(st.lists(st.sampled_from([LINK, OTHER]), unique=True), st.sampled_from(["alice", "bob", "carol"]))
def test_a_run_gets_nothing_that_its_person_may_not_read(links: list[Linked], name: str) -> None:
    got = run_mounts(Viewer(name=name), links)
    assert {mount.source for mount in got.mounts} == {link.path for link in links if link.owner == name}
    assert set(got.missing) == {link.mount for link in links if link.owner != name}
    assert all(PurePosixPath(mount.target).parent == PurePosixPath("datasets") for mount in got.mounts)


def test_only_the_owner_writes_and_only_where_they_want_to() -> None:
    public = replace(LINK, visibility="public")
    wanted = replace(public, writable=True)
    root = Viewer(name="root", admin=True)
    for viewer, link, read_only in [
        (Viewer(name="alice"), public, True),
        (Viewer(name="alice"), wanted, False),
        (Viewer(name="bob"), wanted, True),
        (root, wanted, True),
    ]:
        (mount,) = run_mounts(viewer, [link]).mounts
        assert mount.read_only is read_only


def test_what_is_deleted_taken_down_moving_or_no_longer_shared_is_missing_and_told() -> None:
    bob = Viewer(name="bob")
    shared = replace(
        LINK, visibility="shared", shares=(Share(grantee_kind="person", grantee="bob", access="read"),)
    )
    assert run_mounts(bob, [shared]).missing == ()
    for gone in (
        replace(shared, shares=()),
        replace(shared, deleted_at=NOW),
        replace(shared, taken_down_at=NOW),
        replace(shared, busy="moving"),
    ):
        assert run_mounts(bob, [gone]) == run_mounts(bob, [replace(gone, path="")])
        assert run_mounts(bob, [gone]).missing == ("io",)
    assert run_mounts(Viewer(name="alice"), [replace(LINK, deleted_at=NOW)]).mounts == ()


@pytest.mark.parametrize("bad", [{"mount": "../work"}, {"mount": "a/b"}, {"path": "/volumes/../etc"}])
def test_a_place_that_leaves_its_place_is_a_fault_and_never_mounted(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        run_mounts(Viewer(name="alice"), [replace(LINK, **bad)])  # type: ignore[arg-type]
