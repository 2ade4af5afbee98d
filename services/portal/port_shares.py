"""Ports that owners let others open, by name (AP-11): who may do it, and what the hub is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from galilean import notices
from galilean.errors import UserError, mark
from galilean.rights import BLOCKED
from galilean.web.context import Portal
from galilean.web.handlers import BaseHandler
from galilean.web.visitor import Visitor
from services.portal.doors import node_url
from spawner import ports, shared_ports
from spawner.doors import port_door
from spawner.records import Run

log = logging.getLogger("galilean.portal")
ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class SharedPort:
    """A port of somebody else's running cluster that the visitor may open."""

    run: Run
    port: int
    urls: tuple[str, ...]


def check_enabled(portal: Portal) -> None:
    """Refuse where the centre shares no ports.

    Raises
    ------
    UserError
        404.
    """
    if not portal.settings.ports.share:
        raise UserError(404, mark("This centre shares no ports."), reason="off")


def urls_of(portal: Portal, run: Run, port: int) -> tuple[str, ...]:
    """Where the port of each node is opened; the same for its owner and for whom it is shared with."""
    path = port_door(port).path
    return tuple(node_url(portal, run.user, run.server, rank, path) for rank in range(run.nodes))


def check_mine(portal: Portal, person: Visitor, run: Run) -> None:
    """Refuse everybody but the owner of a running cluster.

    Raises
    ------
    UserError
        403, 404 where no ports are shared, 409 when it does not run.
    """
    check_enabled(portal)
    if run.user != person.name:
        raise UserError(403, mark("Only its owner shares ports of a cluster."))
    if run.word != "running":
        raise UserError(409, mark("The cluster does not run."))


async def share(handler: BaseHandler, run: Run, port: int, name: str) -> None:
    """Let somebody who has an account open a port of one's own running cluster; they are told.

    Raises
    ------
    UserError
        403 for somebody else's cluster, 404 where there is no such account, port or setting, and as
        :func:`spawner.shared_ports.share`.
    """
    portal, person = handler.portal, handler.person
    check_mine(portal, person, run)
    ports.check_port(port)
    try:
        found: Mapping[str, Any] = await portal.hub.user(name)
    except UserError as error:
        if error.status != 404:
            raise
        raise UserError(404, mark("There is no account “{name}” here."), name=name[:60]) from error
    now, address, known = portal.clock(), handler.address, str(found["name"])

    def keep(conn: Connection) -> None:
        if shared_ports.share(conn, run.id, port, known, by=person.name, now=now, address=address):
            notices.tell(
                conn, known, now=now, kind="shared", address="home",
                text=mark("{owner} lets you open port {port} of {project}."),
                owner=run.user, port=port, project=run.project_name,
            )  # fmt: skip

    await portal.db.run(keep)
    await _follow(portal, run, known)


async def withdraw(handler: BaseHandler, run: Run, port: int, name: str) -> None:
    """Take a port away from somebody: who is connected is cut off within seconds."""
    portal, person = handler.portal, handler.person
    check_mine(portal, person, run)
    now, address = portal.clock(), handler.address
    await portal.db.run(
        lambda conn: shared_ports.withdraw(conn, run.id, port, name, by=person.name, now=now, address=address)
    )
    await _follow(portal, run, name)


async def _follow(portal: Portal, run: Run, name: str) -> None:
    """Have pages and the hub's shares follow; should the hub be away, it does so by itself when it is back."""
    for who in (run.user, name):
        portal.parts["watcher"].tell(who, "clusters")
    try:
        await portal.hub.request("POST", "/galilean/port-shares")
    except UserError as error:
        log.info("the hub was not told of a shared port (%s); it will notice", error)


async def shared_with(portal: Portal, name: str) -> list[SharedPort]:
    """What others let somebody open just now."""
    if not portal.settings.ports.share:
        return []
    found = [run for run in await portal.db.run_read(shared_ports.shared_with, name) if run.word == "running"]
    shows: dict[str, bool] = {}
    for owner in {run.user for run in found}:
        try:
            shows[owner] = await _shows(portal, owner)
        except UserError:  # nobody can say it just now; the node would let nobody in either
            shows[owner] = False
    return [
        SharedPort(run=run, port=port, urls=urls_of(portal, run, port))
        for run in found
        if shows[run.user]
        for port in shared_ports.ports_for(run, name)
    ]


async def may_open(portal: Portal, run: Run, name: str) -> tuple[bool, tuple[int, ...]]:
    """Whether somebody who is not the owner opens a node as a whole, and which of its ports else."""
    groups = await _groups(portal, name)
    if groups is None or BLOCKED in groups:
        return False, ()
    whole = ADMIN in (await portal.rights.get()).roles_of(groups)
    shared = shared_ports.ports_for(run, name) if portal.settings.ports.share else ()
    if shared and not await _shows(portal, run.user):
        shared = ()
    return whole, shared


async def _shows(portal: Portal, owner: str) -> bool:
    """Whether somebody may show others anything: whoever is kept out themselves may not."""
    groups = await _groups(portal, owner)
    return groups is not None and BLOCKED not in groups


async def _groups(portal: Portal, name: str) -> frozenset[str] | None:
    """The groups of somebody; ``None`` for an account that is not there."""
    try:
        return await portal.people.groups(name)
    except UserError as error:
        if error.status >= 500:
            raise
        return None
