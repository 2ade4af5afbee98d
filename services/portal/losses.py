"""What a release or a reset of nodes would lose outside “work”, named before it is done: packages, files, bytes.

The image service knows what a save of a node would hold (:func:`services.portal.saving.look`), and that is what goes.
Looking takes a second or more and may fail, so nobody waits for it: a dialog opens at once, asks for this beside it and
can be answered before it is told. A node that is gone, or slow, is said not to have been looked at; nothing is ever
refused for it.

All nodes of a cluster are looked at, a few at a time, and all together for :data:`LOOK_SECONDS`. A look that takes
longer goes on, and serves whoever asks next: however often a dialog is opened, a node is looked at once at a time.

Whoever releases somebody else's cluster is told amounts. Names of packages are their owner's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extensions.imagebuilder.names import BACKENDS
from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from services.portal import saving
from services.portal.said import Said, both, counted, say
from services.portal.saving import Node
from spawner.records import Run

log = logging.getLogger("galilean.portal")

LOOK_SECONDS = 20.0
#: Nodes of a cluster that are looked at together.
AT_ONCE = 4
#: Of the names of one kind of packages, in a dialog.
NAMES_SHOWN = 12
NODES_NAMED = 6
Look = Callable[[Node], Awaitable[Mapping[str, Any]]]

_SLOW = mark("It does not answer in time.")
_GONE = mark("It does not run.")
_PACKAGES = {
    "apt": (mark("{n} system package"), mark("{n} system packages")),
    "pip": (mark("{n} Python package"), mark("{n} Python packages")),
    "conda": (mark("{n} conda package"), mark("{n} conda packages")),
}


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Packages of one tool that a node has more than its environment; names may be fewer than the count."""

    manager: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one node would lose.

    Attributes
    ----------
    packages, added, changed, deleted, size_bytes
        What was changed outside “work”.
    python
        Whether only packages are told, because its nodes are processes.
    unseen
        Why it could not be looked at; ``None`` = it was.
    """

    rank: int
    packages: tuple[Packages, ...] = ()
    added: int = 0
    changed: int = 0
    deleted: int = 0
    size_bytes: int = 0
    python: bool = False
    unseen: Said | None = None

    @property
    def nothing(self) -> bool:
        """Whether it was looked at, and has nothing to lose."""
        return self.unseen is None and not (self.packages or self.added or self.changed or self.deleted)

    def lines(self, *, names: bool = True) -> list[Said]:
        """It in words, without the node's name; empty where nothing is lost.

        Parameters
        ----------
        names
            Whether packages are named, or only counted.
        """
        if self.unseen is not None:
            return [both(say(mark("Could not be looked at.")), self.unseen)]
        found: list[Said] = []
        for one in self.packages:
            amount = counted(one.count, *_PACKAGES[one.manager])
            shown = ", ".join(one.names[:NAMES_SHOWN]) + (" …" if one.count > NAMES_SHOWN else "")
            found.append(say(mark("{amount}: {names}"), amount=amount, names=shown) if names else amount)
        if not self.python and (self.added or self.changed or self.deleted):
            files = say(
                mark("{added} files added, {changed} changed, {deleted} deleted"),
                added=self.added,
                changed=self.changed,
                deleted=self.deleted,
            )
            found.append(
                say(mark("{files}, {size} in all"), files=files, size=format_bytes(self.size_bytes))
                if self.size_bytes
                else files
            )
        elif found and self.size_bytes:
            found.append(say(mark("{size} in all"), size=format_bytes(self.size_bytes)))
        return found


def loss_of(rank: int, told: Mapping[str, Any]) -> Loss:
    """What the image service tells of a node, as a loss."""
    packages = tuple(
        Packages(manager=manager, count=len(names), names=tuple(map(str, names)))
        for manager in _PACKAGES
        if (names := told.get(manager) or ())
    )
    added, changed, deleted = (int(told.get(key) or 0) for key in ("added", "changed", "deleted"))
    return Loss(
        rank=rank,
        packages=packages,
        added=added,
        changed=changed,
        deleted=deleted,
        size_bytes=int(told.get("size_bytes") or 0),
        python=bool(told.get("python")),
    )


def unseen_of(rank: int, error: UserError) -> Loss:
    """A node that could not be looked at, for a reason that somebody gave."""
    why = say(_GONE) if error.reason == "node-gone" else Said(error.message, dict(error.params))
    return Loss(rank=rank, unseen=why)


def told_by(portal: Portal, run: Run) -> bool:
    """Whether losses of a run's nodes can be told here: it runs, and there is a service that can look."""
    return saving.offered(portal) and run.backend in BACKENDS and run.word == "running"


