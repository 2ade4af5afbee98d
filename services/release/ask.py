"""What the holder of a cluster may ask of its release: more time (BX-2), or to go on without them (BX-15).

Pure answers first (what one press would give, and why not more), then the writes, each a piece of somebody's
transaction. An extension never reaches past the hard maximum or a budget, and never makes an end earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, select, update

from galilean.errors import UserError, mark, render
from services.release import rules
from services.release.decide import both_saw
from services.release.terms import WITNESS_LAG_SECONDS, Terms, allowed_until, from_json, wait_seconds
from spawner import records
from spawner.records import Run
from spawner.tables import cluster_nodes, clusters, node_use

#: Who asks with a node's own token; programs of the person's hold it, too.
NODE = "node"
#: What one press adds, where that is allowed.
STEP_SECONDS = 3600
#: Less than this is no extension worth a button.
LEAST_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What may be had.

    Attributes
    ----------
    until
        Where one press would bring the end; ``None`` = it cannot be extended.
    most
        As far as may be asked for now.
    reason
        What bounds it: ``most``, ``budget``, ``extend``; or why there is none: ``never`` (it does not end by
        itself), ``ended``, or one of the bounds.
    """

    until: datetime | None
    most: datetime | None
    reason: str


def terms_of(run: Run, *, grace_seconds: int = 300) -> Terms:
    """The terms of a run; of a row without any, by its policy's name."""
    return from_json(run.release_terms, policy=run.release_policy, grace_seconds=grace_seconds)


def extension_of(
    run: Run, now: datetime, *, grace_seconds: int = 300, budget_seconds: float | None = None
) -> Extension:
    """How much longer a run may be held from now, and what bounds it.

    Parameters
    ----------
    run
        Its row.
    now
        UTC.
    grace_seconds
        The site's, for a row without terms.
    budget_seconds
        How long the person's budget lasts.
    """
    if not run.is_open or run.word != "running" or run.ready_at is None or run.stop_asked_at is not None:
        return Extension(until=None, most=None, reason="ended")
    terms = terms_of(run, grace_seconds=grace_seconds)
    most, bound = allowed_until(terms, held_since=run.ready_at, now=now, budget_seconds=budget_seconds)
    # What is written last counts while somebody is away; while they are there the end moves on by itself.
    present = max(moment for moment in (now, run.release_at, run.extended_until) if moment is not None)
    if run.release_at is None and terms.policy == "manual":
        return Extension(until=None, most=None, reason="never")
    if run.release_why in ("most", "budget"):
        bound = run.release_why
    if most - present < timedelta(seconds=LEAST_SECONDS):
        return Extension(until=None, most=None, reason=bound)
    step = timedelta(seconds=max(STEP_SECONDS, _wait(terms)))
    return Extension(until=min(present + step, most), most=most, reason=bound)


def _wait(terms: Terms) -> int:
    try:
        return terms.wait_seconds or 0
    except ValueError:
        return 0


def may_extend(run: Run, now: datetime, *, grace_seconds: int = 300) -> datetime | None:
    """Where one press would bring the end of a run; ``None`` = it cannot be extended."""
    return extension_of(run, now, grace_seconds=grace_seconds).until


def telling(conn: Connection, run_ids: Collection[str]) -> frozenset[str]:
    """Those of these runs with a node that tells whether anything runs in it; without one nothing says *done*."""
    if not run_ids:
        return frozenset()
    n, u = cluster_nodes.c, node_use.c
    query = (
        select(n.cluster_id)
        .distinct()
        .join(node_use, and_(u.cluster_id == n.cluster_id, u.rank == n.rank, u.attempt == n.attempt))
        .where(n.cluster_id.in_(list(run_ids)), n.gone_at.is_(None), u.told_at.is_not(None))
    )
    return frozenset(conn.execute(query).scalars())


def may_when_done(run: Run, *, tells: bool) -> bool:
    """Whether a run may go on without its holder, until nothing runs on it any more.

    Parameters
    ----------
    run
        Its row.
    tells
        Whether a node of it tells what runs there (:func:`telling`). Of one that cannot, such as one that has not
        started yet, nobody would know when it is done: it would go back as soon as its holder left.
    """
    return run.is_open and run.stop_asked_at is None and run.release_policy == "auto" and tells


