"""Pure parts: paging, formats, policies, rights."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from galilean.hubapi import HubAPI
from galilean.rights import initial
from galilean.settings import parse_settings
from galilean.web import formats
from galilean.web.csp import page_policy, sandbox_policy
from galilean.web.paging import Cursor, cut
from galilean.web.visitor import People, Visitor, node_of


@given(st.lists(st.one_of(st.text(), st.integers(), st.none()), min_size=1, max_size=4))
def test_a_cursor_gives_back_what_was_put_in(key: list) -> None:
    assert Cursor.decode(Cursor.encode(*key), len(key)) == tuple(key)


@given(st.text(max_size=80))
def test_a_cursor_that_nobody_gave_is_400_and_never_a_fault(text: str) -> None:
    with pytest.raises(UserError) as refused:
        Cursor.decode(text, 3)
    assert refused.value.status == 400


def test_a_page_tells_of_a_next_one_only_when_there_is_one() -> None:
    assert cut([1, 2], 2, lambda n: (n,)).next is None
    page = cut([1, 2, 3], 2, lambda n: (n,))
    assert list(page.items) == [1, 2]
    assert Cursor.decode(page.next or "", 1) == (2,)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00"), (2472, "00:41:12"), (359999, "99:59:59"), (360000, "100:00:00")]
)
def test_durations_read_as_hours_minutes_seconds(seconds: int, text: str) -> None:
    assert formats.duration(seconds) == text


def test_a_time_is_never_written_raw_without_its_zone() -> None:
    html = formats.when(datetime(2026, 11, 22, 18, 0, tzinfo=UTC), "clock")
    assert 'datetime="2026-11-22T18:00:00Z"' in html
    assert "UTC" in html


@pytest.mark.parametrize(
    ("name", "letters"), [("maria.berg", "MB"), ("alice", "AL"), ("李伟", "李"), ("", "?")]
)
def test_initials_of_any_name(name: str, letters: str) -> None:
    assert formats.initials(name) == letters


def test_what_people_wrote_has_an_opaque_origin_and_no_network() -> None:
    policy = sandbox_policy(scripts=True)
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy


def test_our_pages_allow_no_inline_script_or_style() -> None:
    assert "unsafe" not in page_policy("n")
    assert "https://hub.example.edu" in page_policy("n", "https://hub.example.edu")


def test_only_groups_of_ours_are_roles() -> None:
    groups = frozenset({"admin", "galilean:student", "galilean:nobody-knows"})
    assert initial(parse_settings("")).roles_of(groups) == ("student",)
    assert not Visitor(name="x", groups=groups, roles=("student",)).admin


@pytest.mark.parametrize(
    ("scopes", "node"),
    [
        (["access:servers!server=alice/c2", "access:services!service=portal"], "alice/c2"),
        (["access:servers!user=alice", "read:users!user=alice"], None),
        (["access:servers!server=alice/c2", "read:users!user=alice"], None),
        ([], None),
    ],
)
def test_a_nodes_token_is_known_by_its_scopes(scopes: list[str], node: str | None) -> None:
    assert node_of({"name": "alice", "scopes": scopes}) == node


class CountingHub(HubAPI):
    def __init__(self) -> None:
        self.asked = 0
        self.groups = ["galilean:student"]

    async def user(self, name: str) -> dict:
        self.asked += 1
        return {"name": name, "groups": list(self.groups)}


async def test_rights_are_asked_once_within_the_time_of_the_cache_and_again_after_it() -> None:
    import asyncio

    hub, time = CountingHub(), [0.0]
    people = People(hub, keep_seconds=15, monotonic=lambda: time[0])
    await asyncio.gather(*(people.groups("alice") for _ in range(20)))
    assert hub.asked == 1
    time[0] = 14.9
    assert "galilean:student" in await people.groups("alice")
    assert hub.asked == 1
    hub.groups.clear()
    time[0] = 15.1
    assert not await people.groups("alice")
    people.forget("alice")
    await people.groups("alice")
    assert hub.asked == 3


def test_rights_may_not_be_kept_longer_than_half_a_minute() -> None:
    with pytest.raises(ValueError, match="30 seconds"):
        People(CountingHub(), keep_seconds=31)
