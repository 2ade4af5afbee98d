"""Projects that are shared, published, found, forked: by the API and the pages, as different people."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from galilean import notices
from galilean.errors import UserError
from galilean.web.context import Portal
from services.catalog import covers, datasets, lifecycle, links, shares, store, words
from services.catalog.access import GRACE_SECONDS, Viewer
from services.catalog.covers import HEIGHT, WIDTH
from services.catalog.shares import Actor
from services.object_stores import kept
from services.object_stores import rules as object_store_rules
from services.portal import copying, object_stores, withdrawn
from spawner import records
from tests.catalog.people import to
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

SCRIPT = "<script>alert(1)</script>"


def path_of(project: dict[str, str]) -> str:
    return f"/projects/{project['owner']}/{project['slug']}"


def page(site: LiveSite, client: httpx.Client, address: str) -> httpx.Response:
    return client.get(site.url + address.lstrip("/"))


def put_file(client: httpx.Client, project: dict[str, str], name: str, text: str) -> None:
    answer = client.put(f"{path_of(project)}/files/{name}", content=text.encode())
    assert answer.status_code in (200, 201), answer.text


def do(site: LiveSite, work: Callable[[Portal], Coroutine[Any, Any, None]]) -> None:
    """A chore, done now."""
    asyncio.run_coroutine_threadsafe(work(site.portal), site.loop).result(60)


def copied(site: LiveSite, client: httpx.Client, fork: dict[str, str]) -> dict[str, Any]:
    """What is told of a fork once its files were copied."""
    assert client.get(f"{path_of(fork)}/copying").json()["state"] == "copying"
    do(site, copying.go_on)
    answer = client.get(f"{path_of(fork)}/copying").json()
    assert answer["state"] == "done"
    return answer


def png(width: int = WIDTH, height: int = HEIGHT, extra: bytes = b"") -> bytes:
    def part(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress((b"\0" + b"\x20\x40\x80" * width) * height)
    text = part(b"tEXt", extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + text
        + part(b"IDAT", pixels)
        + part(b"IEND", b"")
        + extra
    )


def test_a_student_finds_a_published_project_by_two_chinese_characters_and_forks_it(
    site: LiveSite, sign: Sign
) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice, "木星的潮汐加热", description="四个节点上的有限元")
    put_file(alice, project, "README.md", "# 潮汐\n")
    assert bob.get("/explore", params={"q": "潮汐"}).json()["items"] == []
    assert bob.get(path_of(project)).status_code == 404

    seen = alice.get(path_of(project) + "/publication").json()
    assert (seen["files"], seen["secrets"], seen["complete"]) == (1, [], True)
    assert alice.put(path_of(project) + "/publication").status_code == 204
    (card,) = bob.get("/explore", params={"q": "潮汐"}).json()["items"]
    assert (card["id"], card["visibility"], card["views"]) == (project["id"], "public", 0)
    shown = page(site, bob, path_of(project))
    assert shown.status_code == 200
    assert "data-run-open" not in shown.text
    assert "Fork" in shown.text
    assert bob.get(path_of(project)).json()["access"] == "read"

    answer = bob.post(path_of(project) + "/forks")
    assert answer.status_code == 202
    fork = answer.json()["project"]
    assert (fork["owner"], fork["name"], fork["visibility"]) == ("bob", project["name"], "private")
    assert copied(site, bob, fork)["files"] == 1
    assert bob.get(path_of(fork) + "/files/README.md").text == "# 潮汐\n"
    assert bob.get(path_of(fork)).json()["busy"] == ""
    # It is bob's alone: the owner of the origin sees that there is one, not which.
    assert alice.get(path_of(fork)).status_code == 404
    tree = alice.get(path_of(project) + "/forks").json()["items"]
    assert [item["id"] for item in tree] == [project["id"]]
    assert bob.get(path_of(fork) + "/forks").json()["origin"]["id"] == project["id"]
    (card,) = bob.get("/explore", params={"q": "潮汐"}).json()["items"]
    assert (card["uses"], card["views"]) == (1, 1)


def test_looks_are_counted_once_a_day_and_never_ones_own(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    alice.put(path_of(project) + "/publication")
    for client in (alice, bob, bob, alice, bob):
        page(site, client, path_of(project))
    (card,) = bob.get("/explore").json()["items"]
    assert card["views"] == 1


def test_a_star_is_one_persons_and_counts_once(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    star = f"/favourites/projects/{project['id']}"
    assert bob.put(star).status_code == 404  # a guessed id of something private
    alice.put(path_of(project) + "/publication")
    for _ in range(2):
        assert bob.put(star).status_code == 204
    (card,) = bob.get("/explore", params={"scope": "favourites"}).json()["items"]
    assert (card["favourites"], card["favourite"]) == (1, True)
    alice.delete(path_of(project) + "/publication")
    assert bob.get("/explore", params={"scope": "favourites"}).json()["items"] == []
    assert bob.delete(star).status_code == 204


def test_unpublished_is_gone_for_others_and_forks_stay(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    alice.put(path_of(project) + "/publication")
    fork = bob.post(path_of(project) + "/forks").json()["project"]
    copied(site, bob, fork)
    assert alice.delete(path_of(project) + "/publication").status_code == 204
    for address in ("", "/forks", "/files", "/copying"):
        assert bob.get(path_of(project) + address).status_code == 404, address
    assert page(site, bob, path_of(project)).status_code == 404
    assert bob.get(path_of(fork)).status_code == 200
    assert bob.get(path_of(fork) + "/forks").json()["origin"] is None


def test_what_was_withdrawn_before_it_was_copied_is_not_copied(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    put_file(alice, project, "a.txt", "a")
    alice.put(path_of(project) + "/publication")
    fork = bob.post(path_of(project) + "/forks").json()["project"]
    alice.delete(path_of(project) + "/publication")
    do(site, copying.go_on)
    assert bob.get(path_of(fork)).status_code == 404
    assert [one.kind for one in site.write(notices.unread, "bob")] == ["fork"]


def test_a_fork_that_must_wait_for_the_hub_keeps_no_other_from_being_copied(
    site: LiveSite, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    project = made(alice)
    put_file(alice, project, "a.txt", "a")
    alice.put(path_of(project) + "/publication")
    his = bob.post(path_of(project) + "/forks").json()["project"]
    hers = root.post(path_of(project) + "/forks").json()["project"]
    ask = copying.viewer_named

    async def away(portal: Portal, name: str) -> Viewer:
        if name == "bob":
            raise UserError(503, "The hub does not answer.")
        await asyncio.sleep(0.2)
        return await ask(portal, name)

    monkeypatch.setattr(copying, "viewer_named", away)
    do(site, copying.go_on)
    assert [bob.get(path_of(his)).json()["busy"], root.get(path_of(hers)).json()["busy"]] == ["copying", ""]
    monkeypatch.setattr(copying, "viewer_named", ask)
    do(site, copying.go_on)
    assert bob.get(path_of(his) + "/files/a.txt").text == "a"


@pytest.mark.parametrize(
    ("access", "run", "write"), [("read", 403, 403), ("run", 202, 403), ("write", 202, 201)]
)
def test_a_share_gives_what_it_says_and_withdrawn_nothing(
    site: LiveSite, sign: Sign, access: str, run: int, write: int
) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    put_file(alice, project, "a.txt", "a")
    given = alice.put(path_of(project) + "/shares", json={"person": "bob", "access": access})
    assert given.status_code == 200, given.text
    assert bob.get(path_of(project)).json()["access"] == access
    assert bob.put(path_of(project) + "/files/b.txt", content=b"b").status_code == write
    assert bob.get(path_of(project) + "/files/a.txt").text == "a"
    for attempt in (
        bob.patch(path_of(project), json={"name": "Mine"}),
        bob.put(path_of(project) + "/publication"),
        bob.put(path_of(project) + "/shares", json={"person": "nobody", "access": "read"}),
        bob.delete(path_of(project)),
        bob.put(path_of(project) + "/cover", content=png(), headers={"Content-Type": "image/png"}),
        bob.put(path_of(project) + "/owner", json={"owner": "bob"}),
        bob.put(path_of(project) + "/taken-down", json={"reason": "x"}),
    ):
        assert attempt.status_code == 403, attempt.request.url
    assert page(site, bob, path_of(project) + "/settings").status_code == 403
    started = bob.post(path_of(project) + "/clusters", json={"nodes": 1})
    assert started.status_code == run, started.text
    left = alice.delete(path_of(project) + "/shares", params={"person": "bob"})
    assert left.json()["items"] == []
    for method, address in (("GET", ""), ("GET", "/files/a.txt"), ("POST", "/clusters"), ("POST", "/forks")):
        assert bob.request(method, path_of(project) + address).status_code == 404, address


def test_what_is_shared_is_for_somebody_who_exists(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    project = made(alice)
    shares = path_of(project) + "/shares"
    assert alice.put(shares, json={"person": "stranger", "access": "read"}).status_code == 404
    assert alice.put(shares, json={"group": "no-such", "access": "read"}).status_code == 404
    assert alice.put(shares, json={"person": "alice", "access": "read"}).status_code == 400
    assert alice.put(shares, json={"access": "read"}).status_code == 400
    assert alice.get(shares).json()["items"] == []


def test_who_waits_for_a_role_looks_at_what_is_public_and_forks_nothing(site: LiveSite, sign: Sign) -> None:
    alice, nobody = sign("alice"), sign("nobody")
    project = made(alice)
    alice.put(path_of(project) + "/publication")
    alice.put(path_of(project) + "/shares", json={"person": "nobody", "access": "write"})
    assert nobody.get(path_of(project)).status_code == 200
    assert page(site, nobody, path_of(project)).status_code == 200
    for attempt in (
        nobody.post(path_of(project) + "/forks"),
        nobody.post(path_of(project) + "/clusters", json={}),
        nobody.put(path_of(project) + "/files/x", content=b"x"),
    ):
        assert attempt.status_code == 403, attempt.request.url


def test_a_cancelled_fork_leaves_nothing(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    for number in range(30):
        put_file(alice, project, f"{number}.txt", "x")
    alice.put(path_of(project) + "/publication")
    fork = bob.post(path_of(project) + "/forks").json()["project"]
    assert "Its files are being copied" in page(site, bob, path_of(fork)).text
    assert bob.post(path_of(fork) + "/clusters", json={}).status_code == 409
    assert bob.delete(path_of(fork)).status_code == 204
    do(site, copying.go_on)
    assert bob.get(path_of(fork)).status_code == 404
    assert bob.get("/bin/projects").json()["items"] == []
    assert not list(site.settings.state.glob(f"volumes/*/*/{fork['id']}"))
    again = bob.post(path_of(project) + "/forks").json()["project"]
    assert again["slug"] == fork["slug"]
    assert copied(site, bob, again)["files"] == 30


def test_a_deleted_project_lies_in_the_bin_and_comes_back_with_its_files(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    put_file(alice, project, "a.txt", "a")
    assert alice.delete(path_of(project)).status_code == 204
    (binned,) = alice.get("/bin/projects").json()["items"]
    assert binned["id"] == project["id"]
    assert bob.post(f"/bin/projects/{project['id']}").status_code == 404
    assert bob.delete(f"/bin/projects/{project['id']}").status_code == 404
    taken = made(alice)  # its address is another's now
    back = alice.post(f"/bin/projects/{project['id']}").json()
    assert back["slug"] == taken["slug"] + "-2"
    assert alice.get(path_of(back) + "/files/a.txt").text == "a"

    alice.delete(path_of(back))
    assert "Delete for ever" in page(site, alice, "projects/bin").text
    assert alice.delete(f"/bin/projects/{project['id']}").status_code == 204
    assert alice.get("/bin/projects").json()["items"] == []
    assert alice.post(f"/bin/projects/{project['id']}").status_code == 404
    assert not list(site.settings.state.glob(f"volumes/*/bin/{project['id']}"))


def test_everything_about_a_project_can_be_changed_but_its_address(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    project = made(alice)
    sent = {
        "name": "热流",
        "field": "cae",
        "tags": ["MPI", "mpi ", "热"],
        "readme": "start.ipynb",
        "default_request": {"nodes": 2, "cpu": 1.5, "memory": "4G", "release": "2h"},
    }
    after = alice.patch(path_of(project), json=sent).json()
    assert (after["slug"], after["name"], after["field"]) == (project["slug"], "热流", "cae")
    assert (after["tags"], after["readme"]) == (["mpi", "热"], "start.ipynb")
    assert after["default_request"]["nodes"] == 2
    assert after["default_request"]["memory_bytes"] == 4 * 2**30
    whole = {
        "nodes": 2, "gpu": 1, "gpu_model": "a100", "storage": "3G", "pool": "physics", "ports": [8080],
        "release": "2h", "on_node_loss": "keep",
    }  # fmt: skip
    after = alice.patch(path_of(project), json={"default_request": whole}).json()["default_request"]
    assert after == {**{k: v for k, v in whole.items() if k != "storage"}, "storage_bytes": 3 * 2**30}
    assert alice.patch(path_of(project), json={"default_request": {}}).json()["default_request"] is None
    for wrong in (
        {"field": "alchemy"},
        {"tags": ["x" * 50]},
        {"default_request": {"nodes": 0}},
        {"default_request": {"image": "evil"}},
        {"owner": "bob"},
    ):
        assert alice.patch(path_of(project), json=wrong).status_code == 400, wrong
    for slug in ("new", "api", "node-1"):
        assert alice.post("/projects", json={"name": "x", "slug": slug}).status_code == 400
    found = alice.get("/explore", params={"scope": "mine", "tag": "mpi", "field": "cae"}).json()["items"]
    assert [card["id"] for card in found] == [project["id"]]


def test_a_cover_is_a_picture_and_nothing_else(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    cover = path_of(project) + "/cover"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for body, kind, status in (
        (svg, "image/svg+xml", 415),
        (svg, "image/png", 400),
        (png(281), "image/png", 400),
        (png()[:-40], "image/png", 400),
        (b"\xff\xd8\xff\xe0" + b"x" * 50, "image/jpeg", 400),
        (b"x" * (1 << 20) + b"y", "image/png", 413),
        (b"", "image/png", 400),
    ):
        answer = alice.put(cover, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
    sent = png(extra=b"Comment\0<script>secret place</script>")
    answer = alice.put(cover, content=sent, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    address = answer.json()["cover"]
    image = bob.get(site.url.partition("/services")[0] + address)
    assert image.status_code == 200
    assert image.headers["Content-Type"] == "image/png"
    assert "sandbox" in image.headers["Content-Security-Policy"]
    assert b"script" not in image.content
    assert alice.get(path_of(project)).json()["cover"] == address
    assert alice.delete(cover).status_code == 204
    assert alice.get(path_of(project)).json()["cover"] is None


def test_what_people_wrote_is_text_on_every_page(site: LiveSite, sign: Sign) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    project = made(alice, SCRIPT, description=SCRIPT)
    alice.patch(path_of(project), json={"tags": [SCRIPT[:30]], "readme": SCRIPT})
    put_file(alice, project, "README.md", SCRIPT)
    alice.put(path_of(project) + "/publication")
    bob.post(path_of(project) + "/forks")
    addresses = [
        (bob, "explore"),
        (bob, "explore?q=" + SCRIPT),
        (bob, "explore?tag=" + SCRIPT),
        (bob, "explore?author=" + SCRIPT),
        (bob, path_of(project)),
        (bob, path_of(project) + "/forks"),
        (alice, path_of(project) + "/settings"),
        (alice, path_of(project) + "/publish"),
        (bob, "projects?show=favourites&q=" + SCRIPT),
        (bob, "projects"),
        (bob, "search?q=" + SCRIPT),
        (root, "admin/projects"),
    ]
    for client, address in addresses:
        answer = page(site, client, address)
        assert answer.status_code == 200, address
        assert SCRIPT not in answer.text, address


def test_an_administrator_takes_down_with_a_reason_and_gives_to_somebody_else(
    site: LiveSite, sign: Sign
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    project = made(alice)
    alice.put(path_of(project) + "/publication")
    down = path_of(project) + "/taken-down"
    assert root.put(down, json={"reason": " "}).status_code == 400
    assert root.put(down, json={"reason": "Not ours to show"}).status_code == 204
    assert bob.get(path_of(project)).status_code == 404
    assert bob.get("/explore").json()["items"] == []
    assert alice.get(path_of(project)).json()["taken_down"] is True
    assert alice.put(path_of(project) + "/publication").status_code == 403
    assert "Taken down" in page(site, alice, path_of(project)).text
    everything = root.get("/explore", params={"scope": "everything"}).json()["items"]
    assert [card["taken_down"] for card in everything] == [True]
    assert bob.get("/explore", params={"scope": "everything"}).status_code == 403
    assert root.delete(down).status_code == 204
    assert bob.get(path_of(project)).status_code == 200

    assert root.put(path_of(project) + "/owner", json={"owner": "stranger"}).status_code == 404
    given = root.put(path_of(project) + "/owner", json={"owner": "bob"}).json()
    assert (given["owner"], given["id"]) == ("bob", project["id"])
    assert alice.get(path_of(given)).json()["access"] == "read"
    assert bob.get(path_of(given)).json()["access"] == "own"
    assert alice.get(path_of(project)).status_code == 404


def test_one_box_finds_everything_that_somebody_may_see_and_nothing_else(site: LiveSite, sign: Sign) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    secret, shown = made(alice, "潮汐 secret"), made(alice, "潮汐 shown")
    alice.put(path_of(shown) + "/publication")

    def found(client: httpx.Client, text: str) -> list[tuple[str, str]]:
        return [
            (one["group"], one["url"]) for one in client.get("/search", params={"q": text}).json()["items"]
        ]

    mine = {url for group, url in found(alice, "潮汐") if group == "projects"}
    assert mine == {secret["url"], shown["url"]}
    assert [url for _, url in found(bob, "潮汐")] == [shown["url"]]
    assert any(group == "environments" for group, _ in found(bob, "jupyter"))
    assert any(group == "people" and "alice" in url for group, url in found(root, "alice"))
    assert not any(group == "people" for group, _ in found(bob, "alice"))
    assert not any("/admin/" in url for _, url in found(bob, "quotas"))
    assert any(url.endswith("admin/quotas") for _, url in found(root, "quotas"))
    assert found(bob, "") == found(bob, "·…") == []
    folded: list[str] = []
    with pytest.MonkeyPatch.context() as patched:  # a key that is pressed folds no names of people anew
        patched.setattr(words, "fold", lambda text, fold=words.fold: folded.append(text) or fold(text))
        assert any(group == "people" for group, _ in found(root, "alic"))
    assert not any(text.startswith("alice") for text in folded)
    inside = bob.get(site.url + "search", params={"q": "潮汐"}, headers={"HX-Request": "true"}).text
    assert "潮汐 shown" in inside
    assert "<html" not in inside


def test_the_box_finds_ones_own_disks_the_object_stores_one_may_use_and_the_help(
    site: LiveSite, sign: Sign
) -> None:
    alice, bob = sign("alice"), sign("bob")
    chinese = sign("bob", language="zh-CN")
    assert alice.post("/disks", json={"name": "scratch-io", "size_gib": 1}).status_code == 201
    place = object_store_rules.Place(endpoint="https://s3.example.edu", bucket="tides", prefix="", region="")
    box, now = object_stores.box(site.portal), site.portal.clock()
    for owner, name in (("alice", "潮汐观测桶"), ("", "全校潮汐数据")):
        who = kept.Viewer(name="alice", has_role=True, manages=True)
        key = object_store_rules.Key(access_key_id="a", secret="very secret")
        site.write(
            kept.add, box, who, centre=not owner, name=name, place=place, key=key, writable=False, now=now
        )

    def found(client: httpx.Client, text: str, group: str) -> list[tuple[str, str]]:
        items = client.get("/search", params={"q": text}).json()["items"]
        return [
            (one["title"], one["url"].removeprefix(site.portal.prefix))
            for one in items
            if one["group"] == group
        ]

    assert found(alice, "scratch", "disks") == [("scratch-io", "disks?q=scratch-io")]
    assert found(bob, "scratch", "disks") == []
    assert {name for name, _ in found(alice, "潮汐", "object-stores")} == {"潮汐观测桶", "全校潮汐数据"}
    assert [name for name, _ in found(bob, "汐数", "object-stores")] == ["全校潮汐数据"]
    assert found(bob, "观测", "object-stores") == []
    assert "very secret" not in alice.get("/search", params={"q": "tides"}).text
    assert ("Use data sets", "help/how-to/use-data-sets") in found(bob, "data sets", "help")
    (first, *_) = found(chinese, "磁盘", "help")
    assert first == ("使用磁盘", "help/how-to/use-disks")
    assert found(chinese, "导出", "help")[0][1] == "help/how-to/move-projects"
    assert ("Disks", "disks") in found(bob, "disks", "pages")
    for text in ("<script>", "%", "_", "a" * 5000):
        assert bob.get("/search", params={"q": text}).status_code == 200
    inside = chinese.get(site.url + "search", params={"q": "磁盘"}, headers={"HX-Request": "true"}).text
    assert "帮助" in inside


def test_a_name_is_quoted_in_the_address_of_a_person_that_is_found(site: LiveSite, sign: Sign) -> None:
    site.hub.add("o&m=x #1", "student")
    root = sign("root")
    (one,) = [
        one for one in root.get("/search", params={"q": "o&m"}).json()["items"] if one["group"] == "people"
    ]
    assert one["url"].endswith("admin/people?q=o%26m%3Dx%20%231")


@pytest.mark.parametrize(
    ("path", "current"), [("disks", "Data sets"), ("datasets", "Data sets"), ("workbenches", "Environments")]
)
def test_the_entry_that_a_page_is_opened_from_is_the_current_one(
    site: LiveSite, sign: Sign, path: str, current: str
) -> None:
    told = page(site, sign("alice"), path).text
    assert set(re.findall(r'class="navlink" [^>]*aria-current="page">([^<]*)</a>', told)) == {current}


def test_those_who_manage_projects_act_on_many_at_once(site: LiveSite, sign: Sign) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    one, two = made(alice, "One"), made(bob, "Two")
    ids = {"project": [one["id"], two["id"]]}
    assert page(site, bob, "admin/projects").status_code == 403
    assert bob.post(site.url + "admin/projects/delete", data=ids).status_code == 403
    asked = root.get(site.url + "admin/projects/take-down", params=ids)
    assert "Take 2 projects down?" in asked.text
    assert root.post(site.url + "admin/projects/take-down", data=ids).status_code == 400  # without a reason
    done = root.post(site.url + "admin/projects/take-down", data={**ids, "reason": "Exam"})
    assert done.status_code == 200, done.text
    assert alice.get(path_of(one)).json()["taken_down"] is True
    assert root.post(site.url + "admin/projects/delete", data=ids).status_code == 200
    assert [item["id"] for item in bob.get("/bin/projects").json()["items"]] == [two["id"]]


def test_a_run_that_rests_on_a_withdrawn_share_is_told_and_ended(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    alice.put(path_of(project) + "/shares", json={"person": "bob", "access": "run"})
    run_id = bob.post(path_of(project) + "/clusters", json={}).json()["id"]
    do(site, withdrawn.look)
    assert site.write(records.get, run_id).stop_asked_at is None
    alice.delete(path_of(project) + "/shares", params={"person": "bob"})
    told = [one.kind for one in site.write(notices.unread, "bob")]
    assert told == ["withdrawn"]
    do(site, withdrawn.look)
    assert site.write(records.get, run_id).stop_asked_at is None  # the grace
    known = site.portal.parts["withdrawn"]
    known[run_id] -= timedelta(seconds=GRACE_SECONDS)
    do(site, withdrawn.look)
    run = site.write(records.get, run_id)
    assert (run.stop_asked_at is not None, run.reason) == (True, "withdrawn")


@pytest.mark.parametrize("how", ["withdrawn", "taken down", "link removed", "public", "shared again"])
def test_a_run_with_a_data_set_that_is_no_longer_shared_is_told_and_ended(
    site: LiveSite, sign: Sign, how: str
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    data = alice.post("/datasets", json={"name": "Io"}).json()
    address = f"/datasets/alice/{data['slug']}"
    alice.put(f"{address}/shares", json={"person": "bob"})
    project = made(bob)
    bob.post(path_of(project) + "/datasets", json={"dataset": data["id"]})
    run_id = bob.post(path_of(project) + "/clusters", json={}).json()["id"]
    run = site.write(records.get, run_id)
    assert [one["id"] for one in run.datasets] == [data["id"]]
    do(site, withdrawn.look)
    assert site.portal.parts["withdrawn"] == {}
    if how == "taken down":
        root.put(f"{address}/taken-down", json={"reason": "Rights of others"})
        do(site, withdrawn.look)
    elif how == "public":
        alice.put(f"{address}/publication")
        alice.delete(f"{address}/shares", params={"person": "bob"})
        do(site, withdrawn.look)
        assert site.portal.parts["withdrawn"] == {}
        return
    else:
        if how == "link removed":
            bob.delete(f"{path_of(project)}/datasets/{data['id']}")
        alice.delete(f"{address}/shares", params={"person": "bob"})
    (told,) = [one for one in site.write(notices.unread, "bob") if one.kind == "withdrawn"]
    assert (told.params["name"], told.params["minutes"]) == ("Io", 10)
    do(site, withdrawn.look)
    assert site.write(records.get, run_id).stop_asked_at is None  # the grace
    if how == "shared again":
        alice.put(f"{address}/shares", json={"person": "bob"})
    site.portal.parts["withdrawn"][run_id] -= timedelta(seconds=GRACE_SECONDS)
    do(site, withdrawn.look)
    run = site.write(records.get, run_id)
    if how == "shared again":
        assert run.stop_asked_at is None
        assert run_id not in site.portal.parts["withdrawn"]
        return
    assert (run.stop_asked_at is not None, run.reason) == (True, "withdrawn")
    assert run.explanation["params"] == {"name": "Io"}


def test_a_fork_never_brings_in_a_private_data_set(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    now = site.portal.clock()

    def link(conn: Connection) -> None:
        viewer = Viewer(name="alice")
        found = store.by_id(conn, project["id"])
        assert found is not None
        for name, public in (("open", True), ("closed", False)):
            data = datasets.create(conn, owner="alice", name=name, volume_id="default", now=now)
            links.add(conn, viewer, found, data.id, now=now)
            if public:
                lifecycle.publish(conn, "dataset", data.id, actor=Actor(name="alice"), now=now)

    site.write(link)
    alice.put(path_of(project) + "/publication")
    seen = alice.get(path_of(project) + "/publication").json()
    assert seen["unreadable"] == ["alice/closed"]
    made_fork = bob.post(path_of(project) + "/forks").json()
    assert made_fork["left_out"] == 1
    assert [one.slug for one in site.write(links.links_of, made_fork["project"]["id"])] == ["open"]
    (card,) = bob.get("/explore", params={"kind": "dataset"}).json()["items"]
    assert card["uses"] == 1
    told = page(site, alice, path_of(project) + "/forks").text
    assert "1 fork" in told
    assert "No forks yet" not in told


def test_an_image_that_nothing_shows_is_forgotten_after_a_day(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    project = made(alice)
    name = (
        alice.put(path_of(project) + "/cover", content=png(), headers={"Content-Type": "image/png"})
        .json()["cover"]
        .rpartition("/")[2]
    )
    later = site.portal.clock() + timedelta(days=2)
    assert site.write(covers.sweep, now=later) == 0
    alice.delete(path_of(project) + "/cover")
    assert site.write(covers.sweep, now=later) == 1
    assert site.write(covers.get, name) is None


def test_a_run_that_may_write_goes_back_when_its_person_may_only_read(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    with site.portal.db.write() as conn:
        shares.give(
            conn,
            "project",
            project["id"],
            to("bob", "write"),
            actor=Actor(name="alice"),
            now=site.portal.clock(),
        )
    run_id = bob.post(path_of(project) + "/clusters", json={}).json()["id"]
    do(site, withdrawn.look)
    known = site.portal.parts["withdrawn"]
    assert run_id not in known
    with site.portal.db.write() as conn:  # as when somebody leaves one of two groups: nobody changed a share
        shares.give(
            conn,
            "project",
            project["id"],
            to("bob", "run"),
            actor=Actor(name="alice"),
            now=site.portal.clock(),
        )
    do(site, withdrawn.look)
    assert run_id in known
    known[run_id] -= timedelta(seconds=GRACE_SECONDS)
    do(site, withdrawn.look)
    assert site.write(records.get, run_id).reason == "withdrawn"


def test_a_portal_that_begins_anew_knows_that_a_run_may_write(site: LiveSite, sign: Sign) -> None:
    site.hub.add("carol", "student")
    alice, bob, carol = sign("alice"), sign("bob"), sign("carol")
    project = made(alice)
    alice.put(path_of(project) + "/shares", json={"person": "bob", "access": "write"})
    alice.put(path_of(project) + "/shares", json={"person": "carol", "access": "run"})
    writes = bob.post(path_of(project) + "/clusters", json={}).json()["id"]
    reads = carol.post(path_of(project) + "/clusters", json={}).json()["id"]
    assert site.write(records.get, writes).work_read_only is False
    assert site.write(records.get, reads).work_read_only is True
    with site.portal.db.write() as conn:
        shares.give(
            conn,
            "project",
            project["id"],
            to("bob", "run"),
            actor=Actor(name="alice"),
            now=site.portal.clock(),
        )
    site.portal.parts.pop("withdrawn", None)  # nothing is known of a round before
    do(site, withdrawn.look)
    assert set(site.portal.parts["withdrawn"]) == {writes}


def test_who_may_again_before_the_grace_is_over_keeps_the_run(site: LiveSite, sign: Sign) -> None:
    alice, bob = sign("alice"), sign("bob")
    project = made(alice)
    alice.put(path_of(project) + "/shares", json={"person": "bob", "access": "run"})
    run_id = bob.post(path_of(project) + "/clusters", json={}).json()["id"]
    alice.delete(path_of(project) + "/shares", params={"person": "bob"})
    known = site.portal.parts["withdrawn"]
    known[run_id] -= timedelta(seconds=GRACE_SECONDS)
    alice.put(path_of(project) + "/shares", json={"person": "bob", "access": "run"})
    do(site, withdrawn.look)
    assert run_id not in known
    assert site.write(records.get, run_id).stop_asked_at is None
