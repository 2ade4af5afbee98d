"""Copies: whole or not at all, the same in every respect that people notice, and nothing from outside."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from galilean.errors import UserError
from services.files import copies, kernel
from services.files.copies import copy, copy_into
from services.files.paths import HIDDEN
from services.files.progress import Cancelled, Progress
from services.files.root import Root


@pytest.fixture(params=["clone or range", "range", "by hand"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "clone or range":
        monkeypatch.setattr(kernel, "clone", lambda *_: False)
    if request.param == "by hand":

        def absent(*_: Any) -> int:
            raise OSError(errno.EXDEV, "other disk")

        monkeypatch.setattr(os, "copy_file_range", absent)
    return request.param


def filled(tree: Path) -> Root:
    (tree / "src" / "deep" / "空").mkdir(parents=True)
    (tree / "src" / "small").write_text("small")
    (tree / "src" / "nothing").write_text("")
    (tree / "src" / "large").write_bytes(os.urandom(3 << 20))
    with open(tree / "src" / "holes", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        os.truncate(file.fileno(), 128 << 20)
    (tree / "src" / "run").write_text("x")
    (tree / "src" / "run").chmod(0o751)
    (tree / "src" / "deep" / "read only").write_text("x")
    (tree / "src" / "deep" / "read only").chmod(0o444)
    os.link(tree / "src" / "small", tree / "src" / "deep" / "same")
    (tree / "src" / "link").symlink_to("/etc/passwd")
    for path in (tree / "src" / "small", tree / "src" / "deep"):
        os.utime(path, (1_000_000_000, 1_000_000_000.5))
    return Root(tree)


def seen(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what: Any = None
        if path.is_symlink():
            what = os.readlink(path)
        elif path.is_file():
            what = path.read_bytes()
        mtime = 0 if path.is_symlink() else status.st_mtime_ns
        found[str(path.relative_to(root))] = (
            stat.S_IFMT(status.st_mode),
            status.st_mode & 0o777,
            mtime,
            what,
        )
    return found


def test_a_copy_is_the_same_in_every_respect(tmp_path: Path, way: str) -> None:
    root = filled(tmp_path)
    before = seen(tmp_path / "src")
    progress = Progress()
    copied = copy(root, "src", root, "copy", progress=progress)
    assert (copied.path, copied.left_out) == ("copy", [])
    assert seen(tmp_path / "copy") == before == seen(tmp_path / "src")
    assert (tmp_path / "copy" / "small").samefile(tmp_path / "copy" / "deep" / "same")
    assert not (tmp_path / "copy" / "small").samefile(tmp_path / "src" / "small")
    assert (tmp_path / "copy" / "holes").stat().st_blocks * 512 < 1 << 20
    assert progress.entries >= 11
    assert sorted(os.listdir(tmp_path)) == ["copy", "src"]


def test_a_tree_is_copied_into_another_without_what_is_under_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    root = filled(tmp_path / "a")
    (tmp_path / "a" / HIDDEN).mkdir()
    (tmp_path / "a" / HIDDEN / "half").write_text("half")
    copy_into(root, Root(tmp_path / "b"))
    assert os.listdir(tmp_path / "b") == ["src"]
    assert seen(tmp_path / "b" / "src") == seen(tmp_path / "a" / "src")
    with pytest.raises(UserError, match="already"):
        copy_into(root, Root(tmp_path / "b"))


def test_one_file_and_one_link_are_copied_too(tmp_path: Path) -> None:
    root = filled(tmp_path)
    assert copy(root, "src/large", root, "src/large", taken="keep").path == "src/large (2)"
    assert (tmp_path / "src" / "large (2)").read_bytes() == (tmp_path / "src" / "large").read_bytes()
    copy(root, "src/link", root, "link")
    assert os.readlink(tmp_path / "link") == "/etc/passwd"


@pytest.mark.parametrize(
    ("path", "new_path", "status"),
    [
        ("src", "src/inside", 400),
        ("", "everything", 400),
        ("nothing", "x", 404),
        ("src", "taken", 409),
        ("src", "no/folder", 404),
        ("src", "../outside", 400),
        ("src", f"{HIDDEN}/x", 404),
        ("src/link/x", "x", 400),
        ("pipe", "x", 400),
    ],
)
def test_what_cannot_be_copied_leaves_nothing(tmp_path: Path, path: str, new_path: str, status: int) -> None:
    root = filled(tmp_path)
    (tmp_path / "taken").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as caught:
        copy(root, path, root, new_path)
    assert caught.value.status == status
    assert sorted(os.listdir(tmp_path)) == ["pipe", "src", "taken"]
    assert (tmp_path / "taken").read_text() == "mine"


def test_pipes_and_devices_are_left_out_and_said(tmp_path: Path) -> None:
    root = filled(tmp_path)
    os.mkfifo(tmp_path / "src" / "deep" / "pipe")
    copied = copy(root, "src", root, "copy")
    assert copied.left_out == ["deep/pipe"]
    assert not (tmp_path / "copy" / "deep" / "pipe").exists()


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_a_copy_that_is_cancelled_leaves_nothing(tmp_path: Path, after: int) -> None:
    class EndsItself(Progress):
        def add(self, size_bytes: int, entries: int = 0) -> None:
            if self.entries >= after:
                self.cancel()
            super().add(size_bytes, entries)

    root = filled(tmp_path)
    with pytest.raises(Cancelled):
        copy(root, "src", root, "copy", progress=EndsItself())
    assert os.listdir(tmp_path) == ["src"]


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = filled(tmp_path)
    with pytest.raises(UserError) as caught:
        copy(root, "src", root, "copy", progress=Progress(lambda: 1 << 20))
    assert (caught.value.status, caught.value.reason) == (507, "quota")
    assert os.listdir(tmp_path) == ["src"]
    monkeypatch.setattr(kernel, "clone", lambda *_: False)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(UserError) as caught:
        copy(root, "src", root, "copy")
    assert caught.value.status == 507
    assert os.listdir(tmp_path) == ["src"]


def written(progress: Progress, size_bytes: int, wrote: list[int]) -> None:
    for _ in range(size_bytes >> 20):
        progress.add(1 << 20)
        wrote[0] += 1 << 20


def test_no_more_is_written_than_there_is_room_for_though_nothing_of_it_is_counted_meanwhile() -> None:
    wrote = [0]
    with pytest.raises(UserError) as caught:
        written(Progress(lambda: 100 << 20), 10 << 30, wrote)
    assert (caught.value.status, wrote) == (507, [100 << 20])


def test_what_was_counted_while_it_is_written_is_not_held_against_it_twice() -> None:
    wrote, others = [0], [0]
    progress = Progress(lambda: (300 << 20) - wrote[0] - others[0])
    written(progress, 250 << 20, wrote)
    others[0] = 30 << 20
    with pytest.raises(UserError):
        written(progress, 100 << 20, wrote)
    assert wrote[0] <= 300 << 20
    freed = [100 << 20]
    progress, wrote = Progress(lambda: freed[0]), [0]
    written(progress, 50 << 20, wrote)
    freed[0] = 200 << 20  # somebody deleted something
    written(progress, 150 << 20, wrote)


def test_a_folder_swapped_for_a_link_while_it_is_copied_lets_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "secret").write_text("secret")
    (outside / "secret").write_text("secret")
    tree = tmp_path / "tree"
    tree.mkdir()
    root = filled(tree)
    opens = os.open

    def swapping(name: Any, flags: int, *args: Any, **more: Any) -> int:
        if name == "deep" and (tree / "src" / "deep").is_dir() and not (tree / "src" / "deep").is_symlink():
            os.rename(tree / "src" / "deep", tree / "old")
            (tree / "src" / "deep").symlink_to(outside)
        return opens(name, flags, *args, **more)

    monkeypatch.setattr(copies.os, "open", swapping)
    copied = copy(root, "src", root, "copy")
    assert copied.left_out == ["deep"]
    assert subprocess.run(["grep", "-rq", "secret", str(tree / "copy")], check=False).returncode == 1
