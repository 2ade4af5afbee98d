"""*Stop everything* on a machine (CG-35): whatever is held there goes back at once, after its name was typed again.

A cluster goes back as a whole, with its nodes on other machines; what lies in ``work`` stays. Unlike *Take out* the machine
goes on taking nodes: whoever waits may start there a moment later.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import Connection

from galilean import audit
from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.api.clusters import cluster_for, release_cluster
from services.portal.machines import MachineView

RIGHT = "clusters:release-all"
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """How many clusters go back, and how many the hub could not be told of just now."""

    released: int
    failed: int


def need_right(person: Visitor) -> None:
    """Refuse whoever may not release other people's clusters.

    Raises
    ------
    UserError
        403.
    """
    if not person.may(RIGHT):
        raise UserError(403, mark("You may release your own clusters only."))


async def stop_everything(
    portal: Portal,
    person: Visitor,
    hub: HubAPI,
    view: MachineView,
    *,
    typed: str,
    why: str = "",
    address: str = "",
) -> Stopped:
    """Release every cluster that has a node on a machine.

    Parameters
    ----------
    portal, person, hub
        Of the request; the hub as the visitor.
    view
        The machine.
    typed
        What was typed to confirm: the machine's name.
    why, address
        What the people are told; where the request came from.

    Raises
    ------
    UserError
        403 without the right, 400 when another name was typed, 409 when nobody holds anything there.
    """
    need_right(person)
    if typed.strip() != view.name:
        raise UserError(
            400, mark("Type the name of the machine: {machine}."), machine=view.name, reason="confirm"
        )
    runs = list(dict.fromkeys(item.run_id for item in view.holdings))
    if not runs:
        raise UserError(409, mark("Nobody holds anything there."), reason="nothing-held")
    slots = asyncio.Semaphore(AT_ONCE)

    async def release(run_id: str) -> bool:
        async with slots:
            try:
                run = await cluster_for(portal, person, run_id)
                await release_cluster(portal, person, hub, run, why=why, address=address)
            except UserError:
                return False
        return True

    done = await asyncio.gather(*(release(run_id) for run_id in runs))
    found = Stopped(released=sum(done), failed=len(done) - sum(done))
    now = portal.clock()

    def note(conn: Connection) -> None:
        audit.write(
            conn,
            at=now,
            actor=person.name,
            address=address,
            action="machine.stop-everything",
            subject=view.name,
            after={"clusters": found.released, "failed": found.failed, "why": why},
        )

    await portal.db.run(note)
    return found
