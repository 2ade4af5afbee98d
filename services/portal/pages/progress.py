"""How far a start is, in steps that a person can follow; read from the rows, so that a reload shows the same.

Admitted → room found for all nodes → nodes answer → JupyterLab opens. Each step has its seconds, each node
its tile. Machine time counts from ready, so nothing here costs anything. Pure: run, intervals and the
moment are handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from galilean.errors import mark
from services.portal.said import Said, say, seconds
from spawner.records import NodeInterval, Run
from spawner.records import present as latest

TILES_MOST = 8


@dataclass(frozen=True, kw_only=True)
class Step:
    """``state`` is ``done``, ``now``, ``todo`` or ``failed``."""

    key: str
    title: Said
    state: str
    took: Said | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One node: ``state`` is ``ready``, ``starting``, ``waiting``, ``failed`` or ``back``."""

    rank: int
    name: str
    state: str
    words: Said


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the details: when, and what."""

    at: datetime
    words: Said


@dataclass(frozen=True, kw_only=True)
class Progress:
    steps: tuple[Step, ...]
    tiles: tuple[Tile, ...]
    answered: int
    total: int
    seconds_left: int | None
    lines: tuple[Line, ...]

    @property
    def fraction(self) -> float:
        """How much of the ring is full: the share of nodes that answer, with a little for the room."""
        if self.total == 0:
            return 0.0
        placed = any(step.key == "room" and step.state == "done" for step in self.steps)
        return min(1.0, (0.08 if placed else 0.02) + 0.92 * self.answered / self.total)


def typical_seconds(runs: Iterable[Run], node_count: int) -> float | None:
    """How long starts of this many nodes took lately; ``None`` while that is not known (no promise then)."""
    took = [
        (run.ready_at - run.reserved_at).total_seconds()
        for run in runs
        if run.ready_at and run.reserved_at and run.nodes == node_count
    ]
    return median(took[:10]) if took else None


def progress(
    run: Run, intervals: Sequence[NodeInterval], *, now: datetime, typical: float | None = None
) -> Progress:
    """The steps of a run that starts, is ready, or did not come up.

    Parameters
    ----------
    run, intervals
        The rows.
    now
        The moment of looking.
    typical
        Seconds from admission to ready in the recent past, see :func:`typical_seconds`.
    """
    present = latest(intervals)
    end = run.released_at or now
    broken = run.status == "failed" or (run.released_at is not None and run.ready_at is None)
    answered = run.nodes if run.ready_at else sum(_answers(node) for node in present)
    admitted = run.reserved_at is not None
    # A node may be told as placed before all are: room is found when each has a place.
    placed_count = sum(1 for node in present if node.placed_at or node.ready_at)
    placed_at = run.placed_at or _last_placed(present, run.nodes)
    steps = [
        Step(
            key="admitted",
            title=say(mark("Admitted")),
            state="done" if admitted else ("failed" if broken else "now"),
            took=seconds((run.reserved_at - run.queued_at).total_seconds()) if run.reserved_at else None,
        )
    ]
    # A node that could not be started had its place: the room is not what was missing.
    node_failed = broken and isinstance((run.explanation or {}).get("params", {}).get("rank"), int)
    if placed_at or run.ready_at or node_failed:
        room_state, found = "done", run.nodes
    else:
        room_state, found = ("failed" if broken and admitted else "now" if admitted else "todo"), placed_count
    steps.append(
        Step(
            key="room",
            title=say(mark("Room found"))
            if run.nodes == 1 and found
            else say(mark("Room found for {found} of {total} nodes"), found=found, total=run.nodes)
            if found
            else say(mark("Finding room for {total} nodes"), total=run.nodes)
            if run.nodes > 1
            else say(mark("Finding room")),
            state=room_state,
            took=_span(run.reserved_at, placed_at or (end if room_state not in ("todo", "done") else None)),
        )
    )
    if run.ready_at:
        start_state = "done"
    elif room_state == "done":
        start_state = "failed" if broken else "now"
    else:
        start_state = "todo"
    steps.append(
        Step(
            key="nodes",
            title=say(mark("Starting nodes, {answered} of {total}"), answered=answered, total=run.nodes)
            if run.nodes > 1
            else say(mark("Starting the node")),
            state=start_state,
            took=_span(
                placed_at or run.reserved_at, run.ready_at or (end if start_state != "todo" else None)
            ),
        )
    )
    if not broken:
        steps.append(
            Step(key="open", title=say(mark("Open JupyterLab")), state="now" if run.ready_at else "todo")
        )
    left = None
    if typical is not None and run.reserved_at and not run.ready_at and not broken:
        remaining = typical - (now - run.reserved_at).total_seconds()
        left = max(1, round(remaining)) if remaining > -typical else None
    return Progress(
        steps=tuple(steps),
        tiles=_tiles(run, present, now=end, broken=broken),
        answered=answered,
        total=run.nodes,
        seconds_left=left,
        lines=_lines(run, [node for node in intervals if node.attempt >= run.attempt], broken=broken),
    )


def _answers(node: NodeInterval) -> bool:
    """A node whose address is known has answered; its usage begins later, with the whole (CG-3)."""
    return node.ready_at is not None or bool(node.url)


def _last_placed(present: Sequence[NodeInterval], total: int) -> datetime | None:
    times = [node.placed_at for node in present if node.placed_at]
    return max(times) if len(times) == total and times else None


def _span(begin: datetime | None, end: datetime | None) -> Said | None:
    if begin is None or end is None:
        return None
    return seconds((end - begin).total_seconds())


def _tiles(run: Run, present: Sequence[NodeInterval], *, now: datetime, broken: bool) -> tuple[Tile, ...]:
    by_rank = {node.rank: node for node in present}
    failed_rank = (run.explanation or {}).get("params", {}).get("rank") if broken else None
    tiles: list[Tile] = []
    for rank in range(run.nodes):
        node = by_rank.get(rank)
        name = f"node-{rank}"
        if broken:
            if rank == failed_rank:
                tiles.append(Tile(rank=rank, name=name, state="failed", words=say(mark("did not come up"))))
            else:
                known = node is not None and node.placed_at is not None
                words = say(mark("given back")) if known else say(mark("not started"))
                tiles.append(Tile(rank=rank, name=name, state="back", words=words))
        elif node and node.coming_back:
            tiles.append(Tile(rank=rank, name=name, state="starting", words=say(mark("restarting"))))
        elif run.ready_at or (node and _answers(node)):
            since = _since(
                node.placed_at if node else None, (node.ready_at if node else None) or run.ready_at
            )
            words = say(mark("ready, {took}"), took=since) if since else say(mark("ready"))
            tiles.append(Tile(rank=rank, name=name, state="ready", words=words))
        elif node and node.placed_at:
            took = seconds((now - node.placed_at).total_seconds())
            tiles.append(
                Tile(rank=rank, name=name, state="starting", words=say(mark("starting, {took}"), took=took))
            )
        else:
            tiles.append(Tile(rank=rank, name=name, state="waiting", words=say(mark("not placed yet"))))
    return tuple(tiles)


def _since(begin: datetime | None, end: datetime | None) -> Said | None:
    return seconds((end - begin).total_seconds()) if begin and end and end >= begin else None


def _lines(run: Run, present: Sequence[NodeInterval], *, broken: bool) -> tuple[Line, ...]:
    lines = [
        Line(at=run.queued_at, words=say(mark("asked for by {person}"), person=run.asked_by or run.user))
    ]
    if run.reserved_at:
        lines.append(Line(at=run.reserved_at, words=say(mark("admitted"))))
    for node in present:
        name = f"node-{node.rank}"
        if node.asked_at:
            asked = mark("reset of {node} asked for by {person}")
            if node.asked_as == "restart":
                asked = mark("restart of {node} asked for by {person}")
            lines.append(Line(at=node.asked_at, words=say(asked, node=name, person=node.asked_by)))
        if node.placed_at:
            words = (
                say(mark("{node} placed on {machine}"), node=name, machine=node.host)
                if node.host
                else say(mark("{node} placed"), node=name)
            )
            lines.append(Line(at=node.placed_at, words=words))
        if (
            node.ready_at
        ):  # one that was made anew is counted from before, and answered after it had its place
            answered = max(node.ready_at, node.placed_at or node.ready_at)
            lines.append(Line(at=answered, words=say(mark("{node} answers"), node=name)))
        if node.gone_at:
            why = node.exit_reason
            lines.append(
                Line(
                    at=node.gone_at,
                    words=say(mark("{node} gone: {why}"), node=name, why=why)
                    if why
                    else say(mark("{node} gone"), node=name),
                )
            )
    if run.ready_at:
        lines.append(Line(at=run.ready_at, words=say(mark("all nodes answer, machine time counts from now"))))
    if run.stop_asked_at:
        lines.append(
            Line(
                at=run.stop_asked_at,
                words=say(mark("release asked for by {person}"), person=run.stop_asked_by),
            )
        )
    if run.released_at:
        words = say(mark("not started, everything was given back")) if broken else say(mark("released"))
        lines.append(Line(at=run.released_at, words=words))
    return tuple(sorted(lines, key=lambda line: line.at))