def extend(
    conn: Connection,
    run: Run,
    *,
    now: datetime,
    seconds: int | None = None,
    until: datetime | None = None,
    by: str,
    budget_seconds: float | None = None,
) -> Run:
    """Hold a run longer; the row as it is then.

    Parameters
    ----------
    conn, run, now
        A transaction, the row, UTC.
    seconds
        From its present end on; or
    until
        until then. Neither = as much as one press gives.
    by
        Who asked.
    budget_seconds
        How long the person's budget lasts.

    Raises
    ------
    UserError
        409 with the bound as its reason, and the moment in words, where that is not allowed; 400 for what is
        no time to come.
    """
    found = extension_of(
        run, now, grace_seconds=rules.read(conn).site.grace_seconds, budget_seconds=budget_seconds
    )
    if found.until is None or found.most is None:
        raise UserError(409, _NOT_LONGER.get(found.reason, _NOT_LONGER["extend"]), reason=found.reason)
    _need_somebody(run, now, by)
    wanted = found.until
    if until is not None:
        wanted = until
    elif seconds is not None:
        if isinstance(seconds, bool) or not 1 <= seconds <= 400 * 86400:
            raise UserError(400, mark("An extension takes a time between one second and 400 days."))
        present = max(moment for moment in (now, run.release_at, run.extended_until) if moment is not None)
        wanted = present + timedelta(seconds=seconds)
    if wanted <= now:
        raise UserError(400, mark("An extension must end in the future."))
    # Two pages may round the same moment differently.
    if wanted > found.most + timedelta(seconds=1):
        raise UserError(
            409,
            mark("This cluster can be extended until {until} at most."),
            reason=found.reason,
            until=found.most.isoformat(timespec="seconds"),
        )
    wanted = min(wanted, found.most)
    if run.extended_until is None or wanted > run.extended_until:
        moved = {"extended_until": wanted}
        if (
            run.release_at is not None
            and run.release_at < wanted
            and run.release_why not in ("most", "budget")
        ):
            moved["release_at"] = wanted
        conn.execute(
            update(clusters).where(clusters.c.id == run.id, clusters.c.released_at.is_(None)).values(moved)
        )
    return records.get(conn, run.id) or run


def when_done(conn: Connection, run: Run, *, now: datetime, by: str) -> Run:
    """Let a run of the automatic policy go on until nothing runs on it any more; the row as it is then.

    Raises
    ------
    UserError
        409 for another policy, a run that ends, and nodes that do not tell what runs there.
    """
    if run.release_policy == "auto-when-done" and run.is_open:
        return run
    tells = bool(telling(conn, [run.id]))
    if not may_when_done(run, tells=True):
        raise UserError(
            409, mark("Only a cluster with automatic release can go on without you."), reason="policy"
        )
    if not tells:
        raise UserError(
            409,
            mark("This cluster does not say what runs on it, so it would not be known when it is done."),
            reason="untold",
        )
    _need_somebody(run, now, by)
    held = 0 if run.ready_at is None else int((now - run.ready_at).total_seconds())
    terms = terms_of(run, grace_seconds=rules.read(conn).site.grace_seconds).unattended(held_seconds=held)
    conn.execute(
        update(clusters)
        .where(clusters.c.id == run.id, clusters.c.released_at.is_(None), clusters.c.stop_asked_at.is_(None))
        # What others keep beside our own terms stays.
        .values(
            release_policy="auto-when-done", release_terms={**(run.release_terms or {}), **terms.to_json()}
        )
    )
    return records.get(conn, run.id) or run


def _need_somebody(run: Run, now: datetime, by: str) -> None:
    """A node's own token asks for somebody who is there, and never for a program that would stay alive.

    Raises
    ------
    UserError
        409 while nobody is seen there by both witnesses.
    """
    if by != NODE:
        return
    seen = both_saw(run.proxy_seen_at, run.node_seen_at) or run.ready_at
    if seen is None or now - seen > timedelta(seconds=2 * WITNESS_LAG_SECONDS):
        raise UserError(409, mark("Nobody has this cluster open at the moment."), reason="absent")


def policy_words(name: str, translate: Callable[[str], str], *, grace_seconds: int = 300) -> str:
    """What a policy does, in one sentence."""
    if name == "auto":
        return render(
            mark("Goes back {minutes} min after you leave"),
            {"minutes": max(1, grace_seconds // 60)},
            translate,
        )
    if name == "auto-when-done":
        return translate(mark("Goes back when you have left and nothing runs any more"))
    if name == "manual":
        return translate(mark("Kept until you release it"))
    try:
        hours = (wait_seconds(name, grace_seconds=grace_seconds) or 0) // 3600
    except ValueError:
        return name
    if hours > 24:
        return render(mark("Goes back {days} days after you leave"), {"days": hours // 24}, translate)
    return render(mark("Goes back {hours} hours after you leave"), {"hours": hours}, translate)


_NOT_LONGER = {
    "never": mark("This cluster does not go back by itself; there is nothing to extend."),
    "ended": mark("Only a running cluster can be extended."),
    "most": mark("This cluster has reached the longest time it may be held."),
    "budget": mark("Your budget is used up; this cluster cannot be extended."),
    "extend": mark("This cluster cannot be extended further ahead than this."),
}
