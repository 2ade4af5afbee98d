"""An archive of projects, from front to back: what is in it, and whether all of it is right.

Whoever made it is not believed: the order of members, their names, sizes and sums are checked as they come, bytes
and entries are counted against limits. The same steps are taken when it is looked at and when it is unpacked, so
what was not looked at is not unpacked either.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from galilean.errors import UserError, mark
from services.catalog.archives import END, FORMAT, HEAD, VERSION
from services.catalog.archives.meta import End, FileMeta, Head, Manifest, ProjectMeta
from services.files.unpacking import PIECE_BYTES, RATIO_FROM_BYTES, Limits, _Exactly, _Forward

M = TypeVar("M", bound=BaseModel)

PROJECTS_MOST = 9_999
JSON_MOST_BYTES = 1 << 20
#: A manifest is read as a whole, and becomes many times as large in memory. So it may have so much for each thing
#: that came before it, besides its names, and so much for what was left out.
LINE_MOST_BYTES, LEFT_OUT_MOST_BYTES = 4 << 10, 4 << 20
COVER_MOST_BYTES = 2 << 20
_NAME = re.compile(
    r"projects/(\d{4})/(project\.json|manifest\.json|files/.+|[0-9a-f]{32}\.(?:png|jpg))", re.DOTALL
)


@dataclass(kw_only=True)
class Item:
    """A file, folder or link of a project; ``source`` must be read before the next one is asked for."""

    name: str
    kind: str
    mode: int
    changed: float
    size: int = 0
    to: str = ""
    source: Any = None


@dataclass(kw_only=True)
class Seen:
    """A project of an archive.

    Attributes
    ----------
    number
        Its place in the archive, from 1.
    size_bytes, files
        What it holds.
    kernels
        Of its notebooks.
    left_out
        What could not be packed when it was made.
    """

    number: int
    meta: ProjectMeta
    cover: bytes = b""
    size_bytes: int = 0
    files: int = 0
    kernels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Contents:
    """What an archive holds."""

    head: Head
    projects: list[Seen] = field(default_factory=list)


def damaged(why: str = "") -> UserError:
    """Of an archive that is not as it was made."""
    return UserError(
        400,
        mark("This archive is damaged or was cut off: {why}. Nothing of it was imported."),
        why=why or "–",
    )


class Reader:
    """Reads an archive; a new one for each time.

    Parameters
    ----------
    stream
        The file, at its beginning.
    size_bytes
        Of the file.
    limits
        Against bombs; files, folders and links of each project and the files' bytes, for there may be thousands of
        projects, and the ratio of all together.
    """

    def __init__(self, stream: BinaryIO, size_bytes: int, limits: Limits | None = None) -> None:
        self._stream, self._packed = stream, size_bytes
        self._limits = limits or Limits()
        self._bytes = 0
        self._tar: tarfile.TarFile | None = None
        self._ahead: tarfile.TarInfo | None = None
        self._sums: dict[str, str] = {}
        self.head: Head | None = None

    def projects(self) -> Iterator[tuple[Seen, Iterator[Item]]]:
        """Each project with its things, which are read to their end before the next project comes.

        ``Seen`` is whole once its things were read. After the last project it is checked that the archive ends
        as it says.

        Raises
        ------
        UserError
            400 for what is no such archive, is of a newer form, damaged or cut off; 413 beyond a limit.
        """
        with _in_words():
            self._tar = self._open()
            info = self._next()
            if info is None or info.name != HEAD or not info.isreg():
                raise UserError(400, mark("This is no archive of projects."))
            self.head = self._model(info, Head, JSON_MOST_BYTES)
            if self.head.format != FORMAT:
                raise UserError(400, mark("This is no archive of projects."))
            if self.head.version > VERSION:
                raise UserError(
                    400, mark("This archive was made by a newer version. Bring this site up to date first.")
                )
            number = 0
            while (info := self._next()) is not None and info.name != END:
                number += 1
                seen = self._begin(info, number)
                items = self._items(seen)
                yield seen, items
                for item in items:
                    _drain(item)
            if info is None:
                raise damaged("its end is missing")
            end = self._model(info, End, JSON_MOST_BYTES)
            if end.projects != number or self.head.projects != number or end.manifests != self._sums:
                raise damaged("the number of projects")

    def _open(self) -> tarfile.TarFile:
        head = self._stream.read(2)
        self._stream.seek(0)
        plain: Any = gzip.GzipFile(fileobj=self._stream, mode="rb") if head == b"\x1f\x8b" else self._stream
        return tarfile.open(fileobj=_Forward(plain), mode="r:", errors="surrogateescape")  # type: ignore[call-overload]

    def _next(self) -> tarfile.TarInfo | None:
        if self._ahead is not None:
            info, self._ahead = self._ahead, None
            return info
        assert self._tar is not None
        with _in_words():
            info = self._tar.next()
        self._tar.members = []  # type: ignore[attr-defined]  # or the list of all would grow in memory
        return info

    def _bytes_of(self, info: tarfile.TarInfo, most: int) -> bytes:
        if not info.isreg() or info.size > most:
            raise damaged(info.name[:80])
        assert self._tar is not None
        source = self._tar.extractfile(info)
        assert source is not None
        # In pieces: as a whole it would be more at once than is read ahead of what was looked at.
        with _in_words():
            content = b"".join(iter(lambda: source.read(PIECE_BYTES), b""))
        if len(content) != info.size:
            raise damaged("it ends too early")
        self._count(len(content))
        return content

    def _model(self, info: tarfile.TarInfo, model: type[M], most: int) -> M:
        try:
            return model.model_validate_json(self._bytes_of(info, most))
        except ValidationError as error:
            raise damaged(info.name[:80]) from error

    def _begin(self, info: tarfile.TarInfo, number: int) -> Seen:
        if number > PROJECTS_MOST or info.name != f"projects/{number:04d}/project.json":
            raise damaged(info.name[:80])
        seen = Seen(number=number, meta=self._model(info, ProjectMeta, JSON_MOST_BYTES))
        following = self._next()
        if seen.meta.cover and following and following.name == f"projects/{number:04d}/{seen.meta.cover}":
            seen.cover = self._bytes_of(following, COVER_MOST_BYTES)
            following = None
        self._ahead = following
        return seen

    def _items(self, seen: Seen) -> Iterator[Item]:
        place = f"projects/{seen.number:04d}"
        found: list[tuple[Any, ...]] = []
        while True:
            info = self._next()
            match = _NAME.fullmatch(info.name) if info else None
            if info is None or match is None or int(match[1]) != seen.number:
                raise damaged(info.name[:80] if info else "its end is missing")
            if info.name == f"{place}/manifest.json":
                break
            if not match[2].startswith("files/"):
                raise damaged(info.name[:80])
            if len(found) >= self._limits.entries:
                raise UserError(
                    413,
                    mark(
                        "A project of this archive holds more than {most} files and folders, the most that is taken."
                    ),
                    most=self._limits.entries,
                )
            if seen.size_bytes + info.size > self._limits.size_bytes:
                raise _too_large()
            name = match[2].removeprefix("files/").rstrip("/")
            item = Item(name=name, kind="", mode=info.mode, changed=info.mtime)
            if info.isdir():
                item.kind = "folder"
                yield item
                found.append((_shown(name), "folder", 0, "", ""))
            elif info.issym():
                item.kind, item.to = "link", info.linkname
                yield item
                found.append((_shown(name), "link", 0, "", _shown(info.linkname)))
            elif info.isreg():
                assert self._tar is not None
                summed = _Summed(self, _Exactly(self._tar.extractfile(info), info.size))
                item.kind, item.size, item.source = "file", info.size, summed
                yield item
                _drain(item)
                found.append((_shown(name), "file", info.size, summed.sum.hexdigest(), ""))
                seen.files += 1
                seen.size_bytes += info.size
            else:
                raise damaged(info.name[:80])
        # A character of a name is six in JSON at most.
        names = sum(len(one[0]) + len(one[4]) for one in found)
        most = LEFT_OUT_MOST_BYTES + len(found) * LINE_MOST_BYTES + 6 * names
        raw = self._bytes_of(info, most)
        self._sums[f"{seen.number:04d}"] = hashlib.sha256(raw).hexdigest()
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            raise damaged(f"{place}/manifest.json") from error
        self._compare(found, manifest.files)
        seen.left_out = manifest.left_out
        seen.kernels = tuple(
            sorted(
                {line.notebook.kernel for line in manifest.files if line.notebook and line.notebook.kernel}
            )
        )

    @staticmethod
    def _compare(found: list[tuple[Any, ...]], said: tuple[FileMeta, ...]) -> None:
        lines = [(one.path, one.kind, one.size, one.sha256, one.to) for one in said]
        if found != lines:
            wrong = next((ours[0] for ours, theirs in zip(found, lines, strict=False) if ours != theirs), "")
            raise damaged(wrong[:200] or "files are missing")

    def _count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes > max(RATIO_FROM_BYTES, self._packed * self._limits.ratio):
            raise _too_large()


def _too_large() -> UserError:
    return UserError(
        413, mark("This archive becomes too large: it may be made to fill the disk."), reason="bomb"
    )


class _Summed:
    def __init__(self, reader: Reader, source: Any) -> None:
        self._reader, self._source = reader, source
        self.sum = hashlib.sha256()

    def read(self, size: int) -> bytes:
        with _in_words():  # whoever reads this is outside of Reader.projects
            data = self._source.read(size)
        self._reader._count(len(data))
        self.sum.update(data)
        return data


def _drain(item: Item) -> None:
    while item.source is not None and item.source.read(1 << 20):
        pass


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, struct.error, lzma.LZMAError, UnicodeError) as error:
        raise damaged(str(error)[:80]) from error
    except (gzip.BadGzipFile, json.JSONDecodeError, OverflowError) as error:
        raise damaged(str(error)[:80]) from error


def look(path: Path, limits: Limits | None = None) -> Contents:
    """Look at a whole archive: what is in it, and that all of it is right. Blocks.

    Raises
    ------
    UserError
        As :meth:`Reader.projects`.
    """
    with path.open("rb") as stream:
        reader = Reader(stream, path.stat().st_size, limits)
        seen: list[Seen] = []
        for one, items in reader.projects():
            for item in items:
                _drain(item)
            seen.append(one)
        assert reader.head is not None
        return Contents(head=reader.head, projects=seen)