def address(portal: Portal, run: Run, rank: int | None = None) -> str:
    """Where a dialog of the portal asks for it, once it is open; empty where nobody can tell."""
    if not told_by(portal, run):
        return ""
    return f"{portal.prefix}clusters/{run.id}/losses" + ("" if rank is None else f"?rank={rank}")


def rank_of(run: Run, text: str) -> int | None:
    """The node that is asked for; ``None`` = all of them.

    Raises
    ------
    UserError
        404 for one that the cluster does not have.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) < run.nodes):
        raise UserError(404, mark("There is no such node."))
    return int(text)


class Looks:
    """Looks at nodes, each once at a time however many ask.

    Parameters
    ----------
    look
        What a node has changed.
    seconds
        How long whoever asks waits for all nodes of a cluster.
    """

    def __init__(self, look: Look, *, seconds: float = LOOK_SECONDS) -> None:
        self._look, self._seconds = look, seconds
        self._going: dict[tuple[str, int], asyncio.Task[Loss]] = {}

    async def of(self, run: Run, ranks: Iterable[int]) -> list[Loss]:
        """The losses of some nodes of a run, in the order of ``ranks``. Never raises, and never takes longer."""
        wanted = list(ranks)
        turns = asyncio.Semaphore(AT_ONCE)
        found: dict[int, Loss] = {}

        async def one(rank: int) -> None:
            async with turns:
                # A look is nobody's alone: it goes on when this one gives up.
                found[rank] = await asyncio.shield(self._task(run, rank))

        tasks = [asyncio.create_task(one(rank)) for rank in wanted]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return [found.get(rank) or Loss(rank=rank, unseen=say(_SLOW)) for rank in wanted]

    def _task(self, run: Run, rank: int) -> asyncio.Task[Loss]:
        key = (run.id, rank)
        task = self._going.get(key)
        if task is None:
            task = self._going[key] = asyncio.create_task(self._one(run, rank))
            task.add_done_callback(lambda _: self._going.pop(key, None))
        return task

    async def _one(self, run: Run, rank: int) -> Loss:
        try:
            return loss_of(rank, await self._look(Node(run, rank)))
        except UserError as error:
            return unseen_of(rank, error)
        except Exception:
            log.exception("node %d of run %s could not be looked at", rank, run.id)
            return Loss(rank=rank, unseen=say(mark("Something went wrong.")))


async def of_run(portal: Portal, run: Run, rank: int | None = None) -> list[Loss]:
    """The losses of all nodes of a run, or of one; empty where they cannot be told."""
    if not told_by(portal, run):
        return []
    looks: Looks | None = portal.parts.get("looks")
    if looks is None:
        looks = portal.parts["looks"] = Looks(lambda node: saving.look(portal, node))
    return await looks.of(run, range(run.nodes) if rank is None else [rank])


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a dialog: whose loss, what it is, and where it is saved first; ``name`` only where there are several."""

    name: str
    lines: tuple[Said, ...]
    save_url: str = ""


def parts_of(
    portal: Portal, run: Run, losses: Sequence[Loss], *, own: bool
) -> tuple[list[Part], Said | None]:
    """What a dialog says: parts, and a sentence for the nodes that lose nothing.

    Nodes that could not be looked at for the same reason are one part.
    """
    parts: list[Part] = []
    unseen: dict[str, list[Loss]] = {}
    for loss in losses:
        if loss.unseen is not None:
            unseen.setdefault(str(loss.unseen), []).append(loss)
        elif not loss.nothing:
            parts.append(
                Part(
                    name=f"node-{loss.rank}" if run.nodes > 1 else "",
                    lines=tuple(loss.lines(names=own)),
                    save_url=(saving.address(portal, run, loss.rank) or "") if own else "",
                )
            )
    for same in unseen.values():
        some = ", ".join(f"node-{loss.rank}" for loss in same[:NODES_NAMED])
        parts.append(
            Part(name=some + (" …" if len(same) > NODES_NAMED else ""), lines=tuple(same[0].lines()))
        )
    empty = sum(loss.nothing for loss in losses)
    if not empty:
        return parts, None
    if empty == len(losses):
        return parts, say(mark("Nothing was installed or changed outside “work”."))
    return parts, counted(
        empty,
        mark("On {n} other node nothing was installed or changed outside “work”."),
        mark("On {n} other nodes nothing was installed or changed outside “work”."),
    )
