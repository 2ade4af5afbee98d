"""What a browser gets: whole files, parts of them, folders as they are, and nothing that runs as a page of ours."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from galilean.web.handlers import APIHandler
from services.files import downloads, packing, paths, ranges
from services.files.packing import LEFT_OUT, pack, pack_into
from services.files.progress import Cancelled, Progress
from services.files.ranges import Span, Unsatisfiable
from services.files.root import Root
from tests.files.serving import Server, serving

DATA = bytes(range(256)) * 8000  # two pieces


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 10)),
        ("bytes=9-", Span(9, 1)),
        ("bytes=2-100", Span(2, 8)),
        ("bytes=-3", Span(7, 3)),
        ("bytes=-100", Span(0, 10)),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=" + "1" * 40 + "-", None),
    ],
)
def test_a_range_is_what_was_asked_for_or_the_whole(header: str | None, span: Span | None) -> None:
    assert ranges.asked(header, 10) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_of_nothing_is_said_to_be_none(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        ranges.asked(header, size)


@given(st.text(max_size=30), st.integers(0, 50))
def test_no_header_asks_for_more_than_there_is(text: str, size: int) -> None:
    try:
        span = ranges.asked(text, size)
    except Unsatisfiable:
        return
    assert span is None or (
        span.first >= 0 and span.length_bytes > 0 and span.first + span.length_bytes <= size
    )


def test_a_part_fits_only_to_the_same_file() -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 500, tzinfo=UTC)
    assert ranges.unchanged(None, '"a"', at)
    assert ranges.unchanged('"a"', '"a"', at)
    assert not ranges.unchanged('"b"', '"a"', at)
    assert not ranges.unchanged('W/"a"', 'W/"a"', at)
    assert ranges.unchanged("Sun, 01 Mar 2026 12:00:00 GMT", '"a"', at)
    assert not ranges.unchanged("Sun, 01 Mar 2026 11:00:00 GMT", '"a"', at)
    assert not ranges.unchanged("nonsense", '"a"', at)


@pytest.mark.parametrize(
    "name", ["a.txt", 'q"uote\\.txt', "热流.csv", "😀", "a\r\nb", "%2e", "x;y=z", "\udcff", "\u202egpj.exe"]
)
def test_any_name_fits_into_a_header(name: str) -> None:
    header = downloads.attachment(paths.shown(name))
    header.encode("ascii")
    assert header.startswith("attachment; ")
    assert "\n" not in header
    assert "\r" not in header


class OneFile(APIHandler):
    def initialize(self, root: Path) -> None:
        self.root = Root(root)

    async def _identify(self) -> None:
        self.person: Any = None

    async def get(self, path: str) -> None:
        if form := self.query("form"):
            await downloads.send_packed(self, self.root, [path], form, "chosen")  # type: ignore[arg-type]
            return
        await downloads.send_file(self, await self.in_files(self.root.open, path))

    head = get


@pytest.fixture
async def server(tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / "folder" / "deep").mkdir(parents=True)
    (tree / "page.html").write_bytes(DATA)
    (tree / "folder" / "one.txt").write_text("one")
    (tree / "folder" / "deep" / "two.txt").write_text("two")
    (tree / "empty").write_text("")
    async with serving(tree, more=[(r"/file/(.*)", OneFile, {"root": tree})]) as server:
        yield server


@pytest.fixture
async def client(server: Server):
    async with httpx.AsyncClient(base_url=server.url + "/file", timeout=120) as client:
        yield client


async def test_html_never_runs_as_a_page_of_ours(client: httpx.AsyncClient) -> None:
    answer = await client.get("/page.html")
    assert answer.content == DATA
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="page.html"')
    packed = await client.get("/folder?form=zip")
    assert packed.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


async def test_a_download_goes_on_where_it_broke_off(client: httpx.AsyncClient, server: Server) -> None:
    first = await client.get("/page.html", headers={"Range": "bytes=0-999"})
    assert (first.status_code, first.content) == (206, DATA[:1000])
    assert first.headers["Content-Range"] == f"bytes 0-999/{len(DATA)}"
    rest = {"Range": "bytes=1000-", "If-Range": first.headers["ETag"]}
    assert (await client.get("/page.html", headers=rest)).content == DATA[1000:]
    with open(server.desk.root / "page.html", "ab") as file:  # noqa: ASYNC230
        file.write(b"more")
    whole = await client.get("/page.html", headers=rest)
    assert (whole.status_code, whole.content) == (200, DATA + b"more")


async def test_what_cannot_be_sent_in_part_is_said(client: httpx.AsyncClient) -> None:
    none = await client.get("/page.html", headers={"Range": f"bytes={len(DATA)}-"})
    assert (none.status_code, none.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    many = await client.get("/page.html", headers={"Range": "bytes=0-1,5-6"})
    assert (many.status_code, many.content) == (200, DATA)
    head = await client.head("/page.html", headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(DATA)), b"")
    same = await client.get("/page.html", headers={"If-None-Match": head.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert (await client.get("/empty")).content == b""


async def test_a_folder_comes_as_an_archive(client: httpx.AsyncClient) -> None:
    answer = await client.get("/folder?form=zip")
    assert "Content-Length" not in answer.headers
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["folder/", "folder/one.txt", "folder/deep/", "folder/deep/two.txt"]
    gz = await client.get("/folder?form=tar.gz")
    with tarfile.open(fileobj=io.BytesIO(gz.content)) as tar:
        assert tar.extractfile("folder/deep/two.txt").read() == b"two"  # type: ignore[union-attr]
    assert (await client.get("/nothing?form=zip")).status_code == 404


async def test_a_client_that_goes_ends_the_reading(
    client: httpx.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder larger than all buffers between: without the end of it, descriptors would stay open."""
    for number in range(40):
        (server.desk.root / "folder" / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    closed: list[bool] = []
    close = downloads._close
    monkeypatch.setattr(downloads, "_close", lambda pieces: closed.append(True) or close(pieces))
    async with client.stream("GET", "/folder?form=tar") as answer:
        async for _ in answer.aiter_raw():
            break
    import asyncio

    while not closed:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert not any("folder" in os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors())


def _descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        found.append(fd)
    return found


def packed(root: Path, form: packing.Form, *chosen: str, **more: Any) -> bytes:
    return b"".join(pack(Root(root), chosen or [""], form, **more))


def test_both_forms_give_back_what_was_packed(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "空").mkdir(parents=True)
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "big").write_bytes(os.urandom(3 << 20))
    (tree / "a" / "run.sh").write_text("#!/bin/sh\n")
    (tree / "a" / "run.sh").chmod(0o755)
    (tree / "a" / ("x" * 255)).write_text("long")
    (tree / "a" / "link").symlink_to("run.sh")
    (tree / ".galilean-upload").mkdir()
    (tree / ".galilean-upload" / "half").write_text("half")
    for form, unpack in (
        ("tar", ["tar", "-xf", "-"]),
        ("tar.gz", ["tar", "-xzf", "-"]),
    ):
        where = out / form
        where.mkdir(parents=True)
        subprocess.run(unpack, input=packed(tree, form), cwd=where, check=True)  # type: ignore[arg-type]
        assert contents(where) == {
            key: value for key, value in contents(tree).items() if ".galilean" not in key
        }
        assert os.access(where / "a" / "run.sh", os.X_OK)
        assert os.readlink(where / "a" / "link") == "run.sh"
    for compress in (False, True):
        archive = zipfile.ZipFile(io.BytesIO(packed(tree, "zip", compress=compress)))
        assert archive.testzip() is None
        assert archive.read("a/big") == (tree / "a" / "big").read_bytes()
        assert archive.getinfo("a/run.sh").external_attr >> 16 & 0o777 == 0o755
        assert archive.read("a/link") == b"run.sh"
        assert "空/" in archive.namelist()


