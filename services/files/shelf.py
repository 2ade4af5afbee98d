"""Uploads that go on after whatever broke: the connection, the browser, the portal, the machine.

An upload lies in its tree's hidden folder as two files, the bytes and a record. How far it is, is never
written down: it is the size of the file with the bytes, which a process that dies cannot get wrong; what is
acknowledged is on the disk before. Bytes whose checksum is not known yet are marked by a third file that says
where they begin, and are cut off by whoever comes next.

The bytes are locked while somebody writes (``flock``: it ends with its process). When the last byte is there
the file is given its name; what came in whole is never thrown away: a name that was taken meanwhile makes it
"name (2)". Nodes can write into the folder too, so nothing in it is believed without a look.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from galilean.amounts import format_apart, format_bytes
from galilean.clock import Clock, utcnow
from galilean.errors import UserError, mark
from services.files import kernel, paths, trees
from services.files.faults import disk_full, plain_words
from services.files.paths import join, shown, split, split_new
from services.files.placing import Taken, check_free, place
from services.files.root import Root
from services.files.trees import opened

KEEP = timedelta(days=7)
#: How long it is remembered that an upload came in, for a client that lost the answer.
REMEMBER = timedelta(days=1)
MOST_UNDER_WAY = 1000
#: After how much the room that is left is asked for again.
ASK_EVERY_BYTES = 64 << 20
#: After how much the disk begins with it, so that little is left to wait for at the end.
DISK_BYTES = 8 << 20
_ID = re.compile(r"[0-9a-f]{32}")
_RECORD_BYTES = 64 << 10
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Record(BaseModel):
    """What is known of an upload besides its bytes.

    Attributes
    ----------
    by
        Who began it; nobody else can find it.
    path
        Where it is to be, written as in an address.
    taken
        What to do when the name is taken; see :mod:`services.files.placing`.
    placed
        Where it is, once it came in whole.
    """

    model_config = ConfigDict(extra="ignore")

    id: str
    by: str
    path: str
    length_bytes: int
    taken: Taken
    metadata: str = ""
    expires_at: datetime
    placed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far an upload is."""

    record: Record
    offset_bytes: int

    @property
    def placed(self) -> str | None:
        """The path under which it is, once it came in whole."""
        return None if self.record.placed is None else paths.from_address(self.record.placed)


