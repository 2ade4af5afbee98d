"""Versions of data sets: files that never change, in runs that can be repeated on them (TI-8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.catalog import versions
from services.files import copies
from services.portal import freezing, storage
from tests.portal.conftest import Client, Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_dataset_pages import page
from tests.portal.test_datasets import IO, dataset, names, now, put
from tests.portal.test_kept import may_keep

HEAT = "/projects/alice/heat"


def version(site: LiveSite, client: Client, url: str = IO) -> dict[str, Any]:
    """A version that is whole."""
    answer = client.post(f"{url}/versions")
    assert answer.status_code == 202, answer.text
    assert answer.json()["busy"] == "copying"
    now(site, freezing.go_on(site.portal))
    return client.get(f"/datasets/{answer.json()['owner']}/{answer.json()['slug']}").json()


def text(site: LiveSite, found: dict[str, Any], name: str) -> str:
    return (site.settings.volume_path("default") / "datasets" / found["id"] / name).read_text()


def test_a_version_keeps_the_files_as_they_were_and_nobody_changes_it(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    origin = dataset(alice)
    put(site, origin, "a.csv", b"orbit 1")
    one = version(site, alice)
    assert (one["version"], one["version_of"], one["mount"]) == (1, origin["id"], origin["mount"])
    assert (one["busy"], one["file_count"], one["size_bytes"]) == ("", 1, 7)
    put(site, origin, "a.csv", b"orbit 2")
    two = version(site, alice)
    assert [item["version"] for item in alice.get(f"{IO}/versions").json()["items"]] == [2, 1]
    assert [text(site, found, "a.csv") for found in (one, two)] == ["orbit 1", "orbit 2"]
    place = f"/datasets/alice/{one['slug']}"
    for answer in (
        alice.put(f"{place}/files/b.csv", content=b"x"),
        alice.delete(f"{place}/files/a.csv"),
        alice.post(f"{place}/versions"),
    ):
        assert answer.status_code == 409 and "never change" in answer.json()["detail"], answer.text
    assert text(site, one, "a.csv") == "orbit 1"
    assert names(alice) == ["Io NIMS"], "versions are found at their data set"


def test_a_version_is_seen_by_whom_its_data_set_is_seen(sign: Sign, site: LiveSite) -> None:
    site.hub.add("carol", "student")
    alice, bob, carol = sign("alice"), sign("bob"), sign("carol")
    put(site, dataset(alice), "a.csv", b"1")
    assert bob.post(f"{IO}/versions").status_code == 404
    assert alice.put(f"{IO}/shares", json={"person": "bob"}).status_code == 200
    assert bob.post(f"{IO}/versions").status_code == 403
    one = version(site, alice)
    place = f"/datasets/alice/{one['slug']}"
    assert bob.get(place).json()["access"] == "read"
    assert carol.get(place).status_code == 404
    assert [item["version"] for item in bob.get(f"{IO}/versions").json()["items"]] == [1]
    alice.delete(f"{place}/shares", params={"person": "bob"})
    assert bob.get(f"{IO}/versions").json()["items"] == []
    assert alice.put(f"{IO}/publication").status_code == 204
    assert carol.get(f"/datasets/alice/{version(site, alice)['slug']}").status_code == 200


def test_a_project_takes_a_version_or_the_files_as_they_are_at_one_directory(
    sign: Sign, site: LiveSite
) -> None:
    alice, bob = sign("alice"), sign("bob")
    made(alice, "Heat")
    origin = dataset(alice)
    put(site, origin, "a.csv", b"1")
    one = version(site, alice)
    assert (
        alice.post(f"{HEAT}/datasets", json={"dataset": "alice/io-nims", "writable": True}).status_code == 201
    )

    def link() -> dict[str, Any]:
        (found,) = alice.get(f"{HEAT}/datasets").json()["items"]
        return found

    assert (link()["version"], link()["versions"]) == (0, [1])
    assert alice.patch(f"{HEAT}/datasets/{origin['id']}", json={"version": 7}).status_code == 404
    assert alice.patch(f"{HEAT}/datasets/{origin['id']}", json={"version": 1}).status_code == 200
    assert (link()["id"], link()["mount"], link()["writable"]) == (one["id"], "io-nims", False)
    refused = alice.patch(f"{HEAT}/datasets/{one['id']}", json={"writable": True})
    assert refused.status_code == 409, "its owner neither"
    assert bob.patch(f"{HEAT}/datasets/{one['id']}", json={"version": 0}).status_code == 404
    assert alice.patch(f"{HEAT}/datasets/{one['id']}", json={"version": 0}).status_code == 200
    assert link()["id"] == origin["id"]


def test_files_that_change_while_they_are_copied_make_no_version(
    sign: Sign, site: LiveSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = sign("alice")
    put(site, dataset(alice), "a.csv", b"1")
    really = copies.copy_into

    def disturbed(*args: Any, **more: Any) -> Any:
        done = really(*args, **more)
        assert alice.put(f"{IO}/files/b.csv", content=b"2").status_code in (200, 201)
        return done

    asked = alice.post(f"{IO}/versions").json()
    monkeypatch.setattr(copies, "copy_into", disturbed)
    now(site, freezing.go_on(site.portal))
    assert alice.get(f"/datasets/alice/{asked['slug']}").status_code == 404
    assert "changed while they were copied" in alice.get("/notices").json()["items"][0]["text"]
    assert not (site.settings.volume_path("default") / "datasets" / asked["id"]).exists()
    monkeypatch.undo()
    assert version(site, alice)["version"] == 2, "a number is given once"


def test_a_version_that_does_not_fit_is_refused_and_one_that_grew_leaves_nothing(
    sign: Sign, site: LiveSite
) -> None:
    alice, root = sign("alice"), sign("root")
    origin = dataset(alice)
    put(site, origin, "a.csv", b"x" * 5000)
    now(site, storage.count_sizes(site.portal))
    may_keep(root, "alice", 6000)
    assert alice.post(f"{IO}/versions").status_code == 507
    may_keep(root, "alice", 12000)
    asked = alice.post(f"{IO}/versions").json()
    put(site, origin, "b.csv", b"x" * 5000)
    now(site, freezing.go_on(site.portal))
    assert alice.get(f"{IO}/versions").json()["items"] == []
    assert not (site.settings.volume_path("default") / "datasets" / asked["id"]).exists()


def test_who_deletes_a_version_that_is_made_cancels_it(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    put(site, dataset(alice), "a.csv", b"1")
    asked = alice.post(f"{IO}/versions").json()
    assert alice.post(f"{IO}/versions").status_code == 409, "one at a time"
    assert alice.delete(f"/datasets/alice/{asked['slug']}").status_code == 204
    now(site, freezing.go_on(site.portal))
    assert alice.get(f"{IO}/versions").json()["items"] == []
    assert alice.get("/bin/datasets").json()["items"] == []
    assert not (site.settings.volume_path("default") / "datasets" / asked["id"]).exists()


def test_two_versions_asked_for_at_once_are_one(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    put(site, dataset(alice), "a.csv", b"1")
    with site.portal.db.read() as conn:
        from services.portal.api.datasets import find

        origin = find(conn, "alice/io-nims")
    assert origin is not None
    actor: Any = type("Actor", (), {"name": "alice", "address": ""})

    async def both() -> list[Any]:
        ask = lambda: site.portal.db.run_serialised(  # noqa: E731
            "admission", versions.begin, origin, volume_id="default", actor=actor, now=site.portal.clock()
        )
        return await asyncio.gather(ask(), ask(), return_exceptions=True)

    found = now(site, both())
    assert sorted(isinstance(one, Exception) for one in found) == [False, True]


def test_a_copy_that_was_broken_off_is_begun_again(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    put(site, dataset(alice), "a.csv", b"1")
    asked = alice.post(f"{IO}/versions").json()
    put(site, asked, "half.csv", b"of a portal that was killed")
    now(site, freezing.go_on(site.portal))
    (one,) = alice.get(f"{IO}/versions").json()["items"]
    assert (one["busy"], one["file_count"]) == ("", 1)


def test_a_version_that_others_use_stays_when_its_data_set_goes(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    put(site, dataset(alice), "a.csv", b"1")
    alice.put(f"{IO}/publication")
    one = version(site, alice)
    made(bob, "His")
    assert bob.post("/projects/bob/his/datasets", json={"dataset": one["id"]}).status_code == 201
    assert alice.delete(f"/datasets/alice/{one['slug']}").status_code == 409
    assert alice.delete(IO).status_code == 204
    (link,) = bob.get("/projects/bob/his/datasets").json()["items"]
    assert link["available"] and link["version"] == 1


def test_the_pages_show_versions_and_offer_them(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    put(site, dataset(alice), "a.csv", b"1")
    one = version(site, alice)
    shown = page(alice, site, "datasets/alice/io-nims/versions").text
    assert one["slug"] in shown and "Make a version" in shown
    own = page(alice, site, f"datasets/alice/{one['slug']}").text
    assert "Version 1: its files never change" in own and 'data-write=""' in own
    made(alice, "Heat")
    alice.post(f"{HEAT}/datasets", json={"dataset": one["id"]})
    assert 'data-version="' in page(alice, site, "projects/alice/heat/datasets").text
    assert page(sign("bob"), site, "datasets/alice/io-nims/versions").status_code == 404
