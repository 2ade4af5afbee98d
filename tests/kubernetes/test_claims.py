"""Which directory of which claim a mount of the plan is: nothing beside a volume, and nothing of a whole one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from spawner.kubernetes.cluster import claim_mount
from spawner.plan import Mount

CLAIMS = {"/srv/projects": "projects", "/srv/projects/inner": "inner", "/srv/data": "data"}
part = st.sampled_from(["a", "datasets", "01K", "..", ".", "inner", "", "…"])


def test_a_data_set_is_a_read_only_directory_of_its_claim() -> None:
    mount = Mount(source="/srv/data/datasets/01K", target="datasets/io", read_only=True)
    found = claim_mount(mount, CLAIMS)
    assert (found.claim, found.sub_path, found.target, found.read_only) == (
        "data", "datasets/01K", "datasets/io", True,
    )  # fmt: skip


def test_a_volume_that_was_registered_online_brings_its_own_claim() -> None:
    mount = Mount(source="/srv/new/datasets/01K", target="datasets/io", claim="new-claim", root="/srv/new")
    found = claim_mount(mount, CLAIMS)
    assert (found.claim, found.sub_path) == ("new-claim", "datasets/01K")
    with pytest.raises(UserError):
        claim_mount(Mount(source="/srv/new/datasets/01K", target="datasets/io"), CLAIMS)


@given(st.sampled_from([*CLAIMS, "/etc", "/srv"]), st.lists(part, max_size=5))
def test_no_path_leaves_its_claim(root: str, below: list[str]) -> None:
    with contextlib.suppress(UserError):
        found = claim_mount(Mount(source="/".join([root, *below]), target="datasets/x"), CLAIMS)
        assert found.sub_path
        assert not found.sub_path.startswith("/")
        assert ".." not in found.sub_path.split("/")
