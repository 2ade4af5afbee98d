"""Forks being copied: each as a job of its own, with progress that every portal can tell, and an end at any time.

The row of a fork says what is to be done (``busy`` = ``copying``) before a file is touched; whoever does the chores
takes it up. So a portal that ends in the middle, or another one that answers the page, changes nothing: the copy is
begun again from nothing. How far it is stands in the row, too. Who cancels deletes the row: the copy notices within
a second, ends and leaves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, select, update

from galilean import notices
from galilean.errors import UserError, mark
from galilean.file_threads import beside
from galilean.web.context import Portal
from services.catalog import cards, forking, lifecycle, shares, store
from services.catalog.access import access
from services.catalog.projects import bin_path
from services.catalog.store import Project
from services.catalog.tables import projects
from services.files import copies
from services.files.progress import Cancelled, Progress
from services.portal.api.projects import catalogue
from services.portal.binned import remove
from services.portal.storage import room_of
from services.portal.withdrawn import viewer_named

log = logging.getLogger("galilean.portal.forks")

T = TypeVar("T")

AT_ONCE = 3
TOLD_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Course:
    """How far a copy is.

    Attributes
    ----------
    files, size_bytes
        Copied so far; ``of_files``, ``of_bytes`` = of how much, ``None`` = not counted.
    """

    files: int
    size_bytes: int
    of_files: int | None
    of_bytes: int | None

    @property
    def part(self) -> float | None:
        """Between 0 and 1."""
        if self.of_bytes and self.of_files:
            done = (self.size_bytes / self.of_bytes + self.files / self.of_files) / 2
        elif self.of_files:
            done = self.files / self.of_files
        else:
            return None
        return min(done, 1.0)


def course(conn: Connection, project: Project) -> Course | None:
    """How far the copy of a fork is; ``None`` when none is being made."""
    if project.busy != "copying" or project.forked_from is None:
        return None
    origin = store.by_id(conn, project.forked_from, deleted=True)
    return Course(
        files=project.file_count or 0,
        size_bytes=project.size_bytes or 0,
        of_files=origin.file_count if origin else None,
        of_bytes=origin.size_bytes if origin else None,
    )


def waiting(conn: Connection, most: int) -> list[str]:
    """Ids of forks whose files are to be copied, or cleared away, the oldest first."""
    return list(
        conn.execute(
            select(projects.c.id)
            .where(
                projects.c.busy == "copying",
                projects.c.forked_from.is_not(None),
                projects.c.purged_at.is_(None),
            )
            .order_by(projects.c.id)
            .limit(most)
        ).scalars()
    )


async def go_on(portal: Portal) -> None:
    """Copy what waits, some at a time, until nothing does but what must wait for the next round."""
    tasks: dict[str, asyncio.Task[None]] = {}
    later: set[str] = set()
    try:
        while True:
            for project_id in await portal.db.run_read(waiting, 50):
                if project_id not in tasks and project_id not in later and len(tasks) < AT_ONCE:
                    tasks[project_id] = asyncio.create_task(copy_one(portal, project_id))
            if not tasks:
                return
            done, _ = await asyncio.wait(
                tasks.values(), timeout=TOLD_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for project_id in [key for key, task in tasks.items() if task in done]:
                try:
                    tasks.pop(project_id).result()
                except _NotNow as error:
                    log.warning("fork %s waits: %s", project_id, error)
                    later.add(project_id)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def copy_one(portal: Portal, project_id: str) -> None:
    """Copy the files of one fork; what goes wrong is told to its owner, and the fork is gone."""
    fork = await portal.db.run_read(lambda conn: store.by_id(conn, project_id, deleted=True))
    if fork is None or fork.busy != "copying" or fork.forked_from is None:
        return
    try:
        if fork.deleted_at is not None:  # cancelled while nobody did the chores
            raise Cancelled
        await _copy(portal, fork)
    except Cancelled:
        await _discard(portal, fork)
    except UserError as error:
        await _failed(portal, fork, str(error))
    except OSError as error:
        log.warning("fork %s: %s", fork.id, error)
        await _failed(portal, fork, error.strerror or "error")


async def _copy(portal: Portal, fork: Project) -> None:
    shelf = catalogue(portal)
    origin = await portal.db.run_read(store.by_id, fork.forked_from or "")
    if origin is None:
        raise UserError(409, mark("What is forked was deleted meanwhile."))
    await _check_still(portal, fork, origin)
    source = await shelf.files(origin)
    if origin.measured_at is None or origin.changed_at > origin.measured_at:
        counted = await shelf.run_on(beside(origin.volume_id), source.usage)
        await portal.db.run(
            lifecycle.measured,
            "project",
            origin.id,
            size_bytes=counted.size_bytes,
            file_count=counted.files,
            now=portal.clock(),
        )
    lane = beside(fork.volume_id)
    target = await shelf.files(fork)
    if (await shelf.run_on(lane, target.list, hidden=True, limit=1)).entries:  # of a copy that was broken off
        await _clear(portal, fork)
        target = await shelf.files(fork)
    room = await room_of(portal, fork.owner, without=fork.id)
    progress = Progress((lambda: room) if room is not None else (lambda: None))
    work = asyncio.ensure_future(shelf.run_on(lane, copies.copy_into, source, target, progress=progress))
    copied = await told_until_done(
        work, progress, lambda: portal.db.run(tell, fork.id, progress.entries, progress.size_bytes)
    )
    counted = await shelf.run_on(lane, target.usage)
    if not await portal.db.run(arrived, fork, counted.files, counted.size_bytes, portal.clock()):
        raise Cancelled
    if copied.left_out:
        await portal.db.run(
            notices.tell,
            fork.owner,
            now=portal.clock(),
            kind="fork",
            text=mark("{count} things of “{name}” could not be copied, such as {example}."),
            address=f"projects/{fork.owner}/{fork.slug}",
            count=len(copied.left_out),
            name=fork.name,
            example=copied.left_out[0],
        )


async def told_until_done(
    work: asyncio.Future[T], progress: Progress, tell: Callable[[], Awaitable[bool]]
) -> T:
    """Tell how far a copy is until it is done; one that is no longer wanted, as ``tell`` says, ends."""
    try:
        while True:
            done, _ = await asyncio.wait({work}, timeout=TOLD_SECONDS)
            if done:
                return work.result()
            if not await tell():
                progress.cancel()
    except asyncio.CancelledError:  # the portal ends: what is under way is begun again by whoever comes next
        progress.cancel()
        await asyncio.wait({work})
        raise


async def _check_still(portal: Portal, fork: Project, origin: Project) -> None:
    """Refuse what was withdrawn or taken down since the fork was asked for."""
    try:
        viewer = await viewer_named(portal, fork.owner)
    except UserError as error:  # the hub does not answer: no reason to lose the fork
        raise _NotNow(str(error)) from error
    level = await portal.db.run_read(
        lambda conn: access(viewer, origin, shares.of(conn, "project", origin.id))
    )
    forking.check_forkable(viewer, origin, level)


class _NotNow(Exception):
    """A copy waits for the next round."""


def tell(conn: Connection, project_id: str, files: int, size_bytes: int) -> bool:
    """Note how far it is; whether it is still wanted."""
    return bool(
        conn.execute(
            update(projects)
            .where(projects.c.id == project_id, projects.c.busy == "copying", projects.c.deleted_at.is_(None))
            .values(file_count=files, size_bytes=size_bytes)
        ).rowcount
    )


def arrived(conn: Connection, fork: Project, files: int, size_bytes: int, now: object) -> bool:
    """Note that all is there; whether it is still wanted."""
    done = conn.execute(
        update(projects)
        .where(projects.c.id == fork.id, projects.c.busy == "copying", projects.c.deleted_at.is_(None))
        .values(busy="", file_count=files, size_bytes=size_bytes, measured_at=now)
    ).rowcount
    return bool(done)


async def _clear(portal: Portal, fork: Project) -> None:
    volume, path = fork.volume(portal.settings), fork.path(portal.settings)
    await catalogue(portal).run_on(beside(fork.volume_id), remove, volume, fork.volume_id, path)


async def _discard(portal: Portal, fork: Project) -> None:
    """Nothing of it is left: neither where it was, nor in the bin."""
    shelf, volume = catalogue(portal), fork.volume(portal.settings)
    for path in (fork.path(portal.settings), bin_path(portal.settings, fork)):
        await shelf.run_on(beside(fork.volume_id), remove, volume, fork.volume_id, path)
    await portal.db.run(_gone, fork.id, portal.clock())


async def _failed(portal: Portal, fork: Project, problem: str) -> None:
    log.warning("fork %s of %s: %s", fork.id, fork.forked_from, problem)
    await _discard(portal, fork)
    await portal.db.run(
        notices.tell,
        fork.owner,
        now=portal.clock(),
        kind="fork",
        text=mark("“{name}” could not be forked: {problem} Nothing of it is left."),
        address="explore",
        name=fork.name,
        problem=problem,
    )


def _gone(conn: Connection, project_id: str, now: object) -> None:
    conn.execute(
        update(projects)
        .where(projects.c.id == project_id, projects.c.purged_at.is_(None))
        .values(deleted_at=now, purged_at=now, busy="", size_bytes=0, file_count=0)
    )
    cards.put(conn, "project", project_id)
