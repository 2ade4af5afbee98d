"""Projects of an archive that was looked at, made one after another, each whole or not at all.

A project is *importing* until all of it is there: nobody can run it meanwhile. What breaks leaves neither row nor
files; the others go on. What is replaced goes to the bin at the last step, when the new one is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from galilean import audit
from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.catalog import cards, covers, fields, lifecycle, links, store
from services.catalog.access import Viewer
from services.catalog.archives.planning import Choice, dataset_here, environment_here, free_slug, wanted_slug
from services.catalog.archives.reading import Item, Reader, Seen
from services.catalog.projects import to_bin
from services.catalog.resolver import prepare_directory
from services.catalog.shares import Actor
from services.catalog.store import Project
from services.catalog.tables import projects
from services.files.members import writing
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.files.shelf import no_room
from services.files.unpacking import Limits
from spawner.request import ClusterRequest

BUSY = "importing"
#: What is importing for longer was broken off with its process.
LONGEST = timedelta(days=1)


@dataclass(kw_only=True)
class Outcome:
    """What became of one project of an archive.

    Attributes
    ----------
    problem
        Why it is not there; ``None`` = it is.
    left_out
        Names that were not made, and data sets that are not here.
    """

    number: int
    name: str
    owner: str
    slug: str = ""
    project_id: str = ""
    problem: UserError | None = None
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Import:
    """Everything an import needs.

    Attributes
    ----------
    volume_id
        Where the new projects lie.
    actor
        Who imports.
    viewer_of
        What an owner may see, for data sets.
    most_of
        How much an owner may keep in all; ``None`` = no limit. What they keep is looked at before each project and
        while its files are written.
    sizes
        What each project of the archive holds, by number, as it was looked at: kept free for it from its beginning.
    publish
        Whether what was public is so here, too.
    begins
        Told the id of each project before its row is there.
    """

    database: Database
    settings: Settings
    clock: Clock
    volume_id: str
    actor: Actor
    viewer_of: Callable[[str], Viewer] = lambda name: Viewer(name=name)
    most_of: Callable[[str], int | None] = lambda _owner: None
    sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    publish: bool = False
    limits: Limits | None = None
    begins: Callable[[str], None] = lambda _id: None

    def run(
        self, path: Path, choices: Mapping[int, Choice], progress: Progress | None = None
    ) -> Iterator[Outcome]:
        """Import what was chosen, an outcome for each as it is done. Blocks.

        Raises
        ------
        UserError
            400 when the archive is not what it was when it was looked at.
        Cancelled
            When somebody asked for the end; what is done stays.
        """
        counted = progress or Progress()
        with path.open("rb") as stream:
            size = path.stat().st_size
            for seen, items in Reader(stream, size, self.limits).projects():
                choice = choices.get(seen.number)
                if choice is not None and choice.action != "skip":
                    yield self._one(seen, items, choice, size, counted)

    def _one(
        self, seen: Seen, items: Iterator[Item], choice: Choice, packed_bytes: int, counted: Progress
    ) -> Outcome:
        outcome = Outcome(number=seen.number, name=seen.meta.name, owner=choice.owner)
        project: Project | None = None
        try:
            project = self._begin(seen, choice)
            directory = prepare_directory(self.settings, project)
            outcome.left_out += self._write(Root(directory), seen, items, project, packed_bytes, counted)
            outcome.left_out += self._finish(seen, project, choice, outcome)
            outcome.project_id = project.id
        except (UserError, OSError) as error:
            if project is not None:
                self._discard(project)
            reason = UserError(507, mark("The files could not be written: {why}."), why=str(error))
            outcome.problem = error if isinstance(error, UserError) else reason
        except BaseException:
            if project is not None:
                self._discard(project)
            raise
        return outcome

    def _begin(self, seen: Seen, choice: Choice) -> Project:
        # Under admission's lock, so that of two imports at once the second sees what the first will be.
        with self.database.serialised("admission") as conn:
            size = self.sizes.get(seen.number, 0)
            room = self._room(conn, choice.owner)
            if room is not None and size > room:
                raise no_room("", size, room)
            project = store.create(
                conn,
                owner=choice.owner,
                name=seen.meta.name,
                description=seen.meta.description,
                slug=free_slug(conn, choice.owner, wanted_slug(seen)),
                volume_id=self.volume_id,
                now=self.clock(),
            )
            conn.execute(
                update(projects).where(projects.c.id == project.id).values(busy=BUSY, size_bytes=size)
            )
            self.begins(project.id)
            found = store.by_id(conn, project.id)
            assert found is not None
            return found

    def _room(self, conn: Connection, owner: str, *, without: str = "") -> int | None:
        most = self.most_of(owner)
        return None if most is None else max(0, most - lifecycle.used_bytes(conn, owner, without=without))

    def _write(
        self,
        root: Root,
        seen: Seen,
        items: Iterator[Item],
        project: Project,
        packed_bytes: int,
        counted: Progress,
    ) -> list[str]:
        def room() -> int | None:
            with self.database.read() as conn:
                return self._room(conn, project.owner, without=project.id)

        progress = _Both(counted, room)
        with writing(root, packed_bytes=packed_bytes, limits=self.limits, progress=progress) as members:
            for item in items:
                if item.kind == "folder":
                    members.folder(item.name, item.mode)
                elif item.kind == "link":
                    members.link(item.name, item.to)
                else:
                    members.file(item.name, item.mode, item.changed, item.source)
        return [name for name, _why in members.left_out]

    def _finish(self, seen: Seen, project: Project, choice: Choice, outcome: Outcome) -> list[str]:
        now, meta = self.clock(), seen.meta
        replaced: Project | None = None
        left_out: list[str] = []
        cover = _cover(seen)  # takes its time, for which nobody else should wait
        with self.database.serialised("admission") as conn:
            slug = project.slug
            if choice.action == "replace":
                replaced = store.get(conn, choice.owner, wanted_slug(seen))
                if replaced is not None and replaced.id != project.id:
                    store.delete(conn, replaced, now=now)
                    slug = replaced.slug
                else:
                    replaced = None
            store.update(
                conn,
                project,
                now=now,
                environment=environment_here(self.settings, meta.environment),
                default_request=_request(meta.default_request),
                field=meta.field if meta.field in fields.FIELDS else "",
                tags=_tags(meta.tags),
                readme=meta.readme,
                cover=covers.keep(conn, cover, now=now) if cover else "",
            )
            conn.execute(
                update(projects)
                .where(projects.c.id == project.id)
                .values(
                    slug=slug,
                    busy="",
                    created_at=_past(meta.created_at, now),
                    changed_at=_past(meta.changed_at, now),
                    **store.derived(meta.name, slug, meta.description),
                )
            )
            viewer, there = self.viewer_of(choice.owner), store.by_id(conn, project.id)
            assert there is not None
            for one in meta.datasets:
                found = dataset_here(conn, viewer, one)
                try:
                    if found is None:
                        raise UserError(404, mark("There is no such data set."))
                    writable = one.writable and found.owner == choice.owner
                    links.add(conn, viewer, there, found.id, now=now, mount=one.mount, writable=writable)
                except UserError:
                    left_out.append(f"~/datasets/{one.mount}")
            lifecycle.measured(
                conn, "project", project.id, size_bytes=seen.size_bytes, file_count=seen.files, now=now
            )
            if self.publish and meta.visibility == "public":
                lifecycle.publish(conn, "project", project.id, actor=self.actor, now=now)
            audit.write(
                conn,
                at=now,
                actor=self.actor.name,
                address=self.actor.address,
                action="project.import",
                subject=f"{choice.owner}/{slug}",
                before=f"{replaced.owner}/{replaced.slug} ({replaced.id})" if replaced else None,
                after={"was": f"{meta.owner}/{meta.slug}", "id": project.id},
            )
            cards.put(conn, "project", project.id)
        outcome.slug = slug
        if replaced is not None:
            to_bin(self.settings, replaced)
        return left_out

    def _discard(self, project: Project) -> None:
        with self.database.write() as conn:
            gone = discard_row(conn, project.id, self.clock())
        if gone:  # else all of it was there already, and is somebody's
            shutil.rmtree(project.path(self.settings), ignore_errors=True)


def discard_row(conn: Connection, project_id: str, now: datetime) -> bool:
    """Note that a project that was importing never was; whether it was importing still."""
    done = conn.execute(
        update(projects)
        .where(projects.c.id == project_id, projects.c.busy == BUSY)
        .values(deleted_at=now, purged_at=now, busy="", size_bytes=0, file_count=0)
    ).rowcount
    cards.put(conn, "project", project_id)
    return bool(done)


def broken_off(conn: Connection, now: datetime) -> list[Project]:
    """Projects that are importing for so long that their process must be gone."""
    ids = conn.execute(
        select(projects.c.id).where(projects.c.busy == BUSY, projects.c.created_at < now - LONGEST)
    ).scalars()
    return [found for one in list(ids) if (found := store.by_id(conn, one, deleted=True)) is not None]


def clear_broken_off(database: Database, settings: Settings, now: datetime) -> int:
    """Remove what imports left whose process ended; how many. Blocks."""
    with database.write() as conn:
        gone = [project for project in broken_off(conn, now) if discard_row(conn, project.id, now)]
    _remove(settings, gone)
    return len(gone)


def clear_left(database: Database, settings: Settings, ids: Iterable[str], now: datetime) -> int:
    """Remove those of some projects that are importing still, for their process is gone; how many. Blocks."""
    with database.write() as conn:
        found = (store.by_id(conn, one) for one in ids)
        gone = [one for one in found if one is not None and discard_row(conn, one.id, now)]
    _remove(settings, gone)
    return len(gone)


def _remove(settings: Settings, gone: Iterable[Project]) -> None:
    for project in gone:
        shutil.rmtree(project.path(settings), ignore_errors=True)


class _Both(Progress):
    """Counts for one project and for the whole import, and is cancelled with it."""

    def __init__(self, whole: Progress, room_bytes: Callable[[], int | None]) -> None:
        super().__init__(room_bytes)
        self._whole = whole

    def add(self, size_bytes: int, entries: int = 0) -> None:
        self._whole.add(size_bytes, entries)
        super().add(size_bytes, entries)


def _request(said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the Run panel starts with, if it can be read as such."""
    try:
        asked = store.request_of(said or {}).as_dict()
        if (cpu := asked.pop("cpu_millicores", None)) is not None:
            asked["cpu"] = cpu / 1000
        for name in ("memory", "storage"):
            asked[name] = asked.pop(f"{name}_bytes", None)
        return ClusterRequest.parse(asked).as_dict()
    except (TypeError, ValueError, OverflowError, UserError):
        return {}


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return fields.clean_tags(tags)
    except UserError:
        return ()


def _cover(seen: Seen) -> bytes:
    if not seen.cover:
        return b""
    try:
        return covers.clean(seen.cover)[0]
    except UserError:
        return b""


def _past(at: datetime | None, now: datetime) -> Any:
    return min(at, now) if at is not None and at.tzinfo is not None else now


__all__ = ["BUSY", "Cancelled", "Import", "Outcome", "broken_off", "clear_broken_off", "discard_row"]
