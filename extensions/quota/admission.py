"""Admission: the one *serialised* transaction that lets a plan in, makes it wait, or refuses it.

Sum what the person holds (waiting, starting, running, being removed), compare, insert: in a plain
transaction ten simultaneous starts all get through a limit of two, on SQLite and on PostgreSQL; in
``db.serialised("admission")`` exactly two do. The unique index on open rows is the second lock.

Limits belong into the same transaction: they are looked up in it, so that what an administrator has just
changed holds for the very next start. With the run its role is kept, by which it was admitted, and the
terms of its release, so that later changes touch nothing that runs.

No room is not a refusal: the row waits, in the order of arrival for each pool and GPU model, and nobody
younger of the same kind overtakes. When its turn comes (the queue service starts it again), the waiting row
is taken up instead of a new one.

Starts that are asked for at once share a transaction (:func:`galilean.db.together`): each is summed, compared
and inserted after the other, and nobody is answered before all is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Protocol

from sqlalchemy import Connection
from ulid import ULID

from extensions.quota.budgets import UsageOf, along_for, budgets_of, spent_by, used_by_intervals
from extensions.quota.held import Sums, sums_of
from extensions.quota.limits import Held, Limits
from extensions.quota.measures import Measure
from extensions.quota.policy import Policy, Snapshot
from extensions.quota.room import RoomCheck
from extensions.quota.rules import decide, decide_together, no_role
from galilean.clock import Clock, utcnow
from galilean.db import Database, together
from galilean.errors import UserError, mark
from spawner import records, steps
from spawner.collaborators import Admitted, Person
from spawner.plan import ClusterPlan
from spawner.request import ClusterRequest
from spawner.states import Status


class LimitsOf(Protocol):
    """Who knows the limits, such as :class:`extensions.quota.policy.Policy`."""

    def limits_of(
        self, conn: Connection, user: str, roles: Sequence[str], now: datetime
    ) -> tuple[Limits | None, Snapshot]:
        """Of a person with these roles; ``None`` = the account waits for a role."""
        ...


class TermsOf(Protocol):
    """Who knows the terms of release that are frozen into a run."""

    def __call__(
        self,
        conn: Connection,
        *,
        user: str,
        roles: tuple[str, ...],
        policy: str,
        manual: bool,
        version: int,
        now: datetime,
    ) -> Mapping[str, Any]:
        """JSON values for ``clusters.release_terms``.

        ``roles`` are those of the person, ``manual`` whether the limits allow to keep a cluster until it is
        released by hand, ``version`` the centre's, so that nothing is read again that is known.
        """
        ...


class Leases(Protocol):
    """Who knows of what one run has alone, such as disks."""

    def check(self, conn: Connection, plan: ClusterPlan, run_id: str) -> None:
        """Refuse a plan that wants what another run has; ``run_id`` is the plan's own that waits, or empty.

        Raises
        ------
        UserError
            404, 409.
        """
        ...

    def take(self, conn: Connection, plan: ClusterPlan, run_id: str, *, anew: bool) -> None:
        """Write down what the run has; ``anew`` = it waited, maybe with another plan. It has it while its row is open."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The same limits for everybody; for tests and measurements."""

    limits: Limits | None

    def limits_of(
        self, conn: Connection, user: str, roles: Sequence[str], now: datetime
    ) -> tuple[Limits | None, Snapshot]:
        """See :class:`LimitsOf`."""
        return self.limits, Snapshot()


