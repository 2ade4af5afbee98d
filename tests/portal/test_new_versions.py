"""What was uploaded or adapted for an entry becomes its version when it is ready, if its owner may still do that then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, Pinned
from galilean.errors import UserError
from services.portal import new_versions
from tests.portal.live import LiveSite
from tests.portal.test_image_uploads import DOCKER, NOW, digest, entry


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    live = LiveSite(tmp_path / "state", DOCKER)
    live.hub.add("alice", "researcher")
    live.hub.add("root", "admin")
    with live:
        yield live


def ready(site: LiveSite, owner: str, into: entries.Entry, tag: str = "1") -> str:
    made = site.write(
        saved.begin,
        actor=Actor(name=owner),
        name=ImageName("tools", tag),
        now=NOW,
        archive="x.tar",
        into_id=into.id,
    ).id
    image = Pinned("127.0.0.1:5000", f"people/{owner}/tools", digest("c"))
    site.write(saved.finish, made, image=image, now=NOW, changes={"told": [{"message": "x"}]}, log="pushed\n")
    return made


def one_round(site: LiveSite) -> None:
    asyncio.run_coroutine_threadsafe(new_versions.go_on(site.portal), site.loop).result(60)


def state(site: LiveSite, image: str, into: entries.Entry) -> tuple[str, str, str]:
    """The tag of the current version, the entry that the image is in, and its log's last line."""
    there = site.write(store.entry, into.id)
    row = site.write(lambda conn: saved._get(conn, image))
    assert row.state == "ready"
    return there.version.tag, row.environment_id, row.log.splitlines()[-1]


def test_what_is_ready_becomes_the_new_version_once(site: LiveSite) -> None:
    mine, centres = entry(site, "tools", "alice"), entry(site, "pytorch", "")
    of_alice, of_root = ready(site, "alice", mine), ready(site, "root", centres)
    one_round(site)
    assert state(site, of_alice, mine) == ("1", mine.id, "pushed")
    assert state(site, of_root, centres) == ("1", centres.id, "pushed")
    assert site.write(store.entry, mine.id).version.told
    site.write(saved.withdraw, of_alice, actor=Actor(name="alice"), now=NOW)
    one_round(site)
    assert state(site, of_alice, mine)[:2] == ("0", ""), "what was withdrawn does not come back"


def no_role(site: LiveSite, name: str) -> None:
    site.hub.people[name]["groups"] = []


def a_smaller_role(site: LiveSite, name: str) -> None:
    site.hub.people[name]["groups"] = ["galilean:student"]


def blocked(site: LiveSite, name: str) -> None:
    site.hub.people[name]["groups"].append("galilean-blocked")


def gone(site: LiveSite, name: str) -> None:
    del site.hub.people[name]


@pytest.mark.parametrize(
    ("owner", "of", "what"),
    [
        ("root", "", a_smaller_role),
        ("root", "", no_role),
        ("root", "", blocked),
        ("root", "", gone),
        ("alice", "alice", no_role),
        ("alice", "alice", blocked),
        ("alice", "alice", gone),
    ],
)
def test_who_lost_the_right_meanwhile_makes_no_version(
    site: LiveSite, owner: str, of: str, what: Callable[[LiveSite, str], None]
) -> None:
    into = entry(site, "tools", of)
    image = ready(site, owner, into)
    asyncio.run_coroutine_threadsafe(site.portal.people.groups(owner), site.loop).result(60)  # remembered
    what(site, owner)
    one_round(site)
    tag, is_in, line = state(site, image, into)
    assert (tag, is_in) == ("0", "")
    assert "not a version" in line
    assert site.write(saved.for_entries) == []


def test_what_is_wrong_with_one_keeps_no_other(site: LiveSite) -> None:
    gone_entry, mine = entry(site, "old", "alice"), entry(site, "tools", "alice")
    lost, taken, fine = (
        ready(site, "alice", gone_entry),
        ready(site, "alice", mine, "0"),
        ready(site, "alice", mine, "2"),
    )
    site.write(store.remove, gone_entry.id, actor=Actor(name="alice"), now=NOW)
    one_round(site)
    for image in (lost, taken):
        assert "not a version" in state(site, image, mine)[2]
    assert state(site, fine, mine)[:2] == ("2", mine.id)


def test_a_hub_that_does_not_answer_is_asked_again(site: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = entry(site, "tools", "alice")
    image = ready(site, "alice", mine)
    real = site.portal.people.hub.user

    async def away(_: str) -> Any:
        raise UserError(503, "away")

    monkeypatch.setattr(site.portal.people.hub, "user", away)
    with pytest.raises(UserError):
        one_round(site)
    assert state(site, image, mine)[0] == "0"
    monkeypatch.setattr(site.portal.people.hub, "user", real)
    one_round(site)
    assert state(site, image, mine)[0] == "1"
