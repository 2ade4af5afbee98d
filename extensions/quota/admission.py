"""Admission: the one *serialised* transaction that lets a plan in, makes it wait, or refuses it.

Sum what the person holds (waiting, starting, running, being removed), compare, insert: in a plain
transaction ten simultaneous starts all get through a limit of two, on SQLite and on PostgreSQL; in
``db.serialised("admission")`` exactly two do. The unique index on open rows is the second lock.

No room is not a refusal: the row waits, in the order of arrival for each pool and GPU model, and nobody
younger of the same kind overtakes. When its turn comes (the queue service starts it again), the waiting row
is taken up instead of a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from ulid import ULID

from extensions.quota.limits import sums_of
from extensions.quota.room import RoomCheck
from extensions.quota.rules import decide, no_role
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Limits
from spawner import records, steps
from spawner.collaborators import Admitted, Person
from spawner.plan import ClusterPlan
from spawner.request import ClusterRequest
from spawner.states import Status


class QuotaAdmission:
    """Implements :class:`spawner.collaborators.Admission`.

    Parameters
    ----------
    database
        Ours.
    limits_of
        What a person may hold; ``None`` = the account waits for a role. A plain function, no I/O.
    room
        The backend's word on room; ``None`` = there is always room (a scheduler says so later).
    clock
        The time.
    backend
        Name of the backend, for the row.
    """

    def __init__(
        self,
        database: Database,
        limits_of: Callable[[Person], Limits | None],
        room: RoomCheck | None = None,
        clock: Clock = utcnow,
        *,
        backend: str = "process",
    ) -> None:
        self._database = database
        self._limits_of = limits_of
        self._room = room
        self._clock = clock
        self._backend = backend

    async def admit(
        self, person: Person, plan: ClusterPlan, request: ClusterRequest, names: Sequence[str]
    ) -> Admitted:
        """See :class:`spawner.collaborators.Admission`."""
        limits = self._limits_of(person)
        if limits is None:
            raise no_role()
        admitted = await self._database.run_serialised(
            "admission", self.admit_now, person, plan, request, limits, names
        )
        if isinstance(admitted, UserError):  # raised only now: the row that waits is committed
            raise admitted
        return admitted

    def admit_now(
        self,
        conn: Connection,
        person: Person,
        plan: ClusterPlan,
        request: ClusterRequest,
        limits: Limits,
        names: Sequence[str],
    ) -> Admitted | UserError:
        """The transaction: the run, or the 503 to raise *after* the commit when it waits in line."""
        now = self._clock()
        sums = sums_of(conn, plan)
        waiting: records.Run | None = None
        if sums.mine:
            waiting = records.get(conn, sums.mine)
            if waiting is None or waiting.status != Status.QUEUED:
                raise steps.already_open(plan.project_name)
        refusal = decide(plan, sums.held, limits)
        if refusal is not None:
            raise refusal
        fits = self._room is None or self._room.fits(plan, sums.taken)
        before = sums.waiting
        if before and waiting is not None:
            before = records.waits_longer(conn, pool=plan.pool, gpu_model=plan.gpu_model, run=waiting)
        queued = not fits or before > 0
        if waiting is None:
            run: records.Run | None = steps.reserve(
                conn,
                run_id=str(ULID()),
                plan=plan,
                request=request,
                backend=self._backend,
                asked_by=person.asked_by or person.name,
                now=now,
                queued=queued,
                names=names,
            )
            run_id = run.id
        elif not steps.take_up(conn, waiting, plan=plan, request=request, now=now, queued=queued):
            raise steps.already_open(plan.project_name)
        else:
            run_id = waiting.id
            run = None if queued else steps.begin_start(conn, run_id, names=names)
        return _waits(before) if queued else Admitted(run_id=run_id, run=run)


def _waits(before: int) -> UserError:
    return UserError(
        503,
        mark(
            "There is no room just now. Your cluster waits in line and starts by itself; before it: {before}."
        ),
        reason="queued",
        before=before,
    )
