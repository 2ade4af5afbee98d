"""Unpack archives that anybody may have made: zip, tar, tar.gz, tar.bz2, tar.xz.

What an archive says of itself is never believed: bytes and entries are counted as they come out, against limits
and against the room there is, so a bomb ends early and leaves nothing. Everything is made by descriptors in the
hidden folder and gets its name as a whole. Links are made last, so that nothing is written through one, and only
those that stay inside what is unpacked; devices, pipes and names that may not be here are left out and told.

Names in a zip that are not said to be UTF-8 are read as UTF-8 if they are, as GBK if that gives common Chinese
characters, else as CP437 as the format says.
"""

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from services.files import kernel, trees
from services.files.copies import making
from services.files.faults import plain_words
from services.files.paths import DEPTH, PATH_BYTES, check_name, join, shown, split_new
from services.files.placing import Taken, check_free, place
from services.files.progress import Progress
from services.files.root import Root
from services.files.trees import opened

PIECE_BYTES = 1 << 20
#: From so much on it is looked at how many bytes come out of one.
RATIO_FROM_BYTES = 64 << 20
#: What zip keeps of a name that is not UTF-8 (APPNOTE 4.4.4), and its extra field with one that is (4.6.9).
_UTF8, _UNICODE_PATH = 0x800, 0x7075
_HEADER_MOST_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one archive may become.

    Attributes
    ----------
    entries
        Files, folders and links.
    size_bytes
        All files together.
    ratio
        How many bytes may come out of one of the archive, looked at beyond 64 MB.
    """

    entries: int = 200_000
    size_bytes: int = 1 << 40
    ratio: int = 200


@dataclass(kw_only=True)
class Unpacked:
    """What became of an archive.

    Attributes
    ----------
    path
        The folder it is in.
    left_out
        What was not made, and why in one word: ``name``, ``link``, ``kind``, ``twice``, ``deep``.
    """

    path: str = ""
    left_out: list[tuple[str, str]] = field(default_factory=list)


def unpack(
    root: Root,
    path: str,
    new_path: str,
    *,
    taken: Taken = "refuse",
    limits: Limits | None = None,
    progress: Progress | None = None,
    encoding: str = "",
) -> Unpacked:
    """Unpack a file of a tree into a new folder of it. Blocks.

    Parameters
    ----------
    root
        The tree.
    path
        The archive; what it is is seen from its first bytes, not from its name.
    new_path
        The folder.
    taken
        What to do when there is something of that name; see :mod:`services.files.placing`.
    limits
        Against bombs.
    progress
        Counts, room, cancelling.
    encoding
        Of names in a zip that are not UTF-8; empty = found out.

    Raises
    ------
    UserError
        400 for what is no archive, is damaged or encrypted; 409; 413 beyond a limit; 507 without room.
    Cancelled
        When somebody asked for the end.
    """
    parts = split_new(new_path)
    with root.open(path) as source, plain_words(new_path), root.folder() as top:
        with opened(trees.open_below(top, parts[:-1])) as parent:
            check_free(parent, parts, taken)
        with making(top) as (hidden, name):
            os.mkdir(name, 0o700, dir_fd=hidden)
            with opened(os.open(name, trees.OPEN_DIRECTORY, dir_fd=hidden)) as folder:
                work = _Unpacking(
                    top, folder, path, source.entry.size_bytes, limits or Limits(), progress or Progress()
                )
                with _in_words(path):
                    if _form(source.stream) == "zip":
                        _from_zip(work, source.stream, encoding)
                    else:
                        _from_tar(work, source.stream)
                work.finish()
                # The archive may be deleted next: what came out of it must be on the disk before.
                kernel.sync_all(folder)
            with opened(trees.open_below(top, parts[:-1])) as parent:
                where = place(hidden, name, parent, parts, taken)
                os.fsync(parent)
    return Unpacked(path=join(where), left_out=work.left_out)


def _form(stream: BinaryIO) -> Literal["zip", "tar"]:
    head = stream.read(4)
    stream.seek(0)
    return "zip" if head in (b"PK\x03\x04", b"PK\x05\x06") else "tar"


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    name = shown(path)
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        lzma.LZMAError,
        zlib.error,
        struct.error,
    ) as error:
        raise UserError(
            400, mark("“{path}” is damaged, or no archive that is known here."), path=name
        ) from error
    except (gzip.BadGzipFile, UnicodeError, NotImplementedError, OverflowError, ValueError) as error:
        raise UserError(
            400, mark("“{path}” is damaged, or no archive that is known here."), path=name
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 says "Invalid data stream" so
        raise UserError(
            400, mark("“{path}” is damaged, or no archive that is known here."), path=name
        ) from error


class _Unpacking:
    """One archive on its way out."""

    def __init__(
        self, top: int, folder: int, path: str, packed_bytes: int, limits: Limits, progress: Progress
    ) -> None:
        self._folder, self._path, self._packed = folder, path, packed_bytes
        self._limits, self._progress = limits, progress
        self._entries = self._bytes = 0
        self._links: list[tuple[tuple[str, ...], str]] = []
        self._modes: dict[tuple[str, ...], int] = {}
        self._top = top
        self.left_out: list[tuple[str, str]] = []
        trees.belong_open(top, folder)

    def place_of(self, name: str) -> tuple[str, ...] | None:
        """Where an entry goes; ``None`` when its name may not be here, which is told."""
        self._entries += 1
        if self._entries > self._limits.entries:
            raise UserError(
                413,
                mark("“{path}” holds more than {most} files and folders, the most that is unpacked at once."),
                path=shown(self._path),
                most=self._limits.entries,
            )
        self._progress.add(0, 1)
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        why = ""
        try:
            for part in parts:
                check_name(part)
            size = len(os.fsencode(join(parts)))
        except (UserError, UnicodeEncodeError):
            why, size = "name", 0
        if name.startswith("/") or "\0" in name:
            why = "name"
        elif size > PATH_BYTES or len(parts) > DEPTH:
            why = "deep"
        if why:
            self.leave_out(name, why)
            return None
        return parts

    def leave_out(self, name: str, why: str) -> None:
        """Tell that an entry was not made."""
        self.left_out.append((shown(name), why))

    def directory(self, parts: tuple[str, ...], mode: int) -> None:
        """Make a folder."""
        if parts:
            os.close(trees.open_below(self._folder, parts, make=True))
            self._modes[parts] = mode

    def file(self, parts: tuple[str, ...], mode: int, changed: float, source: Any) -> None:
        """Make a file from what ``source.read`` gives; a second one of its name takes its place."""
        if not parts:
            return
        with opened(trees.open_below(self._folder, parts[:-1], make=True)) as folder:
            there = trees.lstat(folder, parts[-1])
            if there is not None and stat.S_ISDIR(there.st_mode):
                self.leave_out(join(parts), "twice")
                return
            if there is not None:
                os.unlink(parts[-1], dir_fd=folder)
            with opened(os.open(parts[-1], _NEW, 0o600, dir_fd=folder)) as file:
                while data := source.read(PIECE_BYTES):
                    self._count(len(data))
                    view = memoryview(data)
                    while view:
                        view = view[os.write(file, view) :]
                os.fchmod(file, mode & 0o777 | 0o600)
                trees.belong_open(folder, file)
                with suppress(OSError, OverflowError, ValueError):
                    os.utime(file, (changed, changed))

    def link(self, parts: tuple[str, ...], to: str) -> None:
        """Make a link, at the end, if it stays inside."""
        if parts:
            self._links.append((parts, to))

    def same(self, parts: tuple[str, ...], other: tuple[str, ...]) -> None:
        """Give a file that is there a second name."""
        try:
            with opened(trees.open_below(self._folder, other[:-1])) as source:
                status = trees.lstat(source, other[-1]) if other else None
                if status is None or not stat.S_ISREG(status.st_mode) or not parts:
                    self.leave_out(join(parts), "link")
                    return
                with opened(trees.open_below(self._folder, parts[:-1], make=True)) as target:
                    os.link(other[-1], parts[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError:
            self.leave_out(join(parts), "link")

    def finish(self) -> None:
        """Make the links, then give the folders their permissions."""
        for parts, to in self._links:
            if not _stays(parts, to):
                self.leave_out(join(parts), "link")
                continue
            with opened(trees.open_below(self._folder, parts[:-1], make=True)) as folder:
                if trees.lstat(folder, parts[-1]) is not None:
                    self.leave_out(join(parts), "twice")
                    continue
                os.symlink(to, parts[-1], dir_fd=folder)
                trees.belong(folder, parts[-1])
        for parts, mode in sorted(self._modes.items(), reverse=True):
            with suppress(OSError), opened(trees.open_below(self._folder, parts)) as folder:
                os.fchmod(folder, mode & 0o777 | 0o700)
        os.fchmod(self._folder, 0o755)

    def _count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        most = self._limits.size_bytes
        if self._bytes > max(RATIO_FROM_BYTES, self._packed * self._limits.ratio):
            raise UserError(
                413,
                mark("“{path}” becomes more than {ratio} times as large: it may be made to fill the disk."),
                path=shown(self._path),
                ratio=self._limits.ratio,
                reason="bomb",
            )
        if self._bytes > most:
            raise UserError(
                413,
                mark("“{path}” holds more than {most}, the most that is unpacked at once."),
                path=shown(self._path),
                most=format_bytes(most),
            )
        self._progress.add(size_bytes)


def _stays(parts: tuple[str, ...], to: str) -> bool:
    """Whether a link at ``parts`` to ``to`` leads to something in what is unpacked, by its text alone."""
    if not to or to.startswith("/") or "\0" in to or len(os.fsencode(to)) >= PATH_BYTES:
        return False
    depth = len(parts) - 1
    for step in to.split("/"):
        if step == "..":
            depth -= 1
        elif step not in ("", "."):
            depth += 1
        if depth < 0:
            return False
    # Through another link, ".." would count from where that leads: only ahead of all names is it taken.
    steps = [step for step in to.split("/") if step not in ("", ".")]
    up = next((number for number, step in enumerate(steps) if step != ".."), len(steps))
    return ".." not in steps[up:]


# ---- zip


def _from_zip(work: _Unpacking, stream: BinaryIO, encoding: str) -> None:
    _check_directory(work, stream)
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        names = zip_names(entries, encoding)
        for info, name in zip(entries, names, strict=True):
            parts = work.place_of(name)
            if parts is None:
                continue
            if info.flag_bits & 0x1:
                raise UserError(
                    400, mark("“{path}” is locked by a password. Unpack it in a terminal."), path=name
                )
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            kind = stat.S_IFMT(mode)
            if name.endswith("/") or kind == stat.S_IFDIR:
                work.directory(parts, mode & 0o777 or 0o755)
            elif kind == stat.S_IFLNK:
                with archive.open(info) as source:
                    work.link(parts, os.fsdecode(source.read(PATH_BYTES)))
            elif kind in (0, stat.S_IFREG):
                with archive.open(info) as source:
                    work.file(parts, mode & 0o777 or 0o644, _zip_time(info), source)
            else:
                work.leave_out(name, "kind")


def _check_directory(work: _Unpacking, stream: BinaryIO) -> None:
    """Refuse a directory that alone would fill the memory, before it is read."""
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]
    stream.seek(0)
    if end and (end[4] > work._limits.entries or end[5] > (work._limits.entries + 1) * 1024):
        for _ in range(work._limits.entries + 1):
            work.place_of("")


def zip_names(entries: list[zipfile.ZipInfo], encoding: str = "") -> list[str]:
    """The entries' names as their maker saw them."""
    raw = [
        info.orig_filename.encode("cp437", "surrogateescape") if not info.flag_bits & _UTF8 else b""
        for info in entries
    ]
    chosen = encoding or _encoding(b"/".join(raw))
    names = []
    for info, data in zip(entries, raw, strict=True):
        name = _unicode_path(info, data) or (
            info.orig_filename if not data else data.decode(chosen, "replace")
        )
        # Windows programs of old wrote the other slash.
        names.append(name.replace("\\", "/") if info.create_system == 0 else name)
    return names


