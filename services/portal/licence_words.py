"""What is said beside licence servers: what a way to them is on each backend."""

from __future__ import annotations

from galilean.errors import mark

_OPENED = mark(
    "The nodes of a run reach these addresses and ports and nothing else besides what all nodes reach. Names are looked up "
    "when a run starts, and not again while it lasts."
)
_NO_WALL = mark(
    "Named to be seen: on this installation nodes are processes of the machine, which reach whatever it reaches."
)


def licence_words(backend: str) -> str:
    """A message id."""
    return _NO_WALL if backend == "process" else _OPENED