def contents(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }


def test_what_cannot_be_packed_is_named_in_the_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "fine").write_text("fine")
    archive = zipfile.ZipFile(io.BytesIO(packed(tmp_path, "zip")))
    assert archive.read(LEFT_OUT) == b"pipe\n"
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "tar"))) as tar:
        assert tar.extractfile(LEFT_OUT).read() == b"pipe\n"  # type: ignore[union-attr]
    with pytest.raises(UserError):
        packed(tmp_path, "zip", "pipe")


def test_no_link_is_followed_out_of_the_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tree / "out").symlink_to(outside)
    assert b"secret" not in packed(tree, "tar").replace(str(outside).encode(), b"")
    for path in ("out/secret", "../outside/secret"):
        with pytest.raises(UserError):
            packed(tree, "tar", path)


def test_a_file_that_changes_while_it_is_packed_breaks_no_archive(tmp_path: Path) -> None:
    for form in ("tar", "zip"):
        (tmp_path / "grows").write_bytes(b"x" * (4 << 20))
        (tmp_path / "shrinks").write_bytes(b"y" * (4 << 20))
        (tmp_path / "z").write_bytes(b"last")
        pieces = pack(Root(tmp_path), [""], form)  # type: ignore[arg-type]
        data = next(pieces)
        with open(tmp_path / "grows", "ab") as file:
            file.write(b"more")
        os.truncate(tmp_path / "shrinks", 10)
        data += b"".join(pieces)
        if form == "tar":
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                assert tar.extractfile("z").read() == b"last"  # type: ignore[union-attr]
        else:
            archive = zipfile.ZipFile(io.BytesIO(data))
            assert archive.testzip() is None
            assert archive.read("z") == b"last"


def test_names_of_any_bytes_come_back_or_can_be_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("1")
    (tmp_path / "..\\..\\evil").write_text("2")
    archive = zipfile.ZipFile(io.BytesIO(packed(tmp_path, "zip")))
    assert sorted(archive.namelist()) == [".._.._evil", "caf%E9"]
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "tar"))) as tar:
        assert os.fsencode(min(tar.getnames(), key=len)) == b"caf\xe9"


def test_sizes_beyond_four_gigabytes_are_written_as_zip64(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        os.truncate(file.fileno(), (1 << 30) + 1)
    pieces = pack(Root(tmp_path), [""], "zip")
    head = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert head[4:6] == b"\x2d\x00"  # version needed 4.5


def test_an_archive_in_the_tree_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    root = Root(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(os.urandom(3 << 20))
    assert pack_into(root, ["folder"], "out.zip", "zip") == "out.zip"
    archive = zipfile.ZipFile(tmp_path / "out.zip")
    assert archive.read("folder/x") == (tmp_path / "folder" / "x").read_bytes()
    assert pack_into(root, ["folder"], "out.zip", "tar.gz", taken="keep") == "out (2).zip"

    class EndsItself(Progress):
        def add(self, size_bytes: int, entries: int = 0) -> None:
            super().add(size_bytes, entries)
            self.cancel()

    for path, progress, error in (
        ("out.zip", Progress(), UserError),
        ("new.zip", Progress(lambda: 1 << 20), UserError),
        ("new.zip", EndsItself(), Cancelled),
    ):
        with pytest.raises(error):
            pack_into(root, ["folder"], path, "zip", progress=progress)
        assert sorted(os.listdir(tmp_path)) == ["folder", "out (2).zip", "out.zip"]
