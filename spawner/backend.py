"""What a backend implements: few methods that touch its world, and none of the rules.

:class:`spawner.cluster.VirtualCluster` holds the rules (when to start, what a failure means, who closes
the row) and calls these. The promises a backend makes:

* **Names are computed** from (user, server, rank) alone, so that a hub that crashed before it saved
  anything still finds what it made. The run's id is a label on it.
* **Creation is idempotent**: leftovers of an older run under the same name are removed first.
* **Creation never cleans up.** Cancelled, it lets go at once; whatever it had asked for is found and
  removed by :meth:`Backend.remove_nodes`, also a node that appears only after the cancellation.
* **Cannot look is not gone.** :meth:`Backend.look_at_nodes` raises when it cannot look;
  :meth:`Backend.remove_nodes` raises when it cannot be sure that nothing is left, and is called again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spawner.plan import ClusterPlan
from spawner.records import Run
from spawner.steps import NodeEnd


class NodeFailed(Exception):
    """A node could not be made or ended before it answered; the sentence is for the run's owner.

    Parameters
    ----------
    rank
        Which node.
    message, params
        English sentence over ``params`` and gettext id, as in :class:`galilean.errors.UserError`.
    """

    def __init__(self, rank: int, message: str, **params: object) -> None:
        super().__init__(message)
        self.rank = rank
        self.message = message
        self.params = {"rank": rank, **params}


class NodeProgress(Protocol):
    """How a backend tells, per node, how far it is. Cheap: may be called from the loop for every node."""

    def placed(self, rank: int, *, host: str = "") -> None:
        """The node has its place on a machine and is being started."""
        ...

    def ready(self, rank: int, *, url: str, host: str = "") -> None:
        """The node answers on ``url``: scheme, host and port as the proxy and the hub reach it, no path."""
        ...

    def trouble(self, rank: int, message: str, **params: object) -> None:
        """What keeps the node, while waiting may still help; ``short`` among ``params`` says what is lacking."""
        ...


@dataclass(frozen=True, kw_only=True)
class NodeLook:
    """One node as it was found.

    Attributes
    ----------
    alive
        Whether it runs.
    ended_at
        When it ended, UTC, by the backend's own word; ``None`` = not known.
    exit_reason
        Such as ``exited 1``, ``killed by signal 9``, ``out of memory``.
    """

    alive: bool
    ended_at: datetime | None = None
    exit_reason: str = ""


class Backend(Protocol):
    """The methods; a backend's spawner class has them besides its parent's."""

    backend_name: str

    def node_name(self, rank: int) -> str:
        """The name of the backend's object for this node, from (user, server, rank) alone."""
        ...

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        """Make all nodes, in parallel; come back when every one answers.

        Raises
        ------
        NodeFailed
            As soon as one node cannot be: the whole start fails, all or nothing.
        """
        ...

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        """What is there of the run, by rank; a rank that is missing does not exist. No slow I/O.

        Raises
        ------
        Exception
            When it cannot look; the nodes then count as they were.
        """
        ...

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        """Remove everything of the run and come back when nothing of it runs, with what is known of ends.

        What may be there still has ended and is being put away by the backend, whoever asks or does not.

        A node that lived until now ends at the moment of its removal, by the backend's word. One that is not
        told of, or without a moment, was gone before anybody looked: it counts until it was last seen.
        Nothing there is success. Must also find nodes of a creation that was cancelled a moment ago.

        Raises
        ------
        Exception
            When it cannot be sure; it is called again with growing pauses.
        """
        ...

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        """Whether one node of a running cluster can be made again, before anything of it is ended.

        Raises
        ------
        NodeFailed
            When it cannot: what it is made from is not known or not there any more.
        """
        ...

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        """End whatever runs of one node and come back when nothing of it does; the others are not touched.

        Its end, without an ``exit_reason`` if it lived until now; ``None`` when nothing of it was there. Whatever
        a creation that was cancelled a moment ago still makes is waited for and ended, too.

        Raises
        ------
        Exception
            When it cannot be sure; it is called again with growing pauses.
        """
        ...

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        """Make one node of a running cluster again, of which nothing runs; come back when it answers.

        From what its cluster was made from, with the same keys; where it can, at the same address. ``how`` is
        ``restart`` (its files stay) or ``reset`` (they go, but for the project's and the data sets).

        Raises
        ------
        NodeFailed
            When it cannot be.
        """
        ...
