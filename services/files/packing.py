"""A folder, or some things in one, as a stream of zip or tar: nothing is kept anywhere.

Pieces are made when they are asked for, so a slow client slows the disk and one that goes away ends it. Trees are
walked by descriptors, never through a link; links are packed as links, pipes and devices are left out. What could
not be read is named in a file at the end of the archive: a download that lacks something must say so, and the
answer's status is long gone by then.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol

from galilean.errors import UserError, mark
from services.files import paths, trees
from services.files.copies import making
from services.files.faults import plain_words
from services.files.paths import DEPTH, join, not_found, split, split_new
from services.files.placing import Taken, check_free, place
from services.files.progress import Progress
from services.files.root import Root
from services.files.trees import opened

Form = Literal["zip", "tar", "tar.gz"]
PIECE_BYTES = 1 << 20
LEFT_OUT = "NOT-INCLUDED.txt"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OLDEST, _NEWEST = 315532800, 4354819198  # what a zip's clock can say
#: Packed again they only cost time.
_PACKED = (
    ".zip",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".7z",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".mp4",
    ".npz",
    ".parquet",
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing of a tree: an open regular file, a folder, or a link."""

    name: str
    status: os.stat_result
    file: int | None = None
    link: str | None = None


def walk(
    top: int, parts: tuple[str, ...], prefix: str, left_out: list[str], *, read: bool = True
) -> Iterator[Found]:
    """What is at ``parts`` and all below it, a folder before what is in it; a file is open until the next step.

    Without ``read`` no file is opened: for whoever only counts.
    """
    waiting: list[tuple[tuple[str, ...], str]] = [(parts, prefix)]
    while waiting:
        place, name = waiting.pop()
        if len(place) > DEPTH + len(parts):
            left_out.append(name)
            continue
        try:
            directory = trees.open_below(top, place)
        except OSError:
            left_out.append(name)
            continue
        with opened(directory):
            if name:
                yield Found(name=name + "/", status=os.fstat(directory))
            with os.scandir(directory) as entries:
                names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            below: list[tuple[tuple[str, ...], str]] = []
            for entry, folder in names:
                if not place and paths.is_hidden(entry):
                    continue
                shown = f"{name}/{entry}" if name else entry
                if folder:
                    below.append(((*place, entry), shown))
                else:
                    yield from _one(directory, entry, shown, left_out, read)
            waiting.extend(reversed(below))


def _one(directory: int, entry: str, name: str, left_out: list[str], read: bool = True) -> Iterator[Found]:
    try:
        status = trees.lstat(directory, entry)
        if status is None:
            return
        if stat.S_ISLNK(status.st_mode):
            yield Found(name=name, status=status, link=os.readlink(entry, dir_fd=directory))
            return
        if not stat.S_ISREG(status.st_mode):
            left_out.append(name)
            return
        if not read:
            yield Found(name=name, status=status)
            return
        file = os.open(entry, _READ, dir_fd=directory)
    except OSError:
        left_out.append(name)
        return
    with opened(file):
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode):
            yield Found(name=name, status=status, file=file)
        else:
            left_out.append(name)


class _Pipe(io.RawIOBase):
    """Where an archive is written to, and taken from piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.waiting = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        piece = bytes(data)
        self._pieces.append(piece)
        self.waiting += len(piece)
        return len(piece)

    def take(self) -> bytes:
        data, self._pieces, self.waiting = b"".join(self._pieces), [], 0
        return data


class _Packer(Protocol):
    def begin(self, found: Found, *, compress: bool) -> Callable[[bytes], object] | None: ...

    def end(self) -> None: ...

    def close(self) -> None: ...


class _Zip:
    def __init__(self, pipe: _Pipe) -> None:
        self._zip = zipfile.ZipFile(pipe, "w", allowZip64=True)  # type: ignore[arg-type]
        self._entry: object = None

    def begin(self, found: Found, *, compress: bool) -> Callable[[bytes], object] | None:
        when = min(max(found.status.st_mtime, _OLDEST), _NEWEST)
        info = zipfile.ZipInfo(zip_name(found.name), time.gmtime(when)[:6])
        info.create_system = 3
        info.external_attr = (found.status.st_mode & 0xFFFF) << 16
        if found.name.endswith("/"):
            info.external_attr |= 0x10
            self._zip.writestr(info, b"")
            return None
        if found.link is not None:
            self._zip.writestr(info, os.fsencode(found.link))
            return None
        small = compress and not found.name.lower().endswith(_PACKED)
        info.compress_type = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
        info._compresslevel = 1  # type: ignore[attr-defined]
        info.file_size = found.status.st_size
        self._entry = entry = self._zip.open(info, "w", force_zip64=found.status.st_size >= 1 << 30)
        return entry.write

    def end(self) -> None:
        self._entry.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, pipe: _Pipe, *, gz: bool) -> None:
        mode = "w|gz" if gz else "w|"
        self._tar = tarfile.open(  # noqa: SIM115 - closed by close()
            fileobj=pipe, mode=mode, format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self._size = self._written = 0

    def begin(self, found: Found, *, compress: bool) -> Callable[[bytes], object] | None:
        info = tarfile.TarInfo(found.name.rstrip("/"))
        info.mtime = found.status.st_mtime
        info.mode = stat.S_IMODE(found.status.st_mode) & 0o777
        if found.name.endswith("/"):
            info.type = tarfile.DIRTYPE
        elif found.link is not None:
            info.type, info.linkname = tarfile.SYMTYPE, found.link
        else:
            info.size = found.status.st_size
        self._tar.addfile(info)
        if found.file is None:
            return None
        self._size, self._written = found.status.st_size, 0
        return self._write

    def _write(self, data: bytes) -> None:
        self._tar.fileobj.write(data)  # type: ignore[union-attr]
        self._written += len(data)

    def end(self) -> None:
        # The size was said before the bytes: what got shorter meanwhile is filled up, and blocks are whole.
        short = self._size - self._written
        while short > 0:
            self._write(b"\0" * min(short, PIECE_BYTES))
            short = self._size - self._written
        filling = -self._size % tarfile.BLOCKSIZE
        self._tar.fileobj.write(b"\0" * filling)  # type: ignore[union-attr]
        self._tar.offset += self._size + filling

    def close(self) -> None:
        self._tar.close()


def zip_name(name: str) -> str:
    """A name as it may stand in a zip: UTF-8, and nothing that another system takes for a folder's mark."""
    shown = "".join(f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in name)
    return shown.replace("\\", "_").replace("\0", "_")