def _encoding(data: bytes) -> str:
    if data.isascii():
        return "ascii"
    with suppress(UnicodeDecodeError):
        data.decode("utf-8")
        return "utf-8"
    with suppress(UnicodeDecodeError):
        text = [char for char in data.decode("gb18030") if not char.isascii()]
        common = 0
        for char in text:
            with suppress(UnicodeEncodeError):
                common += 0xB0 <= char.encode("gb2312")[0] <= 0xF7
        if common * 2 >= len(text):
            return "gb18030"
    return "cp437"


def _unicode_path(info: zipfile.ZipInfo, raw: bytes) -> str:
    extra = info.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH and length > 5 and raw:
            version, crc = struct.unpack("<BL", extra[4:9])
            if version == 1 and crc == zlib.crc32(raw):
                with suppress(UnicodeDecodeError):
                    return extra[9 : 4 + length].decode("utf-8")
        extra = extra[4 + length :]
    return ""


def _zip_time(info: zipfile.ZipInfo) -> float:
    from calendar import timegm

    return float(timegm((*info.date_time, 0, 0, 0)))


# ---- tar


class _Forward(io.RawIOBase):
    """A stream that only goes on, with the one step back that tarfile takes, and no reads without measure."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._at, self._last, self._back = stream, 0, b"", False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._back

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != 0:
            raise tarfile.ReadError("cannot seek so")
        if offset == self._at - 1 and self._last:
            self._back = True
            return offset
        self._back = False
        while self._at < offset:
            if not self._take(min(PIECE_BYTES, offset - self._at)):
                break
        if self._at > offset:
            raise tarfile.ReadError("cannot go back")
        return self._at

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        if size < 0 or size > _HEADER_MOST_BYTES:
            raise tarfile.ReadError("a header of no reasonable size")
        data = b""
        if self._back and size:
            self._back, data = False, self._last
        while len(data) < size:
            piece = self._take(size - len(data))
            if not piece:
                break
            data += piece
        return data

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        self._last = data[-1:] or self._last
        return data


class _Xz(io.RawIOBase):
    """xz with a limit to the memory that the archive may ask for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._unpacker = lzma.LZMADecompressor(memlimit=256 << 20)

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        while not self._unpacker.eof:
            data = self._stream.read(PIECE_BYTES) if self._unpacker.needs_input else b""
            out = self._unpacker.decompress(data, max_length=size)
            if out:
                return out
            if not data and self._unpacker.needs_input:
                raise EOFError("cut short")
        return b""


