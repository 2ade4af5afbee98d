"""Pages of data sets and volumes: who sees which, that what people wrote stays text, and what administrators do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_datasets import IO, dataset, put
from tests.portal.test_pages import EVIL

PAGES = ["", "/about", "/used-by", "/versions", "/settings", "/publish", "/add"]


def page(client: httpx.Client, site: LiveSite, path: str, **params: str) -> httpx.Response:
    return client.get(site.url + path, params=params)


def act(client: httpx.Client, site: LiveSite, path: str, **fields: Any) -> httpx.Response:
    return client.post(site.url + path, data=fields)


@pytest.mark.parametrize("part", [*PAGES, "/description"])
def test_what_people_wrote_stays_text(sign: Sign, site: LiveSite, part: str) -> None:
    alice = sign("alice")
    found = dataset(alice, EVIL[:100], summary=EVIL, description=EVIL, tags=["<img src=x>"])
    made(alice, EVIL[:90])
    put(site, found, ".env", b"x")
    for path in (f"datasets/alice/{found['slug']}{part}", "datasets", "datasets/bin"):
        answer = page(alice, site, path)
        assert answer.status_code == 200, answer.text
        for harm in ("<script>alert", "<img src=x", ">49<"):
            assert harm not in answer.text
    if part == "/description":
        alone = page(alice, site, f"datasets/alice/{found['slug']}{part}")
        assert "sandbox" in alone.headers["Content-Security-Policy"]


@pytest.mark.parametrize("part", PAGES)
def test_who_may_not_read_it_is_told_that_there_is_none(sign: Sign, site: LiveSite, part: str) -> None:
    alice, bob = sign("alice"), sign("bob")
    dataset(alice)
    assert page(bob, site, f"datasets/alice/io-nims{part}").status_code == 404
    alice.put(f"{IO}/shares", json={"person": "bob"})
    status = page(bob, site, f"datasets/alice/io-nims{part}").status_code
    assert status == (403 if part in ("/settings", "/publish") else 200)


def test_a_volume_that_is_away_keeps_nobody_from_the_rest(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    dataset(alice)
    (site.settings.volume_path("default") / ".galilean-volume").unlink()
    answer = page(alice, site, "datasets/alice/io-nims")
    assert answer.status_code == 200
    assert "Its volume is not there just now" in answer.text
    assert page(alice, site, "datasets/alice/io-nims/settings").status_code == 200


def test_the_run_drawer_says_which_data_sets_a_run_gets_and_where(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    found = dataset(alice, "Secret plan", mount="plan")["id"]
    made(alice)
    alice.post(
        "/projects/alice/heat-flow/datasets", json={"dataset": "alice/secret-plan", "mount": "the-plan"}
    )
    told = page(alice, site, "projects/alice/heat-flow/run").text
    assert "Secret plan" in told
    assert "~/datasets/the-plan" in told
    assert "Read-only" in told
    assert "Writable" not in told
    alice.patch(f"/projects/alice/heat-flow/datasets/{found}", json={"writable": True})
    assert "Writable" in page(alice, site, "projects/alice/heat-flow/run").text
    alice.put("/projects/alice/heat-flow/shares", json={"person": "bob", "access": "run"})
    theirs = page(bob, site, "projects/alice/heat-flow/run").text
    assert "Secret plan" not in theirs, "a link brings nothing in that the person may not read"
    assert "~/datasets/the-plan" in theirs
    assert "Missing" in theirs


def test_the_run_drawer_says_how_many_projects_that_one_may_see_use_an_environment(
    sign: Sign, site: LiveSite
) -> None:
    alice, bob = sign("alice"), sign("bob")
    name = next(iter(site.settings.environments))
    for number in range(3):
        made(alice, f"Heat {number}", environment=name)
    made(bob, "Mine", environment=name)
    assert "Used by 3 projects" in page(alice, site, "projects/alice/heat-0/run").text
    assert "Used by 1 project<" in page(bob, site, "projects/bob/mine/run").text
    alice.put("/projects/alice/heat-1/publication")
    told = page(bob, site, "projects/bob/mine/run").text
    assert "Used by 2 projects" in told
    assert f"explore?environment={name}" in told


def test_the_projects_page_says_what_its_runs_lack(sign: Sign, site: LiveSite) -> None:
    alice, bob = sign("alice"), sign("bob")
    dataset(alice, "Secret plan", mount="plan")
    alice.put("/datasets/alice/secret-plan/shares", json={"person": "bob"})
    made(bob)
    bob.post("/projects/bob/heat-flow/datasets", json={"dataset": "alice/secret-plan"})
    assert "Secret plan" in page(bob, site, "projects/bob/heat-flow/datasets").text
    alice.delete("/datasets/alice/secret-plan/shares", params={"person": "bob"})
    text = page(bob, site, "projects/bob/heat-flow/datasets").text
    assert "~/datasets/plan" in text
    assert "Secret plan" not in text
    found = page(bob, site, "projects/bob/heat-flow/datasets/find", q="secret").text
    assert "Secret plan" not in found


def test_administrators_see_all_and_do_many_at_once(sign: Sign, site: LiveSite) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    ids = [dataset(alice, name)["id"] for name in ("One", "Two")]
    assert page(bob, site, "admin/datasets").status_code == 403
    assert page(bob, site, "admin/volumes").status_code == 403
    text = page(root, site, "admin/datasets", q="two").text
    assert "Two" in text
    assert ">One<" not in text
    assert page(root, site, "admin/datasets/take-down", dataset=ids[0]).status_code == 200
    done = act(root, site, "admin/datasets/take-down", dataset=ids, reason="Rights of others")
    assert done.status_code in (200, 204), done.text
    assert alice.get("/datasets/alice/one").json()["taken_down"] is True
    act(root, site, "admin/datasets/put-back", dataset=ids)
    act(root, site, "admin/datasets/owner", dataset=ids[0], owner="bob")
    assert bob.get("/datasets/bob/one").json()["taken_down"] is False
    act(root, site, "admin/datasets/delete", dataset=ids)
    assert [item["name"] for item in alice.get("/bin/datasets").json()["items"]] == ["Two"]


def test_the_page_of_volumes_says_what_is_where(sign: Sign, site: LiveSite, tmp_path: Path) -> None:
    root = sign("root")
    dataset(root)
    place = tmp_path / "big"
    place.mkdir()
    root.post("/volumes", json={"id": "big", "path": str(place)})
    (place / ".galilean-volume").unlink()
    text = page(root, site, "admin/volumes").text
    for word in ("default", "from galilean.yaml", "big", "Away", "Who keeps most"):
        assert word in text


def test_a_data_set_that_was_not_counted_says_so_instead_of_nought(sign: Sign, site: LiveSite) -> None:
    alice = sign("alice")
    dataset(alice)
    assert alice.put(f"{IO}/files/a.csv", content=b"1,2").status_code == 201
    shown = page(alice, site, "datasets/alice/io-nims").text
    assert "Not counted yet" in shown
    assert "0 B in 0 files" not in shown


def test_before_a_word_is_typed_a_project_is_offered_ones_own_then_shared_then_public(
    sign: Sign, site: LiveSite
) -> None:
    alice, bob = sign("alice"), sign("bob")
    for name in ("For all", "For alice", "Secret"):
        dataset(bob, name)
    bob.put("/datasets/bob/for-all/publication")
    bob.put("/datasets/bob/for-alice/shares", json={"person": "alice"})
    dataset(alice, "Older")
    dataset(alice, "Newer")
    dataset(alice, "Used already")
    made(alice)
    alice.post("/projects/alice/heat-flow/datasets", json={"dataset": "alice/used-already"})
    told = page(alice, site, "projects/alice/heat-flow/datasets/find").text
    places = [told.find(f">{name}</a>") for name in ("Newer", "Older", "For alice", "For all")]
    assert -1 not in places
    assert places == sorted(places)
    assert "Secret" not in told
    assert "Used already" not in told
