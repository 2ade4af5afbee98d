"""Uploads that go on: the protocol on a real server, every way to break off, and its own client in Node."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galilean.errors import UserError
from services.files import tus
from services.files.paths import HIDDEN
from services.files.root import Root
from services.files.shelf import Shelf
from tests.files.serving import OpenTus, Server, serving

HERE = Path(__file__).parent
NODE = HERE.parent.parent / "node_modules"
V = {"Tus-Resumable": "1.0.0"}
BYTES = {**V, "Content-Type": tus.CONTENT_TYPE}


def named(name: str, **more: str) -> str:
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in {"filename": name, **more}.items()
    )


async def make(
    client: httpx.AsyncClient, length: int, name: str = "a.bin", content: bytes = b"", **more: str
) -> httpx.Response:
    headers = {
        **(BYTES if content else V),
        "Upload-Length": str(length),
        "Upload-Metadata": named(name, **more),
    }
    return await client.post("/up", headers=headers, content=content)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def send(
    client: httpx.AsyncClient, where: str, offset: int, data: bytes, **more: str
) -> httpx.Response:
    return await client.patch(where, headers={**BYTES, "Upload-Offset": str(offset), **more}, content=data)


async def at(client: httpx.AsyncClient, where: str) -> int:
    answer = await client.head(where, headers=V)
    assert answer.status_code == 200, answer.headers
    return int(answer.headers["Upload-Offset"])


@pytest.fixture
async def server(tmp_path: Path):
    (tmp_path / "tree").mkdir()
    async with serving(tmp_path / "tree") as server:
        yield server


@pytest.fixture
async def client(server: Server):
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture
def tree(server: Server) -> Path:
    return server.desk.root


async def test_what_is_spoken_here_is_said_without_signing_in(client: httpx.AsyncClient) -> None:
    answer = await client.options("/up")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation", "creation-with-upload", "checksum", "termination", "expiration",
    }  # fmt: skip


async def test_a_file_comes_in_by_pieces_and_shows_only_whole(client: httpx.AsyncClient, tree: Path) -> None:
    made = await make(client, 10, "热流.bin")
    assert made.status_code == 201
    assert made.headers["Upload-Offset"] == "0"
    assert made.headers["Upload-Expires"].endswith("GMT")
    where = made.headers["Location"]
    assert (await send(client, where, 0, b"01234")).headers["Upload-Offset"] == "5"
    assert names(tree) == [HIDDEN]
    last = await send(client, where, 5, b"56789")
    assert last.status_code == 204
    assert (tree / "热流.bin").read_bytes() == b"0123456789"
    assert await at(client, where) == 10  # for a client that lost the answer


async def test_it_may_come_with_the_first_request(client: httpx.AsyncClient, tree: Path) -> None:
    made = await make(client, 5, content=b"01234")
    assert (made.status_code, made.headers["Upload-Offset"]) == (201, "5")
    assert (tree / "a.bin").read_bytes() == b"01234"


async def test_nothing_is_a_file_too(server: Server, client: httpx.AsyncClient, tree: Path) -> None:
    made = await make(client, 0, "d/empty", relativePath="d/empty")
    assert made.status_code == 201
    assert (tree / "d" / "empty").read_bytes() == b""
    assert server.desk.arrived == ["d/empty"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 412),
        ({"Tus-Resumable": "0.2.2"}, 412),
        (V, 400),
        ({**V, "Upload-Defer-Length": "1"}, 400),
        ({**V, "Upload-Length": "-1", "Upload-Metadata": named("a")}, 400),
        ({**V, "Upload-Length": "1e3", "Upload-Metadata": named("a")}, 400),
        ({**V, "Upload-Length": "9" * 30, "Upload-Metadata": named("a")}, 400),
        ({**V, "Upload-Length": str(2**59), "Upload-Metadata": named("a")}, 507),
        ({**V, "Upload-Length": "1"}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": "filename !!!"}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("a") + "," + named("b")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("../a")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("/etc/a")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("a\0b")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("a\u202eb")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("x" * 256)}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named(f"{HIDDEN}/x")}, 404),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named(HIDDEN.upper())}, 404),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("a", ifTaken="maybe")}, 400),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("there")}, 409),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("folder", ifTaken="replace")}, 409),
        ({**V, "Upload-Length": "1", "Upload-Metadata": named("a"), "X-Who": "mallory"}, 403),
    ],
)
async def test_what_cannot_be_is_refused_before_a_byte(
    client: httpx.AsyncClient, tree: Path, headers: dict[str, str], status: int
) -> None:
    (tree / "there").write_text("mine")
    (tree / "folder").mkdir()
    answer = await client.post("/up", headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert names(tree) == ["folder", "there"]


async def test_a_wrong_place_a_wrong_kind_and_too_much_change_nothing(client: httpx.AsyncClient) -> None:
    where = (await make(client, 10)).headers["Location"]
    await send(client, where, 0, b"01234")
    assert (await send(client, where, 4, b"456789")).status_code == 409
    assert (await send(client, where, 6, b"6789")).status_code == 409
    assert (await send(client, where, 5, b"x" * 6)).status_code == 413
    for headers in ({**V, "Upload-Offset": "5"}, {**V, "Content-Type": "text/plain", "Upload-Offset": "5"}):
        assert (await client.patch(where, headers=headers, content=b"x")).status_code == 415
    assert (await client.patch(where, headers=BYTES, content=b"x")).status_code == 400
    assert await at(client, where) == 5


async def test_too_much_in_a_stream_of_unknown_length_takes_itself_back(client: httpx.AsyncClient) -> None:
    where = (await make(client, 3 << 20)).headers["Location"]

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (1 << 20)

    answer = await client.patch(where, headers={**BYTES, "Upload-Offset": "0"}, content=stream())
    assert answer.status_code == 413
    assert await at(client, where) == 0


@pytest.mark.parametrize("algorithm", tus.ALGORITHMS)
async def test_bytes_whose_checksum_differs_do_not_count(
    client: httpx.AsyncClient, tree: Path, algorithm: str
) -> None:
    data = os.urandom(1000)
    sum_ = (
        binascii.crc32(data).to_bytes(4, "big")
        if algorithm == "crc32"
        else hashlib.new(algorithm, data).digest()
    )
    said = {"Upload-Checksum": f"{algorithm} {base64.b64encode(sum_).decode()}"}
    where = (await make(client, 2000)).headers["Location"]
    assert (await send(client, where, 0, data, **said)).headers["Upload-Offset"] == "1000"
    assert (await send(client, where, 1000, data[:-1] + bytes([data[-1] ^ 1]), **said)).status_code == 460
    assert await at(client, where) == 1000
    assert (await send(client, where, 1000, data, **said)).status_code == 204
    assert (tree / "a.bin").read_bytes() == data + data


@pytest.mark.parametrize("text", ["md4 AAAA", "sha256", "sha256 !!", "nonsense"])
async def test_a_checksum_that_nobody_can_check_is_refused(client: httpx.AsyncClient, text: str) -> None:
    where = (await make(client, 4)).headers["Location"]
    answer = await send(client, where, 0, b"0123", **{"Upload-Checksum": text})
    assert answer.status_code in (400, 460)
    assert await at(client, where) == 0


async def test_an_upload_is_nobody_elses_and_ids_cannot_be_guessed(client: httpx.AsyncClient) -> None:
    where = (await make(client, 4)).headers["Location"]
    for bad in (where, "/up/" + "0" * 32):
        headers = {"X-Who": "bob"} if bad == where else {}
        assert (await client.head(bad, headers={**V, **headers})).status_code == 404
        assert (await client.delete(bad, headers={**V, **headers})).status_code == 404
        patch = await client.patch(bad, headers={**BYTES, "Upload-Offset": "0", **headers}, content=b"x")
        assert patch.status_code == 404
    assert (await client.patch("/up/../x", headers=BYTES, content=b"")).status_code == 404


async def test_it_can_be_ended_also_where_only_post_is_let_through(
    client: httpx.AsyncClient, tree: Path
) -> None:
    where = (await make(client, 4)).headers["Location"]
    over = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await client.post(where, headers=over, content=b"01")).status_code == 204
    assert (await client.delete(where, headers=V)).status_code == 204
    assert (await client.head(where, headers=V)).status_code == 404
    assert names(tree) == []


class Half:
    """A request that sends what it is told and no more."""

    def __init__(self, server: Server) -> None:
        self.port = server.port

    async def start(self, where: str, offset: int, length: int, extra: str = "") -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(
            f"PATCH {where} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nContent-Type: {tus.CONTENT_TYPE}\r\n"
            f"Upload-Offset: {offset}\r\nContent-Length: {length}\r\n{extra}\r\n".encode()
        )
        await self.writer.drain()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()


async def until(condition: Any, what: str) -> None:
    """Wait for a state; the test's own time limit ends it."""
    while not await condition():  # noqa: ASYNC110 - the state is the file system's
        await asyncio.sleep(0.02)


