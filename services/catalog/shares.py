"""Shares of projects and data sets in the database: given, withdrawn, and what that does to running clusters.

A share is one row; the audit log keeps who gave and who withdrew it. Withdrawing it takes effect at the next
question: nothing is cached. What becomes of runs, :mod:`services.portal.withdrawn` sees to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from galilean import audit
from galilean.errors import UserError, mark
from services.catalog import cards
from services.catalog.access import Kind, Share, check_share, visibility_with
from services.catalog.tables import datasets, projects, shares
from spawner.tables import clusters

SHARES_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who changes something; ``address`` is where the request came from."""

    name: str
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A cluster of a project that somebody holds."""

    run_id: str
    user: str


def table_of(kind: Kind) -> Any:
    """Where projects or data sets stand."""
    return projects if kind == "project" else datasets


def of(conn: Connection, kind: Kind, item_id: str) -> list[Share]:
    """To whom something is shared, by name."""
    return of_many(conn, kind, [item_id])[item_id]


def of_many(conn: Connection, kind: Kind, item_ids: Iterable[str]) -> dict[str, list[Share]]:
    """The same of several, by id; every id is there."""
    found: dict[str, list[Share]] = {item_id: [] for item_id in item_ids}
    rows = conn.execute(
        select(shares)
        .where(shares.c.kind == kind, shares.c.item_id.in_(list(found)))
        .order_by(shares.c.grantee_kind, shares.c.grantee)
    )
    for row in rows:
        found[row.item_id].append(
            Share(
                grantee_kind=row.grantee_kind,
                grantee=row.grantee,
                access=row.access,
                given_by=row.given_by,
                given_at=row.given_at,
            )
        )
    return found


def give(
    conn: Connection, kind: Kind, item_id: str, share: Share, *, actor: Actor, now: datetime
) -> list[Share]:
    """Share something, or change what a share gives; all of its shares afterwards.

    Raises
    ------
    UserError
        400 for what cannot be shared so; 404 when it is not there; 409 in the bin, or with too many already.
    """
    row = _living(conn, kind, item_id)
    check_share(kind, share, row.owner)
    before = of(conn, kind, item_id)
    old = next((one for one in before if _same(one, share)), None)
    if old is None and len(before) >= SHARES_MOST:
        raise UserError(
            409,
            mark("It is shared with {count} people and groups already; share it with a group instead."),
            count=len(before),
        )
    if old is not None and old.access == share.access:
        return before
    where = _where(kind, item_id, share.grantee_kind, share.grantee)
    values = {"access": share.access, "given_by": actor.name, "given_at": now}
    if old is None:
        conn.execute(
            insert(shares).values(
                kind=kind,
                item_id=item_id,
                grantee_kind=share.grantee_kind,
                grantee=share.grantee,
                **values,
            )
        )
    else:
        conn.execute(update(shares).where(where).values(values))
    _note(conn, kind, row, "share.give", actor, now, before=old, after=share)
    return _settle(conn, kind, row)


def withdraw(
    conn: Connection,
    kind: Kind,
    item_id: str,
    grantee_kind: str,
    grantee: str,
    *,
    actor: Actor,
    now: datetime,
) -> list[Share]:
    """Withdraw a share; those that are left. One that is not there is no fault.

    Raises
    ------
    UserError
        404 when the thing is not there.
    """
    row = _living(conn, kind, item_id)
    old = next(
        (
            one
            for one in of(conn, kind, item_id)
            if (one.grantee_kind, one.grantee) == (grantee_kind, grantee)
        ),
        None,
    )
    if old is None:
        return of(conn, kind, item_id)
    conn.execute(delete(shares).where(_where(kind, item_id, grantee_kind, grantee)))
    _note(conn, kind, row, "share.withdraw", actor, now, before=old, after=None)
    return _settle(conn, kind, row)


def forget_person(conn: Connection, person: str) -> int:
    """Withdraw whatever was shared with somebody who is deleted; how much. Nobody of the same name gets it."""
    rows = conn.execute(
        select(shares.c.kind, shares.c.item_id).where(
            shares.c.grantee_kind == "person", shares.c.grantee == person
        )
    ).all()
    conn.execute(delete(shares).where(shares.c.grantee_kind == "person", shares.c.grantee == person))
    for kind, item_id in rows:
        table = table_of(kind)
        _settle(conn, kind, conn.execute(select(table).where(table.c.id == item_id)).one())
    return len(rows)


def not_with(conn: Connection, kind: Kind, item_id: str, person: str) -> None:
    """Take back what a person was given who owns the thing now."""
    conn.execute(delete(shares).where(_where(kind, item_id, "person", person)))


def open_runs(conn: Connection, project_id: str) -> list[OpenRun]:
    """Clusters of a project that are held, by whomever."""
    rows = conn.execute(
        select(clusters.c.id, clusters.c.user)
        .where(clusters.c.project_id == project_id, clusters.c.released_at.is_(None))
        .order_by(clusters.c.id)
    )
    return [OpenRun(run_id=row.id, user=row.user) for row in rows]


def _living(conn: Connection, kind: Kind, item_id: str) -> Any:
    table = table_of(kind)
    row = conn.execute(select(table).where(table.c.id == item_id).with_for_update()).first()
    if row is None or row.deleted_at is not None:
        raise UserError(404, mark("There is no such project or data set, or it is not shared with you."))
    return row


def _settle(conn: Connection, kind: Kind, row: Any) -> list[Share]:
    """Bring the word for it in line with its shares."""
    left = of(conn, kind, row.id)
    word = visibility_with(row.visibility, left)
    if word != row.visibility:
        table = table_of(kind)
        conn.execute(update(table).where(table.c.id == row.id).values(visibility=word))
        cards.put(conn, kind, row.id)
    return left


def _same(one: Share, other: Share) -> bool:
    return (one.grantee_kind, one.grantee) == (other.grantee_kind, other.grantee)


def _where(kind: str, item_id: str, grantee_kind: str, grantee: str) -> Any:
    return and_(
        shares.c.kind == kind,
        shares.c.item_id == item_id,
        shares.c.grantee_kind == grantee_kind,
        shares.c.grantee == grantee,
    )


def _note(
    conn: Connection,
    kind: str,
    row: Any,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: Share | None,
    after: Share | None,
) -> None:
    def told(share: Share | None) -> dict[str, str] | None:
        return share and {share.grantee_kind: share.grantee, "access": share.access}

    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=f"{kind}.{action}",
        subject=f"{row.owner}/{row.slug}",
        before=told(before),
        after=told(after),
    )
