"""Projects as pages and the API use them: the row and the directory together, off the event loop.

The store knows rows, :class:`Root` knows directories; here are the few acts that need both, in an
order that leaves nothing behind when something breaks between: the row first (an empty directory can be
made any time), and on deletion the row first too (an orphaned directory is reachable by nobody).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.file_threads import FileThreads
from galilean.settings import Settings
from services.catalog import environments, store, volumes
from services.catalog.access import Kind
from services.catalog.datasets import Dataset
from services.catalog.placing import Looker
from services.catalog.preview import Preview
from services.catalog.previewer import Previewer
from services.catalog.resolver import prepare_directory
from services.catalog.starter import write_starter
from services.catalog.store import Project
from services.files.root import Root

P = ParamSpec("P")
T = TypeVar("T")


class Projects:
    """The catalogue's projects with their files.

    Parameters
    ----------
    db
        Our database.
    settings
        The site's settings.
    clock
        The time.
    files
        Threads for file work; ``None`` = its own.
    """

    def __init__(
        self, db: Database, settings: Settings, clock: Clock = utcnow, *, files: FileThreads | None = None
    ) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._threads = files or FileThreads()
        self.looker = Looker(db, settings, clock)
        self._previewer = Previewer()

    async def create(
        self,
        owner: str,
        name: str,
        *,
        slug: str | None = None,
        description: str = "",
        environment: str = "",
        default_request: Mapping[str, Any] | None = None,
        starter: bool = False,
        language: str = "en",
        others: Mapping[str, object] | None = None,
    ) -> Project:
        """Make a project and its directory, on the volume with most space.

        ``starter`` puts a small notebook into it that shows the nodes and how to reach them; ``others`` are
        environments that the owner may use besides those of the settings.

        Raises
        ------
        UserError
            400, 409 as :func:`store.create`; 503 or 507 when no volume takes it.
        """
        environments.check_environment(self._settings, environment, others)
        volume_id = await self.place()

        def make(conn: Connection) -> Project:
            now = self._clock()
            volumes.ensure_volumes(conn, self._settings, now)
            return store.create(
                conn,
                owner=owner,
                name=name,
                slug=slug,
                volume_id=volume_id,
                now=now,
                description=description,
                environment=environment,
                default_request=default_request,
            )

        project = await self._db.run(make)
        files = await self.files(project)
        if starter:
            await self.run_on(project.volume_id, write_starter, files, language)
        return project

    async def place(self, size_bytes: int = 0, *, kind: Kind = "project") -> str:
        """The volume for a new project (or data set) that will have so much at once.

        Raises
        ------
        UserError
            503 or 507 when no volume takes it.
        """
        return await self.looker.place(kind, size_bytes=size_bytes)

    async def delete(self, project: Project) -> None:
        """Delete a project: its slug is free at once, its files go to the volume's bin.

        Raises
        ------
        UserError
            409 while a cluster of it is held; 404 when it was deleted already.
        """
        # With admission's lock: no run of it begins between the look and the mark.
        await self._db.run_serialised("admission", store.delete, project, now=self._clock())
        await self.move(to_bin, project)

    async def restore(self, project_id: str) -> Project:
        """Take back a deleted project with its files.

        Raises
        ------
        UserError
            404 when there is no deleted project of this id; 503 when its volume is not there.
        """
        found = await self._db.run_read(lambda conn: store.by_id(conn, project_id, deleted=True))
        if found is not None:
            # Else it would be back without its files, and they in a bin that nobody empties.
            await self.move(check_there, found)
        project = await self._db.run(store.restore, project_id, now=self._clock())
        await self.move(from_bin, project)
        return project

    async def files(self, item: Project | Dataset) -> Root:
        """The files of a project or data set; their methods block, call them by :meth:`run_on`.

        Raises
        ------
        UserError
            503 when the volume is not there, or does not answer.
        """
        return Root(await self._threads.ask(item.volume_id, prepare_directory, self._settings, item))

    async def move(self, act: Callable[[Settings, Project | Dataset], None], item: Project | Dataset) -> None:
        """One of :func:`to_bin`, :func:`from_bin`, :func:`check_there`; 503 when the volume does not answer."""
        await self._threads.ask(item.volume_id, act, self._settings, item)

    async def run_on(self, volume_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks on files of a volume, such as a method of :class:`Root`, in a thread.

        ``volume_id`` is a lane of :class:`FileThreads`: also what ``beside`` makes of it, or empty.
        """
        return await self._threads.run(volume_id, function, *args, **kwargs)

    async def preview(
        self, project: Project, path: str, *, language: str, theme: str = "light", link_base: str = ""
    ) -> Preview:
        """A file as one safe document; see :mod:`services.catalog.preview`.

        Raises
        ------
        UserError
            404 when it is not there, 400 for what is no regular file, 503 when the volume is not there.
        """
        return await self.preview_of(
            await self.files(project),
            path,
            volume_id=project.volume_id,
            language=language,
            theme=theme,
            link_base=link_base,
        )

    async def preview_of(
        self,
        files: Root,
        path: str,
        *,
        volume_id: str,
        language: str,
        theme: str = "light",
        link_base: str = "",
        as_text: bool = False,
    ) -> Preview:
        """The same in any tree."""
        return await self._threads.run(
            volume_id,
            self._previewer.preview,
            files,
            path,
            language=language,
            theme=theme,
            link_base=link_base,
            as_text=as_text,
        )

    async def touch(self, project: Project) -> None:
        """Note that files changed."""
        await self._db.run(store.touch, project.id, self._clock())

    def close(self) -> None:
        """Let go of the threads; what is under way ends."""
        self._threads.shutdown(wait=True)
        self.looker.close()
        self._previewer.close()


def check_there(settings: Settings, project: Project | Dataset) -> None:
    """Refuse to bring files back while their volume is not there (503)."""
    volumes.check_mounted(project.volume(settings), project.volume_id)


def to_bin(settings: Settings, project: Project | Dataset) -> None:
    """Move the directory to the bin; a directory that is not there is no fault."""
    _move(project.path(settings), bin_path(settings, project))


def from_bin(settings: Settings, project: Project | Dataset) -> None:
    """Move it back; see :func:`to_bin`."""
    _move(bin_path(settings, project), project.path(settings))


def bin_path(settings: Settings, project: Project | Dataset) -> Path:
    """Where the files of a deleted project or data set lie."""
    return project.volume(settings) / volumes.BIN / project.id


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        os.rename(source, target)
    except FileNotFoundError:
        pass
