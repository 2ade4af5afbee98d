"""Import and export: objects into a folder, files into a bucket. Both block, in a thread of their own.

What is there already and the same, by size and time, is left alone: so a copy that broke off is simply begun again,
and goes on where it was. What is there and different is left, too, unless it was said to be replaced; either is
told. A line that is cut is gone on with at the byte where it broke, as long as the object is still the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from galilean import disk_reserve
from galilean.errors import UserError, mark
from services.files import paths
from services.files.faults import plain_words
from services.files.paths import HIDDEN, shown
from services.files.progress import Progress, too_many
from services.files.root import Root
from services.files.shelf import no_room
from services.object_stores import rules
from services.object_stores.bucket import ATTEMPTS, Bucket, Changed, Cut, Found

Taken = Literal["leave", "replace"]
PAUSE_SECONDS = (1.0, 5.0, 20.0)


class Ended(Exception):
    """The copy may not go on at all; ``why`` is for people. It is no fault of one object, so no other is tried."""

    def __init__(self, why: UserError) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(kw_only=True)
class Outcome:
    """What became of a copy, as far as it is.

    Attributes
    ----------
    copied, same
        How many were copied, and how many were there already.
    left_out
        What was not copied, and why in one word: name, link, kind, taken.
    problems
        What could not be copied.
    """

    copied: int = 0
    same: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, UserError]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a copy goes on its way.

    Attributes
    ----------
    progress
        Counts, and is asked to end.
    still
        Called often; raises when it may not go on: the store is gone, a share withdrawn, an account blocked.
    pause
        Waits so many seconds; handed in for tests.
    keep_upload
        See :meth:`Bucket.write`.
    """

    progress: Progress
    still: Callable[[], None] = lambda: None
    pause: Callable[[float], None] = lambda seconds: None
    keep_upload: Callable[[tuple[str, str] | None], None] = lambda upload: None

    def step(self, size_bytes: int) -> None:
        self.progress.add(size_bytes)
        try:
            self.still()
        except UserError as error:
            raise Ended(error) from None


# ------------------------------------------------------------------------------------------------------------ import


def chosen_objects(bucket: Bucket, prefix: str, names: list[str]) -> Iterator[tuple[str, Found]]:
    """The objects that were chosen, each with its path below the folder it goes to.

    ``prefix`` is the folder of the store that was looked at; ``names`` what was chosen in it (a name that ends with a slash is
    all below), none = everything.
    """
    base = bucket.place.prefix + prefix
    for name in names or [""]:
        if name and not name.endswith("/"):
            found = bucket.look(base + name)
            if found is None:
                raise UserError(
                    404, mark("There is no object “{path}” (any more)."), path=shown(prefix + name)
                )
            yield name, found
            continue
        for found in bucket.objects(prefix + name):
            yield found.key.removeprefix(base), found


def bring(
    bucket: Bucket,
    root: Root,
    *,
    prefix: str,
    names: list[str],
    folder: str,
    taken: Taken,
    course: Course,
    limit_bytes: int | None = None,
    room_bytes: Callable[[], int | None] = lambda: None,
    outcome: Outcome | None = None,
) -> Outcome:
    """Copy objects into a folder.

    Parameters
    ----------
    bucket, root
        From where and whereto.
    prefix, names
        See :func:`chosen_objects`.
    folder
        Below the top of ``root``; made when it is not there.
    limit_bytes
        The most that one file may have (CG-13).
    room_bytes
        How much more may be kept.
    taken
        What to do with what is there and differs.
    course
        How it goes on its way.
    outcome
        Filled on the way, so that whoever looks sees it.

    Raises
    ------
    UserError
        507 when all of it cannot fit: before the first byte. What concerns one object is in ``outcome``.
    Cancelled, Ended
        When somebody asked for the end, or it may not go on.
    """
    outcome = outcome if outcome is not None else Outcome()
    wanted: list[tuple[str, Found]] = []
    total = 0
    for count, (rest, found) in enumerate(chosen_objects(bucket, prefix, names), start=1):
        course.step(0)
        if count > rules.OBJECTS_MOST:
            raise too_many(rules.OBJECTS_MOST)
        if rest.endswith("/") or not rest:  # what some programs write to have a folder
            if found.size_bytes:
                outcome.left_out.append((shown(rest), "name"))
            continue
        path = rules.path_of(rest)
        if path is None:
            outcome.left_out.append((shown(rest), "name"))
            continue
        path = f"{folder}/{path}" if folder else path
        there = _there(root, path)
        if there == (found.size_bytes, _second(found.changed_at)):
            outcome.same += 1
        elif there is not None and taken == "leave":
            outcome.left_out.append((shown(rest), "taken"))
        else:
            total += found.size_bytes
            wanted.append((path, found))
    course.progress.total_bytes = total
    room = room_bytes()
    if room is not None and total > room:
        raise no_room("", total, max(0, room))
    disk_reserve.need(root.root, total)
    at = disk_reserve.watch(root.root)
    written = 0
    for path, found in wanted:
        try:
            fetch(bucket, root, path, found, taken=taken, course=course, limit_bytes=limit_bytes)
        except UserError as error:
            if _is_of_all(error):
                raise
            outcome.problems.append((path, error))
            continue
        outcome.copied += 1
        course.progress.add(0, 1)
        written += found.size_bytes
        at(written)
    return outcome


