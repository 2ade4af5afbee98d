"""Saving a node as an image, as pages and API ask for it (CG-18, CG-19): who may, under which name, what it would hold.

The portal touches neither containers nor a registry: it writes a row, which the image service takes up within a second
(:mod:`extensions.imagebuilder.service`), and asks that service what a save would hold. Where there is no such service
nothing offers to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import Connection, select

from extensions.imagebuilder import saved
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import BACKENDS, ImageName, name_space, parse_typed
from extensions.imagebuilder.saved import SavedImage
from extensions.imagebuilder.tables import saved_images
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.jinja import portal_public_url
from galilean.web.visitor import Visitor
from spawner import records
from spawner.records import Run

LOOK_SECONDS = 330

_AWAY = mark("The image service does not answer just now. Try again in a moment.")
_FULL = mark(
    "Your saved images take {used} MB of the {most} MB that they may take, and this one about {more} MB more. Delete "
    "images that you no longer need."
)


@dataclass(frozen=True)
class Node:
    """A node that may be saved: its run, and which of its nodes."""

    run: Run
    rank: int

    @property
    def name(self) -> str:
        return f"node-{self.rank}"


def offered(portal: Portal) -> bool:
    """Whether nodes can be saved here."""
    return bool(portal.parts.get("images_url"))


def address(portal: Portal, run: Run, rank: int) -> str | None:
    """Where a node of a running cluster is saved, for its owner's browser; None where it cannot be."""
    if not offered(portal) or run.backend not in BACKENDS or run.word != "running":
        return None
    site = portal_public_url(portal.settings) if portal.settings.web.subdomain_host else portal.prefix
    return f"{site}clusters/{run.id}/nodes/{rank}/save"


def may_save(portal: Portal, person: Visitor, run: Run) -> bool:
    """Whether *Save image* is shown to a person for a run."""
    return offered(portal) and run.backend in BACKENDS and run.user == person.name and run.word == "running"


async def node_for(portal: Portal, person: Visitor, run_id: str, rank: int) -> Node:
    """A node of a running cluster of the person's own.

    Raises
    ------
    UserError
        404 for what is not theirs or not there; 409 when it does not run; 501 where nothing can be saved.
    """
    run = await portal.db.run_read(records.get, run_id)
    if run is None or run.user != person.name or not 0 <= rank < run.nodes:
        raise UserError(404, mark("There is no such cluster."))
    if not offered(portal) or run.backend not in BACKENDS:
        raise UserError(501, mark("Nodes cannot be saved as images here."), reason="not-here")
    if run.word != "running":
        raise UserError(409, mark("The cluster does not run."))
    return Node(run, rank)


async def look(portal: Portal, node: Node) -> Mapping[str, Any]:
    """What a save would hold; takes a second or more.

    Raises
    ------
    UserError
        What the service says; 503 when it does not answer.
    """
    return await asked(portal, "/look", {"owner": node.run.user, "run": node.run.id, "rank": node.rank})


async def asked(portal: Portal, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer of the image service.

    Raises
    ------
    UserError
        What it says; 503 when it does not answer.
    """
    headers = {"Authorization": f"token {portal.parts['machines_token']}"}
    try:
        async with httpx.AsyncClient(timeout=LOOK_SECONDS, trust_env=False) as client:
            answer = await client.post(f"{portal.parts['images_url']}{path}", json=body, headers=headers)
            told: dict[str, Any] = answer.json()
    except (httpx.TransportError, ValueError) as error:
        raise UserError(503, _AWAY) from error
    if answer.status_code >= 400:
        if "message" not in told:
            raise UserError(503, _AWAY)
        raise UserError(
            answer.status_code,
            str(told["message"]),
            reason=str(told.get("reason", "")),
            **(told.get("params") or {}),
        )
    return told


async def check_name(portal: Portal, person: Visitor, text: str) -> ImageName:
    """A typed ``name:tag`` that is free.

    Raises
    ------
    UserError
        422 with the rule that is broken, 409 when the person has such an image.
    """
    name = parse_typed(text.strip())

    def taken(conn: Connection) -> bool:
        found = conn.execute(
            select(saved_images.c.state).where(
                saved_images.c.owner == person.name,
                saved_images.c.name == name.name,
                saved_images.c.tag == name.tag,
                saved_images.c.deleted_at.is_(None),
            )
        ).scalar()
        return found in ("saving", "ready")

    if await portal.db.run_read(taken):
        raise UserError(
            409,
            mark("You have an image {name} already. Choose another name or tag, or delete that one."),
            name=str(name),
            reason="image-taken",
        )
    return name


def whole_name(person: Visitor, name: ImageName) -> str:
    """The name as others see it: ``alice/galaxy-torch:2.9``."""
    return f"{name_space(person.name)}/{name}"


async def begin(
    portal: Portal, person: Visitor, node: Node, text: str, *, description: str = "", address: str = ""
) -> SavedImage:
    """Begin to save a node.

    Raises
    ------
    UserError
        422, 409 as :func:`check_name`; 507 when the person's images take too much already.
    """
    if not person.has_role:
        raise UserError(
            403, mark("Your account waits for a role. An administrator has been told; nothing is lost.")
        )
    name = await check_name(portal, person, text)
    most = portal.settings.images.registry.per_person
    if most:
        used = await portal.db.run_read(saved.used_bytes, person.name)
        more = int((await look(portal, node))["size_bytes"])
        if used + more > most:
            raise UserError(
                507, _FULL, reason="images-full", used=used >> 20, most=most >> 20, more=more >> 20
            )
    now = portal.clock()
    return await portal.db.run(
        lambda conn: saved.begin(
            conn,
            actor=Actor(name=person.name, address=address),
            name=name,
            now=now,
            description=description,
            run_id=node.run.id,
            rank=node.rank,
            environment=node.run.environment,
            # Of processes the digest of what is below says nothing to people.
            parent=node.run.environment if node.run.backend == "process" else node.run.environment_digest,
        )
    )


def saving_now(conn: Connection, owner: str, run_id: str, rank: int) -> str:
    """The id of the save of a node that is under way; empty when there is none."""
    found = conn.execute(
        select(saved_images.c.id)
        .where(
            saved_images.c.owner == owner,
            saved_images.c.state == "saving",
            saved_images.c.run_id == run_id,
            saved_images.c.rank == rank,
        )
        .order_by(saved_images.c.id.desc())
        .limit(1)
    ).scalar()
    return found or ""