def on_disk(tree: Path) -> int:
    return sum(file.stat().st_size for file in (tree / HIDDEN).glob("*.tus"))


async def test_of_two_requests_for_one_upload_the_second_is_told_that_it_is_locked(
    server: Server, client: httpx.AsyncClient, tree: Path
) -> None:
    where = (await make(client, 4 << 20)).headers["Location"]
    first = Half(server)
    await first.start(where, 0, 4 << 20)
    await first.send(b"x" * (1 << 20))

    async def stored() -> bool:
        return on_disk(tree) > 0

    await until(stored, "the first piece is stored")
    assert (await send(client, where, on_disk(tree), b"y")).status_code == 423
    assert (await client.delete(where, headers=V)).status_code == 423
    await first.send(b"x" * (3 << 20))
    assert b" 204 " in await first.reader.readline()
    assert (tree / "a.bin").read_bytes() == b"x" * (4 << 20)


class GivesWay(OpenTus):
    silent_seconds = 0.0


async def test_a_connection_that_says_nothing_gives_way(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, handler=GivesWay) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        where = (await make(client, 2 << 20)).headers["Location"]
        first = Half(server)
        await first.start(where, 0, 2 << 20)
        await first.send(b"x" * (1 << 20))

        async def stored() -> bool:
            return on_disk(tmp_path) == 1 << 20

        await until(stored, "the first piece is stored")
        answer = await send(client, where, 1 << 20, b"y" * (1 << 20))
        assert answer.status_code == 204
        assert (tmp_path / "a.bin").read_bytes() == b"x" * (1 << 20) + b"y" * (1 << 20)
        assert await first.reader.read() == b""  # the connection is over


