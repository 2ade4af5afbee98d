"""The image service: a process of its own that saves nodes, because it alone has the registry's password for it, and
Docker's socket or the key of the agents on a Kubernetes' machines. Where nodes are processes it saves Python
environments (:mod:`extensions.imagebuilder.python_saving`), by the same rows and pages.

It is told what to do by rows: the portal writes one for a person who may, the service takes up every row that is
*saving*, and writes how far it is, twice a second. So a save goes on whatever becomes of pages and portal, and is
cancelled by a mark in the row. Nothing in a row is believed: the run must be open and its owner's, and the container
must carry this run's labels. Two are saved at once, one at a time of each node.

When it begins it puts right what a killed service left: containers that are held, half-written folders, rows of saves
that nobody goes on with. Beside its work it takes deleted images out of registry and machine, and has images fetched to where they run
(:mod:`extensions.imagebuilder.distributing`).

``POST /look`` answers the portal alone (by the portal's own token) what a save of a node would hold; ``POST /logins`` takes
the name and password of a registry from it, for one image that is to be adapted.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from extensions.imagebuilder import adapting, booking, saved
from extensions.imagebuilder.adapting import Adapter
from extensions.imagebuilder.booking import Book
from extensions.imagebuilder.building import Builder, Order
from extensions.imagebuilder.collecting import Collects
from extensions.imagebuilder.container import GivenUp, Wanted
from extensions.imagebuilder.logins import Login, Logins
from extensions.imagebuilder.names import BACKENDS, ImageName, Pinned, name_space
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.saved import SavedImage
from extensions.imagebuilder.saving import NodeSaver, Result, Task
from extensions.imagebuilder.tables import saved_images
from extensions.imagebuilder.uploading import Uploader
from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.portal_asks import PortalAsks
from spawner import records

log = logging.getLogger("galilean.imagebuilder")

AT_ONCE = 2
TELL_SECONDS = 0.5
CLEAR_EVERY_TICKS = 10
#: Where something is always being saved, nothing new begins for a while once deleted images have waited so long.
COLLECT_AFTER = timedelta(hours=1)
#: The step of a row that has not begun.
WAITING = "waiting"

_RESTARTED = mark("The image service was restarted in the middle. Nothing was kept; save again.")
_RESTARTED_BUILD = mark("The image service was restarted in the middle. Nothing was kept; build again.")
_RESTARTS = {
    "built": _RESTARTED_BUILD,
    "adapted": mark("The image service was restarted in the middle. Nothing was kept; adapt it again."),
}
_NOT_YOURS = mark("This is not a node of an open cluster of yours.")


def wanted_of(
    conn: Connection, owner: str, run_id: str, rank: int, backends: Sequence[str] = BACKENDS
) -> Wanted:
    """The node that a person asks for, if it is theirs, the cluster is open, and of one of ``backends``.

    Raises
    ------
    UserError
        404: the same for what is somebody else's and what does not exist.
    """
    run = records.get(conn, run_id)
    if (
        run is None
        or run.user != owner
        or not run.is_open
        or run.backend not in backends
        or not 0 <= rank < run.nodes
    ):
        raise UserError(404, _NOT_YOURS, reason="node-unknown")
    return Wanted(run.user, run.server, run.id, rank)


@dataclass
class _Going:
    task: Task
    work: asyncio.Task[None]


class Savers:
    """Every save that is under way, and what is done beside them.

    Parameters
    ----------
    db, clock
        Our database and the time.
    saver
        Saves one node.
    collector
        Gives deleted blobs of the registry back; None where somebody else does.
    uploader
        Takes up archives that people uploaded; None: nobody may.
    builder
        Builds images from files; None: nobody may.
    adapter
        Adapts images that nobody made for us; None: not here.
    per_person_bytes
        Most that a person's images take; 0 = no limit.
    """

    def __init__(
        self,
        db: Database,
        saver: NodeSaver,
        clock: Clock,
        *,
        collector: Collects | None = None,
        uploader: Uploader | None = None,
        builder: Builder | None = None,
        adapter: Adapter | None = None,
        per_person_bytes: int = 0,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.db, self.saver, self.clock = db, saver, clock
        saver.needed = self._needed
        self._collector = collector
        self._collecting: asyncio.Task[None] | None = None
        self._uploader = uploader
        self._builder = builder
        self._adapter = adapter
        self._build_slots = asyncio.Semaphore(builder.limits.at_once if builder else 1)
        self._details = details if details is not None else {}
        #: What the portal handed over for rows that wait.
        self.logins = Logins()
        self._going: dict[str, _Going] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._nodes: dict[tuple[str, int], asyncio.Lock] = {}
        self._begun = False
        self._ticks = 0
        #: Since when the registry has something to give back.
        self._deleted: datetime | None = None
        #: Owner, name and tag of what may have been pushed for nothing, and the image that was.
        self._left: dict[tuple[str, str, str], Pinned | None] = {}
        self._closing = False
        self._per_person = per_person_bytes
        #: One books at a time.
        self._booking = asyncio.Lock()
        #: Places below ``bases/`` that may have something in them.
        self._bases: set[str] = set()

    async def tick(self) -> None:
        """Take up new rows; the first time, put right what was left."""
        if not self._begun:
            await self._put_right()
            self._begun = True
        if self._may_begin():
            for row in await self.db.run_read(saved.saving):
                if row.id not in self._going:
                    task = Task(
                        self.clock,
                        books=Book(self.db, row, self._per_person, self._booking, self._bases),
                    )
                    self._going[row.id] = _Going(task, asyncio.create_task(self._run(row, task)))
        self._going = {key: one for key, one in self._going.items() if not one.work.done()}
        self._details["saving"] = len(self._going)
        if self._ticks % CLEAR_EVERY_TICKS == 0:
            await self._clear()
        self._ticks += 1

    def _may_begin(self) -> bool:
        """Whether something new may be pushed: not while the registry collects, nor when it has waited too long to."""
        if self._closing:
            return False
        if self._collecting is not None and not self._collecting.done():
            return False
        if self._collector is None:
            return True
        starved = self._deleted is not None and self.clock() - self._deleted > COLLECT_AFTER
        return not starved and self._collector.free()

    async def close(self) -> None:
        """Give up everything, and wait until nobody is held; what waited and uploads go on when the service is back."""
        self._closing = True
        for one in self._going.values():
            one.task.stop.set()
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
        await asyncio.gather(*(one.work for one in self._going.values()), return_exceptions=True)
        await self._clear_left()

    async def _put_right(self) -> None:
        count = await self.saver.put_right()
        await asyncio.to_thread(shutil.rmtree, self.saver.directory, True)
        if count:
            log.warning("put right after a service that was killed: %d containers", count)
        if (builder := self._builder) is not None:
            wanted = {_context(row) for row in await self.db.run_read(saved.saving) if not row.step}
            await builder.saver.docker.do(lambda: builder.put_right(wanted))
        self._bases |= await self.db.run_read(booking.bases)
        self._something_to_collect()  # whatever a killed service left without a row that says so
        for row in await self.db.run_read(saved.saving):
            # What only waited goes on waiting, and an archive still lies where it came in: it is taken up once more.
            if row.step not in ("", WAITING) and not row.uploaded:
                self._leaves(row)
                why = _restarted(row)
                await self.db.run(
                    lambda conn, row=row, why=why: saved.fail(
                        conn, row.id, error=why, now=self.clock(), log=row.log
                    )
                )

    async def _run(self, row: SavedImage, task: Task) -> None:
        teller = asyncio.create_task(self._tell(row, task))
        error: UserError | None = None
        result: Result | None = None
        over = "failed"
        try:
            if row.uploaded:
                result = await self._upload(row, task)
            elif row.how == "built":
                result = await self._build(row, task)
            elif row.how == "adapted":
                result = await self._adapt(row, task)
            else:
                node = self._nodes.setdefault((row.run_id, row.rank), asyncio.Lock())
                async with node, self._slots:
                    task.check()
                    wanted = await self.db.run_read(
                        wanted_of, row.owner, row.run_id, row.rank, self.saver.backends
                    )
                    result = await self.saver.save(task, wanted, ImageName(row.name, row.tag), history=True)
            await self._ready(row, task, result)
            return
        except GivenUp:
            over = "cancelled"
            task.say("cancelled")
        except UserError as refused:
            error = refused
            task.say(f"failed: {refused}")
        except Exception:
            log.exception("image %s of %s was not saved", row.id, row.owner)
            task.say("failed: a fault of the service, which its own log tells")
        finally:
            teller.cancel()
            with suppress(asyncio.CancelledError):
                await teller
        if result is not None:
            with suppress(Exception):
                await self.saver.forget(result.image)
        now = self.clock()
        if self._closing and (row.uploaded or not task.step):
            return  # it is taken up by the next service
        if self._closing and over == "cancelled" and not await self._was_cancelled(row):
            over, error = "failed", _restarted(row)
        if task.step:
            self._leaves(row)
        if row.uploaded:
            self._drop(row)
        if over == "cancelled":
            await self.db.run(lambda conn: saved.cancelled(conn, row.id, now=now, log=task.log))
        else:
            await self.db.run(lambda conn: saved.fail(conn, row.id, error=error, now=now, log=task.log))

    async def _upload(self, row: SavedImage, task: Task) -> Result:
        if self._uploader is None:
            raise UserError(501, mark("Packed images cannot be uploaded here."), reason="not-here")
        async with self._slots:
            task.check()
            return await self._uploader.upload(task, row.owner, row.archive, ImageName(row.name, row.tag))

    async def _build(self, row: SavedImage, task: Task) -> Result:
        if self._builder is None:
            raise UserError(501, mark("Images are not built here."), reason="not-here")
        context = self._builder.contexts / _context(row) if _context(row) else None
        try:
            async with self._build_slots:
                task.check()
                order = Order(
                    id=row.id,
                    owner=row.owner,
                    dockerfile=row.dockerfile,
                    images=dict((row.build or {}).get("images") or {}),
                    context=context,
                )
                return await self._builder.build(task, order, ImageName(row.name, row.tag))
        finally:
            if context is not None and (task.step or not self._closing):
                context.unlink(missing_ok=True)

    async def _adapt(self, row: SavedImage, task: Task) -> Result:
        if self._adapter is None:
            raise UserError(501, mark("Images are not adapted here."), reason="not-here")
        async with self._slots:
            task.check()
            ticket = str((row.build or {}).get("ticket") or "")
            if (login := self.logins.take(ticket) if ticket else None) is None and ticket:
                raise _restarted(row)
            order = adapting.Order(owner=row.owner, image=row.parent, login=login)
            return await self._adapter.adapt(task, order, ImageName(row.name, row.tag))

    async def _clear_left(self) -> None:
        """Take away what was pushed and never told of; what others have by now stays."""
        for row, image in list(self._left.items()):
            try:
                found = image or await self.saver.named(row[0], ImageName(*row[1:]))
                if found is None:
                    del self._left[row]
                    continue
                self._left[row] = found
                if await self.db.run_read(saved.needed, found):
                    continue
                await self.saver.forget(found)
            except UserError as error:
                log.warning("what was pushed and never told of stays for now: %s", error)
                continue
            del self._left[row]
            self._something_to_collect()
            log.warning("%s was pushed and not told of: taken away", found)

    async def _was_cancelled(self, row: SavedImage) -> bool:
        """Whether somebody wanted it to end, and not only the service did."""
        found = await self.db.run_read(
            lambda conn: conn.execute(
                select(saved_images.c.cancel_asked_at).where(saved_images.c.id == row.id)
            ).scalar()
        )
        return found is not None

    def _leaves(self, row: SavedImage) -> None:
        """Note what one that came to nothing may have left in the registry: a name whose push was ended before its answer
        came, and layers that have none.
        """
        self._left[row.owner, row.name, row.tag] = None
        self._something_to_collect()

    def _something_to_collect(self) -> None:
        self._deleted = self._deleted or self.clock()

    def _drop(self, row: SavedImage) -> None:
        if self._uploader is not None:
            self._uploader.drop(row.owner, row.archive)

    async def _ready(self, row: SavedImage, task: Task, result: Result) -> None:
        def finish(conn: Connection) -> None:
            saved.finish(
                conn,
                row.id,
                image=result.image,
                now=self.clock(),
                size_bytes=result.size_bytes,
                layers=result.layers,
                platform=result.platform,
                changes={**result.changes, **(task.books.below if isinstance(task.books, Book) else {})},
                dockerfile=result.dockerfile,
                log=task.log,
                lock=result.lock,
            )

        await self.db.run(finish)
        if self._left.get(named := (row.owner, row.name, row.tag)) in (None, result.image):
            self._left.pop(named, None)  # of an attempt before; the name is this row's now
        if row.uploaded:
            self._drop(row)
        log.info("image %s of %s is saved as %s", row.id, row.owner, result.image)

    async def _tell(self, row: SavedImage, task: Task) -> None:
        """Write how far it is; a row that is no longer wanted ends the work."""
        lines = 0
        while True:
            step, done, total = task.step or WAITING, task.done_bytes, task.total_bytes
            log_now = task.log if len(task.lines) != lines else None
            lines = len(task.lines)
            try:
                wanted = await self.db.run(
                    lambda conn, step=step, done=done, total=total, log_now=log_now: saved.progress(
                        conn, row.id, step=step, done_bytes=done, total_bytes=total, log=log_now
                    )
                )
                if not wanted:
                    task.stop.set()
            except Exception as error:
                log.warning("how far an image is could not be written: %s", error)
            await asyncio.sleep(TELL_SECONDS)

    # ------------------------------------------------------------------------------------------------- beside

    async def _needed(self, image: Pinned) -> bool:
        """Whether others have what a row that comes to nothing has pushed; that row itself is being saved."""
        return await self.db.run_read(saved.needed, image, others_saving=1)

    async def _clear(self) -> None:
        """Take deleted images out of the registry and off the machine, as soon as nobody else has them."""
        for saved_id, text in await self.db.run_read(_deleted):
            try:
                image = Pinned.parse(text)
                if await self.db.run_read(saved.needed, image):
                    continue
                await self.saver.forget(image)
            except UserError as error:
                log.warning("a deleted image stays for now: %s", error)
                continue
            self._something_to_collect()
            await self.db.run(_mark_cleared, saved_id)
        await self._clear_left()
        if (builder := self._builder) is not None:
            await builder.saver.docker.do(lambda: builder.forget_steps(self.clock()))
        if self._uploader is not None:
            rows = await self.db.run_read(saved.waiting_archives)
            known = {(name_space(owner), archive) for owner, archive in rows}
            if count := await asyncio.to_thread(self._uploader.sweep, known, self.clock()):
                log.warning("archives that nobody takes up any more are deleted: %d", count)
        self._collect()

    def _collect(self) -> None:
        """Have the registry give back what nothing names, beside the ticks; nothing is begun meanwhile."""
        if self._collecting is not None and self._collecting.done():
            if not self._collecting.cancelled() and (fault := self._collecting.exception()) is not None:
                log.warning("the registry gave nothing back: %s", fault)
            self._collecting = None
        if self._deleted is None or self._going or self._collecting is not None:
            return
        self._deleted = None
        if self._collector is not None or self._bases:
            self._collecting = asyncio.create_task(self._give_back())

    async def _give_back(self) -> None:
        """Empty the places on which nothing stands any more, then have the registry collect, if it is our own."""
        needed = await self.db.run_read(lambda conn: booking.bases(conn, needed=True))
        for place in sorted(self._bases - needed):
            try:
                await self.saver.empty(place)
            except UserError as error:
                log.warning("%s stays in the registry for now: %s", place, error)
                continue
            self._bases.discard(place)
        if self._collector is not None:
            await self._collector.collect()


def _restarted(row: SavedImage) -> UserError:
    return UserError(503, _RESTARTS.get(row.how, _RESTARTED))


def _deleted(conn: Connection) -> list[tuple[str, str]]:
    """Deleted images that the registry may still have: id, image."""
    rows = conn.execute(
        select(saved_images.c.id, saved_images.c.image).where(
            saved_images.c.deleted_at.is_not(None), saved_images.c.image != ""
        )
    )
    return [(row[0], row[1]) for row in rows]


def _context(row: SavedImage) -> str:
    """The name of the packed files of a build; empty = none."""
    return Path(str((row.build or {}).get("context") or "")).name


def _mark_cleared(conn: Connection, saved_id: str) -> None:
    conn.execute(update(saved_images).where(saved_images.c.id == saved_id).values(image=""))


# ------------------------------------------------------------------------------------------- what the portal asks


class Look(PortalAsks):
    """What a save of a node would hold."""

    unanswered = mark("The node could not be looked at just now. Try again in a moment.")

    async def answer(self, body: Any) -> Mapping[str, Any]:
        savers: Savers = self.context.parts["savers"]
        wanted = await self.context.db.run_read(
            wanted_of, str(body["owner"]), str(body["run"]), int(body["rank"]), savers.saver.backends
        )
        return await savers.saver.look(wanted)


class TakeLogin(PortalAsks):
    """The name and password of a registry, for one piece of work; answered is the ticket by which it is known."""

    unanswered = mark("The image service does not answer just now. Try again in a moment.")

    async def answer(self, body: Any) -> Mapping[str, Any]:
        savers: Savers = self.context.parts["savers"]
        credentials = Credentials(str(body["username"]), str(body["password"]))
        return {"ticket": savers.logins.keep(Login(str(body["registry"]), credentials))}
