"""Object stores by the API: who sees which, what is never told, and copies of whole folders."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from galilean.cli import build_app
from galilean.tables import audit_log
from services.catalog import store as projects
from services.files.incoming import Upload
from services.object_stores.tables import object_stores, object_transfers
from services.portal import object_stores as ours
from tests.object_stores.server import ACCESS, SECRET, ObjectStore
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_pages import directory


@pytest.fixture
def site(tmp_path: Path, object_store: ObjectStore) -> Iterator[LiveSite]:
    live = LiveSite(tmp_path / "state", f"object_stores: {{reachable: ['{object_store.host}']}}")
    live.hub.add("alice", "researcher")
    live.hub.add("bob", "student")
    live.hub.add("root", "admin")
    live.hub.add("nobody")
    with live:
        yield live


def body(store: ObjectStore, bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "Lab",
        "endpoint": store.endpoint,
        "bucket": bucket,
        "access_key_id": ACCESS,
        "secret_key": SECRET,
    } | more


def kept(client: httpx.Client, store: ObjectStore, bucket: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/object-stores", json=body(store, bucket, **more))
    assert answer.status_code == 201, answer.text
    return answer.json()


def copied(client: httpx.Client, item: str, **asked: Any) -> dict[str, Any]:
    """A copy, waited for."""
    answer = client.post(f"{item}/object-transfers", json=asked)
    assert answer.status_code in (200, 202), answer.text
    job = answer.json()
    for _ in range(600):
        if job["ended_at"]:
            return job
        time.sleep(0.1)
        job = client.get(f"{item}/jobs/{job['id']}").json()
    raise AssertionError(job)


@pytest.fixture
def bucket(object_store: ObjectStore, request: pytest.FixtureRequest) -> str:
    name = f"p-{abs(hash(request.node.nodeid)):x}"
    object_store.bucket(name, {"data/a.csv": b"1,2\n", "data/sub/b.csv": b"3\n", "top.txt": b"top"})
    return name


@pytest.fixture
def item(sign: Sign) -> str:
    made(sign("alice"))
    return "/projects/alice/heat-flow"


def test_a_folder_comes_in_and_results_go_out(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket, writable=True)
    listed = alice.get(f"/object-stores/{store['id']}/objects").json()["items"]
    assert [(one["name"], one["kind"]) for one in listed] == [("data/", "folder"), ("top.txt", "object")]
    found = alice.get(f"/object-stores/{store['id']}/objects", params={"prefix": "data/", "q": "a"}).json()
    assert [one["key"] for one in found["items"]] == ["data/a.csv"]
    job = copied(alice, item, do="import", store=store["id"], names=["data/", "top.txt"], folder="in")
    assert (job["state"], job["problems"], job["left_out"]) == ("done", [], [])
    assert job["total_bytes"] == job["size_bytes"] == 9
    assert alice.get(f"{item}/files/in/data/sub/b.csv").content == b"3\n"
    again = copied(alice, item, do="import", store=store["id"], names=["data/", "top.txt"], folder="in")
    assert (again["made"], again["size_bytes"]) == (["0"], 0)
    alice.put(f"{item}/files/out/result.txt?parents=true", content=b"42")
    alice.post(f"{item}/files/out", json={"kind": "folder"})
    alice.put(f"{item}/files/out/result.txt", content=b"42")
    job = copied(alice, item, do="export", store=store["id"], paths=["out"], prefix="2026/")
    assert job["made"] == ["1"]
    assert object_store.keys(bucket)["2026/out/result.txt"] == 2
    listed = alice.get(f"{item}/object-transfers").json()["items"]
    assert [(one["do"], one["state"], one["objects"]) for one in listed] == [
        ("export", "done", 1),
        ("import", "done", 0),
        ("import", "done", 3),
    ]


def test_the_secret_key_is_nowhere_but_sealed(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice = sign("alice")
    with caplog.at_level("DEBUG"):
        store = kept(alice, object_store, bucket)
        answers = alice.get("/object-stores").text + json.dumps(store)
        answers += alice.post("/object-stores", json=body(object_store, "no-such-bucket", name="x")).text
        answers += alice.put(
            f"/object-stores/{store['id']}",
            json=body(object_store, bucket, secret_key="") | {"name": "Lab 2"},
        ).text
    with site.portal.db.read() as conn:
        rows = [dict(row._mapping) for row in conn.execute(select(object_stores))]
    assert rows[0]["name"] == "Lab 2"
    assert alice.delete(f"/object-stores/{store['id']}").status_code == 204
    with site.portal.db.read() as conn:
        lines = [dict(row._mapping) for row in conn.execute(select(audit_log))]
    assert [line["action"] for line in lines if line["action"].startswith("object-store")] == [
        "object-store.add",
        "object-store.change",
        "object-store.delete",
    ]
    for text in (answers, repr(rows), repr(lines), caplog.text):
        assert SECRET not in text
    assert SECRET.encode() not in rows[0]["sealed"]


def test_a_store_is_ones_own_and_the_centres_is_everybodys_to_read(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    own = kept(alice, object_store, bucket)
    change = body(object_store, bucket)
    for answer in (
        bob.get(f"/object-stores/{own['id']}/objects"),
        bob.put(f"/object-stores/{own['id']}", json=change),
        bob.delete(f"/object-stores/{own['id']}"),
        root.get(f"/object-stores/{own['id']}/objects"),
        root.delete(f"/object-stores/{own['id']}"),
    ):
        assert answer.status_code == 404, answer.text
    made(bob)
    asked = {"do": "import", "store": own["id"]}
    assert bob.post("/projects/bob/heat-flow/object-transfers", json=asked).status_code == 404
    assert bob.post(f"{item}/object-transfers", json=asked).status_code == 404
    assert alice.post("/object-stores", json=change | {"centre": True}).status_code == 403
    centre = kept(root, object_store, bucket, centre=True, name="Campus")
    seen = next(one for one in bob.get("/object-stores").json()["items"] if one["centre"])
    assert (seen["name"], seen["access_key_id"], seen["may_change"]) == ("Campus", None, False)
    assert bob.delete(f"/object-stores/{centre['id']}").status_code == 403
    assert copied(bob, "/projects/bob/heat-flow", do="import", store=centre["id"])["made"] == ["3"]
    nobody = sign("nobody")
    assert nobody.get("/object-stores").json()["items"] == []
    assert nobody.post("/object-stores", json=change).status_code == 403


def test_a_store_is_read_only_until_its_owner_says_otherwise(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket)
    refused = alice.post(f"{item}/object-transfers", json={"do": "export", "store": store["id"]})
    assert (refused.status_code, refused.json()["reason"]) == (409, "read-only")
    assert object_store.keys(bucket).keys() == {"data/a.csv", "data/sub/b.csv", "top.txt"}


@pytest.mark.parametrize(
    ("endpoint", "status", "reason"),
    [
        ("https://169.254.169.254", 403, "store-private"),
        ("https://localhost", 403, "store-private"),
        ("https://127.1:9000", 403, "store-private"),
        ("https://[::ffff:10.0.0.1]", 403, "store-private"),
        ("http://s3.example.com", 400, "store-plain"),
        ("http://127.0.0.1:1", 400, "store-plain"),
        ("https://a:b@s3.example.com", 400, ""),
        ("https://s3.example.com/path", 400, ""),
        ("ftp://s3.example.com", 400, ""),
        ("file:///etc/passwd", 400, ""),
    ],
)
def test_the_portal_asks_no_address_inside(
    site: LiveSite, sign: Sign, object_store: ObjectStore, endpoint: str, status: int, reason: str
) -> None:
    answer = sign("alice").post("/object-stores", json=body(object_store, "bucket") | {"endpoint": endpoint})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text


@pytest.mark.parametrize("bucket_name", ["arn:aws:s3:::x", "a/../b", "..", "x", "b" * 64, "ba?x=1", "bücket"])
def test_what_is_no_bucket_is_refused(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket_name: str
) -> None:
    answer = sign("alice").post("/object-stores", json=body(object_store, bucket_name))
    assert answer.status_code == 400, answer.text


def test_nothing_outside_of_a_stores_prefix_is_reached(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket, prefix="data")
    assert [one["key"] for one in alice.get(f"/object-stores/{store['id']}/objects").json()["items"]] == [
        "sub/",
        "a.csv",
    ]
    for prefix in ("../", "sub/../../", "/", "./"):
        listed = alice.get(f"/object-stores/{store['id']}/objects", params={"prefix": prefix})
        asked = {"do": "import", "store": store["id"], "prefix": prefix}
        assert listed.status_code == 400
        assert alice.post(f"{item}/object-transfers", json=asked).status_code == 400
    asked = {"do": "import", "store": store["id"], "names": ["../top.txt"]}
    assert alice.post(f"{item}/object-transfers", json=asked).status_code == 400


def test_the_key_is_typed_again_for_another_address(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket)
    changed = body(object_store, bucket, secret_key="") | {"endpoint": "https://elsewhere.example.com"}
    answer = alice.put(f"/object-stores/{store['id']}", json=changed)
    assert (answer.status_code, answer.json()["reason"]) == (400, "secret")


class Slow:
    """Copies whose files take until they are let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.there = threading.Event(), threading.Event()
        write = Upload.write

        def slowly(upload: Upload, piece: bytes) -> None:
            write(upload, piece)
            self.there.set()
            self.go_on.wait(60)

        monkeypatch.setattr(Upload, "write", slowly)
        monkeypatch.setattr(ours, "ASK_SECONDS", 0.0)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    made.go_on.set()


