"""Archives that somebody made to do harm, and archives that people have: each comes out whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from galilean.errors import UserError
from services.files.packing import pack
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.files.unpacking import Limits, unpack


def zipped(*entries: tuple[str, bytes], **more: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name) if more.get("plain") else name, data)
    return out.getvalue()


def zip_link(name: str, to: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, to)
        archive.writestr("d/x", b"through")
    return out.getvalue()


def tarred(*entries: tuple[str, bytes | None, dict[str, Any]], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data, more in entries:
            info = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(info, key, value)
            if data is not None:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, None, dict[str, Any]]:
    return name, None, {"type": kind, "linkname": to}


def put(tmp_path: Path, data: bytes) -> Root:
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "archive").write_bytes(data)
    (tmp_path / "outside").mkdir(exist_ok=True)
    (tmp_path / "outside" / "secret").write_text("secret")
    return Root(tree)


EVIL: dict[str, Callable[[], bytes]] = {
    "zip: up": lambda: zipped(("../outside/evil", b"evil")),
    "zip: far up": lambda: zipped(("a/../../../outside/evil", b"evil")),
    "zip: absolute": lambda: zipped(("/tmp/galilean-evil", b"evil")),
    "zip: other slash": lambda: old_zip(b"..\\outside\\evil"),
    "zip: control": lambda: zipped(("a\x1bb", b"evil")),
    "zip: turned": lambda: zipped(("photo\u202egpj.exe", b"evil")),
    "zip: our folder": lambda: zipped((".galilean-upload/x", b"evil")),
    "zip: link out": lambda: zip_link("d2", "../../outside"),
    "zip: absolute link": lambda: zip_link("d2", "/etc"),
    "tar: up": lambda: tarred(("../outside/evil", b"evil", {})),
    "tar: absolute": lambda: tarred(("/tmp/galilean-evil", b"evil", {})),
    "tar: link out": lambda: tarred(link("d", "../../outside")),
    "tar: absolute link": lambda: tarred(link("d", "/etc")),
    "tar: link through a link": lambda: tarred(link("a", "."), link("d", "a/../../..")),
    "tar: hard link out": lambda: tarred(link("d", "../../outside/secret", tarfile.LNKTYPE)),
    "tar: hard link absolute": lambda: tarred(link("d", "/etc/passwd", tarfile.LNKTYPE)),
    "tar: device": lambda: tarred(("d", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "tar: pipe": lambda: tarred(("d", None, {"type": tarfile.FIFOTYPE})),
}


@pytest.mark.parametrize("kind", EVIL)
def test_what_an_archive_must_not_do_is_left_out_and_told(tmp_path: Path, kind: str) -> None:
    root = put(tmp_path, EVIL[kind]())
    done = unpack(root, "archive", "out")
    assert done.left_out
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert not Path("/tmp/galilean-evil").exists()
    for path in (tmp_path / "tree" / "out").rglob("*"):
        assert not path.is_symlink() or path.resolve().is_relative_to(tmp_path / "tree" / "out")
        assert stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode) or path.is_symlink()
    assert sorted(os.listdir(tmp_path / "tree")) == ["archive", "out"]


def test_nothing_is_written_through_a_link_that_came_before(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        tarred(("real/file", b"old", {}), link("d", "real"), ("d/file", b"new", {}), ("real/file", b"2", {})),
    )
    done = unpack(root, "archive", "out")
    assert done.left_out == [("d", "twice")]
    assert (tmp_path / "tree" / "out" / "d" / "file").read_bytes() == b"new"
    assert (tmp_path / "tree" / "out" / "real" / "file").read_bytes() == b"2"  # as tar: the last one has it


def bomb_of_entries() -> bytes:
    return zipped(*((f"{number}", b"") for number in range(2000)))


def gz_bomb() -> bytes:
    head = tarred(("x", b"", {}))[:512]
    info = tarfile.TarInfo("x")
    info.size = 300 << 20
    head = info.tobuf()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return (
        packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    )


def huge_header() -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    return info.tobuf() + bytes(1 << 20)


def lying_zip() -> bytes:
    """Says that what comes out is one byte long."""
    data = bytearray(zipped(("x", bytes(200 << 20))))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 1)
    return bytes(data)


BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "entries": (bomb_of_entries, 413),
    "ratio": (lambda: zipped(("x", bytes(200 << 20))), 413),
    "ratio of tar": (gz_bomb, 413),
    "a header without measure": (huge_header, 400),
    "a lie about the size": (lying_zip, 400),
    "xz that wants all memory": (lambda: _xz_dictionary(), 400),
}


def _xz_dictionary() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    # Only its head says so; packing with such a dictionary would need the memory here.
    data = bytearray(lzma.compress(tarred(("x", b"1", {})), filters=[{**filters[0], "dict_size": 1 << 20}]))
    at = data.index(b"\x21\x01", 12)
    data[at + 2] = 34  # 512 MB
    header = bytes(data[12 : 12 + (data[12] + 1) * 4 - 4])
    data[12 + len(header) : 16 + len(header)] = struct.pack("<L", zlib.crc32(header))
    return bytes(data)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_ends_early_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    make, status = BOMBS[kind]
    root = put(tmp_path, make())
    with pytest.raises(UserError) as caught:
        unpack(root, "archive", "out", limits=Limits(entries=1000))
    assert caught.value.status == status
    assert os.listdir(tmp_path / "tree") == ["archive"]


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)[:5], b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0",
     gzip.compress(tarred(("x", b"1" * 5000, {})))[:-20], bz2.compress(tarred(("x", b"1", {})))[:-9],
     zipped(("x", b"1" * 1000))[:-30], tarred(("x", b"1" * 5000, {}))[:1500]],
    ids=range(11),  # packed bytes tell the time, and a test's name must be the same in each process
)  # fmt: skip
def test_what_is_damaged_is_told_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    root = put(tmp_path, data)
    with pytest.raises(UserError) as caught:
        unpack(root, "archive", "out")
    assert caught.value.status == 400
    assert os.listdir(tmp_path / "tree") == ["archive"]


def test_a_damaged_byte_in_a_zip_is_found(tmp_path: Path) -> None:
    data = bytearray(zipped(("x", os.urandom(5000))))
    data[200] ^= 1
    with pytest.raises(UserError):
        unpack(put(tmp_path, bytes(data)), "archive", "out")
    assert os.listdir(tmp_path / "tree") == ["archive"]


def old_zip(name: bytes, extra: bytes = b"") -> bytes:
    """A zip whose one name is these bytes, not said to be UTF-8, as Windows made them."""
    data, crc = b"1", zlib.crc32(b"1")
    local = (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, crc, 1, 1, len(name), len(extra)) + name + extra
    )
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, 1, 1, len(name), len(extra), 0, 0, 0, 0, 0
    ) + name + extra  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + 1, 0)
    return local + data + central + end


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("数据/实验一.csv".encode("gbk"), "数据/实验一.csv"),
        ("数据/实验一.csv".encode(), "数据/实验一.csv"),
        ("résumé.txt".encode("cp437"), "résumé.txt"),
        ("Größe.txt".encode("cp437"), "Größe.txt"),
        (b"plain.txt", "plain.txt"),
        (b"folder\\plain.txt", "folder/plain.txt"),
    ],
)
def test_names_are_read_as_their_maker_saw_them(tmp_path: Path, name: bytes, shown: str) -> None:
    done = unpack(put(tmp_path, old_zip(name)), "archive", "out")
    assert done.left_out == []
    assert (tmp_path / "tree" / "out" / shown).read_bytes() == b"1"


def test_a_second_name_in_unicode_counts_if_it_belongs_to_the_first(tmp_path: Path) -> None:
    name = b"?.txt"
    for crc, shown in ((zlib.crc32(name), "热.txt"), (1, "?.txt")):
        text = "热.txt".encode()
        extra = struct.pack("<HHBL", 0x7075, 5 + len(text), 1, crc) + text
        done = unpack(put(tmp_path, old_zip(name, extra)), "archive", "out", taken="keep")
        assert os.listdir(tmp_path / "tree" / done.path) == [shown]


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_was_packed_here_comes_out_the_same(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "空" / "deep").mkdir(parents=True)
    (source / "空" / "deep" / "file").write_bytes(os.urandom(2 << 20))
    (source / "run").write_text("x")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("空/deep/file")
    (source / "空" / "up").symlink_to("../run")
    plain = b"".join(pack(Root(source), [""], "zip" if form == "zip" else "tar"))
    data = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}.get(form, bytes)(plain)
    progress = Progress()
    done = unpack(put(tmp_path, data), "archive", "out", progress=progress)
    assert done.left_out == []
    out = tmp_path / "tree" / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == sorted(
        str(path.relative_to(source)) for path in source.rglob("*")
    )
    assert (out / "link").read_bytes() == (source / "空" / "deep" / "file").read_bytes()
    assert os.access(out / "run", os.X_OK)
    assert progress.size_bytes >= 2 << 20


def test_a_password_is_told(tmp_path: Path) -> None:
    data = bytearray(zipped(("x", b"1")))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + at] |= 1
    with pytest.raises(UserError, match="password"):
        unpack(put(tmp_path, bytes(data)), "archive", "out")


def test_room_and_cancelling_are_minded(tmp_path: Path) -> None:
    root = put(tmp_path, tarred(*((f"{number}", b"x" * 1000, {}) for number in range(20))))
    with pytest.raises(UserError) as caught:
        unpack(root, "archive", "out", progress=Progress(lambda: 5000))
    assert caught.value.status == 507

    class EndsItself(Progress):
        def add(self, size_bytes: int, entries: int = 0) -> None:
            super().add(size_bytes, entries)
            if self.entries == 10:
                self.cancel()

    with pytest.raises(Cancelled):
        unpack(root, "archive", "out", progress=EndsItself())
    assert os.listdir(tmp_path / "tree") == ["archive"]


def test_a_name_that_is_taken_is_not_touched(tmp_path: Path) -> None:
    root = put(tmp_path, zipped(("x", b"1")))
    (tmp_path / "tree" / "out").mkdir()
    (tmp_path / "tree" / "out" / "mine").write_text("mine")
    with pytest.raises(UserError) as caught:
        unpack(root, "archive", "out")
    assert caught.value.status == 409
    assert unpack(root, "archive", "out", taken="keep").path == "out (2)"
    assert os.listdir(tmp_path / "tree" / "out") == ["mine"]
