"""Sentences that are decided in one place and spoken in another.

A rule decides *what* is to be said without knowing the visitor's language: it answers a :class:`Said`, a
message id with its parameters. A parameter may be a ``Said`` itself (an amount, a name of a policy), so
that a whole sentence is put together in one language only when it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from galilean.amounts import GIB, plain_number
from galilean.errors import mark, render

Translate = Callable[[str], str]


@dataclass(frozen=True)
class Said:
    """A sentence or a phrase: an English template (the gettext id) and what fills it."""

    message: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def text(self, translate: Translate = str) -> str:
        """The sentence in the language of ``translate``."""
        filled = {
            key: value.text(translate) if isinstance(value, Said) else value
            for key, value in self.params.items()
        }
        return render(self.message, filled, translate)

    def __str__(self) -> str:
        return self.text()


def say(message: str, **params: Any) -> Said:
    """A :class:`Said`; mark the literal with :func:`galilean.errors.mark` for the extraction."""
    return Said(message, params)


def counted(number: float, one: str, many: str) -> Said:
    """``one`` for exactly 1, else ``many``; both take ``{n}``."""
    return Said(one if number == 1 else many, {"n": plain_number(number)})


def cores(millicores: int) -> Said:
    """``2 cores``; a core is what the operating system counts, a hardware thread (CG-47)."""
    return counted(millicores / 1000, mark("{n}\u00a0core"), mark("{n}\u00a0cores"))


def nodes(number: int) -> Said:
    """``1 node``, ``2 nodes``."""
    return counted(number, mark("{n}\u00a0node"), mark("{n}\u00a0nodes"))


def cards(number: int, model: str = "") -> Said:
    """``1 GPU``, ``2 A100``."""
    if model:
        return Said(mark("{n}\u00a0{model}"), {"n": number, "model": model})
    return counted(number, mark("{n}\u00a0GPU"), mark("{n}\u00a0GPUs"))


def memory(size_bytes: int) -> Said:
    """``8 GB`` or ``512 MB`` (1 GB = 2**30 bytes): whole where it is whole."""
    if size_bytes >= GIB:
        return Said(mark("{n}\u00a0GB"), {"n": _short(size_bytes / GIB)})
    return Said(mark("{n}\u00a0MB"), {"n": _short(size_bytes / 2**20)})


def size_of_node(cpu_millicores: int, memory_bytes: int, gpu: int = 0, gpu_model: str = "") -> Said:
    """``2 cores · 8 GB · 1 A100``: the amounts of one node."""
    parts = {"cores": cores(cpu_millicores), "memory": memory(memory_bytes)}
    if gpu:
        return Said(mark("{cores} · {memory} · {gpus}"), {**parts, "gpus": cards(gpu, gpu_model)})
    return Said(mark("{cores} · {memory}"), parts)


def size_of_cluster(
    number: int, cpu_millicores: int, memory_bytes: int, gpu: int = 0, gpu_model: str = ""
) -> Said:
    """``2 nodes, each 2 cores · 8 GB``; a single node needs no "each"."""
    size = size_of_node(cpu_millicores, memory_bytes, gpu, gpu_model)
    if number == 1:
        return Said(mark("{nodes}, {size}"), {"nodes": nodes(1), "size": size})
    return Said(mark("{nodes}, each {size}"), {"nodes": nodes(number), "size": size})


def seconds(amount: float) -> Said:
    """``3.1 s``, ``1 min 52 s``: how long a step took."""
    if amount < 60:
        return Said(mark("{n}\u00a0s"), {"n": f"{max(amount, 0):.1f}"})
    whole = round(amount)
    return Said(mark("{minutes}\u00a0min {seconds}\u00a0s"), {"minutes": whole // 60, "seconds": whole % 60})


def clock_time(amount: float) -> str:
    """``00:41:12``: a time held; above a hundred hours the hours simply grow."""
    whole = int(max(amount, 0))
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def both(first: Said, second: Said) -> Said:
    """Two sentences, one after the other (Chinese puts no space between them)."""
    return Said(mark("{first} {second}"), {"first": first, "second": second})