class Shelf:
    """The resumable uploads of one tree. All methods block.

    Parameters
    ----------
    root
        The tree.
    clock
        The time, for what is left behind.
    keep
        How long an upload that does not go on is kept.
    """

    def __init__(self, root: Root, *, clock: Clock = utcnow, keep: timedelta = KEEP) -> None:
        self._root, self._clock, self._keep = root, clock, keep

    def begin(
        self,
        path: str,
        length_bytes: int,
        *,
        by: str,
        taken: Taken = "refuse",
        metadata: str = "",
        room_bytes: int | None = None,
    ) -> Standing:
        """Make room for an upload; one of 0 bytes is there at once.

        Raises
        ------
        UserError
            400 for a bad path, 409 when the name is taken and that was not to be, 429 with too many under way,
            507 when it cannot fit (what others under way still need is counted).
        """
        parts = split_new(path)
        for part in parts[:-1]:
            paths.check_name(part)
        with self._hidden(path) as (top, hidden):
            with suppress(FileNotFoundError), opened(trees.open_below(top, parts[:-1])) as parent:
                check_free(parent, parts, taken)
            self._check_room(hidden, path, length_bytes, room_bytes)
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            mine, file, name = trees.create_hidden(top, ".tus", flags)
        with opened(mine) as hidden, opened(file), plain_words(path):
            trees.belong_open(hidden, file)
            record = Record(
                id=name.removesuffix(".tus"),
                by=by,
                path=paths.address(join(parts)),
                length_bytes=length_bytes,
                taken=taken,
                metadata=metadata,
                expires_at=self._clock() + self._keep,
            )
            self._note(hidden, record)
        return self.look(record.id, by=by)

    def look(self, upload_id: str, *, by: str) -> Standing:
        """How far an upload is; finishes what a process that died had whole.

        Raises
        ------
        UserError
            404 when there is none, or it is somebody else's, or it expired.
        """
        with self._hidden("") as (_, hidden):
            record = self._record(hidden, upload_id, by)
            if record.placed is not None:
                return Standing(record=record, offset_bytes=record.length_bytes)
            there = trees.lstat(hidden, record.id + ".tus")
            if there is None:  # it was given its name, and then the note was not made
                record = self._placed(hidden, record, paths.from_address(record.path))
                return Standing(record=record, offset_bytes=record.length_bytes)
            size = min(there.st_size, record.length_bytes)
            unsure = self._unsure(hidden, record.id)
            if unsure is not None:
                size = min(size, unsure)
            if size < record.length_bytes:
                return Standing(record=record, offset_bytes=size)
        with self.write(upload_id, by=by) as writing:
            return writing.finish()

    @contextmanager
    def write(self, upload_id: str, *, by: str) -> Iterator[Writing]:
        """Go on with an upload, alone; see :meth:`open`."""
        writing = self.open(upload_id, by=by)
        try:
            yield writing
        finally:
            writing.close()

    def open(self, upload_id: str, *, by: str) -> Writing:
        """Go on with an upload, alone; close what is answered.

        Raises
        ------
        UserError
            404 as :meth:`look`; 423 while somebody else writes.
        """
        with plain_words(""):
            top = os.open(self._root.root, trees.OPEN_DIRECTORY)
            try:
                hidden = trees.open_hidden(top)
            except BaseException:
                os.close(top)
                raise
        try:
            with plain_words(""):
                record = self._record(hidden, upload_id, by)
                file = self._lock(hidden, record)
        except BaseException:
            os.close(hidden)
            trees.close_hidden(top)
            os.close(top)
            raise
        return Writing(self, record, top, hidden, file)

    def remove(self, upload_id: str, *, by: str) -> None:
        """End an upload and forget it.

        Raises
        ------
        UserError
            404 as :meth:`look`; 423 while somebody writes.
        """
        with self._hidden("") as (_, hidden):
            record = self._record(hidden, upload_id, by)
            if record.placed is None and trees.lstat(hidden, record.id + ".tus") is not None:
                with opened(self._lock(hidden, record)):
                    self._forget(hidden, record.id)
            else:
                self._forget(hidden, record.id)

    def sweep(self) -> int:
        """Remove what expired and finish what is whole; answers how many were removed."""
        removed = 0
        with self._hidden("") as (top, hidden):
            now = self._clock()
            for upload_id in self._ids(hidden):
                try:
                    record = self._record(hidden, upload_id, None)
                except UserError:
                    record = None
                if record is not None and record.expires_at > now:
                    with suppress(UserError):
                        self.look(upload_id, by=record.by)
                    continue
                if record is None:
                    there = trees.lstat(hidden, upload_id + ".tus")
                    if there is not None and there.st_mtime > now.timestamp() - self._keep.total_seconds():
                        continue
                self._forget(hidden, upload_id)
                removed += 1
            trees.clean(top, hidden)
        return removed

    @contextmanager
    def _hidden(self, path: str) -> Iterator[tuple[int, int]]:
        with plain_words(path), self._root.folder() as top:
            try:
                with opened(trees.open_hidden(top)) as hidden:
                    yield top, hidden
            finally:
                trees.close_hidden(top)

    def _check_room(self, hidden: int, path: str, length_bytes: int, room_bytes: int | None) -> None:
        promised = count = 0
        for upload_id in self._ids(hidden):
            with suppress(UserError):
                record = self._record(hidden, upload_id, None)
                there = trees.lstat(hidden, upload_id + ".tus")
                if there is not None and record.placed is None:
                    count += 1
                    promised += max(0, record.length_bytes - there.st_size)
        if count >= MOST_UNDER_WAY:
            raise UserError(
                429,
                mark("There are {count} uploads under way here. Finish or cancel some of them."),
                count=count,
                reason="uploads",
            )
        disk = os.fstatvfs(hidden)
        if length_bytes + promised > disk.f_bavail * disk.f_frsize:
            raise disk_full(path)
        if room_bytes is not None and length_bytes + promised > room_bytes:
            raise no_room(path, length_bytes, max(0, room_bytes - promised))

    def _ids(self, hidden: int) -> list[str]:
        with os.scandir(hidden) as entries:
            stems = {
                entry.name.partition(".")[0] for entry in entries if entry.name.endswith((".tus", ".json"))
            }
        return sorted(stem for stem in stems if _ID.fullmatch(stem))

    def _record(self, hidden: int, upload_id: str, by: str | None) -> Record:
        gone = UserError(404, mark("There is no such upload (any more). Begin again."))
        if not _ID.fullmatch(upload_id):
            raise gone
        try:
            with opened(os.open(upload_id + ".json", _READ, dir_fd=hidden)) as file:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise gone
                record = Record.model_validate_json(os.read(file, _RECORD_BYTES))
                split_new(paths.from_address(record.path))
        except (OSError, ValidationError, UserError):
            raise gone from None
        if record.id != upload_id or record.length_bytes < 0:
            raise gone
        if by is not None and (record.by != by or record.expires_at <= self._clock()):
            raise gone
        return record

    def _lock(self, hidden: int, record: Record) -> int:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            file = os.open(record.id + ".tus", flags, dir_fd=hidden)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ELOOP, errno.EISDIR):
                raise
            raise UserError(404, mark("There is no such upload (any more). Begin again.")) from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # a node put something in its place
                raise UserError(404, mark("There is no such upload (any more). Begin again."))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if status.st_size > record.length_bytes:
                os.ftruncate(file, record.length_bytes)
            unsure = self._unsure(hidden, record.id)
            if unsure is not None:
                os.ftruncate(file, min(unsure, os.fstat(file).st_size))
                _unlink(hidden, record.id + ".unsure")
        except BlockingIOError:
            os.close(file)
            raise UserError(
                423, mark("This upload is going on from somewhere else just now."), reason="locked"
            ) from None
        except BaseException:
            os.close(file)
            raise
        return file

    def _unsure(self, hidden: int, upload_id: str) -> int | None:
        try:
            with opened(os.open(upload_id + ".unsure", _READ, dir_fd=hidden)) as file:
                text = os.read(file, 32)
        except OSError:
            return None
        return int(text) if text.isdigit() else 0

    def _note(self, hidden: int, record: Record) -> None:
        _write_small(hidden, record.id + ".json", record.model_dump_json().encode())

    def _placed(self, hidden: int, record: Record, path: str) -> Record:
        record = record.model_copy(
            update={"placed": paths.address(path), "expires_at": self._clock() + REMEMBER}
        )
        self._note(hidden, record)
        return record

    def _forget(self, hidden: int, upload_id: str) -> None:
        for suffix in (".json", ".tus", ".unsure"):
            _unlink(hidden, upload_id + suffix)


