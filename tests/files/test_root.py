"""The files of a project: everything a path, a name or the directory itself can do against us."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from galilean.errors import UserError
from services.files import faults, incoming, kernel, paths, trees
from services.files.incoming import Upload
from services.files.paths import HIDDEN
from services.files.root import Root

SECRET = b"belongs to somebody else"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def files(root: Path) -> Root:
    return Root(root)


def refused(function: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        function()
    error = caught.value
    assert "{" not in error.text()
    error.text().encode()  # a sentence that can be sent
    return error


ACTS: dict[str, Callable[[Root, str], object]] = {
    "list": lambda files, path: files.list(path),
    "stat": lambda files, path: files.stat(path),
    "open": lambda files, path: files.open(path),
    "write": lambda files, path: files.write(path, b"x", overwrite=True),
    "write with parents": lambda files, path: files.write(path, b"x", overwrite=True, parents=True),
    "make folder": lambda files, path: files.make_folder(path),
    "make folders": lambda files, path: files.make_folder(path, parents=True),
    "rename from": lambda files, path: files.rename(path, "new"),
    "rename to": lambda files, path: files.rename("own", path, overwrite=True),
    "delete": lambda files, path: files.delete(path, recursive=True),
    "upload": lambda files, path: files.upload(path),
}

BAD_PATHS = [
    "..",
    "../outside/secret",
    "a/../../outside/secret",
    "a/..",
    "/etc/passwd",
    "//etc/passwd",
    "a//b",
    ".",
    "./own",
    "a/./b",
    "own\0",
    "\0",
    "../" * 40 + "etc/passwd",
    "x" * 256,
    "\U0001f600" * 64,
    "/".join("d" * 101),
    "a/" * 3000,
    "\ud800",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:30])
@pytest.mark.parametrize("act", ACTS)
def test_a_path_that_is_none_is_refused_by_every_act(
    files: Root, root: Path, outside: Path, act: str, path: str
) -> None:
    (root / "own").write_text("mine")
    (root / "a").mkdir()
    assert refused(lambda: ACTS[act](files, path)).status == 400
    assert (outside / "secret").read_bytes() == SECRET
    assert sorted(item.name for item in root.iterdir()) == ["a", "own"]


@pytest.mark.parametrize(
    "act", sorted(set(ACTS) - {"rename from", "delete", "stat", "rename to", "write", "upload"})
)
@pytest.mark.parametrize(
    "target", ["../outside", "../outside/secret", "own", "nowhere", "/etc/passwd", "link"]
)
def test_a_link_in_place_of_the_thing_is_not_followed(
    files: Root, root: Path, outside: Path, act: str, target: str
) -> None:
    (root / "own").write_text("mine")
    (root / "link").symlink_to(target)
    if act == "write with parents":
        files.write("link", b"x", overwrite=True, parents=True)
        assert not (root / "link").is_symlink()
    else:
        assert refused(lambda: ACTS[act](files, "link")).status in (400, 409)
    assert (outside / "secret").read_bytes() == SECRET
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize("act", ACTS)
def test_a_link_on_the_way_is_not_followed(files: Root, root: Path, outside: Path, act: str) -> None:
    (root / "own").write_text("mine")
    (root / "door").symlink_to("../outside")
    (outside / "folder").mkdir()
    for path in ("door/secret", "door/folder", "door/new", "door/folder/new"):
        assert refused(lambda path=path: ACTS[act](files, path)).status == 400
    assert (outside / "secret").read_bytes() == SECRET
    assert sorted(os.listdir(outside)) == ["folder", "secret"]
    assert os.listdir(outside / "folder") == []
    assert (root / "own").read_text() == "mine"


def test_a_link_is_listed_renamed_replaced_and_deleted_as_itself(
    files: Root, root: Path, outside: Path
) -> None:
    for name in ("one", "two", "three"):
        (root / name).symlink_to("../outside/secret")
    assert {entry.kind for entry in files.list().entries} == {"link"}
    assert files.stat("one").kind == "link"
    files.rename("one", "moved")
    assert os.readlink(root / "moved") == "../outside/secret"
    files.delete("two")
    files.write("three", b"new", overwrite=True)
    assert (root / "three").read_bytes() == b"new"
    assert (outside / "secret").read_bytes() == SECRET


def test_deleting_a_tree_leaves_what_its_links_point_to(files: Root, root: Path, outside: Path) -> None:
    (root / "tree/below").mkdir(parents=True)
    (root / "tree/below/door").symlink_to(outside)
    (root / "tree/door").symlink_to(outside / "secret")
    os.link(outside / "secret", root / "tree/same")
    files.delete("tree", recursive=True)
    assert os.listdir(root) == []
    assert (outside / "secret").read_bytes() == SECRET


def test_a_hidden_folder_that_is_a_link_out_is_refused(files: Root, root: Path, outside: Path) -> None:
    (root / HIDDEN).symlink_to(outside)
    (root / "tree/below").mkdir(parents=True)
    assert refused(lambda: files.write("new", b"x")).status == 400
    assert refused(lambda: files.delete("tree", recursive=True)).status == 400
    assert os.listdir(outside) == ["secret"]


def test_pipes_sockets_and_devices_are_listed_and_never_opened(files: Root, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root)  # a socket's path is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        names = ["pipe", "socket"]
        if os.geteuid() == 0:
            os.mknod(root / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            names.append("device")
        assert {entry.kind for entry in files.list().entries} == {"other"}
        for name in names:
            assert refused(lambda name=name: files.open(name)).status == 400
            files.delete(name)
    assert files.list().entries == []


def test_a_writer_who_waits_at_a_pipe_waits_on(files: Root, root: Path) -> None:
    os.mkfifo(root / "pipe")
    writer = threading.Thread(target=lambda: os.close(os.open(root / "pipe", os.O_WRONLY)))
    writer.start()
    try:
        for _ in range(100):
            refused(lambda: files.open("pipe"))
        assert writer.is_alive()
    finally:
        reader = os.open(root / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)


def test_our_own_hidden_folder_does_not_exist_for_anybody(files: Root, root: Path) -> None:
    (root / HIDDEN).mkdir()
    (root / HIDDEN / "x.part").write_text("half")
    assert files.list(hidden=True).entries == []
    assert files.usage().files == 0
    for act in set(ACTS) - {"rename to"}:
        assert refused(lambda act=act: ACTS[act](files, HIDDEN)).status == 404
        assert refused(lambda act=act: ACTS[act](files, f"{HIDDEN}/x.part")).status == 404


GOOD_NAMES = [
    "notebook.ipynb",
    "热流",
    "مرحبا.txt",
    "שלום",
    "😀👩‍👩‍👧.png",
    "trailing.",
    "trailing ",
    " leading",
    "-rf",
    "a\\b",
    "con",
    "%2e%2e",
    "..a",
    "...",
    "é",
    "é",
    "x" * 255,
    "'\"<script>alert(1)</script>".replace("/", ""),
    ".hidden",
    "~",
    "$HOME",
    "*?",
]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: ascii(name)[:30])
def test_names_in_any_script_go_through_every_act(files: Root, root: Path, name: str) -> None:
    files.write(name, b"1")
    assert os.fsencode(name) in os.listdir(os.fsencode(root))
    assert [entry.path for entry in files.list(hidden=True).entries] == [name]
    assert paths.from_address(files.stat(name).address) == name
    with files.open(name) as file:
        assert file.read() == b"1"
    files.rename(name, "other")
    files.rename("other", name)
    files.delete(name)
    files.make_folder(name)
    files.write(f"{name}/{name}", b"2")
    files.delete(name, recursive=True)
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "name",
    ["", " ", "\u3000", "\n", "a\nb", "a\tb", "\x7f", "\x85", "photo\u202egpj.exe", "\u2066x", "\udcff", HIDDEN,
     "\u2028"],
    ids=ascii,
)  # fmt: skip
def test_new_names_that_nobody_can_read_are_refused(files: Root, root: Path, name: str) -> None:
    (root / "own").write_text("mine")
    acts = [
        lambda: files.write(name, b""),
        lambda: files.make_folder(name),
        lambda: files.rename("own", name),
        lambda: files.write(f"{name or ' '}/x", b"", parents=True),
    ]
    for act in acts:
        assert refused(act).status in (400, 404)
    assert os.listdir(root) == ["own"]


STRANGE = [
    b"\xff\xfe",
    b"a\nb",
    b"caf\xe9",
    b"\x1b[31m",
    "a\u202eb".encode(),
    "x\U0010ffe9".encode(),
    b"\xf4\x8f",
]


@pytest.mark.parametrize("name", STRANGE)
def test_every_address_is_utf_8_because_the_proxy_takes_no_other(name: bytes) -> None:
    path = os.fsdecode(b"d/" + name)
    unquote(paths.address(path), errors="strict")
    assert paths.from_address(paths.address(path)) == path


@pytest.mark.parametrize("name", STRANGE)
def test_what_a_node_named_strangely_can_be_listed_read_renamed_and_deleted(
    files: Root, root: Path, name: bytes
) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_text("odd")
    (entry,) = files.list().entries
    entry.name.encode()
    assert not set(entry.name) & set("\n\x1b\u202e")
    path = paths.from_address(entry.address)
    with files.open(path) as file:
        assert file.read() == b"odd"
    files.rename(path, "plain")
    assert os.listdir(root) == ["plain"]
    files.delete("plain")


def test_composed_and_decomposed_names_of_a_node_are_two_files_and_we_make_no_second(
    files: Root, root: Path
) -> None:
    (root / "caf\u00e9").write_bytes(b"1")
    (root / "cafe\u0301").write_bytes(b"2")
    assert len(files.list().entries) == 2
    with files.open("cafe\u0301") as file:
        assert file.read() == b"2"
    files.delete("cafe\u0301")
    (root / "own").write_bytes(b"3")
    for act in (
        lambda: files.write("cafe\u0301", b"4"),
        lambda: files.make_folder("cafe\u0301"),
        lambda: files.rename("own", "cafe\u0301"),
    ):
        assert refused(act).status == 409
    assert files.rename("caf\u00e9", "cafe\u0301").path == "cafe\u0301"  # its own other spelling
    files.write("caf\u00e9", b"5", overwrite=True)
    assert (root / "cafe\u0301").read_bytes() == b"5"
    assert len(files.list().entries) == 2


def test_folders_come_first_then_names_as_people_sort_them(files: Root) -> None:
    for name in ("run10", "Run9", "b", "A", "run9"):
        files.write(name, b"")
    files.make_folder("z")
    names = [entry.path for entry in files.list().entries]
    assert names == ["z", "A", "b", "Run9", "run9", "run10"]
    names = [entry.path for entry in files.list(descending=True).entries]
    assert names == ["z", "run10", "run9", "Run9", "b", "A"]


def test_sorting_by_size_and_time(files: Root, root: Path) -> None:
    for size, name in enumerate(["c", "a", "b"]):
        files.write(name, b"x" * size)
        os.utime(root / name, (1000 - size, 1000 - size))
    assert [entry.path for entry in files.list(sort="size").entries] == ["c", "a", "b"]
    assert [entry.path for entry in files.list(sort="changed", descending=True).entries] == ["c", "a", "b"]


@pytest.mark.parametrize("sort", ["name", "size", "changed"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_show_each_entry_once(root: Path, files: Root, sort: str, descending: bool) -> None:
    for index in range(57):
        (root / f"f{index}").write_bytes(b"x" * (index % 5))
    for index in range(13):
        (root / f"d{index}").mkdir()
    (root / os.fsdecode(b"\xff")).write_text("")
    seen: list[str] = []
    cursor = None
    while True:
        page = files.list(sort=sort, descending=descending, limit=7, cursor=cursor)  # type: ignore[arg-type]
        assert page.total == 71
        seen += [entry.path for entry in page.entries]
        cursor = page.next
        if cursor is None:
            break
        (root / page.entries[-1].path).exists()
    assert len(seen) == len(set(seen)) == 71


def test_paging_goes_on_when_the_last_entry_was_deleted(files: Root) -> None:
    for name in "abcd":
        files.write(name, b"")
    page = files.list(limit=2)
    files.delete("b")
    assert [entry.path for entry in files.list(limit=2, cursor=page.next).entries] == ["c", "d"]


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJuYW1lIiwxLDAsMV0", "WyJzaXplIiwxLDAsImEiXQ", "🙂"])
def test_a_cursor_that_no_page_gave_is_refused(files: Root, cursor: str) -> None:
    files.write("a", b"")
    assert refused(lambda: files.list(cursor=cursor)).status == 400


def test_times_that_no_calendar_has_do_not_break_a_listing(files: Root, root: Path) -> None:
    files.write("far", b"")
    os.utime(root / "far", (2**40, 2**40))
    assert files.list().entries[0].changed_at.year >= 1970


def test_writing_refuses_what_is_there_unless_asked_to_replace(files: Root, root: Path) -> None:
    files.write("a", b"1")
    assert refused(lambda: files.write("a", b"2")).status == 409
    (root / "a").chmod(0o755)
    files.write("a", b"3", overwrite=True)
    assert (root / "a").read_bytes() == b"3"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755
    files.make_folder("folder")
    assert refused(lambda: files.write("folder", b"4", overwrite=True)).status == 409
    assert refused(lambda: files.write("missing/x", b"5")).status == 404
    assert sorted(os.listdir(root)) == ["a", "folder"]


def test_a_hard_link_is_replaced_never_written_through(files: Root, root: Path, outside: Path) -> None:
    os.link(outside / "secret", root / "same")
    files.write("same", b"new", overwrite=True)
    assert (outside / "secret").read_bytes() == SECRET


def test_nothing_shows_under_the_name_until_all_is_there(files: Root, root: Path) -> None:
    files.write("a", b"old")
    upload = files.upload("a", overwrite=True)
    upload.write(b"new")
    assert (root / "a").read_bytes() == b"old"
    assert [entry.path for entry in files.list(hidden=True).entries] == ["a"]
    upload.finish()
    assert (root / "a").read_bytes() == b"new"
    assert os.listdir(root) == ["a"]


def test_an_upload_that_breaks_leaves_nothing(files: Root, root: Path) -> None:
    with pytest.raises(RuntimeError):
        with files.upload("a") as upload:
            upload.write(b"half")
            raise RuntimeError("the browser is gone")
    assert os.listdir(root) == []
    with files.upload("a", expected_bytes=10) as upload:
        upload.write(b"half")
        assert refused(upload.finish).status == 400
    assert os.listdir(root) == []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        files.upload("a").abandon()
        refused(lambda: files.upload("missing/a"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_two_writers_the_last_to_end_has_the_name(files: Root, root: Path) -> None:
    first, second = files.upload("a", overwrite=True), files.upload("a", overwrite=True)
    for _ in range(3):
        first.write(b"1")
        second.write(b"22")
    second.finish()
    assert (root / "a").read_bytes() == b"222222"
    first.finish()
    assert (root / "a").read_bytes() == b"111"
    assert os.listdir(root) == ["a"]


def test_of_two_new_files_of_one_name_the_later_is_refused(files: Root, root: Path) -> None:
    first, second = files.upload("a"), files.upload("a")
    first.write(b"1")
    second.write(b"2")
    first.finish()
    assert refused(second.finish).status == 409
    assert (root / "a").read_bytes() == b"1"
    assert os.listdir(root) == ["a"]


def test_many_writers_at_once_never_mix(files: Root, root: Path) -> None:
    def write(number: int) -> None:
        with files.upload("a", overwrite=True) as upload:
            for _ in range(20):
                upload.write(bytes([65 + number]) * 1000)
            upload.finish()

    def look(_: int) -> set[bytes]:
        try:
            with files.open("a") as file:
                return {file.read()}
        except UserError as error:
            return set() if error.status == 404 else {str(error).encode()}

    with ThreadPoolExecutor(12) as pool:
        looks = pool.map(look, range(100))
        list(pool.map(write, range(16)))
        contents = set().union(*looks) | {(root / "a").read_bytes()}
    assert all(len(content) == 20_000 and len(set(content)) == 1 for content in contents)
    assert os.listdir(root) == ["a"]


def test_of_many_new_files_of_one_name_at_once_exactly_one_is_kept(files: Root, root: Path) -> None:
    count = 8
    for turn in range(20):
        together = threading.Barrier(count)

        def write(
            number: int, name: str = f"a{turn}", together: threading.Barrier = together
        ) -> bytes | None:
            with files.upload(name) as upload:
                upload.write(b"%d" % number)
                together.wait()
                try:
                    upload.finish()
                except UserError as error:
                    return None if error.status == 409 else str(error).encode()
                return b"%d" % number

        with ThreadPoolExecutor(count) as pool:
            kept = [content for content in pool.map(write, range(count)) if content is not None]
        assert [(root / f"a{turn}").read_bytes()] == kept


def test_an_upload_over_the_limit_is_told_and_leaves_nothing(files: Root, root: Path) -> None:
    assert refused(lambda: files.upload("a", limit_bytes=10, expected_bytes=11)).status == 413
    upload = files.upload("a", limit_bytes=10)
    upload.write(b"x" * 10)
    error = refused(lambda: upload.write(b"x"))
    assert error.status == 413
    assert "10\u00a0B" in error.text()
    assert os.listdir(root) == []
    files.write("a", b"x" * 10, limit_bytes=10)


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_the_old_file_stays(
    files: Root, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    files.write("a", b"old")

    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(incoming.os, call, full)
    error = refused(lambda: files.write("a", b"new", overwrite=True))
    monkeypatch.undo()
    assert error.status == 507
    assert (root / "a").read_bytes() == b"old"
    assert os.listdir(root) == ["a"]


def test_what_cannot_fit_is_refused_before_the_first_byte(files: Root, root: Path) -> None:
    assert refused(lambda: files.upload("a", expected_bytes=2**60)).status == 507
    assert os.listdir(root) == []


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_what_the_system_says_of_a_file_is_put_into_words_or_is_a_fault(code: int) -> None:
    error = faults.in_words(OSError(code, os.strerror(code)), "a")
    if error is not None:
        assert 400 <= error.status < 600
        assert "{" not in error.text()


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE, errno.EHOSTUNREACH, errno.ECONNREFUSED])
def test_a_network_disk_without_its_server_is_said_to_be_away(code: int) -> None:
    error = faults.in_words(OSError(code, os.strerror(code)), "a")
    assert error is not None and error.status == 503


def test_what_broke_off_long_ago_is_cleaned_up(files: Root, root: Path) -> None:
    hidden = root / HIDDEN
    (hidden / "x.gone/deep").mkdir(parents=True)
    (hidden / "y.part").write_text("half")
    (hidden / "fresh.part").write_text("half")
    old = time.time() - 2 * trees.LEFTOVER_SECONDS
    for name in ("x.gone", "y.part"):
        os.utime(hidden / name, (old, old))
    files.write("a", b"")
    assert os.listdir(hidden) == ["fresh.part"]


def test_folders_on_the_way_are_made_when_asked(files: Root, root: Path) -> None:
    files.write("a/b/c.txt", b"x", parents=True)
    files.write("a/b/d.txt", b"y", parents=True)
    assert (root / "a/b/c.txt").read_bytes() == b"x"
    files.make_folder("k/l", parents=True)
    assert refused(lambda: files.make_folder("k/l")).status == 409
    assert refused(lambda: files.write("a/b/c.txt/d", b"", parents=True)).status == 400


def test_renaming_refuses_what_would_lose_something(files: Root, root: Path) -> None:
    files.write("a", b"1")
    files.write("b", b"2")
    files.make_folder("folder")
    files.make_folder("empty")
    files.write("folder/x", b"3")
    assert refused(lambda: files.rename("a", "b")).status == 409
    assert refused(lambda: files.rename("folder", "empty")).status == 409
    assert refused(lambda: files.rename("folder", "empty", overwrite=True)).status == 409
    assert refused(lambda: files.rename("a", "empty", overwrite=True)).status == 409
    assert refused(lambda: files.rename("folder", "folder/below")).status == 400
    assert refused(lambda: files.rename("", "x")).status == 400
    assert refused(lambda: files.rename("missing", "x")).status == 404
    assert refused(lambda: files.rename("a", "missing/x")).status == 404
    files.rename("a", "a")
    files.rename("a", "b", overwrite=True)
    files.rename("b", "folder/b")
    files.rename("folder", "moved")
    assert (root / "moved/b").read_bytes() == b"1"


def test_renaming_refuses_also_where_the_disk_has_no_such_step(
    files: Root, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_renameat2", None)
    files.write("a", b"1")
    files.write("b", b"2")
    files.make_folder("folder")
    files.make_folder("empty")
    assert refused(lambda: files.rename("a", "b")).status == 409
    assert refused(lambda: files.rename("folder", "empty")).status == 409
    files.rename("a", "c")
    files.rename("folder", "moved")
    assert sorted(os.listdir(root)) == ["b", "c", "empty", "moved"]
    os.link(root / "b", root / "same")
    monkeypatch.setattr(os, "link", _no_links)
    assert refused(lambda: files.rename("c", "b")).status == 409
    files.rename("c", "d")
    assert sorted(os.listdir(root)) == ["b", "d", "empty", "moved", "same"]


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_deleting_a_full_folder_needs_to_be_meant(files: Root, root: Path) -> None:
    files.write("a/b", b"", parents=True)
    assert refused(lambda: files.delete("a")).status == 409
    files.delete("a", recursive=True)
    assert refused(lambda: files.delete("a")).status == 404
    assert refused(lambda: files.delete("", recursive=True)).status == 400
    files.make_folder("e")
    files.delete("e")
    assert os.listdir(root) == []


def test_a_tree_deeper_than_any_stack_is_deleted_and_counted_in_part(files: Root, root: Path) -> None:
    directory = os.open(root, os.O_RDONLY)
    os.mkdir("deep", dir_fd=directory)
    for _ in range(3000):
        below = os.open("deep", os.O_RDONLY, dir_fd=directory)
        os.mkdir("deep", dir_fd=below)
        os.close(directory)
        directory = below
    os.close(directory)
    assert not files.usage().complete
    files.delete("deep", recursive=True)
    assert os.listdir(root) == []


def test_usage_counts_each_file_once(files: Root, root: Path) -> None:
    files.write("a", b"12345")
    files.write("b/c", b"123", parents=True)
    os.link(root / "a", root / "b/same")
    (root / "loop").symlink_to(".")
    usage = files.usage()
    assert (usage.size_bytes, usage.files, usage.folders, usage.complete) == (8, 4, 1, True)
    assert not files.usage(most=2).complete


def test_reading_goes_on_in_ranges_and_the_tag_follows_the_content(files: Root) -> None:
    files.write("a", b"0123456789")
    with files.open("a") as file:
        file.seek(4)
        assert file.read(3) == b"456"
        tag = file.etag
    files.write("a", b"9876543210", overwrite=True)
    with files.open("a") as file:
        assert file.etag != tag


def test_a_project_whose_directory_is_gone_says_so(files: Root, root: Path) -> None:
    root.rmdir()
    for act in set(ACTS) - {"rename to"}:
        assert refused(lambda act=act: ACTS[act](files, "a")).status == 404


NAMES = st.text(min_size=1, max_size=30) | st.sampled_from(["..", ".", "", "a", "door", "a/b", HIDDEN])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(act=st.sampled_from(sorted(ACTS)), path=PATHS)
@example(act="write", path="door/../../outside/new")
def test_no_path_whatever_reaches_outside(root: Path, outside: Path, act: str, path: str) -> None:
    files = Root(root)
    for name in os.listdir(root):
        try:
            files.delete(name, recursive=True)
        except UserError:
            pass
    (root / "own").write_text("mine")
    (root / "door").symlink_to(outside)
    said = None
    try:
        result = ACTS[act](files, path)
        if isinstance(result, Upload):
            result.abandon()
    except UserError as error:
        said = error
    assert said is None or (400 <= said.status < 500 and said.text().encode())
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == SECRET
    assert sorted(os.listdir(root.parent)) == ["outside", "project"]


@given(st.text(max_size=300))
def test_a_name_is_refused_in_words_or_can_be_made(name: str) -> None:
    said = None
    try:
        paths.check_name(name)
    except UserError as error:
        said = error
    if said is not None:
        assert said.status == 400
        said.text().encode()
    else:
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name and "\0" not in name


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_any_bytes_come_back_from_an_address(raw: bytes) -> None:
    path = os.fsdecode(raw)
    assert paths.from_address(paths.address(path)) == path
    paths.shown(path).encode()


@pytest.mark.parametrize("act", ["write", "delete", "open", "make folder", "rename to", "list"])
def test_a_folder_swapped_for_a_link_all_the_time_lets_nothing_out(
    root: Path, files: Root, outside: Path, act: str
) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            os.rename(root / "real", root / "now")
            os.rename(root / "now", root / "real")
            os.rename(root / "link", root / "now")
            os.rename(root / "now", root / "link")

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: set[int] = set()
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end or not outcomes:
            (root / "own").write_text("mine")
            (root / "real").exists()
            path = "now/secret" if act != "list" else "now"
            try:
                result = ACTS[act](files, path)
                if act == "open":
                    with result as file:  # type: ignore[attr-defined]
                        assert file.read() != SECRET
                if act == "list":
                    assert "secret" not in str(result.entries) or (root / "real/secret").exists()  # type: ignore[attr-defined]
                outcomes.add(200)
            except UserError as error:
                outcomes.add(error.status)
            except FileNotFoundError:
                pass
    finally:
        over.set()
        thread.join()
    assert (outside / "secret").read_bytes() == SECRET
    assert os.listdir(outside) == ["secret"]
    assert outcomes <= {200, 400, 404, 409}
    assert outcomes & {400, 404}


@given(st.lists(st.text(st.sampled_from("aAbZé10９9-. ß"), min_size=1, max_size=8), unique=True, max_size=30))
def test_names_are_sorted_as_people_read_them(names: list[str]) -> None:
    def read(name: str) -> tuple[list[str | int], str]:
        parts: list[str | int] = list(re.split(r"(\d+)", paths.folded(name)))
        parts[1::2] = map(int, parts[1::2])
        return parts, name

    assert sorted(names, key=paths.natural) == sorted(names, key=read)
