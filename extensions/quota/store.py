"""Reading and changing limits of roles and exceptions of people (CG-28, CG-29, TI-14, SC-17, BX-13).

Every change is one transaction with its line in the audit log and the move of the centre's version. What is
set is looked at here and nowhere else, so that pages, API and files refuse the same. Lowering a limit
touches nothing that runs: limits are asked at admission only.

Who manages limits without being an administrator may not raise their own: such a try is refused and stands
in the log (:func:`changed`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update
from ulid import ULID

from extensions.quota.limits import ABOVE_ALL, Granted
from extensions.quota.measures import RESOURCES, TOGETHER, Measure, check, check_amount, written
from extensions.quota.policy import granted, read_snapshot
from extensions.quota.tables import quota_exceptions, quotas
from galilean import audit, centre
from galilean.db import Database
from galilean.errors import UserError, mark
from spawner.tables import clusters

P = ParamSpec("P")
R = TypeVar("R")
REASON_MOST = 1000


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: As an amount: nothing is said about it any more. As an argument: stays as it is.
REMOVE: Final = _Mark("REMOVE")
KEEP: Final = _Mark("KEEP")


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who changes something; ``address`` is where the request came from."""

    name: str
    address: str = ""
    roles: Sequence[str] = ()

    @property
    def admin(self) -> bool:
        return "admin" in self.roles


#: Whoever may use the database from a shell.
COMMAND = Actor(name="command", roles=("admin",))


class OwnLimit(UserError):
    """Somebody who is no administrator tried to raise a limit that holds for themselves."""

    def __init__(self, subject: str, after: Any) -> None:
        super().__init__(
            403,
            mark("You cannot raise limits that hold for yourself. Ask an administrator."),
            reason="own-limit",
        )
        self.subject, self.after = subject, after


