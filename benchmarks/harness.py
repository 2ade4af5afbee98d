"""How things are measured here: in interleaved pairs, both sides in one run, told as medians and their ratio.

The machines that measure are shared and noisy (± 40 % was seen), so a number alone says little. Each pair
measures one side right after the other, the order changing from pair to pair, so that a slow minute hits
both; what is told is the ratio of the medians, beside the number of pairs in which ours was the better.
Nothing here decides whether a figure is good: :class:`Figure` holds the bound and says *missed* where it is.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    name
        What was measured.
    ours, plain
        All measurements; ``plain`` is empty where there is no counterpart.
    unit
        Of the measurements.
    bound
        What it should be, in words; empty = only told.
    met
        Whether it is; ``None`` = nothing was promised.
    note
        What one must know to read it.
    """

    name: str
    ours: Sequence[float]
    plain: Sequence[float] = ()
    unit: str = "s"
    bound: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median of ours by median of the plain side."""
        return statistics.median(self.ours) / statistics.median(self.plain) if self.plain else None

    def row(self) -> str:
        """The line in Markdown."""

        def told(values: Sequence[float]) -> str:
            if not values:
                return ""
            middle = f"{statistics.median(values):.3g} {self.unit}"
            spread = f" ({min(values):.3g} … {max(values):.3g}, n = {len(values)})" if len(values) > 1 else ""
            return middle + spread

        ratio = "" if self.ratio is None else f"{self.ratio:.3g}"
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        return (
            f"| {self.name} | {told(self.ours)} | {told(self.plain)} | {ratio} | {self.bound} | {verdict} | "
            f"{self.note} |"
        )


HEAD = "| figure | ours | plain | ratio | bound | | note |\n|---|---|---|---|---|---|---|"


def pairs(
    ours: Callable[[], float], plain: Callable[[], float], count: int, say: Callable[[str], None] = print
) -> tuple[list[float], list[float]]:
    """``count`` measurements of both sides, one right after the other, the order alternating.

    Each side returns what it measured; what it does before and after (cleaning up) does not count.
    """
    left: list[float] = []
    right: list[float] = []
    for number in range(count):
        for side, kept in (
            ((ours, left), (plain, right)) if number % 2 == 0 else ((plain, right), (ours, left))
        ):
            kept.append(side())
        say(f"    pair {number + 1}/{count}: {left[-1]:.3f} against {right[-1]:.3f}")
    return left, right


def at_most(name: str, ours: list[float], plain: list[float], most: float, **more: str) -> Figure:
    """A figure whose ratio of medians may be ``most`` at most."""
    ratio = statistics.median(ours) / statistics.median(plain)
    return Figure(name=name, ours=ours, plain=plain, bound=f"ratio ≤ {most:g}", met=ratio <= most, **more)


def at_least(name: str, ours: list[float], plain: list[float], least: float, **more: str) -> Figure:
    """A figure whose ratio of medians must be ``least`` at least."""
    ratio = statistics.median(ours) / statistics.median(plain)
    return Figure(name=name, ours=ours, plain=plain, bound=f"ratio ≥ {least:g}", met=ratio >= least, **more)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` (0 … 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@dataclass
class Report:
    """All figures of one run, written to ``build/bench.json`` and ``build/bench.md`` as they come."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """Keep figures and tell them at once: a later fault must not lose them."""
        for figure in figures:
            self.figures.append(figure)
            print(figure.row(), flush=True)
        self.write()

    def machine(self) -> str:
        """What it was measured on, in a line."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return (
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, {memory:.0f} GB, {platform.system()} "
            f"{platform.release()}, Python {platform.python_version()}"
        )

    def write(self) -> None:
        """Both files, as far as the run has come."""
        build = ROOT / "build"
        build.mkdir(exist_ok=True)
        said = {"machine": self.machine(), "figures": [asdict(figure) for figure in self.figures]}
        (build / "bench.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
        table = "\n".join([self.machine(), "", HEAD, *(figure.row() for figure in self.figures)])
        (build / "bench.md").write_text(table + "\n", encoding="utf-8")