@pytest.mark.parametrize("cut", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (2 << 20) + 17])
@pytest.mark.parametrize("summed", [False, True])
async def test_a_connection_cut_anywhere_goes_on_to_the_same_bytes(
    server: Server, client: httpx.AsyncClient, tree: Path, cut: int, summed: bool
) -> None:
    data = os.urandom((2 << 20) + 4321)
    where = (await make(client, len(data))).headers["Location"]
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    half = Half(server)
    await half.start(where, 0, len(data), f"Upload-Checksum: sha256 {digest}\r\n" if summed else "")

    async def writing() -> bool:
        return bool(server.app.settings.get("tus_writers"))

    await until(writing, "the request is being served")
    await half.send(data[:cut])
    half.cut()

    async def free() -> bool:
        return not server.app.settings["tus_writers"]

    await until(free, "the cut was seen")
    offset = await at(client, where)
    # Without a checksum all that came is kept; with one nothing that could not be checked.
    assert offset == 0 if summed else offset <= cut
    assert (await send(client, where, offset, data[offset:])).status_code == 204
    assert (tree / "a.bin").read_bytes() == data


@pytest.mark.parametrize("summed", [False, True])
async def test_a_portal_that_is_killed_goes_on_exactly(tmp_path: Path, summed: bool) -> None:
    data = os.urandom(5 << 20)
    tree = tmp_path / "tree"
    tree.mkdir()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()

    def begin() -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.files.serving", str(tree)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent.parent,
        )
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    process, port = begin()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            where = (await make(client, len(data))).headers["Location"]
        half = Half(type("At", (), {"port": port}))  # type: ignore[arg-type]
        await half.start(where, 0, len(data), f"Upload-Checksum: sha256 {digest}\r\n" if summed else "")
        await half.send(data[: 3 << 20])

        async def some() -> bool:
            return on_disk(tree) >= 2 << 20

        await until(some, "a part is stored")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, port = begin()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            offset = await at(client, where)
            assert offset == 0 if summed else offset == on_disk(tree)
            assert (await send(client, where, offset, data[offset:])).status_code == 204
        assert (tree / "a.bin").read_bytes() == data
    finally:
        process.kill()
        process.wait()


