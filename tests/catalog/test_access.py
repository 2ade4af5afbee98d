"""Who may do what: as a table, and by properties that hold for everybody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from services.catalog import access as rules
from services.catalog.access import Access, Share, Viewer, access

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Thing:
    owner: str = "alice"
    visibility: str = "private"
    deleted_at: datetime | None = None
    taken_down_at: datetime | None = None


ALICE, BOB = Viewer(name="alice"), Viewer(name="bob", groups=frozenset({"physics"}))
ADMIN = Viewer(name="root", admin=True)


def share(grantee: str, word: str, kind: str = "person") -> Share:
    return Share(grantee_kind=kind, grantee=grantee, access=word)  # type: ignore[arg-type]


viewers = st.builds(
    Viewer,
    name=st.sampled_from(["alice", "bob", "carol"]),
    groups=st.frozensets(st.sampled_from(["physics", "bob"])),
    has_role=st.booleans(),
    admin=st.booleans(),
    rights=st.frozensets(st.sampled_from(["projects:manage", "datasets:manage", "people:manage"])),
)
shares = st.lists(
    st.builds(
        Share,
        grantee_kind=st.sampled_from(["person", "group"]),
        grantee=st.sampled_from(["bob", "carol", "physics"]),
        access=st.sampled_from(["read", "run", "write", "own", ""]),
    ),
    max_size=4,
)
moments = st.sampled_from([None, NOW])
things = st.builds(
    Thing,
    owner=st.sampled_from(["alice", "bob"]),
    visibility=st.sampled_from(["private", "shared", "public"]),
    deleted_at=moments,
    taken_down_at=moments,
)
kinds = st.sampled_from(["project", "dataset"])


@pytest.mark.parametrize(
    ("viewer", "thing", "given_shares", "wanted"),
    [
        (ALICE, Thing(), [], Access.OWN),
        (BOB, Thing(), [], Access.NONE),
        (ADMIN, Thing(), [], Access.OWN),
        (BOB, Thing(visibility="public"), [], Access.READ),
        (BOB, Thing(visibility="shared"), [share("bob", "read")], Access.READ),
        (BOB, Thing(visibility="shared"), [share("bob", "run")], Access.RUN),
        (BOB, Thing(visibility="shared"), [share("bob", "write")], Access.WRITE),
        (BOB, Thing(visibility="shared"), [share("physics", "run", "group")], Access.RUN),
        # Somebody whose name is that of a group, and a group whose name is somebody's.
        (
            BOB,
            Thing(visibility="shared"),
            [share("physics", "run"), share("bob", "run", "group")],
            Access.NONE,
        ),
        (BOB, Thing(visibility="public"), [share("carol", "write")], Access.READ),
        (BOB, Thing(visibility="public", taken_down_at=NOW), [share("bob", "write")], Access.NONE),
        (BOB, Thing(visibility="public", deleted_at=NOW), [share("bob", "write")], Access.NONE),
        (ALICE, Thing(taken_down_at=NOW), [], Access.OWN),
    ],
)
def test_access_is_as_the_table_says(
    viewer: Viewer, thing: Thing, given_shares: list[Share], wanted: Access
) -> None:
    assert access(viewer, thing, given_shares) is wanted


@given(viewers, things, shares, kinds)
def test_nobody_but_the_owner_and_managers_sees_what_is_private_deleted_or_taken_down(
    viewer: Viewer, thing: Thing, given_shares: list[Share], kind: str
) -> None:
    level = access(viewer, thing, given_shares, kind=kind)  # type: ignore[arg-type]
    if viewer.name == thing.owner or viewer.manages(kind):
        assert level is Access.OWN
        return
    assert level < Access.OWN
    if (
        thing.deleted_at
        or thing.taken_down_at
        or (thing.visibility != "public" and not any(s.holds_for(viewer) for s in given_shares))
    ):
        assert level is Access.NONE


@given(viewers, things, shares, shares, kinds)
def test_more_shares_never_take_anything_away_and_those_of_others_give_nothing(
    viewer: Viewer, thing: Thing, first: list[Share], more: list[Share], kind: str
) -> None:
    before = access(viewer, thing, first, kind=kind)  # type: ignore[arg-type]
    assert access(viewer, thing, first + more, kind=kind) >= before  # type: ignore[arg-type]
    of_others = [s for s in more if not s.holds_for(viewer)]
    assert access(viewer, thing, first + of_others, kind=kind) is before  # type: ignore[arg-type]


@given(viewers, things, shares)
def test_a_data_set_is_written_by_nobody_to_whom_it_is_only_shared(
    viewer: Viewer, thing: Thing, given_shares: list[Share]
) -> None:
    level = access(viewer, thing, given_shares, kind="dataset")
    assert level in (Access.NONE, Access.READ, Access.OWN)


@given(viewers, things, shares)
def test_without_a_role_one_looks_and_does_nothing(
    viewer: Viewer, thing: Thing, given_shares: list[Share]
) -> None:
    viewer = replace(viewer, has_role=False)
    level = access(viewer, thing, given_shares)
    assert not rules.may_fork(viewer, level, thing)
    assert not rules.may_run(viewer, level, thing)
    assert not rules.may_write(viewer, level, thing)
    assert not rules.may_manage(viewer, level)


@given(viewers, things, shares)
def test_who_may_do_more_may_do_all_that_is_less(
    viewer: Viewer, thing: Thing, given_shares: list[Share]
) -> None:
    level = access(viewer, thing, given_shares)
    allowed = [
        rules.may_write(viewer, level, thing),
        rules.may_run(viewer, level, thing),
        rules.may_fork(viewer, level, thing),
    ]
    assert allowed == sorted(allowed)


def test_what_may_not_be_seen_is_not_there_and_what_is_refused_is_told() -> None:
    for least in (Access.READ, Access.RUN, Access.WRITE, Access.OWN):
        with pytest.raises(UserError) as caught:
            rules.need(BOB, Access.NONE, least)
        assert caught.value.status == 404
    for least in (Access.RUN, Access.WRITE, Access.OWN):
        with pytest.raises(UserError) as caught:
            rules.need(BOB, Access.READ, least)
        assert caught.value.status == 403
    with pytest.raises(UserError, match="waits for a role"):
        rules.need(Viewer(name="new", has_role=False), Access.READ, Access.RUN)
    rules.need(BOB, Access.WRITE, Access.RUN)


def test_a_viewer_is_made_of_hub_groups() -> None:
    viewer = Viewer.of("bob", ["galilean:student", "galilean-group:physics", "admin", "galilean-blocked"])
    assert (viewer.has_role, viewer.admin, viewer.groups) == (True, False, {"physics"})
    assert not Viewer.of("eve", ["galilean-group:physics"]).has_role
    assert Viewer.of("eve", ["galilean-group:physics"], has_role=True).has_role
    assert Viewer.of("root", ["galilean:admin"]).manages("dataset")


def test_only_what_a_share_can_give_is_shared() -> None:
    rules.check_share("project", share("bob", "write"), "alice")
    for kind, bad in [
        ("project", share("bob", "own")),
        ("dataset", share("bob", "write")),
        ("dataset", share("bob", "run")),
        ("project", share("", "read")),
        ("project", share("alice", "read")),
        ("project", share("a\0b", "read")),
    ]:
        with pytest.raises(UserError) as caught:
            rules.check_share(kind, bad, "alice")  # type: ignore[arg-type]
        assert caught.value.status == 400
    rules.check_share("project", share("alice", "read", "group"), "alice")


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (Access.RUN, Access.NONE, "after grace"),
        (Access.WRITE, Access.NONE, "after grace"),
        (Access.WRITE, Access.RUN, "after grace"),
        (Access.OWN, Access.READ, "after grace"),
        (Access.RUN, Access.WRITE, "goes on"),
        (Access.RUN, Access.RUN, "goes on"),
        (Access.OWN, Access.WRITE, "goes on"),
    ],
)
def test_a_run_that_may_more_than_its_person_now_may_ends(before: Access, after: Access, wanted: str) -> None:
    assert rules.fate(before, after) == wanted


def test_shares_make_a_private_thing_shared_and_a_public_one_nothing_less() -> None:
    one = [share("bob", "read")]
    assert rules.visibility_with("private", one) == "shared"
    assert rules.visibility_with("shared", []) == "private"
    assert rules.visibility_with("public", []) == rules.visibility_with("public", one) == "public"
