"""Which GPU cards each node gets: whole cards, by their ids, none to two nodes at once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def deal(cards: Sequence[str], held: Collection[str], nodes: int, each: int) -> dict[int, list[str]] | None:
    """Cards for every node of a cluster; ``None`` when there are too few free.

    Parameters
    ----------
    cards
        All that the machine has.
    held
        Those that other nodes have.
    nodes, each
        How many nodes, and how many cards for each.
    """
    left = [card for card in cards if card not in held]
    if len(left) < nodes * each:
        return None
    return {rank: left[rank * each : (rank + 1) * each] for rank in range(nodes)}


def held_by(labels: Iterable[str]) -> set[str]:
    """The cards that labels tell of."""
    return {card for text in labels for card in text.split(",") if card}