def _from_tar(work: _Unpacking, stream: BinaryIO) -> None:
    head = stream.read(6)
    stream.seek(0)
    plain: Any = stream
    if head.startswith(b"\x1f\x8b"):
        plain = gzip.GzipFile(fileobj=stream, mode="rb")
    elif head.startswith(b"BZh"):
        plain = bz2.BZ2File(stream)
    elif head == b"\xfd7zXZ\0":
        plain = _Xz(stream)
    forward = _Forward(plain)
    with tarfile.open(fileobj=forward, mode="r:", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # or the list of all entries would grow in memory
            parts = work.place_of(info.name)
            if parts is None:
                continue
            if info.isdir():
                work.directory(parts, info.mode)
            elif info.isreg():
                source = archive.extractfile(info)
                assert source is not None
                work.file(parts, info.mode, info.mtime, _Exactly(source, info.size))
            elif info.issym():
                work.link(parts, info.linkname)
            elif info.islnk():
                other = work.place_of(info.linkname)
                if other is not None:
                    work.same(parts, other)
            else:
                work.leave_out(info.name, "kind")
    # What follows says whether all before it was right; an archive's filling is no longer than this.
    for _ in range(16):
        if not forward.read(PIECE_BYTES):
            break


class _Exactly:
    """What ends before its size was cut off."""

    def __init__(self, source: Any, size: int) -> None:
        self._source, self._left = source, size

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if not data and self._left > 0:
            raise EOFError("cut short")
        return data