def fetch(
    bucket: Bucket,
    root: Root,
    path: str,
    found: Found,
    *,
    taken: Taken,
    course: Course,
    limit_bytes: int | None = None,
) -> None:
    """Copy one object to a path.

    Raises
    ------
    UserError
        As :class:`services.files.incoming.Upload`; 409 when the object changed, 502 when it came in wrong, 503 when the line
        broke too often.
    """
    digest = hashlib.md5(usedforsecurity=False)
    encryption, failures = "", 0
    with root.upload(
        path,
        overwrite=taken == "replace",
        parents=True,
        limit_bytes=limit_bytes,
        expected_bytes=found.size_bytes,
    ) as upload:
        while True:
            before = upload.received_bytes
            try:
                with bucket.read(found, before) as (pieces, encryption):
                    for piece in pieces:
                        if upload.received_bytes + len(piece) > found.size_bytes:
                            raise _object_changed(path)
                        course.step(len(piece))
                        digest.update(piece)
                        upload.write(piece)
                if upload.received_bytes == found.size_bytes:
                    break
            except Changed:
                raise _object_changed(path) from None
            except Cut:
                pass
            failures = 0 if upload.received_bytes > before else failures + 1
            if failures >= ATTEMPTS:
                raise UserError(
                    503,
                    mark("The line to {endpoint} broke off several times at “{path}”. Begin again later."),
                    endpoint=bucket.place.endpoint,
                    path=shown(path),
                    reason="store-away",
                )
            course.step(0)
            course.pause(PAUSE_SECONDS[min(failures, len(PAUSE_SECONDS) - 1)])
        told = rules.md5_of(found.entity_tag, encryption)
        if told is not None and told != digest.hexdigest():
            raise UserError(
                502,
                mark(
                    "“{path}” did not arrive as the store has it (checksum). Nothing of it was kept. Try again."
                ),
                path=shown(path),
                reason="checksum",
            )
        upload.finish(changed_at=found.changed_at)


def _is_of_all(error: UserError) -> bool:
    """Whether what went wrong with one would go wrong with all that follow."""
    return error.status == 507 or (error.status in (403, 404) and error.reason.startswith("store-"))


def _object_changed(path: str) -> UserError:
    return UserError(
        409,
        mark("The object for “{path}” was changed or deleted while it was copied. Begin again."),
        path=shown(path),
        reason="changed",
    )


def _there(root: Root, path: str) -> tuple[int, int] | None:
    """Size and second of what is at a path; ``None`` = nothing. A folder or a link is never the same."""
    try:
        entry = root.stat(path)
    except UserError as error:
        if error.status in (404, 400):
            return None
        raise
    return (entry.size_bytes if entry.kind == "file" else -1, _second(entry.changed_at))


def _second(at: datetime | None) -> int:
    return int(at.timestamp()) if at else -1


# ------------------------------------------------------------------------------------------------------------ export


@dataclass(frozen=True, kw_only=True)
class _File:
    path: str
    rest: str
    size_bytes: int
    changed_at: datetime


def chosen_files(root: Root, chosen: list[str], outcome: Outcome, course: Course) -> Iterator[_File]:
    """The files below what was chosen, each with its path below the folder that the first of them is in."""
    for path in chosen or [""]:
        top = path.rstrip("/").rpartition("/")[0]
        cut = len(top) + 1 if top else 0
        waiting = [path.rstrip("/")]
        while waiting:
            here = waiting.pop()
            course.step(0)
            entry = root.stat(here)
            if entry.kind == "file":
                yield _File(
                    path=here, rest=here[cut:], size_bytes=entry.size_bytes, changed_at=entry.changed_at
                )
                continue
            if entry.kind != "folder":
                outcome.left_out.append((shown(here), "link" if entry.kind == "link" else "kind"))
                continue
            parts = paths.split(here)
            if len(parts) >= paths.DEPTH:
                outcome.left_out.append((shown(here), "deep"))
                continue
            with plain_words(here), root.folder(parts) as directory, os.scandir(directory) as entries:
                names = sorted(one.name for one in entries if parts or one.name != HIDDEN)
            for name in reversed(names):
                waiting.append(f"{here}/{name}" if here else name)


def send(
    bucket: Bucket,
    root: Root,
    *,
    chosen: list[str],
    prefix: str,
    taken: Taken,
    course: Course,
    outcome: Outcome | None = None,
) -> Outcome:
    """Copy files into a bucket.

    Parameters
    ----------
    bucket, root
        Whereto and from where.
    chosen
        Paths below the top of ``root``; none = all.
    prefix
        Below the store's own; empty, or ends with a slash.
    taken, course, outcome
        As in :func:`bring`.
    """
    outcome = outcome if outcome is not None else Outcome()
    files: list[tuple[str, _File]] = []
    total = 0
    for file in chosen_files(root, chosen, outcome, course):
        key = rules.key_of(bucket.place.prefix + prefix, file.rest)
        if key is None:
            outcome.left_out.append((shown(file.path), "name"))
            continue
        if len(files) >= rules.OBJECTS_MOST:
            raise too_many(rules.OBJECTS_MOST)
        files.append((key, file))
        total += file.size_bytes
    course.progress.total_bytes = total
    for key, file in files:
        course.step(0)
        try:
            there = bucket.look(key)
            if there and there.size_bytes == file.size_bytes and _is_newer(there, file):
                outcome.same += 1
                course.progress.add(file.size_bytes)
                continue
            if there and taken == "leave":
                outcome.left_out.append((shown(file.path), "taken"))
                course.progress.add(file.size_bytes)
                continue
            with root.open(file.path) as opened:
                bucket.write(opened, key, step=course.step, keep_upload=course.keep_upload)
        except UserError as error:
            if _is_of_all(error):
                raise
            outcome.problems.append((file.path, error))
            continue
        outcome.copied += 1
        course.progress.add(0, 1)
    return outcome


def _is_newer(there: Found, file: _File) -> bool:
    return _second(there.changed_at) >= _second(file.changed_at)  # stores tell whole seconds
