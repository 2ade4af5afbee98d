"""One node of a running cluster made anew, while the others go on (CG-20, CG-21).

A **restart** lets the node's processes, its container or its pod begin anew with the same image and files. A
**reset** brings it back to its image: of its files only ``~/work`` and the data sets stay. Which of the two
there are, and what is lost, is the backend's to say (:data:`LOSES`). Node 0 counts as any other: its JupyterLab
goes away and comes back at the same address.

*It is asked for in the rows* and carried out by the hub, which looks every second (:mod:`spawner.renewing`):
a hub that is down delays it and does not lose it. To ask is to add a row to ``cluster_nodes`` with the next
attempt of that rank; its key lets two who ask at once be one. The old attempt goes on until the hub ends it.

The reservation is not touched: quota is not asked again, the release policy and every limit stay. What is
held is counted without a gap and never twice: the new interval begins where the old one ended, or when it was
asked for, if the node had gone before (:func:`held_from`). An attempt that never answers costs nothing.

What is needed to make a node again is kept where the backend keeps the cluster's secrets (its directory, mode
0600, or the run's Secret), never in rows: it names tokens. So the same is made as before, whatever became of
the environment, the project's choices or the person's rights since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from galilean.errors import UserError, mark
from spawner.records import NodeInterval, Run, present
from spawner.states import Status, Target

RESTART = "restart"
RESET = "reset"

#: What a node's interval says that ended because it was made anew.
ENDED_AS: Mapping[str, str] = MappingProxyType({RESTART: "restarted", RESET: "reset"})

_PROGRAMS = mark("Programs, kernels and terminals of this node end; what they hold in memory is lost.")
_FILES_STAY = mark("Files stay.")
_FILES_GO = mark(
    "Files of this node outside “work” and the data sets are lost, with everything installed into it."
)
_HOME_GOES = mark(
    "The node's home is emptied: settings, packages installed for you and files outside “work” are lost. “work” and "
    "the data sets stay."
)
_IMAGE = mark("The node goes back to its image.")


@dataclass(frozen=True)
class Loss:
    """What a person is told before: what goes, and what stays."""

    goes: tuple[str, ...]
    stays: str = ""


#: By backend: what there is, and what is lost by it. A pod's files go with the pod: it cannot be restarted only.
LOSES: Mapping[str, Mapping[str, Loss]] = MappingProxyType(
    {
        "process": {
            RESTART: Loss((_PROGRAMS,), _FILES_STAY),
            RESET: Loss((_PROGRAMS, _HOME_GOES)),
        },
        "docker": {
            RESTART: Loss((_PROGRAMS,), _FILES_STAY),
            RESET: Loss((_PROGRAMS, _IMAGE, _FILES_GO)),
        },
        "kubernetes": {RESET: Loss((_PROGRAMS, _IMAGE, _FILES_GO))},
        "memory": {RESTART: Loss((_PROGRAMS,)), RESET: Loss((_PROGRAMS, _FILES_GO))},
    }
)


def offered(backend: str) -> tuple[str, ...]:
    """What may be asked of a node of this backend: ``restart``, ``reset``."""
    return tuple(LOSES.get(backend, {}))


def refusal(run: Run, nodes: Iterable[NodeInterval], rank: int, how: str) -> UserError | None:
    """Why a node is not made anew now; ``None`` when it may be.

    Parameters
    ----------
    run, nodes
        The rows.
    rank
        Which node.
    how
        ``restart`` or ``reset``.
    """
    if how not in offered(run.backend):
        if how == RESTART and RESET in offered(run.backend):
            return UserError(
                409,
                mark("A node of this cluster begins anew from its image only: reset it."),
                reason="not_offered",
            )
        return UserError(400, mark("A node of this cluster cannot be made anew like that."), reason="invalid")
    if not 0 <= rank < run.nodes:
        return UserError(
            404,
            mark("This cluster has {nodes} nodes; there is no node-{rank}."),
            nodes=run.nodes,
            rank=rank,
        )
    if run.status != Status.RUNNING or run.target != Target.RUNNING or run.stop_asked_at is not None:
        return UserError(409, mark("The cluster does not run."), reason="not_running")
    node = next((node for node in present(nodes) if node.rank == rank), None)
    if node is not None and node.coming_back:
        return UserError(409, mark("Node {rank} is being made anew already."), reason="under_way", rank=rank)
    return None


def held_from(asked_at: datetime, ended: Iterable[datetime], now: datetime) -> datetime:
    """From when a node that came back is counted: no gap where it was ended for this, nothing twice.

    Parameters
    ----------
    asked_at
        When it was asked for; by the clock of whoever was asked.
    ended
        When the attempts before it ended.
    now
        When it answers, by the hub's clock.
    """
    return min(max([asked_at, *ended]), now)