class QuotaAdmission:
    """Implements :class:`spawner.collaborators.Admission`.

    Parameters
    ----------
    database
        Ours.
    policy
        What people may hold.
    room
        The backend's word on room; ``None`` = there is always room (a scheduler says so later).
    clock
        The time.
    backend
        Name of the backend, for the row.
    terms_of
        The terms of release; ``None`` = none are frozen.
    usage_of
        What a person used, for budgets.
    zone
        The site's, in which a budget's period begins.
    leases
        Who hands out what one run has alone; ``None`` = there is nothing of the kind.
    """

    def __init__(
        self,
        database: Database,
        policy: LimitsOf,
        room: RoomCheck | None = None,
        clock: Clock = utcnow,
        *,
        backend: str = "process",
        terms_of: TermsOf | None = None,
        usage_of: UsageOf = used_by_intervals,
        zone: tzinfo = UTC,
        leases: Leases | None = None,
    ) -> None:
        self._database = database
        self._policy = policy
        self._room = room
        self._clock = clock
        self._backend = backend
        self._terms_of = terms_of
        self._usage_of = usage_of
        self._zone = zone
        self._leases = leases

    async def admit(
        self, person: Person, plan: ClusterPlan, request: ClusterRequest, names: Sequence[str]
    ) -> Admitted:
        """See :class:`spawner.collaborators.Admission`."""
        admitted = await self._database.run_serialised(
            "admission", self.admit_now, person, plan, request, names
        )
        if isinstance(admitted, UserError):  # raised only now: the row that waits is committed
            raise admitted
        return admitted

    @together
    def admit_now(
        self,
        conn: Connection,
        person: Person,
        plan: ClusterPlan,
        request: ClusterRequest,
        names: Sequence[str],
    ) -> Admitted | UserError:
        """The transaction: the run, or the 503 to raise *after* the commit when it waits in line."""
        now = self._clock()
        sums, limits, snapshot = self._look(conn, person, plan, now)
        if limits is None:
            raise no_role()
        waiting: records.Run | None = None
        if sums.mine:
            waiting = records.get(conn, sums.mine)
            if waiting is None or waiting.status != Status.QUEUED:
                raise steps.already_open(plan.project_name)
        budgets = budgets_of(limits)
        spent = (
            spent_by(
                conn,
                person.name,
                budgets,
                now,
                zone=self._zone,
                calendar=snapshot.calendar,
                usage_of=self._usage_of,
                known=sums.used,
            )
            if budgets
            else {}
        )
        refusal = decide(plan, sums.held, limits, spent)
        if refusal is not None:
            raise refusal
        if self._leases is not None:
            self._leases.check(conn, plan, sums.mine)
        role = _role(person, plan, limits, snapshot, sums, spent)
        terms = dict(
            self._terms_of(
                conn,
                user=person.name,
                roles=person.roles,
                policy=plan.release_policy,
                manual=limits.manual_release,
                version=snapshot.version,
                now=now,
            )
            if self._terms_of
            else {}
        )
        if budgets:
            terms["budgets"] = [budget.as_value() for budget in budgets]
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
                role=role,
                release_terms=terms or None,
            )
            run_id = run.id
        elif not steps.take_up(
            conn,
            waiting,
            plan=plan,
            request=request,
            now=now,
            queued=queued,
            role=role,
            release_terms=terms or None,
        ):
            raise steps.already_open(plan.project_name)
        else:
            run_id = waiting.id
            run = None if queued else steps.begin_start(conn, run_id, names=names)
        if self._leases is not None:
            self._leases.take(conn, plan, run_id, anew=waiting is not None)
        return _waits(before) if queued else Admitted(run_id=run_id, run=run)

    def _look(
        self, conn: Connection, person: Person, plan: ClusterPlan, now: datetime
    ) -> tuple[Sums, Limits | None, Snapshot]:
        """What is held and used, and what holds, by one statement as long as nobody decides anything.

        What is to be asked is known from the last decisions: of which periods there are budgets, and whether the
        sums of everybody count. Where these were changed meanwhile, what is missing is asked for once more.
        """
        policy = self._policy
        if not isinstance(policy, Policy):
            return sums_of(conn, plan, now), *policy.limits_of(conn, person.name, person.roles, now)
        last = policy.last()
        everybody = last is None or self._counts_everybody(last, person)
        along = None
        if last is not None and (before := last.limits(person.roles)) is not None:
            along = along_for(self._usage_of, budgets_of(before), now, self._zone, last.calendar)
        sums = sums_of(conn, plan, now, everybody=everybody, along=along)
        limits, snapshot = policy.limits_at(
            conn, person.name, person.roles, now, version=sums.version, exceptions=sums.exceptions
        )
        if not everybody and self._counts_everybody(snapshot, person):
            sums = sums_of(conn, plan, now, along=along)
        return sums, limits, snapshot

    def _counts_everybody(self, snapshot: Snapshot, person: Person) -> bool:
        return self._room is not None or any(snapshot.together(name) for name in person.roles)


def _role(
    person: Person,
    plan: ClusterPlan,
    limits: Limits,
    snapshot: Snapshot,
    sums: Sums,
    spent: Mapping[Measure, Any],
) -> str:
    """The role by which the plan is admitted: the first that allows it alone, and has room for it.

    Where none allows it alone (the most generous of several does), the first that has room for it.

    Raises
    ------
    UserError
        429 when all people of the roles together hold too much.
    """
    names = [name for name in snapshot.roles if name in person.roles] or list(person.roles[:1])
    alone = [name for name, own in limits.each if decide(plan, sums.held, own, spent) is None]
    refusal: UserError | None = None
    for name in dict.fromkeys((*alone, *names)):
        bounds = snapshot.together(name)
        if not bounds:
            return name
        held = sums.by_role.get(name, Held())
        refused = decide_together(plan, held, bounds)
        if refused is None:
            return name
        refusal = refusal or refused
    if refusal is not None:
        raise refusal
    return ""


def _waits(before: int) -> UserError:
    return UserError(
        503,
        mark(
            "There is no room just now. Your cluster waits in line and starts by itself; before it: {before}."
        ),
        reason="queued",
        before=before,
    )