async def test_more_than_one_may_upload_and_more_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    left = [100]
    async with (
        serving(tmp_path, limit_bytes=80, room_bytes=lambda: left[0]) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        assert (await make(client, 81, "a")).status_code == 413
        first = await make(client, 60, "a")
        assert first.status_code == 201
        second = await make(client, 60, "b")  # what the first still needs counts
        assert (second.status_code, second.json()["reason"]) == (507, "quota")
        left[0] = 10
        where = first.headers["Location"]
        assert (await send(client, where, 0, b"x" * 60)).status_code == 507
        assert await at(client, where) == 0
        left[0] = 100
        assert (await send(client, where, 0, b"x" * 60)).status_code == 204


async def test_a_full_disk_keeps_what_it_took_and_goes_on_when_there_is_room(
    client: httpx.AsyncClient, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.files import shelf

    where = (await make(client, 10)).headers["Location"]
    write, full = os.write, [True]

    def stingy(file: int, data: Any) -> int:
        if full[0] and bytes(data) == b"0123456789":
            return write(file, data[:4])
        if full[0] and bytes(data) == b"456789":
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(shelf.os, "write", stingy)
    assert (await send(client, where, 0, b"0123456789")).status_code == 507
    assert await at(client, where) == 4
    full[0] = False
    assert (await send(client, where, 4, b"456789")).status_code == 204
    assert (tree / "a.bin").read_bytes() == b"0123456789"


async def test_fifty_gigabytes_go_on_where_they_were_and_nobody_reads_them_again(
    client: httpx.AsyncClient, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last bytes came in before; they take no room here, for the file has a hole."""
    from services.files import shelf

    class Roomy:
        def __init__(self, found: os.statvfs_result) -> None:
            self.f_frsize, self.f_bavail = found.f_frsize, 2**30

    looked = shelf.os.fstatvfs
    monkeypatch.setattr(shelf.os, "fstatvfs", lambda file: Roomy(looked(file)))
    length = 50 * 2**30
    where = (await make(client, length, "big.bin")).headers["Location"]
    (came,) = (tree / HIDDEN).glob("*.tus")
    os.truncate(came, length - 3_000_000)
    read = 0
    for piece in (b"a" * 1_000_000, b"b" * 1_000_000, b"c" * 1_000_000):
        offset = await at(client, where)
        assert offset == length - 3_000_000 + read
        read += len(piece)
        sent = await send(client, where, offset, piece)
        assert int(sent.headers["Upload-Offset"]) == offset + len(piece)
    big = tree / "big.bin"
    assert names(tree) == [HIDDEN, "big.bin"]
    assert big.stat().st_size == length
    assert big.stat().st_blocks * 512 < 2**24, "the hole was copied"
    with big.open("rb") as file:
        for back, byte in ((3_000_000, b"a"), (2_000_000, b"b"), (1, b"c")):
            file.seek(length - back)
            assert file.read(1) == byte


@pytest.mark.parametrize(
    ("taken", "became", "name", "old"),
    [
        ("refuse", "file", "a (2).bin", b"new"),
        ("keep", "file", "a (2).bin", b"new"),
        ("replace", "file", "a.bin", None),
        ("replace", "folder", "a (2).bin", None),
        ("replace", "link", "a.bin", None),
    ],
)
async def test_a_name_that_was_taken_meanwhile_loses_nothing(
    client: httpx.AsyncClient,
    tree: Path,
    tmp_path: Path,
    taken: str,
    became: str,
    name: str,
    old: bytes | None,
) -> None:
    where = (await make(client, 4, ifTaken=taken)).headers["Location"]
    outside = tmp_path / "outside"
    outside.write_text("outside")
    if became == "file":
        (tree / "a.bin").write_bytes(b"new")
    elif became == "folder":
        (tree / "a.bin").mkdir()
    else:
        (tree / "a.bin").symlink_to(outside)
    answer = await send(client, where, 0, b"0123")
    assert answer.headers["Galilean-Path"] == name.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
    assert (tree / name).read_bytes() == b"0123"
    assert old is None or (tree / "a.bin").read_bytes() == old
    assert outside.read_text() == "outside"


def test_two_spellings_of_one_name_do_not_become_two_files(tmp_path: Path) -> None:
    (tmp_path / "caf\u00e9").write_text("mine")
    shelf = Shelf(Root(tmp_path))
    with pytest.raises(UserError) as caught:
        shelf.begin("cafe\u0301", 0, by="a")
    assert (caught.value.status, caught.value.reason) == (409, "lookalike")
    assert shelf.begin("cafe\u0301", 0, by="a", taken="replace").placed == "caf\u00e9"
    assert os.listdir(tmp_path / HIDDEN)  # the note, for a client that lost the answer
    assert (tmp_path / "caf\u00e9").read_text() == ""
    assert shelf.begin("cafe\u0301", 0, by="a", taken="keep").placed == "cafe\u0301 (2)"


PIECES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=12)
# After each piece: go on, let go, take it back (a wrong checksum), or die there.
ENDS = st.lists(st.sampled_from(["on", "close", "back", "die", "die unsure"]), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, ends=ENDS)
def test_whatever_breaks_between_any_two_pieces_the_bytes_are_the_same(
    tmp_path: Path, pieces: list[bytes], ends: list[str]
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    data = b"".join(pieces)
    shelf = Shelf(Root(tmp_path))
    upload = shelf.begin("x/y", len(data), by="a").record.id
    for piece, end in zip(pieces, ends, strict=False):
        offset = shelf.look(upload, by="a").offset_bytes
        assert data[:offset] == (tmp_path / HIDDEN / f"{upload}.tus").read_bytes()[:offset]
        if offset == len(data):
            break
        writing = shelf.open(upload, by="a")
        assert writing.offset_bytes == offset
        if end == "die unsure":
            writing.verify_later()
        writing.write(data[offset : offset + len(piece)])
        if end == "back":
            writing.take_back()
            assert writing.offset_bytes == offset
        elif end == "close":
            writing.keep()
        if end.startswith("die"):  # its descriptors go with the process, nothing else is done
            for descriptor in (writing._file, writing._hidden, writing._top):
                os.close(descriptor)
        else:
            writing.close()
    offset = shelf.look(upload, by="a").offset_bytes
    with shelf.write(upload, by="a") if offset < len(data) else _nothing() as rest:
        if rest is not None:
            rest.write(data[offset:])
            rest.finish()
    assert shelf.look(upload, by="a").placed == "x/y"
    assert (tmp_path / "x" / "y").read_bytes() == data


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("point", ["before the name", "before the note"])
def test_a_process_that_dies_at_the_end_has_it_finished_by_the_next(tmp_path: Path, point: str) -> None:
    shelf = Shelf(Root(tmp_path))
    upload = shelf.begin("a", 4, by="a").record.id
    with shelf.write(upload, by="a") as writing:
        writing.write(b"0123")
        writing.keep()
        if point == "before the note":
            os.rename(tmp_path / HIDDEN / f"{upload}.tus", tmp_path / "a")
    standing = shelf.look(upload, by="a")
    assert (standing.placed, standing.offset_bytes) == ("a", 4)
    assert (tmp_path / "a").read_bytes() == b"0123"
    assert shelf.look(upload, by="a").placed == "a"


def test_what_expired_is_swept_and_what_is_whole_is_finished(tmp_path: Path) -> None:
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    shelf = Shelf(Root(tmp_path), clock=lambda: now[0], keep=timedelta(days=7))
    old = shelf.begin("old", 4, by="a").record.id
    now[0] += timedelta(days=6)
    whole, young = shelf.begin("whole", 4, by="a").record.id, shelf.begin("young", 4, by="a").record.id
    with shelf.write(whole, by="a") as writing:
        writing.write(b"0123")
        writing.keep()
    assert shelf.sweep() == 0
    assert (tmp_path / "whole").read_bytes() == b"0123"
    now[0] += timedelta(days=2)
    assert shelf.sweep() == 2  # the old one, and the note of the whole one
    for gone in (old, whole):
        with pytest.raises(UserError, match="no such upload"):
            shelf.look(gone, by="a")
    assert shelf.look(young, by="a").offset_bytes == 0
    now[0] += timedelta(days=9)
    shelf.sweep()
    assert os.listdir(tmp_path) == ["whole"]


@pytest.mark.parametrize("trick", ["link", "hard link", "pipe", "folder", "record", "longer", "other path"])
def test_what_a_node_does_to_the_hidden_folder_reaches_nothing(tmp_path: Path, trick: str) -> None:
    tree, secret = tmp_path / "tree", tmp_path / "secret"
    tree.mkdir()
    secret.write_text("secret")
    shelf = Shelf(Root(tree))
    upload = shelf.begin("a", 4, by="a").record.id
    part, record = tree / HIDDEN / f"{upload}.tus", tree / HIDDEN / f"{upload}.json"
    if trick == "longer":
        part.write_bytes(b"0123456789")
    elif trick == "record":
        record.unlink()
        record.symlink_to(secret)
    elif trick == "other path":
        said = json.loads(record.read_text())
        record.write_text(json.dumps({**said, "path": "../secret"}))
    else:
        part.unlink()
        if trick == "link":
            part.symlink_to(secret)
        elif trick == "hard link":
            os.link(secret, part)
        elif trick == "pipe":
            os.mkfifo(part)
        else:
            part.mkdir()
    try:
        with shelf.write(upload, by="a") as writing:
            writing.write(b"0123"[writing.offset_bytes :])
            writing.finish()
    except UserError:
        assert trick != "longer"
    assert secret.read_text() == "secret"
    shelf.sweep()
    assert (tree / "a").read_bytes() == b"0123" if trick == "longer" else not (tree / "a").exists()


@pytest.fixture
def node_client() -> Path:
    if not shutil.which("node") or not (NODE / "tus-js-client").exists():
        pytest.skip("needs Node.js and the packages of package.json")
    return HERE / "tus_client.mjs"


async def test_its_own_client_uploads_pauses_goes_on_and_ends(
    server: Server, tree: Path, tmp_path: Path, node_client: Path
) -> None:
    data = os.urandom((5 << 20) + 3)
    (tmp_path / "source").write_bytes(data)
    process = await asyncio.create_subprocess_exec(
        "node", str(node_client), server.url + "/up", str(tmp_path / "source"), str(tmp_path / "known.json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    done = json.loads(out.decode().splitlines()[-1])
    assert done == {
        "whole": "whole.bin", "in pieces": "pieces.bin", "with the first request": "first.bin",
        "nothing": "empty.bin", "paused": "paused.bin", "parallel": ["p0.bin", "p1.bin", "p2.bin"],
        "ended": 404, "refused": 409,
    }  # fmt: skip
    for name in ("whole.bin", "pieces.bin", "first.bin", "paused.bin", "p0.bin", "p1.bin", "p2.bin"):
        assert (tree / name).read_bytes() == data, name
    assert (tree / "empty.bin").read_bytes() == b""
