"""Orphans and ghosts: what exists without a row, and open rows without anything that exists.

The lifecycle leaves neither; the sweeper is for what nobody foresaw (a lost hub database, somebody's hand).
It looks, reports, and removes only when told to. Nothing very young is an orphan (its row may be on its
way), and a row is a ghost only after two complete looks found nothing of it: an absence seen once may be a
slip. A ghost's row is closed at the last moment its nodes were seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from galilean.clock import Clock, utcnow
from galilean.db import Database
from spawner import records, steps
from spawner.inventory import Inventory, Sighting
from spawner.records import Run
from spawner.states import Status
from spawner.steps import NodeEnd

YOUNG = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What does not fit together.

    Attributes
    ----------
    orphans
        Sightings without an open row that lets anything of it exist.
    ghosts
        Ids of open rows, past their beginning, of which nothing exists.
    """

    orphans: tuple[Sighting, ...] = ()
    ghosts: tuple[str, ...] = ()


def compare(
    rows: Iterable[Run], sightings: Iterable[Sighting], now: datetime, *, young: timedelta = YOUNG
) -> Comparison:
    """Compare open rows with a complete inventory that was taken *before* the rows were read.

    Parameters
    ----------
    rows
        Every open run.
    sightings
        Everything that exists.
    now
        The time.
    young
        What is younger than this may be on its way: no orphan, no ghost.
    """
    open_rows = {run.id: run for run in rows}
    orphans: list[Sighting] = []
    living: set[str] = set()
    for sighting in sightings:
        run = open_rows.get(sighting.run)
        if run is not None and run.status != Status.QUEUED:
            if sighting.rank >= 0:  # objects that a node had are no node
                living.add(run.id)
        elif sighting.state == "going":  # ended, and the backend is putting it away
            continue
        elif sighting.started_at is None or now - sighting.started_at >= young:
            orphans.append(sighting)
    ghosts = [
        run.id
        for run in open_rows.values()
        if run.id not in living
        and run.status in (Status.RUNNING, Status.STARTING, Status.STOPPING, Status.RESERVED)
        and now - (run.ready_at or run.placed_at or run.reserved_at or run.queued_at) >= young
    ]
    return Comparison(orphans=tuple(orphans), ghosts=tuple(sorted(ghosts)))


def twice(before: Collection[str], now: Collection[str]) -> list[str]:
    """What was absent in two complete looks in a row."""
    return sorted(set(before) & set(now))


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a sweep found and did.

    Attributes
    ----------
    orphans
        Each as user, server, run and rank.
    ghosts
        Ids of the runs.
    removed
        How many orphans were removed.
    closed
        Ids of the ghosts whose rows were closed; a ghost is closed by the second sweep that finds it.
    errors
        What could not be removed, in words.
    """

    orphans: Sequence[Mapping[str, Any]] = ()
    ghosts: Sequence[str] = ()
    removed: int = 0
    closed: Sequence[str] = field(default_factory=tuple)
    errors: Sequence[str] = field(default_factory=tuple)

    @property
    def clean(self) -> bool:
        return not self.orphans and not self.ghosts

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


class Sweeper:
    """Sweeps one backend; remembers the ghosts of the look before.

    Parameters
    ----------
    database
        Ours.
    inventory
        What really exists.
    clock
        The time.
    young
        What is younger than this is left alone; see :func:`compare`.
    """

    def __init__(
        self, database: Database, inventory: Inventory, clock: Clock = utcnow, *, young: timedelta = YOUNG
    ) -> None:
        self._database = database
        self._inventory = inventory
        self._clock = clock
        self._young = young
        self._absent: Collection[str] = ()

    async def sweep(self, remove: bool = False) -> Report:
        """Look, compare, report; with ``remove`` also put right.

        Raises
        ------
        Exception
            When the inventory cannot be taken completely: then nothing is believed.
        """
        sightings = await self._inventory.inventory()
        rows = await self._database.run_read(records.all_open)
        found = compare(rows, sightings, self._clock(), young=self._young)
        if found.ghosts:
            waited_for = await self._database.run_read(waits_for_nodes, found.ghosts)
            found = replace(found, ghosts=tuple(run for run in found.ghosts if run not in waited_for))
        sure = twice(self._absent, found.ghosts)
        self._absent = found.ghosts
        removed, errors = 0, []
        closed: list[str] = []
        if remove:
            for orphan in found.orphans:
                try:
                    await self._inventory.remove(orphan)
                    removed += 1
                except Exception as error:
                    errors.append(f"{orphan.user}/{orphan.server} node {orphan.rank}: {error}")
            for run in rows:
                if run.id in sure and await self._database.run(close_ghost, run, self._clock()):
                    closed.append(run.id)
        return Report(
            orphans=tuple(
                {"user": item.user, "server": item.server, "run": item.run, "rank": item.rank}
                for item in found.orphans
            ),
            ghosts=found.ghosts,
            removed=removed,
            closed=tuple(closed),
            errors=tuple(errors),
        )


def waits_for_nodes(conn: Connection, run_ids: Sequence[str]) -> set[str]:
    """Those of these runs of which a node is being made anew, or was and did not come back: their owner was told."""
    return {
        run_id
        for run_id, nodes in records.intervals(conn, run_ids).items()
        if any(node.asked_at is not None and node.ready_at is None for node in records.present(nodes))
    }


def close_ghost(conn: Connection, run: Run, now: datetime) -> bool:
    """Close the row of a run of which nothing exists; usage ends where each node was last seen."""
    present = records.open_run(conn, run.user, run.server)
    if present is None or present.id != run.id:
        return False
    stopping = steps.begin_stop(conn, run.user, run.server, reason="disappeared")
    if stopping is None:
        return False
    ends = {
        node.rank: NodeEnd(exit_reason="disappeared")
        for node in records.intervals(conn, [run.id])[run.id]
        if node.gone_at is None
    }
    return steps.close(conn, stopping, ends=ends, now=now)
