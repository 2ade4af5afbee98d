"""Long work on files: copies, archives, checksums, the deletion of folders, with progress and an end on request.

A job is of one person at one tree. It runs in a few threads of its own for each volume, so that ten people who unpack archives do
not keep an eleventh from listing a folder, and it is forgotten an hour after it ended. Work is kept in this process
only: when the portal ends, so does the work, and nothing of it is left, because what is made gets its name as a whole
(:mod:`services.files`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from galilean.clock import Clock
from galilean.errors import UserError, mark
from galilean.file_threads import FileThreads
from services.files.progress import Cancelled, Progress

log = logging.getLogger("galilean.files")

State = Literal["waiting", "working", "done", "cancelled"]
#: Under way at once, of one person.
MOST_OF_ONE = 2
KEEP = timedelta(hours=1)
#: Of one person, of those that are over.
KEPT_MOST = 20


@dataclass(kw_only=True)
class Job:
    """One piece of work.

    Attributes
    ----------
    by, place
        Who asked for it, and at which tree (kind and id).
    paths
        What it is done to; :attr:`at` counts those that are over.
    made
        What came of each: its path now, or its checksum.
    problems
        What could not be done and why.
    left_out
        What was not copied or unpacked, and why in one word.
    """

    id: str
    do: str
    by: str
    place: tuple[str, str]
    paths: list[str]
    progress: Progress
    began_at: datetime
    state: State = "waiting"
    at: int = 0
    made: list[str] = field(default_factory=list)
    problems: list[tuple[str, UserError]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    ended_at: datetime | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.ended_at is not None


class FileJobs:
    """The jobs of this process.

    Parameters
    ----------
    clock
        The time.
    threads
        How many work at once on one volume.
    """

    def __init__(self, clock: Clock, *, threads: int = 3) -> None:
        self._clock = clock
        self._threads = FileThreads(threads)
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether this process ends, and all work with it.
        self.closing = False

    def begin(
        self,
        do: str,
        paths: list[str],
        work: Callable[[Job, str], str],
        *,
        by: str,
        place: tuple[str, str],
        volume: str = "",
        room_bytes: Callable[[], int | None] = lambda: None,
        after: Callable[[], Any] | None = None,
    ) -> Job:
        """Begin to do something to each of some paths.

        Parameters
        ----------
        do
            The word for it.
        paths
            What it is done to, each once.
        work
            Called in a thread for each path; answers what came of it. What it raises as :class:`UserError` is told of
            that path, and the next one has its turn.
        by, place
            Who, and at which tree.
        volume
            Id of the volume that the tree is on.
        room_bytes
            As in :class:`Progress`.
        after
            Awaited when it is over, whatever came of it.

        Raises
        ------
        UserError
            429 with too many of this person under way.
        """
        self._forget()
        going = sum(1 for job in self._jobs.values() if job.by == by and not job.is_over)
        if going >= MOST_OF_ONE:
            raise UserError(
                429,
                mark("{count} pieces of work on files are under way for you. Wait for one, or cancel it."),
                count=going,
                reason="jobs",
            )
        job = Job(
            id=secrets.token_hex(12),
            do=do,
            by=by,
            place=place,
            paths=list(dict.fromkeys(paths)),
            progress=Progress(room_bytes),
            began_at=self._clock(),
        )
        self._jobs[job.id] = job
        task = asyncio.ensure_future(self._run(job, work, after, volume))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, job_id: str, *, by: str, place: tuple[str, str]) -> Job:
        """One's own job at a tree.

        Raises
        ------
        UserError
            404 when there is none, or it is somebody else's.
        """
        job = self._jobs.get(job_id)
        if job is None or job.by != by or job.place != place:
            raise UserError(404, mark("There is no such work (any more). See the files for what came of it."))
        return job

    def of(self, *, by: str, place: tuple[str, str]) -> list[Job]:
        """One's own jobs at a tree, the newest first."""
        self._forget()
        return [job for job in reversed(self._jobs.values()) if job.by == by and job.place == place]

    def cancel(self, job: Job) -> None:
        """Ask a job to end."""
        job.progress.cancel()

    async def close(self) -> None:
        """End all, and wait for it."""
        self.closing = True
        for job in self._jobs.values():
            job.progress.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=True)

    async def _run(
        self, job: Job, work: Callable[[Job, str], str], after: Callable[[], Any] | None, volume: str
    ) -> None:
        try:
            await self._threads.run(volume, self._work, job, work)
            if after is not None:
                await after()
        except Exception as error:
            log.exception("file job %s (%s) broke off", job.id, job.do)
            if not job.problems:
                job.problems.append(("", _broke_off(error)))
        finally:
            if job.state != "cancelled":
                job.state = "done"
            job.ended_at = self._clock()
            job.over.set()

    def _work(self, job: Job, work: Callable[[Job, str], str]) -> None:
        job.state = "working"
        for path in job.paths:
            try:
                job.progress.add(0)
                job.made.append(work(job, path))
            except Cancelled:
                job.state = "cancelled"
                return
            except UserError as error:
                job.problems.append((path, error))
                if error.status == 507:  # the next would only fill what is left
                    return
            job.at += 1

    def _forget(self) -> None:
        before = self._clock() - KEEP
        kept: Counter[str] = Counter()
        for job in reversed(list(self._jobs.values())):
            if job.ended_at is None:
                continue
            kept[job.by] += 1
            if job.ended_at < before or kept[job.by] > KEPT_MOST:
                del self._jobs[job.id]


def _broke_off(error: Exception) -> UserError:
    return UserError(500, mark("Something went wrong: {problem}."), problem=type(error).__name__)