class Writing:
    """One upload while it is written, by one thread at a time; made by :meth:`Shelf.open`.

    Attributes
    ----------
    offset_bytes
        How far it is.
    """

    def __init__(self, shelf: Shelf, record: Record, top: int, hidden: int, file: int) -> None:
        self._shelf, self.record = shelf, record
        self._top, self._hidden, self._file = top, hidden, file
        self.offset_bytes = os.lseek(file, 0, os.SEEK_END)
        self._began_at = self._asked_to_disk = self.offset_bytes
        self._unsure = False
        self._open = True

    @property
    def path(self) -> str:
        """Where it is to be."""
        return paths.from_address(self.record.path)

    def verify_later(self) -> None:
        """What is written from here on counts only after :meth:`keep`."""
        _write_small(self._hidden, self.record.id + ".unsure", str(self.offset_bytes).encode())
        self._unsure = True

    def write(self, piece: bytes | bytearray) -> None:
        """Add a piece; what of it is on the disk counts, even when the rest is refused.

        Raises
        ------
        UserError
            413 for more than was announced (nothing of this piece is kept), 507 when the disk is full.
        """
        if self.offset_bytes + len(piece) > self.record.length_bytes:
            raise too_long(self.path, self.record.length_bytes)
        with plain_words(self.path):
            view = memoryview(piece)
            while view:
                written = os.write(self._file, view)
                self.offset_bytes += written
                view = view[written:]
        if self.offset_bytes - self._asked_to_disk >= DISK_BYTES:
            kernel.start_writing(self._file, self._asked_to_disk, self.offset_bytes - self._asked_to_disk)
            self._asked_to_disk = self.offset_bytes

    def keep(self) -> None:
        """Have what was written on the disk; from now on it counts."""
        if self.offset_bytes == self._began_at:
            return
        with plain_words(self.path):
            os.fdatasync(self._file)
        self._sure()
        self._began_at = self.offset_bytes

    def take_back(self) -> None:
        """Drop what was written since the last :meth:`keep`."""
        if self.offset_bytes == self._began_at:
            return
        os.ftruncate(self._file, self._began_at)
        self.offset_bytes = os.lseek(self._file, 0, os.SEEK_END)
        self._asked_to_disk = self.offset_bytes
        self._sure()

    def _sure(self) -> None:
        if self._unsure:
            _unlink(self._hidden, self.record.id + ".unsure")
            self._unsure = False

    def finish(self) -> Standing:
        """Give it its name, once all of it is there.

        A name that was taken meanwhile, or became a folder, makes it "name (2)": what came in whole is kept.

        Raises
        ------
        UserError
            400 when its folder cannot be made, 507 on a full disk; then it stays where it is and can be finished
            later.
        """
        if self.offset_bytes != self.record.length_bytes:
            raise ValueError("the upload is not whole")
        parts = split(self.path)
        with plain_words(self.path):
            os.fsync(self._file)
            ours, lying = os.fstat(self._file), trees.lstat(self._hidden, self.record.id + ".tus")
            if lying is None or (lying.st_dev, lying.st_ino) != (ours.st_dev, ours.st_ino):
                raise UserError(
                    409,
                    mark("“{path}” was taken away while it came in. Upload it again."),
                    path=shown(self.path),
                )
            with opened(trees.open_below(self._top, parts[:-1], make=True)) as parent:
                there = trees.lstat(parent, trees.lookalike(parent, parts[-1]) or parts[-1])
                taken: Taken = "keep"
                if self.record.taken == "replace" and not (there and stat.S_ISDIR(there.st_mode)):
                    taken = "replace"
                    if there is not None and stat.S_ISREG(there.st_mode):
                        os.fchmod(self._file, stat.S_IMODE(there.st_mode) & 0o777)
                where = place(self._hidden, self.record.id + ".tus", parent, parts, taken)
                os.fsync(parent)
            self.record = self._shelf._placed(self._hidden, self.record, join(where))
        return Standing(record=self.record, offset_bytes=self.record.length_bytes)

    def close(self) -> None:
        """Let go of it, so that somebody else can go on; twice does no harm."""
        if not self._open:
            return
        self._open = False
        if self._unsure:
            with suppress(OSError):
                os.ftruncate(self._file, self._began_at)
                self._sure()
        os.close(self._file)
        os.close(self._hidden)
        trees.close_hidden(self._top)
        os.close(self._top)


def too_long(path: str, length_bytes: int) -> UserError:
    """What is said of bytes beyond what was announced."""
    return UserError(
        413,
        mark("More came of “{path}” than was announced ({length} bytes). Upload it again."),
        path=shown(path),
        length=length_bytes,
    )


def no_room(path: str, size_bytes: int, left_bytes: int) -> UserError:
    """What is said when a person's own space is used up; an empty path is all of a project."""
    whole = mark("There is room for {left}, and the files have more. Delete files, or ask for more space.")
    one = mark("“{path}” has {size}, and you have room for {left}. Delete files, or ask for more space.")
    size, left = format_apart(size_bytes, left_bytes) if path else ("", format_bytes(left_bytes))
    return UserError(
        507,
        one if path else whole,
        path=shown(path),
        size=size,
        left=left,
        reason="quota",
    )


def _unlink(directory: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _write_small(hidden: int, name: str, data: bytes) -> None:
    """A small file, whole or not at all."""
    new = f"{secrets.token_hex(16)}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(os.open(new, flags, 0o600, dir_fd=hidden)) as file:
        os.write(file, data)
        os.fsync(file)
    os.replace(new, name, src_dir_fd=hidden, dst_dir_fd=hidden)