def pack(root: Root, chosen: Iterable[str], form: Form, *, compress: bool = False) -> Iterator[bytes]:
    """Pieces of an archive of what is chosen; ``""`` is the whole tree.

    A single folder is packed with its own name at the top. Blocks; close it to end it early.

    Parameters
    ----------
    root
        The tree.
    chosen
        Paths in it.
    form
        ``zip`` (zip64 where needed), ``tar`` or ``tar.gz``.
    compress
        Whether a zip is made smaller, which costs much more time than sending it within a campus.

    Raises
    ------
    UserError
        404 for a path that is not there, before the first piece.
    """
    with root.folder() as top:
        picked = [_look(root, top, path) for path in chosen]
        pipe, left_out = _Pipe(), []
        packer: _Packer = _Zip(pipe) if form == "zip" else _Tar(pipe, gz=form == "tar.gz")
        for path, parts, folder in picked:
            with plain_words(path), opened(trees.open_below(top, parts[:-1])) as parent:
                if folder:
                    found = walk(top, parts, parts[-1] if parts else "", left_out)
                else:
                    found = _one(parent, parts[-1], parts[-1], left_out)
                for one in found:
                    yield from _write(packer, pipe, one, compress)
        if left_out:
            text = "".join(f"{paths.shown(name)}\n" for name in left_out).encode()
            status = os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, len(text), 0, int(time.time()), 0))
            add = packer.begin(Found(name=LEFT_OUT, status=status, file=-1), compress=False)
            assert add is not None
            add(text)
            packer.end()
        packer.close()
        yield pipe.take()


def pack_into(
    root: Root,
    chosen: Iterable[str],
    new_path: str,
    form: Form,
    *,
    taken: Taken = "refuse",
    progress: Progress | None = None,
) -> str:
    """Pack some things of a tree into a new file of it, whole or not at all; answers where it is. Blocks.

    Raises
    ------
    UserError
        404 for what is not there, 409 as ``taken`` says, 507 without room.
    Cancelled
        When somebody asked for the end.
    """
    parts, counted = split_new(new_path), progress or Progress()
    with plain_words(new_path), root.folder() as top:
        with opened(trees.open_below(top, parts[:-1])) as parent:
            check_free(parent, parts, taken)
        with making(top) as (hidden, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with opened(os.open(name, flags, 0o666, dir_fd=hidden)) as file:
                with closing(pack(root, chosen, form, compress=True)) as pieces:  # type: ignore[type-var]
                    for piece in pieces:
                        counted.add(len(piece))
                        view = memoryview(piece)
                        while view:
                            view = view[os.write(file, view) :]
                trees.belong_open(top, file)
                os.fsync(file)
            with opened(trees.open_below(top, parts[:-1])) as parent:
                where = place(hidden, name, parent, parts, taken)
                os.fsync(parent)
    return join(where)


def _look(root: Root, top: int, path: str) -> tuple[str, tuple[str, ...], bool]:
    parts = split(path)
    with plain_words(path), opened(trees.open_below(top, parts[:-1])) as parent:
        status = trees.lstat(parent, parts[-1]) if parts else os.fstat(parent)
    if status is None:
        raise not_found(path)
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise UserError(
            400, mark("“{path}” is a pipe or a device and cannot be packed."), path=paths.shown(path)
        )
    return path, parts, stat.S_ISDIR(status.st_mode)


def _write(packer: _Packer, pipe: _Pipe, found: Found, compress: bool) -> Iterator[bytes]:
    add = packer.begin(found, compress=compress)
    if add is not None and found.file is not None:
        left = found.status.st_size  # a file that grows meanwhile is packed as it was
        while left > 0:
            try:
                data = os.read(found.file, min(PIECE_BYTES, left))
            except OSError:
                break
            if not data:
                break
            left -= len(data)
            add(data)
            if pipe.waiting >= PIECE_BYTES:
                yield pipe.take()
        packer.end()
    if pipe.waiting >= PIECE_BYTES:
        yield pipe.take()
