"""What a look at the nodes means: who is lost, and whether the rest goes on (BX-20).

A node that is not there counts as lost after two complete looks, or at once by the backend's own word
(design §4). With ``on_node_loss=keep`` a cluster goes on without its lost workers; without node 0 it does
not: node 0 is the server that the hub knows, and the bounce through which everybody reaches the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from galilean.errors import mark
from spawner.backend import NodeLook
from spawner.steps import NodeEnd

_NODE_LOST = mark("Node {rank} ended by itself ({why}); the cluster was released as a whole.")


@dataclass(frozen=True)
class Loss:
    """What a look showed.

    Attributes
    ----------
    lost
        Ends of the nodes that are lost now, by rank.
    absences
        How often in a row a node was not there, for the next look.
    release
        Whether the cluster as a whole must go.
    """

    lost: Mapping[int, NodeEnd]
    absences: Mapping[int, int]
    release: bool

    @property
    def explanation(self) -> dict[str, Any]:
        """The sentence for the run's owner, as it is stored."""
        rank = min(self.lost)
        return {"message": _NODE_LOST, "params": {"rank": rank, "why": self.lost[rank].exit_reason}}


def judge(
    seen: Mapping[int, NodeLook],
    living: Collection[int],
    absences: Mapping[int, int],
    on_node_loss: str,
    seen_at: Mapping[int, datetime] = MappingProxyType({}),
    *,
    others: int = 0,
) -> Loss:
    """The meaning of a complete look.

    Parameters
    ----------
    seen
        What the backend found, by rank.
    living
        Ranks that lived until now.
    absences
        From the look before.
    on_node_loss
        ``release`` or ``keep``.
    seen_at
        When each was last seen alive, UTC: where a node ends whose end the backend does not know.
    others
        How many nodes are being made anew: they count as rest.
    """
    lost: dict[int, NodeEnd] = {}
    missing: dict[int, int] = {}
    for rank in sorted(living):
        node = seen.get(rank)
        if node is None:
            missing[rank] = absences.get(rank, 0) + 1
            if missing[rank] > 1:
                lost[rank] = NodeEnd(exit_reason="disappeared", seen_at=seen_at.get(rank))
        elif not node.alive:
            lost[rank] = NodeEnd(
                at=node.ended_at, exit_reason=node.exit_reason or "ended", seen_at=seen_at.get(rank)
            )
    goes_on = on_node_loss == "keep" and 0 not in lost and len(lost) < len(living) + others
    return Loss(lost, missing, release=bool(lost) and not goes_on)