async def changed(
    database: Database,
    function: Callable[Concatenate[Connection, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run a change as its transaction; a try to raise one's own limits is noted before it is refused."""
    try:
        return await database.run(function, *args, **kwargs)
    except OwnLimit as error:
        actor: Any = kwargs["actor"]
        now: Any = kwargs["now"]
        await database.run(
            audit.write,
            at=now,
            actor=actor.name,
            address=actor.address,
            action="quota.refused",
            subject=error.subject,
            after=error.after,
            reason=str(kwargs.get("reason", ""))[:REASON_MOST],
        )
        raise


# ------------------------------------------------------------------------------------------------ of roles


def matrix(conn: Connection) -> dict[str, dict[Measure, int | None]]:
    """What is said of each role, in the order of the roles."""
    return {name: dict(sorted(amounts.items())) for name, amounts in read_snapshot(conn).roles.items()}


def set_limits(
    conn: Connection,
    changes: Sequence[tuple[str, Measure, int | _Mark | None]],
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    pools: Collection[str] | None = None,
    models: Collection[str] | None = None,
) -> int:
    """Change limits of roles, all or none; how many were another before.

    ``changes`` are role, measure, and the amount, ``None`` for no limit, :data:`REMOVE` to say nothing about
    it. ``pools`` and ``models`` are those of the site, to refuse others; ``None`` = not looked at.

    Raises
    ------
    UserError
        400 for what cannot be a limit, 403 for one's own (:class:`OwnLimit`), 404 for no such role.
    """
    centre.decide_alone(conn)
    before = read_snapshot(conn).roles
    done = 0
    for role, measure, amount in changes:
        if role not in before:
            raise UserError(404, mark("There is no role “{role}”."), role=role[:64])
        check(measure, pools=pools, models=models)
        old = before[role].get(measure, REMOVE)
        if amount is not REMOVE:
            check_amount(measure, amount)  # type: ignore[arg-type]
        if amount == old:
            continue
        if role in actor.roles and not actor.admin and _effective(measure, amount) > _effective(measure, old):
            raise OwnLimit(role, {"measure": str(measure), "amount": _told(measure, amount)})
        _put(conn, role, measure, amount)
        audit.write(
            conn,
            at=now,
            actor=actor.name,
            address=actor.address,
            action="quota.set",
            subject=role,
            before={"measure": str(measure), "amount": _told(measure, old)},
            after={"measure": str(measure), "amount": _told(measure, amount)},
            reason=reason,
        )
        done += 1
    if done:
        centre.bump(conn, now, actor.name)
    return done


def _put(conn: Connection, role: str, measure: Measure, amount: Any) -> None:
    key = {
        "role": role,
        "resource": measure.resource,
        "pool": measure.pool,
        "gpu_model": measure.gpu_model,
        "period": measure.period,
    }
    conn.execute(delete(quotas).where(*(quotas.c[name] == value for name, value in key.items())))
    if amount is not REMOVE:
        conn.execute(insert(quotas).values(**key, amount=amount))


def _effective(measure: Measure, amount: Any) -> int:
    if amount is REMOVE:
        amount = None if measure.narrowed or measure.period else RESOURCES[measure.resource].default
    return ABOVE_ALL if amount is None else int(amount)


def _told(measure: Measure, amount: Any) -> Any:
    if amount is REMOVE:
        return None
    return "no limit" if amount is None else written(measure.resource, amount)


@dataclass(frozen=True, kw_only=True)
class Use:
    """Why a role is still needed: ``count`` things of a ``kind`` (``clusters``, ``limits``)."""

    kind: str
    count: int


def uses_of_role(conn: Connection, role: str) -> list[Use]:
    """Where this room knows a role from: clusters held by it, and limits of its own."""
    held = conn.execute(
        select(func.count()).where(clusters.c.role == role, clusters.c.released_at.is_(None))
    ).scalar_one()
    own = conn.execute(select(func.count()).where(quotas.c.role == role)).scalar_one()
    return [
        Use(kind=kind, count=int(count)) for kind, count in (("clusters", held), ("limits", own)) if count
    ]


# ----------------------------------------------------------------------------------------------- exceptions


def exceptions(
    conn: Connection,
    *,
    user: str | None = None,
    text: str = "",
    open_at: datetime | None = None,
    limit: int = 50,
    offset: int = 0,
) -> tuple[list[Granted], int]:
    """Exceptions, newest first, and how many there are in all.

    ``text`` is part of a person's name, the resource or the reason; ``open_at`` takes only those that count
    at this moment, ``None`` ended ones, too.
    """
    table = quota_exceptions.c
    wanted = []
    if user is not None:
        wanted.append(table.user == user)
    if text:
        wanted.append(
            or_(
                *(
                    column.icontains(text, autoescape=True)
                    for column in (table.user, table.resource, table.reason)
                )
            )
        )
    if open_at is not None:
        wanted.append(
            and_(table.ended_at.is_(None), or_(table.expires_at.is_(None), table.expires_at > open_at))
        )
    rows = conn.execute(
        select(quota_exceptions).where(*wanted).order_by(table.id.desc()).limit(limit).offset(offset)
    ).mappings()
    found = [granted(row) for row in rows]
    count = conn.execute(select(func.count()).select_from(quota_exceptions).where(*wanted)).scalar_one()
    return found, int(count)


def exception(conn: Connection, exception_id: str) -> Granted:
    """One exception, also an ended one.

    Raises
    ------
    UserError
        404 when there is none.
    """
    row = (
        conn.execute(select(quota_exceptions).where(quota_exceptions.c.id == exception_id)).mappings().first()
    )
    if row is None:
        raise UserError(404, mark("There is no such exception."))
    return granted(row)


def give(
    conn: Connection,
    user: str,
    items: Iterable[tuple[Measure, int | None]],
    *,
    reason: str,
    expires_at: datetime | None = None,
    actor: Actor,
    now: datetime,
    pools: Collection[str] | None = None,
    models: Collection[str] | None = None,
) -> list[Granted]:
    """Let a person hold other amounts than their roles say. One that there is of the same measure ends.

    ``items`` are measures with their amounts (``None`` = no limit). ``expires_at`` is when it ends by
    itself, UTC (``None`` = when somebody ends it); what runs then goes on.

    Raises
    ------
    UserError
        400 for what cannot be one, 403 for one's own (:class:`OwnLimit`).
    """
    wanted = list(items)
    for measure, amount in wanted:
        check(measure, pools=pools, models=models)
        check_amount(measure, amount)
        if measure.resource in TOGETHER:
            raise UserError(400, mark("“{name}” is of a whole role, not of one person."), name=str(measure))
    if not user or len(user) > 255:
        raise UserError(400, mark("Say whose exception it is."))
    if not wanted:
        raise UserError(400, mark("Say what the exception is of."))
    _check_words(reason, expires_at, now)
    if user == actor.name and not actor.admin:
        raise OwnLimit(user, {str(measure): _told(measure, amount) for measure, amount in wanted})
    centre.decide_alone(conn)
    return [_give(conn, user, m, amount, reason.strip(), expires_at, actor, now) for m, amount in wanted]


def _give(
    conn: Connection,
    user: str,
    measure: Measure,
    amount: int | None,
    reason: str,
    expires_at: datetime | None,
    actor: Actor,
    now: datetime,
) -> Granted:
    table = quota_exceptions.c
    same = (
        table.user == user,
        table.resource == measure.resource,
        table.pool == measure.pool,
        table.gpu_model == measure.gpu_model,
        table.period == measure.period,
        table.ended_at.is_(None),
    )
    row = conn.execute(select(quota_exceptions).where(*same)).mappings().first()
    old = granted(row) if row is not None else None
    if old is not None:
        expired = not old.holds_at(now)
        ended_at = (old.expires_at or now) if expired else now
        conn.execute(
            update(quota_exceptions)
            .where(*same)
            .values(ended_at=ended_at, ended_by="" if expired else actor.name)
        )
        old = None if expired else old
    new = Granted(
        id=str(ULID()),
        user=user,
        measure=measure,
        amount=amount,
        reason=reason,
        given_by=actor.name,
        given_at=now,
        expires_at=expires_at,
    )
    conn.execute(
        insert(quota_exceptions).values(
            id=new.id,
            user=user,
            resource=measure.resource,
            pool=measure.pool,
            gpu_model=measure.gpu_model,
            period=measure.period,
            amount=amount,
            reason=reason,
            given_by=actor.name,
            given_at=now,
            expires_at=expires_at,
        )
    )
    _note(conn, "exception.give", actor, now, before=old, after=new, reason=reason)
    return new


def change(
    conn: Connection,
    exception_id: str,
    *,
    amount: int | _Mark | None = KEEP,
    reason: str | _Mark = KEEP,
    expires_at: datetime | _Mark | None = KEEP,
    actor: Actor,
    now: datetime,
) -> Granted:
    """Change an exception that counts or is expired.

    Raises
    ------
    UserError
        400 for what cannot be one, 403 for one's own, 404 for none, 409 for one that was ended.
    """
    centre.decide_alone(conn)
    old = exception(conn, exception_id)
    if old.ended_at is not None:
        raise _ended()
    new = replace(
        old,
        amount=old.amount if amount is KEEP else check_amount(old.measure, amount),  # type: ignore[arg-type]
        reason=old.reason if reason is KEEP else str(reason).strip(),
        expires_at=old.expires_at if expires_at is KEEP else expires_at,  # type: ignore[arg-type]
    )
    _check_words(new.reason, None if expires_at is KEEP else new.expires_at, now)
    if old.user == actor.name and not actor.admin:
        raise OwnLimit(old.user, {str(old.measure): _told(old.measure, new.amount)})
    if new == old:
        return old
    conn.execute(
        update(quota_exceptions)
        .where(quota_exceptions.c.id == old.id, quota_exceptions.c.ended_at.is_(None))
        .values(amount=new.amount, reason=new.reason, expires_at=new.expires_at)
    )
    _note(conn, "exception.change", actor, now, before=old, after=new, reason=new.reason)
    return new


def end(conn: Connection, exception_id: str, *, actor: Actor, now: datetime, reason: str = "") -> Granted:
    """End an exception; it stays known. What runs goes on.

    Raises
    ------
    UserError
        403 for one's own, which may be less than the roles give; 404 for none, 409 for one that was ended.
    """
    centre.decide_alone(conn)
    old = exception(conn, exception_id)
    if old.ended_at is not None:
        raise _ended()
    if old.user == actor.name and not actor.admin:
        raise OwnLimit(old.user, {str(old.measure): "end"})
    new = replace(old, ended_at=now, ended_by=actor.name)
    conn.execute(
        update(quota_exceptions)
        .where(quota_exceptions.c.id == old.id, quota_exceptions.c.ended_at.is_(None))
        .values(ended_at=now, ended_by=actor.name)
    )
    _note(conn, "exception.end", actor, now, before=old, after=new, reason=reason)
    return new


def _ended() -> UserError:
    return UserError(409, mark("This exception was ended already."))


def _check_words(reason: str, expires_at: datetime | None, now: datetime) -> None:
    if not reason.strip():
        raise UserError(400, mark("Say why: an exception has a reason."))
    if len(reason) > REASON_MOST:
        raise UserError(400, mark("The reason is too long: at most {most} characters."), most=REASON_MOST)
    if expires_at is not None and expires_at <= now:
        raise UserError(400, mark("The exception would have ended already: choose a later end."))


def _note(
    conn: Connection,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: Granted | None,
    after: Granted,
    reason: str,
) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=action,
        subject=after.user,
        before=_line(before) if before else None,
        after=_line(after),
        reason=reason,
    )
    centre.bump(conn, now, actor.name)


def _line(of: Granted) -> dict[str, Any]:
    return {
        "measure": str(of.measure),
        "amount": _told(of.measure, of.amount),
        "expires_at": of.expires_at.isoformat() if of.expires_at else None,
        **({"ended_at": of.ended_at.isoformat()} if of.ended_at else {}),
    }
