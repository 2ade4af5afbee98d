"""The file of a backup: a compressed tar whose first member says what the others are.

Ordinary tools can look into it and take out of it. Reading trusts nothing: a member must be announced in
the manifest, with its size and its SHA-256, must be a plain file, and gets a name that was checked; so a
file that was cut short, damaged or made by somebody else is refused before anything is touched.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark

FORMAT = 1
MANIFEST = "manifest.json"
MOST_MANIFEST_BYTES = 64 * 2**20
PIECE_BYTES = 1 << 20
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}", re.ASCII)
NOT_INCLUDED = (
    "Not in this file: what lies on the volumes (the files of projects), node images, logs. Back up the volumes "
    "with the tools of their storage."
)

Told = Callable[[int, int | None], None]


class Model(BaseModel):
    # What a later version of one format adds is of no concern to this one.
    model_config = ConfigDict(extra="ignore", frozen=True)


class File(Model):
    """A member of the tar."""

    size_bytes: int
    sha256: str


class DatabaseCopy(Model):
    """One database at one moment.

    Attributes
    ----------
    kind
        What can take it back.
    revision
        Of its tables, by the migrations of whoever made them.
    file
        Name of the member.
    """

    kind: Literal["sqlite", "postgresql"]
    revision: str
    file: str


class VolumeNote(Model):
    """A volume as it was; its contents are *not* here.

    Attributes
    ----------
    kind, path, claim
        Where it is.
    total_bytes, used_bytes
        Of the file system it lies on; ``None`` when it could not be looked at.
    projects
        How many projects live there.
    """

    id: str
    kind: str
    path: str
    claim: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    projects: int = 0


class Manifest(Model):
    """What a backup says of itself."""

    format: int = FORMAT
    version: str
    made_at: datetime
    site: str
    backend: str
    state: str
    databases: dict[str, DatabaseCopy]
    volumes: list[VolumeNote]
    open_runs: int
    not_included: str = NOT_INCLUDED
    files: dict[str, File] = {}


def note_of(path: Path) -> File:
    """Size and sum of a file."""
    with path.open("rb") as stream:
        return File(
            size_bytes=os.fstat(stream.fileno()).st_size,
            sha256=hashlib.file_digest(stream, "sha256").hexdigest(),
        )


def write_archive(out: IO[bytes], manifest: Manifest, files: dict[str, Path], told: Told) -> None:
    """Write a backup to a stream; ``files`` are the members by their names."""
    notes = {name: note_of(path) for name, path in files.items()}
    manifest = manifest.model_copy(update={"files": notes})
    text = manifest.model_dump_json(indent=1).encode()
    made_at = int(manifest.made_at.timestamp())
    done, total = 0, sum(note.size_bytes for note in notes.values())
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=made_at) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, MANIFEST, len(text), made_at, io.BytesIO(text))
        for name, path in files.items():
            with path.open("rb") as stream:
                before = done
                _add(
                    tar,
                    name,
                    notes[name].size_bytes,
                    made_at,
                    _Counted(stream, lambda read, before=before: told(before + read, total)),
                )
            done += notes[name].size_bytes


def _add(tar: tarfile.TarFile, name: str, size: int, made_at: int, stream: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, made_at
    tar.addfile(member, stream)  # type: ignore[arg-type]


class _Counted:
    """A stream that tells how much of it was read."""

    def __init__(self, stream: IO[bytes], told: Callable[[int], None]) -> None:
        self._stream, self._told, self._read = stream, told, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._read += len(piece)
        self._told(self._read)
        return piece


def write_whole(target: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file that only its owner may read; under its name it is whole or not there.

    Raises
    ------
    UserError
        507 when the disk is full, 400 when it cannot be written there.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(target, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """Said plainly."""
    return UserError(
        507 if error.errno in (28, 122) else 400,  # ENOSPC, EDQUOT
        mark("{path} cannot be written: {why}. Nothing was left there."),
        path=str(path),
        why=error.strerror or str(error),
    )


def read_archive(stream: IO[bytes], staging: Path, told: Told) -> Manifest:
    """Take a backup apart into a directory that is not in use.

    Returns
    -------
    Manifest
        Every file that it names lies below ``staging`` then, whole.

    Raises
    ------
    UserError
        400 when it is no backup or is damaged, 409 when a newer version made it, 507 without room.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            return _take_apart(tar, staging, told)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _damaged(str(error)) from error
    except OSError as error:
        if error.errno in (28, 122):
            raise cannot_write(staging, error) from error
        raise _damaged(error.strerror or str(error)) from error


def _take_apart(tar: tarfile.TarFile, staging: Path, told: Told) -> Manifest:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg():
        raise _damaged("it does not begin with a manifest")
    if first.size > MOST_MANIFEST_BYTES:
        raise _damaged("its manifest is too large")
    content = tar.extractfile(first)
    assert content is not None
    manifest = _manifest(content.read())
    total = sum(file.size_bytes for file in manifest.files.values())
    free = shutil.disk_usage(staging).free
    if total > free:
        raise UserError(
            507,
            mark("The backup takes {total} and {path} has {free} free. Free some space first."),
            total=format_bytes(total),
            free=format_bytes(free),
            path=str(staging.parent),
        )
    done, missing = 0, dict(manifest.files)
    while (member := tar.next()) is not None:
        note = missing.pop(member.name, None)
        if note is None or not member.isreg() or member.size != note.size_bytes:
            raise _damaged(f"{member.name[:100]!r} is not what the manifest says")
        source = tar.extractfile(member)
        assert source is not None
        if _keep(source, staging / member.name, lambda read, before=done: told(before + read, total)) != (
            note.sha256
        ):
            raise _damaged(f"{member.name!r} was changed")
        done += note.size_bytes
    if missing:
        raise _damaged(f"{len(missing)} of its files are missing")
    return manifest


def _manifest(text: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _damaged("its manifest cannot be read") from error
    if manifest.format > FORMAT:
        raise UserError(
            409,
            mark(
                "This backup was made by Galilean {version}, whose backups this version cannot read. Install that "
                "version, or a newer one."
            ),
            version=manifest.version[:40],
        )
    wanted = {"galilean", "hub"}
    if set(manifest.databases) != wanted or any(
        copy.file not in manifest.files for copy in manifest.databases.values()
    ):
        raise _damaged("its manifest names no databases")
    if bad := [name for name in manifest.files if not _NAME.fullmatch(name) or name == MANIFEST]:
        raise _damaged(f"a file in it is called {bad[0][:100]!r}")
    if manifest.made_at.tzinfo is None:
        raise _damaged("its date has no zone")
    return manifest


def _keep(source: IO[bytes], target: Path, told: Callable[[int], None]) -> str:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sums, read = hashlib.sha256(), 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while piece := source.read(PIECE_BYTES):
            sums.update(piece)
            out.write(piece)
            read += len(piece)
            told(read)
    return sums.hexdigest()


def _damaged(why: str) -> UserError:
    return UserError(
        400, mark("This is not a backup of Galilean, or it is damaged: {why}. Nothing was changed."), why=why
    )


def stamp(now: datetime) -> str:
    """A time as part of a file's name."""
    return time.strftime("%Y%m%d-%H%M%S", now.utctimetuple())
