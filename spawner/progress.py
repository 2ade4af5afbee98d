"""How far a start is, told in words (CG-4): what each node reported, and the sentences made of it.

A backend reports *placed* and *ready* for each node; the lifecycle reads from here what to write into the
rows, and the hub's progress page reads the sentences. Both come from the same data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any

from galilean.clock import Clock
from galilean.errors import mark, render
from spawner.steps import NodeStart

_CHECKED = mark("The request is being checked.")
_ADMITTED = mark("The request is admitted: {nodes} node(s).")
_MISSING = mark(
    "Without ~/datasets/{mount}: the data set is not shared with you any more, was deleted, or its volume is away."
)
_PLACED = mark("Node {rank} has its place ({count} of {nodes}).")
_READY = mark("Node {rank} answers ({count} of {nodes}).")
_ALL = mark("All nodes answer.")


class StartProgress:
    """Collects the reports of one start; implements :class:`spawner.backend.NodeProgress`.

    Parameters
    ----------
    clock
        When a node was placed.
    translate
        Into the language of whoever asked.
    """

    def __init__(self, clock: Clock, translate: Callable[[str], str]) -> None:
        self.nodes = 0
        self.on_all_placed: Callable[[], None] | None = None
        self._clock = clock
        self._translate = translate
        self._placed_at: dict[int, datetime] = {}
        self._hosts: dict[int, str] = {}
        self._urls: dict[int, str] = {}
        self._short: dict[int, str] = {}
        self._why: dict[int, str] = {}
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._closed = False
        self._say(2, _CHECKED)

    def admitted(self, nodes: int, missing: Iterable[str] = ()) -> None:
        """There will be this many nodes, without data sets at these mount directories."""
        self.nodes = nodes
        self._say(5, _ADMITTED, nodes=nodes)
        for mount in missing:
            self._say(5, _MISSING, mount=mount)

    @property
    def all_placed(self) -> bool:
        return len(self._placed_at) == self.nodes

    @property
    def all_ready(self) -> bool:
        return len(self._urls) == self.nodes

    def placed(self, rank: int, *, host: str = "") -> None:
        """Take a node's report; a repeated one changes nothing."""
        if rank in self._placed_at or not 0 <= rank < self.nodes:
            return
        self._placed_at[rank] = self._clock()
        self._hosts[rank] = host
        count = len(self._placed_at)
        self._say(10 + 40 * count // self.nodes, _PLACED, rank=rank, count=count, nodes=self.nodes)
        if self.all_placed and self.on_all_placed:
            self.on_all_placed()

    def ready(self, rank: int, *, url: str, host: str = "") -> None:
        """Take a node's report; who answers has a place."""
        self.placed(rank, host=host)
        if rank in self._urls or not 0 <= rank < self.nodes:
            return
        self._urls[rank] = url
        if host:
            self._hosts[rank] = host
        count = len(self._urls)
        self._say(50 + 40 * count // self.nodes, _READY, rank=rank, count=count, nodes=self.nodes)
        if self.all_ready and self.nodes > 1:
            self._say(95, _ALL)

    def trouble(self, rank: int, message: str, **params: Any) -> None:
        """Tell what keeps a node; the bar stays where it is."""
        if params.get("short"):
            self._short[rank] = str(params["short"])
        self._why[rank] = str(params.get("why") or "")
        last = self._events[-1]["progress"]
        self._say(last, message, **{**params, "rank": rank})

    @property
    def answering(self) -> int:
        """How many nodes answer already."""
        return len(self._urls)

    @property
    def found(self) -> int:
        """How many nodes have their place."""
        return len(self._placed_at)

    @property
    def short(self) -> str:
        """What the nodes without a place lack, in words; empty when nobody said."""
        words = [
            word
            for rank, text in self._short.items()
            if rank not in self._placed_at
            for word in text.split(", ")
        ]
        return ", ".join(dict.fromkeys(words))

    @property
    def why(self) -> str:
        """What keeps the nodes that do not answer, in the words last heard; empty when nobody said."""
        return "; ".join(dict.fromkeys(text for rank in self.silent if (text := self._why.get(rank))))

    @property
    def silent(self) -> list[int]:
        """Ranks of the nodes that do not answer yet."""
        return [rank for rank in range(self.nodes) if rank not in self._urls]

    def starts(self) -> list[NodeStart]:
        """What is known of the nodes that have a place, by rank."""
        return [
            NodeStart(
                rank=rank,
                host=self._hosts.get(rank, ""),
                url=self._urls.get(rank, ""),
                placed_at=self._placed_at[rank],
            )
            for rank in sorted(self._placed_at)
        ]

    def close(self) -> None:
        """No more news: :meth:`events` ends."""
        self._closed = True
        self._news.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What was told so far and what will be, for the hub's progress stream."""
        told = 0
        while True:
            while told < len(self._events):
                yield dict(self._events[told])
                told += 1
            if self._closed:
                return
            await self._news.wait()
            if not self._closed:
                self._news.clear()

    def _say(self, progress: int, message: str, **params: Any) -> None:
        self._events.append({"progress": progress, "message": render(message, params, self._translate)})
        self._news.set()
