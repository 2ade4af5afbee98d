"""Data sets by the API: made, changed, shared, published for ever, used in projects, deleted, moved (CG-11, CG-12)."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from galilean.errors import UserError
from services.catalog import datasets, lifecycle, volume_store
from services.portal import drains, storage
from tests.catalog.people import a_project, run_of, told
from tests.portal.conftest import Client, Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_gallery import png

IO = "/datasets/alice/io-nims"


def dataset(client: Client, name: str = "Io NIMS", **more: Any) -> dict[str, Any]:
    answer = client.post("/datasets", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def put(site: LiveSite, found: dict[str, Any], name: str, data: bytes) -> Path:
    """A file into a data set, past the API."""
    path = site.settings.volume_path("default") / "datasets" / found["id"] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def now(site: LiveSite, coroutine: Any) -> Any:
    """Do something in the portal's own loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, site.loop).result(30)


def names(client: Client, **query: str) -> list[str]:
    answer = client.get("/datasets", params=query)
    assert answer.status_code == 200, answer.text
    return sorted(item["name"] for item in answer.json()["items"])


def test_a_data_set_is_made_from_a_name_changed_and_found(sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    found = dataset(alice, "木卫一 Io", summary="Every spectrum", tags=["Moons"])
    assert (found["slug"], found["mount"], found["visibility"]) == ("mu-wei-yi-io", "mu-wei-yi-io", "private")
    url = f"/datasets/alice/{found['slug']}"
    assert alice.get(url).json() == found
    assert bob.get(url).status_code == 404
    assert bob.patch(url, json={"name": "Mine"}).status_code == 404
    after = alice.patch(url, json={"mount": "Io", "field": "physics"}).json()
    assert (after["mount"], after["field"], after["summary"]) == ("Io", "physics", "Every spectrum")
    assert alice.patch(url, json={"mount": "../x"}).status_code == 400
    assert alice.patch(url, json={"visibility": "public"}).status_code == 400
    assert names(alice, q="卫一") == ["木卫一 Io"]
    assert names(bob, scope="all") == []
    assert sign("nobody").post("/datasets", json={"name": "X"}).status_code == 403


def test_public_is_for_ever_and_said_before(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    put(site, dataset(alice), ".netrc", b"machine x password y")
    seen = alice.get(f"{IO}/publication").json()
    assert (seen["for_ever"], seen["files"], seen["secrets"]) == (True, 1, [".netrc"])
    assert bob.put(f"{IO}/publication").status_code == 404
    assert alice.put(f"{IO}/publication").status_code == 204
    assert alice.delete(f"{IO}/publication").status_code == 405
    assert bob.get(IO).json()["access"] == "read"
    assert names(bob, scope="public") == ["Io NIMS"]
    assert bob.patch(IO, json={"name": "Mine"}).status_code == 403


def test_a_share_lets_read_until_it_is_withdrawn(sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    dataset(alice)
    assert alice.put(f"{IO}/shares", json={"person": "who.is.that"}).status_code == 404
    assert alice.put(f"{IO}/shares", json={"person": "bob", "access": "write"}).status_code == 400
    (share,) = alice.put(f"{IO}/shares", json={"person": "bob"}).json()["items"]
    assert (share["person"], share["access"]) == ("bob", "read")
    assert bob.get(IO).status_code == 200
    assert bob.get(f"{IO}/shares").status_code == 403
    assert names(bob, scope="shared") == ["Io NIMS"]
    assert alice.delete(f"{IO}/shares", params={"person": "bob"}).json()["items"] == []
    assert bob.get(IO).status_code == 404


def test_a_project_takes_data_sets_and_an_alias_where_the_directory_is_taken(sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    made(bob)
    first = dataset(bob, "Io NIMS")
    dataset(alice)
    links = "/projects/bob/heat-flow/datasets"
    assert bob.post(links, json={"dataset": "alice/io-nims"}).status_code == 404  # not his to read
    alice.put(f"{IO}/publication")
    assert bob.post(links, json={"dataset": first["id"], "writable": True}).status_code == 201
    taken = bob.post(links, json={"dataset": "alice/io-nims"})
    assert (taken.status_code, taken.json()["reason"]) == (409, "mount-taken")
    (way_out,) = taken.json()["errors"]
    free = "io-nims-alice"
    assert way_out == {"field": "mount", "detail": free}
    assert bob.post(links, json={"dataset": "alice/io-nims", "writable": True}).status_code == 403
    items = bob.post(links, json={"dataset": "alice/io-nims", "mount": free}).json()["items"]
    assert [(item["mount"], item["writable"], item["available"]) for item in items] == [
        ("io-nims", True, True),
        ("io-nims-alice", False, True),
    ]
    used = alice.get(f"{IO}/used-by").json()
    assert used["uses"] == {"own": 0, "others": 1, "running": 0}
    assert used["items"] == []  # a private project of somebody else's
    busy = alice.delete(IO)
    assert busy.status_code == 409
    assert "1 projects" in busy.json()["detail"]
    other = next(item["id"] for item in items if item["owner"] == "alice")
    assert bob.patch(f"{links}/{other}", json={"mount": "nims"}).json()["items"][1]["mount"] == "nims"
    assert bob.delete(f"{links}/{other}").status_code == 204
    assert alice.delete(IO).status_code == 204


def test_what_one_may_no_longer_read_is_said_not_named(sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    dataset(alice, "Secret plan", mount="plan")
    alice.put("/datasets/alice/secret-plan/shares", json={"person": "bob"})
    made(bob)
    links = "/projects/bob/heat-flow/datasets"
    assert bob.post(links, json={"dataset": "alice/secret-plan"}).status_code == 201
    alice.delete("/datasets/alice/secret-plan/shares", params={"person": "bob"})
    (item,) = bob.get(links).json()["items"]
    assert (item["mount"], item["available"], item["name"], item["owner"]) == ("plan", False, "", "")
    assert item["why"]


def test_the_bin_gives_back_what_was_deleted(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    found = dataset(alice)
    path = put(site, found, "a.csv", b"1,2")
    assert alice.delete(IO).status_code == 204
    assert not path.exists()
    (item,) = alice.get("/bin/datasets").json()["items"]
    assert item["id"] == found["id"]
    assert bob.post(f"/bin/datasets/{found['id']}").status_code == 404
    assert alice.post(f"/bin/datasets/{found['id']}").json()["slug"] == "io-nims"
    assert path.read_bytes() == b"1,2"
    alice.delete(IO)
    assert alice.delete(f"/bin/datasets/{found['id']}").status_code == 204
    assert alice.post(f"/bin/datasets/{found['id']}").status_code == 404


def test_an_administrator_takes_down_with_a_reason_and_gives_to_somebody(sign: Sign) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    dataset(alice)
    alice.put(f"{IO}/publication")
    assert alice.put(f"{IO}/taken-down", json={"reason": "x"}).status_code == 403
    assert root.put(f"{IO}/taken-down", json={"reason": " "}).status_code == 400
    assert root.put(f"{IO}/taken-down", json={"reason": "Rights of others"}).status_code == 204
    assert bob.get(IO).status_code == 404
    assert alice.get(IO).json()["taken_down_reason"] == "Rights of others"
    assert alice.put(f"{IO}/publication").status_code == 403
    assert root.delete(f"{IO}/taken-down").status_code == 204
    assert bob.get(IO).json()["taken_down_reason"] == ""
    assert bob.put(f"{IO}/owner", json={"owner": "bob"}).status_code == 403
    assert root.put(f"{IO}/owner", json={"owner": "who"}).status_code == 404
    assert root.put(f"{IO}/owner", json={"owner": "bob"}).json()["owner"] == "bob"
    assert bob.patch("/datasets/bob/io-nims", json={"name": "Mine now"}).status_code == 200
    assert alice.patch("/datasets/bob/io-nims", json={"name": "Back"}).status_code == 403


def test_what_is_kept_counts_against_its_owners_limit(sign: Sign, site: LiveSite) -> None:
    alice, root = sign("alice"), sign("root")
    put(site, dataset(alice), "big.bin", b"x" * 5000)
    portal = site.portal
    assert now(site, storage.room_of(portal, "alice")) is None
    answer = root.post(
        "/quota-exceptions",
        json={"user": "alice", "measure": "kept", "amount": 8000, "reason": "a test"},
    )
    assert answer.status_code in (200, 201), answer.text
    now(site, storage.count_sizes(portal))
    assert alice.get(IO).json()["size_bytes"] == 5000
    room = now(site, storage.kept_room(portal, "alice"))
    assert room() == 3000
    with portal.db.read() as conn:
        with pytest.raises(UserError) as caught:
            storage.check_room(conn, "alice", 3001, 8000)
        assert (caught.value.status, caught.value.reason) == (507, "quota")
        storage.check_room(conn, "alice", 3000, 8000)
    name = base64.b64encode(b"more.bin").decode()
    for length, status in ((4000, 507), (2000, 201)):
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(length),
            "Upload-Metadata": f"filename {name}",
            "Content-Type": "application/offset+octet-stream",
        }
        sent = alice.post(f"{IO}/uploads", content=b"y" * length, headers=headers)
        assert sent.status_code == status, sent.text
    kept = next(item for item in alice.get("/limits").json()["items"] if item["measure"] == "kept")
    assert (kept["held"], kept["remaining"]) == (5000, 3000)


def test_a_data_set_has_a_cover_that_is_a_picture(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    dataset(alice)
    drawn = alice.get(site.url + "datasets/alice/io-nims").text
    assert "/covers/drawn/" in drawn
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    png_header = {"Content-Type": "image/png"}
    assert bob.put(f"{IO}/cover", content=png(), headers=png_header).status_code == 404
    assert alice.put(f"{IO}/cover", content=svg, headers=png_header).status_code == 400
    address = alice.put(f"{IO}/cover", content=png(), headers=png_header).json()["cover"]
    assert alice.get(IO).json()["cover"] == address
    alice.put(f"{IO}/publication")
    (card,) = bob.get("/explore", params={"kind": "dataset"}).json()["items"]
    assert card["cover"] == address
    assert f'src="{address}"' in bob.get(site.url + "explore/datasets").text
    assert bob.get(site.url.partition("/services")[0] + address).headers["Content-Type"] == "image/png"
    assert bob.put(f"{IO}/cover", content=png(), headers=png_header).status_code == 403
    assert bob.delete(f"{IO}/cover").status_code == 403
    assert alice.delete(f"{IO}/cover").status_code == 204
    assert alice.get(IO).json()["cover"] is None


def test_a_data_set_is_somebodys_favourite_once_and_as_long_as_they_may_see_it(
    sign: Sign, site: LiveSite
) -> None:
    alice, bob = sign("alice"), sign("bob")
    star = f"/favourites/datasets/{dataset(alice)['id']}"
    assert bob.put(star).status_code == 404  # a guessed id of something private
    alice.put(f"{IO}/shares", json={"person": "bob"})
    for _ in range(2):
        assert bob.put(star).status_code == 204
    assert names(bob, scope="favourites") == ["Io NIMS"]
    assert names(alice, scope="favourites") == []
    assert 'aria-pressed="true"' in bob.get(site.url + "datasets", params={"show": "favourites"}).text
    alice.delete(f"{IO}/shares", params={"person": "bob"})
    assert names(bob, scope="favourites") == []
    alice.put(f"{IO}/publication")
    (card,) = alice.get("/explore", params={"kind": "dataset"}).json()["items"]
    assert (card["favourites"], card["favourite"]) == (1, False)
    assert bob.delete(star).status_code == 204
    assert names(bob, scope="favourites") == []


def test_who_manages_data_sets_browses_the_files_of_a_private_one(sign: Sign, site: LiveSite) -> None:
    alice, root = sign("alice"), sign("root")
    put(site, dataset(alice), "deep/heat.csv", b"watts\n1\n")
    made(alice)
    alice.put("/projects/alice/heat-flow/files/notes.txt", content=b"mine")
    for what, name, text in (
        (IO, "deep/heat.csv", "watts\n1\n"),
        ("/projects/alice/heat-flow", "notes.txt", "mine"),
    ):
        listed = root.get(f"{what}/files").json()["items"]
        assert [item["name"] for item in listed] == [name.partition("/")[0]]
        assert root.get(f"{what}/files/{name}").text == text
        shown = root.get(site.url + what.lstrip("/"))
        assert shown.status_code == 200
        assert "data-files" in shown.text
    table = root.get(site.url + "admin/projects").text
    assert "/projects/alice/heat-flow" in table


# ------------------------------------------------------------------------------------------- volumes


def register(root: Client, path: Path, volume_id: str = "big", **more: Any) -> httpx.Response:
    return root.post("/volumes", json={"id": volume_id, "path": str(path), **more})


def test_a_volume_is_looked_at_before_it_is_registered(sign: Sign, site: LiveSite, tmp_path: Path) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    assert alice.get("/volumes").status_code == 403
    assert register(root, place).status_code == 400  # not there
    place.mkdir()
    (place / "thesis.txt").write_text("somebody's")
    assert register(root, place).status_code == 409  # not empty
    (place / "thesis.txt").unlink()
    (tmp_path / "link").symlink_to(place)
    assert register(root, tmp_path / "link").status_code == 400
    assert register(root, site.settings.state / "secrets").status_code == 400
    assert register(root, place, kind="claim", claim="x").status_code == 400
    found = register(root, place, holds="datasets")
    assert found.status_code == 201, found.text
    assert found.json()["free_bytes"] > 0
    assert register(root, place, "other").status_code == 409
    # The default one is for both, the new one for data sets alone: a project never comes here.
    assert root.patch("/volumes/default", json={"state": "closed"}).status_code == 409


def test_new_things_go_where_room_is_and_files_are_found_there(
    sign: Sign, site: LiveSite, tmp_path: Path
) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    place.mkdir()
    register(root, place)
    root.patch("/volumes/default", json={"state": "closed"})
    found = dataset(alice)
    assert (place / "datasets" / found["id"]).is_dir()
    project = made(alice)
    assert (place / "projects" / project["id"]).is_dir()
    (volume,) = [one for one in root.get("/volumes").json()["items"] if one["id"] == "big"]
    assert (volume["projects"], volume["datasets"]) == (1, 1)
    assert root.delete("/volumes/big").status_code == 409
    # Away: said so, and nothing else suffers.
    place.rename(tmp_path / "gone")
    away = next(one for one in root.get("/volumes").json()["items"] if one["id"] == "big")
    assert away["problem"]
    assert alice.get("/projects").status_code == 200
    assert alice.post("/datasets", json={"name": "Another"}).status_code == 503
    root.patch("/volumes/default", json={"state": "open"})
    assert alice.post("/datasets", json={"name": "Another"}).status_code == 201


def test_a_drain_moves_everything_and_then_the_volume_can_go(
    sign: Sign, site: LiveSite, tmp_path: Path
) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    place.mkdir()
    register(root, place)
    root.patch("/volumes/default", json={"state": "closed"})
    kept, gone = dataset(alice), dataset(alice, "Old")
    for found in (kept, gone):
        (place / "datasets" / found["id"] / "a.csv").write_text(found["name"])
    alice.delete("/datasets/alice/old")
    assert root.put("/volumes/big/drain", json={"to": "big"}).status_code == 409
    root.patch("/volumes/default", json={"state": "open"})
    course = root.put("/volumes/big/drain", json={"to": "default"}).json()["draining"]
    assert (course["left"], course["to"]) == (2, "default")

    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    now(site, drains.go_on(site.portal, pause=no_time))
    volume = root.get("/volumes/big").json()
    assert (volume["draining"]["left"], volume["draining"]["problem"]) == (0, "")
    default = site.settings.volume_path("default")
    assert (default / "datasets" / kept["id"] / "a.csv").read_text() == "Io NIMS"
    assert not (place / "datasets" / kept["id"]).exists()
    assert alice.post(f"/bin/datasets/{gone['id']}").status_code == 200
    assert (default / "datasets" / gone["id"] / "a.csv").read_text() == "Old"
    assert root.delete("/volumes/big").status_code == 204
    assert root.delete("/volumes/default").status_code == 409


def test_what_is_written_while_it_is_copied_is_not_lost(
    sign: Sign, site: LiveSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    place.mkdir()
    register(root, place)
    root.patch("/volumes/big", json={"state": "closed"})
    found = dataset(alice)
    root.patch("/volumes/big", json={"state": "open"})
    put(site, found, "a.csv", b"before")
    root.put("/volumes/default/drain", json={"to": "big"})
    copy = drains._copy

    def late(*args: Any) -> None:
        copy(*args)
        put(site, found, "a.csv", b"after")  # a request that came before the mark
        with site.portal.db.write() as conn:
            datasets.touch(conn, found["id"], site.portal.clock())

    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(drains, "_copy", late)
    now(site, drains.go_on(site.portal, pause=no_time))
    monkeypatch.setattr(drains, "_copy", copy)
    now(site, drains.go_on(site.portal, pause=no_time))
    assert (place / "datasets" / found["id"] / "a.csv").read_text() == "after"


def test_what_a_run_got_while_it_was_copied_stays_below_its_mount(
    sign: Sign, site: LiveSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    place.mkdir()
    register(root, place)
    root.patch("/volumes/big", json={"state": "closed"})
    found = dataset(alice)
    root.patch("/volumes/big", json={"state": "open"})
    original = put(site, found, "a.csv", b"mounted")
    root.put("/volumes/default/drain", json={"to": "big"})
    copy = drains._copy

    def late(*args: Any) -> None:
        copy(*args)
        with site.portal.db.write() as conn:
            data = datasets.by_id(conn, found["id"])
            assert data is not None
            run_of(conn, a_project(conn), "alice", datasets=[told(data)])

    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(drains, "_copy", late)
    now(site, drains.go_on(site.portal, pause=no_time))
    assert original.read_text() == "mounted"
    assert not (place / "datasets" / found["id"]).exists()
    assert root.get("/volumes/default").json()["draining"]["waiting"] == 2, "the project and its data"


def test_what_is_moved_in_the_bin_stays_there_meanwhile(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    found = dataset(alice)
    alice.delete(IO)
    address = f"/bin/datasets/{found['id']}"
    later = site.portal.clock() + timedelta(days=lifecycle.BIN_DAYS + 1)
    with site.portal.db.write() as conn:
        lifecycle.begin(conn, "dataset", found["id"], "moving")
        assert lifecycle.to_purge(conn, now=later) == []
    assert (alice.post(address).status_code, alice.delete(address).status_code) == (409, 409)
    with site.portal.db.write() as conn:
        lifecycle.end(conn, "dataset", found["id"])
        assert [over.id for over in lifecycle.to_purge(conn, now=later)] == [found["id"]]
    assert alice.post(address).status_code == 200


def test_what_a_dead_process_was_moving_is_moved_again_from_the_beginning(
    sign: Sign, site: LiveSite, tmp_path: Path
) -> None:
    alice, root = sign("alice"), sign("root")
    place = tmp_path / "big"
    place.mkdir()
    register(root, place)
    root.patch("/volumes/big", json={"state": "closed"})
    found = dataset(alice)
    root.patch("/volumes/big", json={"state": "open"})
    put(site, found, "a.csv", b"whole")
    (place / "datasets" / found["id"]).mkdir()
    (place / "datasets" / found["id"] / "a.csv").write_text("ha")  # half of it
    root.put("/volumes/default/drain", json={"to": "big"})
    with site.portal.db.write() as conn:
        lifecycle.begin(conn, "dataset", found["id"], "moving")

    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    now(site, drains.go_on(site.portal, pause=no_time))
    assert (place / "datasets" / found["id"] / "a.csv").read_text() == "whole"
    with site.portal.db.read() as conn:
        assert volume_store.holdings(conn)["big"].datasets == 1


def test_a_data_set_that_was_not_counted_says_so_instead_of_nought(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    dataset(alice)
    assert alice.put(f"{IO}/files/a.csv", content=b"1,2").status_code == 201
    shown = alice.get(site.url + "datasets/alice/io-nims").text
    assert "Not counted yet" in shown
    assert "0 B in 0 files" not in shown


def test_files_of_a_data_set_are_reached_by_its_id_as_by_its_address(sign: Sign) -> None:
    alice = sign("alice")
    ident = dataset(alice)["id"]
    begin = {"Tus-Resumable": "1.0.0", "Upload-Length": "3", "Upload-Metadata": "filename YS50eHQ="}
    for base in (f"/datasets/{ident}", IO):
        assert alice.post(f"{base}/uploads", headers=begin).status_code == 201
        assert alice.get(f"{base}/files").status_code == 200
        assert alice.get(f"{base}/archive").status_code == 200
        assert alice.get(f"{base}/jobs").status_code == 200
