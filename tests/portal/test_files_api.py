"""Files over the API as somebody uses them who means harm, or has bad luck: rights, names, uploads, archives, jobs."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Connection, insert, update

from services.catalog import datasets, shares
from services.catalog.access import Share
from services.catalog.shares import Actor
from services.catalog.tables import projects, volumes
from services.files import shelf
from services.files.paths import HIDDEN
from services.portal import desks
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_pages import directory
from tests.web.site import now

BASE = "/projects/alice/heat-flow"
V = {"Tus-Resumable": "1.0.0"}
BYTES = {**V, "Content-Type": "application/offset+octet-stream"}


def said(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def begin(client: httpx.Client, name: str, length: int, base: str = BASE, **more: str) -> httpx.Response:
    headers = {**V, "Upload-Length": str(length), "Upload-Metadata": said(relativePath=name, **more)}
    return client.post(f"{base}/uploads", headers=headers)


def there(client: httpx.Client, where: str) -> str:
    """A ``Location`` as a whole address."""
    return str(client.base_url.copy_with(path=where))


def send(client: httpx.Client, where: str, offset: int, data: bytes, **more: str) -> httpx.Response:
    return client.patch(
        there(client, where), headers={**BYTES, "Upload-Offset": str(offset), **more}, content=data
    )


def at(client: httpx.Client, where: str) -> int:
    return int(client.head(there(client, where), headers=V).headers["Upload-Offset"])


def names(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name != HIDDEN)


def job(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """A job, followed to its end."""
    answer = client.post(f"{BASE}/jobs", json=body)
    assert answer.status_code in (200, 202), answer.text
    found = answer.json()
    while not found["ended_at"]:
        time.sleep(0.05)
        found = client.get(f"{BASE}/jobs/{found['id']}").json()
    return found


@pytest.fixture
def alice(sign: Sign) -> httpx.Client:
    client = sign("alice")
    made(client)
    return client


@pytest.fixture
def root(alice: httpx.Client, site: LiveSite) -> Path:
    return directory(site, alice.get(BASE).json()["id"])


def test_who_may_what_at_a_project_and_a_data_set(sign: Sign, site: LiveSite, alice: httpx.Client) -> None:
    bob, nobody, admin = sign("bob"), sign("nobody"), sign("root")
    alice.put(f"{BASE}/files/a.txt", content=b"1")
    project = alice.get(BASE).json()["id"]
    db = site.portal.db
    with db.write() as conn:
        made_set = datasets.create(conn, owner="alice", name="Io", volume_id="default", now=now())
    dataset, by_id = "/datasets/alice/io", f"/datasets/{made_set.id}"
    assert alice.put(f"{dataset}/files/b.txt", content=b"2").status_code == 201
    where = begin(alice, "c.bin", 4).headers["Location"]

    reads = ("files", "files/a.txt", "texts/a.txt", "preview/a.txt", "archive", "jobs")
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "files/x", {"content": b"x"}),
        ("POST", "files/d", {"json": {"kind": "folder"}}),
        ("PATCH", "files/a.txt", {"json": {"name": "z"}}),
        ("DELETE", "files/a.txt", {}),
        ("PUT", "texts/x", {"json": {"text": "x"}}),
        ("POST", "jobs", {"json": {"do": "delete", "paths": ["a.txt"]}}),
        ("POST", "uploads", {"headers": {**V, "Upload-Length": "1", "Upload-Metadata": said(filename="x")}}),
    ]

    def asked(client: httpx.Client, base: str) -> tuple[set[int], set[int]]:
        found = {client.get(f"{base}/{ending}").status_code for ending in reads}
        return found, {
            client.request(one, f"{base}/{ending}", **more).status_code for one, ending, more in writes
        }

    for base in (BASE, f"/projects/{project}"):
        assert asked(bob, base) == ({404}, {404})
    for base in (dataset, by_id):
        assert bob.get(f"{base}/files").status_code == 404
    for client, method in (
        (bob, "HEAD"),
        (bob, "PATCH"),
        (bob, "DELETE"),
        (admin, "HEAD"),
        (admin, "DELETE"),
    ):
        headers = {**BYTES, "Upload-Offset": "0"}
        answer = client.request(
            method, there(client, where), headers=headers, content=b"1234" if method == "PATCH" else None
        )
        assert answer.status_code == 404, (method, "an upload is of who began it alone")
    assert at(alice, where) == 0

    def share(kind: Any, item: str, access: str, person: str = "bob") -> None:
        with db.write() as conn:
            given = Share(grantee_kind="person", grantee=person, access=access)
            shares.give(conn, kind, item, given, actor=Actor(name="alice"), now=now())

    share("project", project, "read")
    assert asked(bob, BASE) == ({200}, {403})
    share("project", project, "write", "nobody")
    assert asked(nobody, BASE) == ({200}, {403}), "without a role one may look"
    share("dataset", made_set.id, "read")
    assert bob.get(f"{by_id}/files/b.txt").content == b"2"
    assert bob.put(f"{dataset}/files/x", content=b"1").status_code == 403
    share("project", project, "write")
    assert bob.put(f"{BASE}/files/x", content=b"1").status_code == 201
    assert bob.head(there(bob, where), headers=V).status_code == 404
    assert admin.get(f"{by_id}/files/b.txt").content == b"2"
    with db.write() as conn:
        shares.withdraw(conn, "project", project, "person", "bob", actor=Actor(name="alice"), now=now())
    assert bob.get(f"{BASE}/files").status_code == 404, "at once"


LONG = "长" * 85  # 255 bytes
GOOD = (
    LONG,
    "emoji 😀👩‍🔬.txt",
    "قائمة.csv",
    "רשימה",
    "trailing...",
    " space ",
    "e\u0301",
    "CON",
    "a:b*?",
    "a%2fb",
    "..hidden",
)
BAD = (".", "..", "../x", "a/../../x", "/etc/x", "a//b", "x\0", "photo\u202egpj.exe", "a\nb", LONG + "a", HIDDEN, f"{HIDDEN}/x")  # fmt: skip


def test_names_are_kept_as_they_are_or_refused_never_bent(alice: httpx.Client, root: Path) -> None:
    for name in GOOD:
        answer = begin(alice, name, 0)
        assert answer.status_code == 201, (name, answer.text)
    assert set(os.listdir(root)) >= set(GOOD)
    before = names(root)
    for name in BAD:
        answer = begin(alice, name, 0)
        assert answer.status_code in (400, 404), (name, answer.status_code)
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        address = quote(name, safe="/")
        if name != "." and "//" not in name and not name.startswith("/"):
            job_answer = job(alice, do="copy", paths=[quote("CON")], to="", name="")
            assert job_answer["problems"], "its own name is taken"
            assert alice.post(
                f"{BASE}/jobs", json={"do": "copy", "paths": ["CON"], "to": address}
            ).status_code in (200, 202, 400, 404)
    assert names(root) == before
    assert not (root.parent / "x").exists()
    assert begin(alice, "\u00e9", 0).status_code == 409, "reads like one that is there"
    assert begin(alice, "con", 0).status_code == 201, "letter cases are told apart"


def test_links_devices_and_second_names_lead_nowhere(alice: httpx.Client, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("OUTSIDE")
    os.symlink(outside, root / "out")
    os.symlink(outside / "secret.txt", root / "secret")
    os.mkfifo(root / "pipe")
    (root / "mine.txt").write_text("mine")
    os.link(root / "mine.txt", root / "second.txt")
    for path in ("out/secret.txt", "secret", "pipe", "out"):
        for ending in ("files", "texts", "preview"):
            answer = alice.get(f"{BASE}/{ending}/{path}")
            assert answer.status_code in (400, 404), (ending, path)
            assert "OUTSIDE" not in answer.text
    assert begin(alice, "out/new.txt", 0).status_code in (400, 404)
    assert alice.put(f"{BASE}/files/out/new.txt", content=b"x").status_code in (400, 404)
    assert job(alice, do="copy", paths=["mine.txt"], to="out")["problems"]
    assert job(alice, do="move", paths=["mine.txt"], to="out")["problems"]
    assert job(alice, do="copy", paths=["out"], to="", name="copied")["made"] == ["copied"]
    assert (root / "copied").is_symlink(), "a link is copied as a link"
    kinds = {item["name"]: item["kind"] for item in alice.get(f"{BASE}/files").json()["items"]}
    assert (kinds["out"], kinds["pipe"]) == ("link", "other")
    archive = zipfile.ZipFile(io.BytesIO(alice.get(f"{BASE}/archive").content))
    assert not any(b"OUTSIDE" in archive.read(name) for name in archive.namelist())
    assert alice.put(f"{BASE}/files/second.txt", content=b"new").status_code == 200
    assert (root / "mine.txt").read_text() == "mine", "a second name is not written through"
    done = job(alice, do="delete", paths=["out", "secret", "pipe", "copied"])
    assert (done["done"], done["problems"]) == (4, [])
    assert os.listdir(outside) == ["secret.txt"]


def test_an_upload_says_what_it_is_and_is_held_to_it(alice: httpx.Client, root: Path) -> None:
    data = os.urandom(300_000)
    where = begin(alice, "a.bin", len(data)).headers["Location"]
    assert send(alice, where, 0, data + b"more").status_code == 413
    assert send(alice, where, 5, data[5:]).status_code == 409
    wrong = base64.b64encode(hashlib.sha256(b"else").digest()).decode()
    assert send(alice, where, 0, data, **{"Upload-Checksum": f"sha256 {wrong}"}).status_code == 460
    assert (at(alice, where), names(root)) == (0, [])
    right = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert send(alice, where, 0, data, **{"Upload-Checksum": f"sha256 {right}"}).status_code == 204
    assert (root / "a.bin").read_bytes() == data
    assert job(alice, do="checksum", paths=["a.bin"])["made"] == [hashlib.sha256(data).hexdigest()]
    for guess in ("0" * 32, where.rpartition("/")[2][::-1]):
        assert alice.head(f"{BASE}/uploads/{guess}", headers=V).status_code == 404
    assert alice.post(f"{BASE}/uploads", headers={"Upload-Length": "1"}).status_code == 412
    assert begin(alice, "b", 2**62).status_code in (400, 413, 507)
    assert begin(alice, "b", -1).status_code == 400


def test_of_two_uploads_to_one_name_both_are_whole(alice: httpx.Client, root: Path) -> None:
    one, two = (begin(alice, "same.bin", 4).headers["Location"] for _ in range(2))
    assert send(alice, one, 0, b"11").status_code == 204
    assert send(alice, two, 0, b"2222").headers["Galilean-Path"] == "same.bin"
    assert send(alice, one, 2, b"11").headers["Galilean-Path"] == "same%20%282%29.bin"
    assert ((root / "same.bin").read_bytes(), (root / "same (2).bin").read_bytes()) == (b"2222", b"1111")
    three = begin(alice, "same.bin", 3, ifTaken="replace").headers["Location"]
    assert send(alice, three, 0, b"333").status_code == 204
    assert (root / "same.bin").read_bytes() == b"333"
    assert begin(alice, "same.bin", 3).status_code == 409


def kept(client: httpx.Client, where: str) -> int:
    """How far it is; while a busy server puts a piece away it says none, which is no news."""
    return int(client.head(there(client, where), headers=V).headers.get("Upload-Offset", -1))


def test_a_line_that_is_cut_at_every_piece_loses_nothing(
    alice: httpx.Client, root: Path, site: LiveSite
) -> None:
    data, piece = os.urandom(600_000), 70_000
    where = begin(alice, "cut.bin", len(data)).headers["Location"]
    offset, deadline = 0, time.monotonic() + 120
    while offset < len(data):
        assert time.monotonic() < deadline, f"of what comes in, nothing beyond {offset} is kept"
        with socket.create_connection(("127.0.0.1", site.port), timeout=120) as raw:
            head = (
                f"PATCH {where} HTTP/1.1\r\nHost: x\r\nAuthorization: {alice.headers['Authorization']}\r\n"
                f"Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
                f"Upload-Offset: {offset}\r\nContent-Length: {len(data) - offset}\r\n\r\n"
            )
            raw.sendall(head.encode() + data[offset : offset + piece])
        # A piece is refused while the one before is being put away still; whoever uploads sends it again.
        end = time.monotonic() + 3
        while (now_at := kept(alice, where)) <= offset and time.monotonic() < end:
            time.sleep(0.02)
        offset = max(offset, now_at)
        if offset >= len(data):
            break
        assert names(root) == []
    assert (root / "cut.bin").read_bytes() == data


def test_texts_and_new_things_count_as_uploads_do(
    alice: httpx.Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [10]

    async def kept_room(portal: object, owner: str) -> Callable[[], int | None]:
        return lambda: room[0]

    def save(text: str, version: str | None = None) -> httpx.Response:
        return alice.put(f"{BASE}/texts/a.txt", json={"text": text, "version": version})

    monkeypatch.setattr("services.portal.desks.kept_room", kept_room)
    assert (save("x" * 11).status_code, save("x" * 11).json()["reason"]) == (507, "quota")
    version = save("x" * 10).json()["version"]
    room[0] = 0
    assert save("x" * 11, version).status_code == 507
    assert save("x" * 9, version).status_code == 200  # who is over it can make room
    for kind in ("file", "folder"):
        assert alice.post(f"{BASE}/files/new", json={"kind": kind}).status_code == 507
    assert sorted(path.name for path in root.iterdir() if path.name[0] != ".") == ["a.txt"]


def test_a_full_disk_and_a_used_up_quota_are_said_and_leave_what_was_there(
    alice: httpx.Client, root: Path, site: LiveSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "kept.bin").write_bytes(b"kept")
    (root / "packed.zip").write_bytes(zipped({"a": os.urandom(5000)}))
    room = [1000]

    async def kept_room(portal: object, owner: str) -> Callable[[], int | None]:
        assert owner == "alice"
        return lambda: room[0]

    monkeypatch.setattr("services.portal.desks.kept_room", kept_room)
    answer = begin(alice, "new.bin", 1001)
    assert (answer.status_code, answer.json()["reason"]) == (507, "quota")
    where = begin(alice, "kept.bin", 1000, ifTaken="replace").headers["Location"]
    room[0] = 400  # somebody else of the same owner filled it meanwhile
    assert send(alice, where, 0, b"x" * 1000).status_code == 507
    for do in ("copy", "unpack"):
        (problem,) = job(alice, do=do, paths=["packed.zip"], name="more")["problems"]
        assert (problem["status"], problem["reason"]) == (507, "quota"), do
    room[0] = 10**9

    def full(self: shelf.Writing, piece: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def in_words(self: shelf.Writing, piece: bytes) -> None:
        with shelf.plain_words(self.path):
            full(self, piece)

    with monkeypatch.context() as broken:
        broken.setattr(shelf.Writing, "write", in_words)
        answer = send(alice, where, 0, b"x" * 1000)
        assert answer.status_code == 507
        assert "full" in answer.json()["detail"]
    assert (root / "kept.bin").read_bytes() == b"kept"
    assert send(alice, where, at(alice, where), b"y" * 1000).status_code == 204
    assert (root / "kept.bin").read_bytes() == b"y" * 1000


def zipped(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    made_one = io.BytesIO()
    with zipfile.ZipFile(made_one, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, to in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, to)
    return made_one.getvalue()


def test_archives_of_anybody_stay_where_they_are_unpacked(alice: httpx.Client, root: Path) -> None:
    evil = zipped(
        {"../slip.txt": b"1", "/abs.txt": b"2", "good/a.txt": b"3", "x/../../y": b"4"},
        {"out": "/etc", "up": "../..", "in": "good/a.txt"},
    )
    (root / "evil.zip").write_bytes(evil)
    found = job(alice, do="unpack", paths=["evil.zip"])
    assert found["made"] == ["evil"]
    assert {one["name"]: one["why"] for one in found["left_out"]} == {
        "../slip.txt": "name", "/abs.txt": "name", "x/../../y": "name", "out": "link", "up": "link",
    }  # fmt: skip
    assert sorted(os.listdir(root / "evil")) == ["good", "in"]
    assert names(root) == ["evil", "evil.zip"]
    (root / "bomb.zip").write_bytes(zipped({"zeros": bytes(100 << 20)}))
    (problem,) = job(alice, do="unpack", paths=["bomb.zip"])["problems"]
    assert (problem["status"], problem["reason"]) == (413, "bomb")
    device = io.BytesIO()
    with tarfile.open(fileobj=device, mode="w") as archive:
        for name, kind in (("null", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    (root / "devices.tar").write_bytes(device.getvalue())
    assert {one["why"] for one in job(alice, do="unpack", paths=["devices.tar"])["left_out"]} == {"kind"}
    assert os.listdir(root / "devices") == []
    (root / "not.zip").write_bytes(b"PK\x03\x04 nothing")
    assert job(alice, do="unpack", paths=["not.zip"])["problems"][0]["status"] == 400
    assert names(root) == ["bomb.zip", "devices", "devices.tar", "evil", "evil.zip", "not.zip"]


def test_a_folder_comes_down_as_one_archive_and_a_file_by_ranges(alice: httpx.Client, root: Path) -> None:
    (root / "数据" / "empty").mkdir(parents=True)
    (root / "数据" / "a.txt").write_text("one")
    (root / "b.bin").write_bytes(bytes(range(256)) * 40)
    answer = alice.get(f"{BASE}/archive", params={"path": quote("数据"), "form": "tar.gz"})
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert quote("数据.tar.gz") in answer.headers["Content-Disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert sorted(archive.getnames()) == ["数据", "数据/a.txt", "数据/empty"]
    assert alice.get(f"{BASE}/archive", params={"path": "nowhere"}).status_code == 404
    part = alice.get(f"{BASE}/files/b.bin", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert alice.head(f"{BASE}/files/b.bin").headers["Content-Length"] == "10240"
    packed = job(alice, do="pack", paths=[quote("数据"), "b.bin"], name="all.zip", form="zip")
    assert packed["made"] == ["all.zip"]
    assert alice.get(f"{BASE}/files/all.zip").content == (root / "all.zip").read_bytes()
    (root / "page.html").write_text("<script>alert(document.cookie)</script>")
    page = alice.get(f"{BASE}/files/page.html")
    assert page.headers["Content-Disposition"].startswith("attachment")
    assert page.headers["Content-Type"] == "application/octet-stream"
    assert page.headers["Content-Security-Policy"].startswith("sandbox;")
    assert "<script>alert" not in alice.get(f"{BASE}/preview/page.html").text


def test_a_text_is_saved_only_over_what_was_read(alice: httpx.Client, root: Path) -> None:
    text = " indented\n\n"
    first = alice.put(f"{BASE}/texts/a.txt", json={"text": text}).json()
    assert (root / "a.txt").read_text() == text, "not a byte is taken away"
    assert alice.get(f"{BASE}/texts/a.txt").json() == first
    assert alice.put(f"{BASE}/texts/a.txt", json={"text": "x"}).status_code == 409
    (root / "a.txt").write_text("somebody else\n")
    late = alice.put(f"{BASE}/texts/a.txt", json={"text": "mine", "version": first["version"]})
    assert (late.status_code, late.json()["reason"]) == (409, "version")
    assert (root / "a.txt").read_text() == "somebody else\n"
    (root / "b.bin").write_bytes(b"\xff\0")
    assert alice.get(f"{BASE}/texts/b.bin").status_code == 415


def test_ten_thousand_are_listed_page_by_page_sorted_and_searched(alice: httpx.Client, root: Path) -> None:
    many = root / "many"
    many.mkdir()
    for number in range(10_000):
        (many / f"run-{number}.csv").touch()
    (many / "热流 run.csv").write_bytes(b"large")
    seen: list[str] = []
    cursor = ""
    while True:
        page = alice.get(f"{BASE}/files/many/", params={"limit": 1000, "cursor": cursor}).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert page["total"] == 10_001
    assert seen == [f"run-{number}.csv" for number in range(10_000)] + ["热流 run.csv"]
    largest = alice.get(f"{BASE}/files/many", params={"sort": "size", "order": "down", "limit": 1}).json()
    assert largest["items"][0]["name"] == "热流 run.csv"
    assert alice.get(f"{BASE}/files/many", params={"q": "热流"}).json()["total"] == 1
    assert alice.get(f"{BASE}/files/many", params={"q": "RUN-999"}).json()["total"] == 11


def test_long_work_is_ones_own_can_be_cancelled_and_leaves_nothing(
    sign: Sign, alice: httpx.Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.files import copies

    (root / "many").mkdir()
    for number in range(50):
        (root / "many" / str(number)).write_bytes(b"x")

    class Slow(copies._Copying):
        def _file(self, *args: Any) -> None:
            time.sleep(0.1)
            super()._file(*args)

    monkeypatch.setattr(copies, "_Copying", Slow)
    begun = alice.post(f"{BASE}/jobs", json={"do": "copy", "paths": ["many"], "name": "twice"})
    assert begun.status_code == 202
    where = there(alice, begun.headers["Location"])
    assert alice.get(where).json()["state"] == "working"
    assert sign("root").get(where).status_code == 404
    assert [one["id"] for one in alice.get(f"{BASE}/jobs").json()["items"]] == [begun.json()["id"]]
    alice.delete(where)
    while not (found := alice.get(where).json())["ended_at"]:
        time.sleep(0.05)
    assert found["state"] == "cancelled"
    assert os.listdir(root) == ["many"]
    assert alice.get(f"{BASE}/jobs/{'0' * 24}").status_code == 404
    assert (
        alice.post(f"{BASE}/jobs", json={"do": "copy", "paths": ["a", "b"], "name": "c"}).status_code == 400
    )


def test_nobody_changes_files_that_are_being_moved(alice: httpx.Client, site: LiveSite) -> None:
    from services.catalog import lifecycle

    where = begin(alice, "a.bin", 2).headers["Location"]
    project = alice.get(BASE).json()["id"]
    with site.portal.db.write() as conn:
        lifecycle.begin(conn, "project", project, "moving")
    for answer in (
        alice.put(f"{BASE}/files/x", content=b"x"),
        send(alice, where, 0, b"11"),
        alice.delete(f"{BASE}/files/x"),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (409, "busy")
    assert alice.get(f"{BASE}/files").status_code == 200


def test_a_volume_that_hangs_is_told_and_keeps_nobody_from_files_elsewhere(
    site: LiveSite, sign: Sign, alice: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, hangs = sign("bob"), threading.Event()
    other = made(bob, "Elsewhere")
    sick = alice.get(BASE).json()["id"]
    prepare = desks.prepare_directory

    def moved(conn: Connection) -> None:
        conn.execute(insert(volumes).values(id="nfs", kind="nfs", path="/nfs", created_at=now()))
        conn.execute(update(projects).where(projects.c.id == sick).values(volume_id="nfs"))

    def prepared(settings: Any, item: Any) -> Path:
        if item.volume_id == "nfs":
            hangs.wait(60)
        return prepare(settings, item)

    monkeypatch.setattr(desks, "prepare_directory", prepared)
    monkeypatch.setattr(site.portal.files, "_seconds", 0.05)
    site.write(moved)
    try:
        for _ in range(12):  # more than there are threads
            answer = alice.get(f"{BASE}/files/")
            assert (answer.status_code, answer.json()["reason"]) == (503, "volume-hangs")
        assert bob.get(f"/projects/bob/{other['slug']}/files/").status_code == 200
    finally:
        hangs.set()
