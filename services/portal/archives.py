"""Archives of projects coming in and going out: what pages and API do with :mod:`services.catalog.archives`.

An archive that comes in lies below the state directory until it was imported, given up, or a day has passed. How far
an import is this process knows; with the process it ends, and what was half made is cleared away by a chore as soon
as another process is there, which tells whoever began it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from tornado.iostream import StreamClosedError
from ulid import ULID

from galilean import audit, notices
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.csp import mark_untrusted
from galilean.web.handlers import BaseHandler
from galilean.web.visitor import Visitor
from services.catalog import shares
from services.catalog.access import Access, Viewer, access, need
from services.catalog.archives import ENDING, fitting, importing, writing
from services.catalog.archives.going import Mark, folder_of, left
from services.catalog.archives.importing import Import, Outcome
from services.catalog.archives.planning import Choice, Planned, plan
from services.catalog.archives.reading import Contents, look
from services.catalog.resolver import prepare_directory
from services.catalog.shares import Actor
from services.catalog.store import Project
from services.files.downloads import attachment
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.portal import of_another
from services.portal.api.projects import catalogue
from services.portal.storage import limit_of
from services.portal.viewers import viewer_of

log = logging.getLogger("galilean.portal")

RIGHT = "projects:manage"
#: Threads for what is done with archives besides an import's own work on its volume.
LANE = "/archives"
KEPT = timedelta(days=1)
EXPORT_MOST = 1_000
#: An archive of which nothing came for so long does not come any more.
SILENT = timedelta(minutes=30)
#: Kept free on the disk of the state directory while an archive comes in.
LEAVE_FREE_BYTES = 512 << 20


# --------------------------------------------------------------------------------------------------- going out


async def export(handler: BaseHandler, ids: Iterable[str], *, name: str = "") -> None:
    """Answer with an archive of projects, made while it is sent.

    Parameters
    ----------
    handler
        Of the request; whether its person owns or manages each is asked here.
    ids
        Of the projects.
    name
        Of the file; empty = from the project, or how many there are.

    Raises
    ------
    UserError
        400 for none or too many; 404 for one that is not there for them; 409 for one whose files are being made; 413
        for one that no import would take.
    """
    portal, wanted = handler.portal, list(dict.fromkeys(ids))
    if not wanted or len(wanted) > EXPORT_MOST:
        raise UserError(400, mark("Choose between 1 and {most} projects."), most=EXPORT_MOST)
    viewer = viewer_of(handler.person)
    found = await portal.db.run_read(_mine, viewer, wanted)
    # A volume that hangs is told before anything is sent, and holds up no export but of its own projects.
    volumes = sorted({project.volume_id for project in found})
    for project in {project.volume_id: project for project in found}.values():
        await catalogue(portal).files(project)
    handler.volume = f"{', '.join(volumes)}/export"
    await _fit(handler, _packed(portal, found, viewer))
    await portal.db.run(_note_export, handler.person, found, address=handler.address, now=portal.clock())
    pieces = writing.write(
        _packed(portal, found, viewer), count=len(found), site=portal.settings.site.name, now=portal.clock()
    )
    name = name or (found[0].slug if len(found) == 1 else f"projects-{len(found)}")
    try:
        piece = await handler.ask_files(next, pieces, b"")
        mark_untrusted(handler)
        handler.set_header("Content-Type", "application/gzip")
        handler.set_header("Content-Disposition", attachment(name + ENDING))
        while piece:
            try:
                handler.write(piece)
                await handler.flush()
            except StreamClosedError:
                return
            piece = await handler.ask_files(next, pieces, b"")
    finally:
        with contextlib.suppress(UserError, ValueError):  # a thread that hangs in it is not waited for
            await handler.ask_files(pieces.close)  # type: ignore[attr-defined]


async def _fit(handler: BaseHandler, packed: Iterator[writing.Packed]) -> None:
    """Refuse what no import would take, while it can still be said in words."""

    def steps() -> Iterator[bool]:
        for one in packed:
            for _ in fitting.check(one):
                yield True
            yield True

    going = steps()
    while await handler.ask_files(next, going, False):
        pass


def _note_export(
    conn: Connection, person: Visitor, found: Iterable[Project], *, address: str, now: datetime
) -> None:
    for project in found:
        of_another.note(conn, person, "project", project, "export", now=now, address=address)


def _mine(conn: Any, viewer: Viewer, ids: list[str]) -> list[Project]:
    found = writing.of_ids(conn, ids)
    given = shares.of_many(conn, "project", [project.id for project in found])
    for project in found:
        need(viewer, access(viewer, project, given[project.id]), Access.OWN)
        if project.busy:
            raise UserError(
                409,
                mark("The files of “{name}” are being made. Try again when they are there."),
                name=project.name,
            )
    if len(found) != len(ids):
        raise UserError(404, mark("One of these projects is not there any more. Load the page again."))
    return found


def _packed(portal: Portal, projects: list[Project], viewer: Viewer) -> Iterator[writing.Packed]:
    for project in projects:
        with portal.db.read() as conn:
            meta, cover = writing.meta_of(conn, project, viewer)
        yield writing.Packed(meta=meta, root=Root(prepare_directory(portal.settings, project)), cover=cover)


# --------------------------------------------------------------------------------------------------- coming in


@dataclass(kw_only=True)
class Job:
    """An archive that came in.

    Attributes
    ----------
    state
        ``coming``, ``looking``, ``refused``, ``ready``, ``importing``, ``done``.
    problem
        Why it is refused, or why the import ended.
    planned
        Its projects with what is in the way, as of the last look.
    """

    id: str
    by: str
    name: str
    path: Path
    at: datetime
    state: str = "coming"
    size_bytes: int = 0
    problem: UserError | None = None
    contents: Contents | None = None
    planned: list[Planned] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    chosen: int = 0
    progress: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    hang_up: Callable[[], None] = lambda: None

    @property
    def total_bytes(self) -> int:
        """What its projects hold."""
        return sum(one.size_bytes for one in self.contents.projects) if self.contents else 0

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return self.state in ("coming", "looking", "importing")


class Imports:
    """The archives that came in to one portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._jobs: dict[str, Job] = {}
        self._folder = folder_of(portal.settings)

    def all(self) -> list[Job]:
        """The newest first."""
        return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def get(self, job_id: str) -> Job:
        """One.

        Raises
        ------
        UserError
            404.
        """
        if job_id not in self._jobs:
            raise UserError(404, mark("This import is over, or was begun by a portal that has ended since."))
        return self._jobs[job_id]

    @contextlib.asynccontextmanager
    async def coming(self, by: str, name: str) -> AsyncIterator[tuple[Job, Any]]:
        """A job and an open file for its archive; what does not come whole is gone."""
        now = self._portal.clock()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        job_id = str(ULID.from_datetime(now))
        job = Job(id=job_id, by=by, name=name, path=self._folder / f"{job_id}.tar", at=now)
        self._jobs[job_id] = job
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(job.path, flags, 0o600), "wb") as file:
                yield job, file
        except BaseException:
            self.forget(job)
            raise
        if job.id not in self._jobs:
            raise UserError(
                408, mark("Nothing came for a long time, so the archive was given up. Send it again.")
            )
        job.size_bytes = job.path.stat().st_size
        job.state = "looking"
        job.task = asyncio.create_task(self._look(job))

    def room(self, size_bytes: int) -> None:
        """Refuse an archive for which there is no room.

        Raises
        ------
        UserError
            507.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if shutil.disk_usage(self._folder).free - size_bytes < LEAVE_FREE_BYTES:
            raise UserError(
                507,
                mark(
                    "There is no room for this archive on the disk of the portal. Use `galilean project import`."
                ),
            )

    async def _look(self, job: Job) -> None:
        try:
            job.contents = await self._portal.files.run(LANE, look, job.path)
            await self.plan(job)
            job.state = "ready"
        except UserError as error:
            job.state, job.problem = "refused", error
            job.path.unlink(missing_ok=True)
        except Exception:
            log.exception("archive %s could not be looked at", job.id)
            job.state = "refused"
            job.problem = UserError(500, mark("Something went wrong. It is in the portal’s log."))

    async def plan(self, job: Job, choices: Mapping[int, Choice] | None = None) -> None:
        """See anew what is in the way."""
        if job.contents is None:
            return
        owners = {one.meta.owner for one in job.contents.projects} | {job.by}
        owners |= {choice.owner for choice in (choices or {}).values()}
        viewers = await self.viewers(owners)
        job.planned = await self._portal.db.run_read(
            lambda conn: plan(
                conn,
                self._portal.settings,
                job.contents.projects,  # type: ignore[union-attr]
                importer=job.by,
                is_known=viewers.__contains__,
                viewer_of=lambda name: viewers.get(name, Viewer(name=name)),
                choices=choices,
            )
        )

    async def viewers(self, names: Iterable[str]) -> dict[str, Viewer]:
        """Those of these names who have an account, with what they may see."""
        found: dict[str, Viewer] = {}
        for name in names:
            try:
                groups = await self._portal.people.groups(name)
            except UserError as error:
                if error.status != 404:
                    raise
                continue
            found[name] = Viewer.of(name, groups)
        return found

    async def begin(self, job: Job, choices: Mapping[int, Choice], *, publish: bool, actor: Actor) -> None:
        """Import what was chosen.

        Raises
        ------
        UserError
            400 when nothing was chosen or for an owner who is nobody here; 409 when it is not ready.
        """
        if job.state != "ready":
            raise UserError(409, mark("This archive is being looked at, or was imported already."))
        wanted = {number: choice for number, choice in choices.items() if choice.action != "skip"}
        if not wanted:
            raise UserError(400, mark("Choose at least one project."))
        # Before anything is waited for: who clicks twice imports once.
        job.state, job.chosen, job.progress = "importing", len(wanted), Progress()
        try:
            work = await self._work(job, wanted, publish=publish, actor=actor)
        except BaseException:
            job.state = "ready"
            raise
        job.task = asyncio.create_task(self._import(job, work, wanted))

    async def _work(self, job: Job, wanted: Mapping[int, Choice], *, publish: bool, actor: Actor) -> Import:
        viewers = await self.viewers({choice.owner for choice in wanted.values()})
        for choice in wanted.values():
            if choice.owner not in viewers:
                raise UserError(404, mark("There is no account “{name}” here."), name=choice.owner[:60])
        most = {owner: await limit_of(self._portal, owner) for owner in viewers}
        sizes = {one.number: one.size_bytes for one in job.contents.projects if one.number in wanted}  # type: ignore[union-attr]
        return Import(
            database=self._portal.db,
            settings=self._portal.settings,
            clock=self._portal.clock,
            volume_id=await catalogue(self._portal).place(sum(sizes.values())),
            actor=actor,
            viewer_of=viewers.__getitem__,
            most_of=most.__getitem__,
            sizes=sizes,
            publish=publish,
        )

    async def _import(self, job: Job, work: Import, choices: Mapping[int, Choice]) -> None:
        def run() -> None:
            with Mark(self._folder, job.id, by=job.by, name=job.name) as mark_of_it:
                going = replace(work, begins=mark_of_it.begins)
                for outcome in going.run(job.path, choices, job.progress):
                    job.outcomes.append(outcome)

        try:
            await self._portal.files.run(f"{work.volume_id}/import", run)
        except Cancelled:
            job.problem = UserError(409, mark("The import was ended. What was imported until then stays."))
        except UserError as error:
            job.problem = error
        except Exception:
            log.exception("import %s", job.id)
            job.problem = UserError(500, mark("Something went wrong. It is in the portal’s log."))
        job.state = "done"
        job.path.unlink(missing_ok=True)

    async def close(self) -> None:
        """End what is under way, because this process ends; who imports is told."""
        for job in self.all():
            if job.state == "importing" and job.task is not None:
                job.progress.cancel()
                await asyncio.wait({job.task})
                done = sum(outcome.problem is None for outcome in job.outcomes)
                await self._portal.db.run(_tell_broken_off, job.by, job.name, done, self._portal.clock())

    def clear_left(self) -> None:
        """Remove what imports left half made whose process ended; who began them is told. Blocks."""
        portal, now = self._portal, self._portal.clock()
        for one in left(self._folder):
            gone = importing.clear_left(portal.db, portal.settings, one.ids, now)
            with portal.db.write() as conn:
                _tell_broken_off(conn, one.by, one.name, max(0, len(one.ids) - gone), now)

    async def give_up(self, job: Job, *, actor: Actor) -> None:
        """End an import, or forget an archive."""
        await self._portal.db.run(
            audit.write,
            at=self._portal.clock(),
            actor=actor.name,
            address=actor.address,
            action="archive.give-up",
            subject=job.id,
            before={"name": job.name, "state": job.state},
        )
        if job.state == "importing":
            job.progress.cancel()
            return
        if job.state == "looking" and job.task is not None:
            await asyncio.wait({job.task})
        self.forget(job)

    def _is_silent(self, job: Job, now: datetime) -> bool:
        try:
            return now.timestamp() - job.path.stat().st_mtime > SILENT.total_seconds()
        except OSError:
            return True

    def forget(self, job: Job) -> None:
        """Remove an archive and what is known of it."""
        self._jobs.pop(job.id, None)
        job.path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Forget what is a day old, or does not come any more; remove files that nobody knows."""
        now = self._portal.clock()
        for job in self.all():
            if job.state == "coming" and self._is_silent(job, now):
                self.forget(job)
                job.hang_up()
            if not job.busy and now - job.at > KEPT:
                self.forget(job)
        known = {job.path.name for job in self._jobs.values()}
        for path in self._folder.glob("*.tar") if self._folder.is_dir() else ():
            if path.name not in known and now.timestamp() - path.stat().st_mtime > KEPT.total_seconds():
                path.unlink(missing_ok=True)


def _tell_broken_off(conn: Connection, by: str, name: str, done: int, now: datetime) -> None:
    notices.tell(
        conn,
        by,
        now=now,
        kind="import",
        text=mark(
            "The import of “{name}” was broken off because the portal ended. {done} of its projects are there; "
            "nothing half is left. Bring the archive again for the rest."
        ),
        address="admin/archives",
        name=name or "–",
        done=done,
    )


def imports(portal: Portal) -> Imports:
    """Of this portal."""
    return portal.parts.setdefault("archives", Imports(portal))


async def sweep(portal: Portal) -> None:
    """The chore."""
    imports(portal).sweep()
    await portal.files.run(LANE, imports(portal).clear_left)
    await portal.files.run(LANE, importing.clear_broken_off, portal.db, portal.settings, portal.clock())