def begun(client: httpx.Client, item: str, store: str) -> dict[str, Any]:
    answer = client.post(f"{item}/object-transfers", json={"do": "import", "store": store})
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(client: httpx.Client, item: str, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(600):
        job = client.get(f"{item}/jobs/{job['id']}").json()
        if job["ended_at"]:
            return job
        time.sleep(0.1)
    raise AssertionError(job)


@pytest.mark.parametrize("what", ["store deleted", "blocked", "share withdrawn"])
def test_a_copy_ends_when_it_may_not_go_on(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str, slow: Slow, what: str
) -> None:
    alice, bob, root = sign("alice"), sign("bob"), sign("root")
    store = kept(root, object_store, bucket, centre=True)
    assert alice.put(f"{item}/shares", json={"person": "bob", "access": "write"}).status_code == 200
    job = begun(bob, item, store["id"])
    assert slow.there.wait(30)
    if what == "store deleted":
        assert root.delete(f"/object-stores/{store['id']}").status_code == 204
    elif what == "blocked":
        site.hub.people["bob"]["groups"].append("galilean-blocked")
        site.portal.people.forget("bob")
    else:
        assert alice.delete(f"{item}/shares", params={"person": "bob"}).status_code == 200
    slow.go_on.set()
    if what == "store deleted":
        over = ended(bob, item, job)
        assert [one["status"] for one in over["problems"]][-1] == 404
    else:
        for _ in range(300):
            with site.portal.db.read() as conn:
                state = conn.execute(select(object_transfers.c.state)).scalar_one()
            if state != "working":
                break
            time.sleep(0.1)
        assert state == "done"
    there = [path for path in directory_of(site).rglob("*") if path.is_file()]
    assert len(there) <= 1, there


def directory_of(site: LiveSite) -> Path:
    with site.portal.db.read() as conn:
        project = projects.get(conn, "alice", "heat-flow")
    assert project is not None
    return directory(site, project.id)


def test_whoever_cancels_has_nothing_half(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str, slow: Slow
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket)
    job = begun(alice, item, store["id"])
    assert slow.there.wait(30)
    alice.delete(f"{item}/jobs/{job['id']}")
    slow.go_on.set()
    assert ended(alice, item, job)["state"] == "cancelled"
    assert alice.get(f"{item}/object-transfers").json()["items"][0]["state"] == "cancelled"


def test_a_copy_of_a_portal_that_was_killed_is_told_and_begun_again(
    site: LiveSite, sign: Sign, object_store: ObjectStore, bucket: str, item: str
) -> None:
    alice = sign("alice")
    store = kept(alice, object_store, bucket)
    copied(alice, item, do="import", store=store["id"], names=["top.txt"])
    s3 = object_store.client()
    left = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    lost = site.portal.clock() - timedelta(minutes=6)
    with site.portal.db.write() as conn:
        asked = conn.execute(select(object_transfers.c.asked)).scalar_one() | {"names": []}
        conn.execute(
            update(object_transfers).values(
                state="working",
                process="another",
                ended_at=None,
                seen_at=lost,
                asked=asked,
                upload=["big", left],
            )
        )
    asyncio.run_coroutine_threadsafe(ours.sweep(site.portal), site.loop).result(60)
    one = alice.get(f"{item}/object-transfers").json()["items"][0]
    assert one["state"] == "broken"
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    again = alice.post(f"{item}/object-transfers/{one['id']}")
    assert ended(alice, item, again.json())["made"] == ["2"]
    states = [one["state"] for one in alice.get(f"{item}/object-transfers").json()["items"]]
    assert states == ["done"]


def test_a_centre_that_wants_none_has_none(tmp_path: Path) -> None:
    with LiveSite(tmp_path / "state", "object_stores: {enabled: false}") as live:
        live.hub.add("alice", "researcher")
        client = httpx.Client(
            base_url=live.url + "api/v1", headers={"Authorization": f"token {live.hub.token('alice')}"}
        )
        assert client.get("/object-stores").status_code == 404


def test_a_script_keeps_a_store_and_copies_by_command(
    site: LiveSite,
    sign: Sign,
    object_store: ObjectStore,
    bucket: str,
    item: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GALILEAN_SITE", site.url)
    monkeypatch.setenv("GALILEAN_TOKEN", site.hub.token("alice"))
    monkeypatch.setenv("LANG", "C.UTF-8")

    def run(*words: str, typed: str = "") -> Any:
        return CliRunner().invoke(build_app(), ["object-stores", *words], input=typed)

    place = ["--endpoint", object_store.endpoint, "--bucket", bucket, "--key-id", ACCESS, "--writable"]
    added = run("add", "Lab", *place, typed=SECRET + "\n")
    assert added.exit_code == 0, added.exception
    assert SECRET not in added.output
    assert "Lab" in run("list").output
    into = run("import", "Lab", "projects/alice/heat-flow", "--prefix", "data/", "--folder", "in")
    assert "2 files were copied, 6 bytes." in into.output
    out = run("export", "Lab", "projects/alice/heat-flow", "in", "--prefix", "back/")
    assert "2 files were copied" in out.output
    assert "back/in/sub/b.csv" in object_store.keys(bucket)
    assert run("delete", "Lab").exit_code == 0
    assert sign("alice").get("/object-stores").json()["items"] == []
