"""Volumes online: register, look at, edit, drain, delete; for whoever has the right ``volumes:manage`` (CG-37).

What may be done :mod:`services.catalog.placement` decides. A path is looked at by the portal itself, which on
one machine is where it is used, and on Kubernetes has every claim mounted as the hub has; there each machine that takes
nodes is asked, too (:mod:`services.portal.volume_looks`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.catalog import volume_store, volumes
from services.catalog.placement import VolumeRow
from services.catalog.volume_store import Holding
from services.portal import drains, volume_looks
from services.portal.api import dataset_models as models
from services.portal.api.base import Handler
from services.portal.api.models import ListOf
from services.portal.api.operation import Operation
from services.portal.api.projects import catalogue, wake
from services.portal.viewers import actor_of

RIGHT = "volumes:manage"
VOLUME = "/volumes/{id}"


async def all_volumes(portal: Portal) -> list[models.Volume]:
    """Every volume as its disk is now, with what lies on it."""
    rows = await catalogue(portal).looker.look()
    held, courses = await portal.db.run_read(_held, rows)
    return [_model(portal, row, held.get(row.id, Holding()), courses.get(row.id)) for row in rows]


def _held(conn: Connection, rows: list[VolumeRow]) -> tuple[dict[str, Holding], dict[str, drains.Course]]:
    courses = {row.id: drains.course(conn, row.id) for row in rows if row.state == "draining"}
    return volume_store.holdings(conn), courses


async def volume(portal: Portal, volume_id: str) -> models.Volume:
    """One of them.

    Raises
    ------
    UserError
        404.
    """
    await portal.db.run_read(volume_store.get, volume_id)
    return next(one for one in await all_volumes(portal) if one.id == volume_id)


async def register(
    portal: Portal, person: Visitor, body: models.NewVolume, *, address: str = ""
) -> models.Volume:
    """Register a volume: its directory is looked at and marked first, on Kubernetes then on every machine.

    Raises
    ------
    UserError
        400 for what it cannot be, or is not there; 409 when its name or place is another's, or a machine has it not.
    """
    asked = VolumeRow(id=body.id, kind=body.kind, path=body.path, claim=body.claim, holds=body.holds)
    others = await portal.db.run_read(volume_store.all_volumes)
    wanted = volume_looks.wanted(portal.settings, asked, others)
    await catalogue(portal).run_on(wanted.id, volumes.check_place, Path(wanted.path), wanted.id)
    if wanted.kind == "claim":
        volume_looks.need_everywhere(wanted.id, await volume_looks.on_machines(portal, wanted))
    await portal.db.run(volume_store.register, wanted, actor=actor_of(person, address), now=portal.clock())
    return await volume(portal, wanted.id)


async def look(portal: Portal, volume_id: str) -> list[models.OnMachine]:
    """What each machine has of a volume now.

    Raises
    ------
    UserError
        404; 503 when neither hub nor Kubernetes answers.
    """
    return await volume_looks.on_machines(portal, await portal.db.run_read(volume_store.get, volume_id))


async def edit(
    portal: Portal, person: Visitor, volume_id: str, body: models.VolumeChange, *, address: str = ""
) -> models.Volume:
    """Say what new things it is for, close it, or open it again (which ends a drain)."""
    await portal.db.run(
        volume_store.edit,
        volume_id,
        actor=actor_of(person, address),
        now=portal.clock(),
        holds=body.holds,
        state=body.state,
    )
    drains.problems(portal).pop(volume_id, None)
    return await volume(portal, volume_id)


async def drain(
    portal: Portal, person: Visitor, volume_id: str, target: str, *, address: str = ""
) -> models.Volume:
    """Let everything on it move to another; it takes nothing new from now on."""
    await catalogue(portal).looker.look()  # how much is free is decided by what is seen now
    await portal.db.run(
        volume_store.drain, volume_id, target, actor=actor_of(person, address), now=portal.clock()
    )
    wake(portal, "drains")
    return await volume(portal, volume_id)


async def delete(portal: Portal, person: Visitor, volume_id: str, *, address: str = "") -> None:
    """Forget a volume that is empty; its directory stays.

    Raises
    ------
    UserError
        404; 409 while it has files, is the last one, or is named in galilean.yaml.
    """
    await portal.db.run(
        volume_store.delete,
        volume_id,
        configured=volume_id in portal.settings.volumes,
        actor=actor_of(person, address),
        now=portal.clock(),
    )


def _model(portal: Portal, row: VolumeRow, holding: Holding, course: drains.Course | None) -> models.Volume:
    return models.Volume(
        id=row.id,
        kind=row.kind,
        path=row.path,
        claim=row.claim,
        holds=row.holds,
        state=row.state,  # type: ignore[arg-type]  # one of three in the table
        configured=row.id in portal.settings.volumes,
        total_bytes=row.total_bytes,
        free_bytes=row.free_bytes,
        looked_at=row.looked_at,
        problem=row.problem,
        projects=holding.projects,
        datasets=holding.datasets,
        binned=holding.binned,
        size_bytes=holding.size_bytes,
        draining=models.Draining(
            to=row.drains_to,
            left=course.left,
            waiting=course.waiting,
            left_bytes=course.left_bytes,
            moving=course.moving,
            problem=drains.problems(portal).get(row.id, ""),
        )
        if course is not None
        else None,
    )


class Volumes(Handler):
    right = RIGHT

    async def get(self) -> None:
        self.write_json(ListOf[models.Volume](items=await all_volumes(self.portal)))

    async def post(self) -> None:
        body = self.body(models.NewVolume)
        made = await register(self.portal, self.person, body, address=self.address)
        self.set_header("Location", f"{self.portal.prefix}api/v1/volumes/{made.id}")
        self.write_json(made, 201)


class Volume(Handler):
    right = RIGHT

    async def get(self, volume_id: str) -> None:
        self.write_json(await volume(self.portal, volume_id))

    async def patch(self, volume_id: str) -> None:
        body = self.body(models.VolumeChange)
        self.write_json(await edit(self.portal, self.person, volume_id, body, address=self.address))

    async def delete(self, volume_id: str) -> None:
        await delete(self.portal, self.person, volume_id, address=self.address)
        self.set_status(204)


class Look(Handler):
    right = RIGHT

    async def post(self, volume_id: str) -> None:
        self.write_json(ListOf[models.OnMachine](items=await look(self.portal, volume_id)))


class Drain(Handler):
    right = RIGHT

    async def put(self, volume_id: str) -> None:
        body = self.body(models.Drain)
        found = await drain(self.portal, self.person, volume_id, body.to, address=self.address)
        self.write_json(found, 202)


_ONE: dict[int, Any] = {200: models.Volume}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/volumes",
        summary="List volumes with their capacity and what lies on them",
        answers={200: ListOf[models.Volume]},
    ),
    Operation(
        method="post",
        path="/volumes",
        summary="Register a volume; its path is looked at first, on Kubernetes on every machine",
        takes=models.NewVolume,
        answers={201: models.Volume},
    ),
    Operation(method="get", path=VOLUME, summary="Look at a volume", answers=_ONE),
    Operation(
        method="patch",
        path=VOLUME,
        summary="Say what a volume is for, close it, or open it (which ends a drain)",
        takes=models.VolumeChange,
        answers=_ONE,
    ),
    Operation(
        method="delete",
        path=VOLUME,
        summary="Forget a volume that is empty and not the last; its directory stays",
        answers={204: None},
    ),
    Operation(
        method="post",
        path=VOLUME + "/look",
        summary="Look on every machine whether a volume is mounted there; takes up to a minute",
        answers={200: ListOf[models.OnMachine]},
    ),
    Operation(
        method="put",
        path=VOLUME + "/drain",
        summary="Move everything on a volume to another, while people work",
        takes=models.Drain,
        answers={202: models.Volume},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/api/v1/volumes", Volumes),
        (r"/api/v1/volumes/([^/]+)", Volume),
        (r"/api/v1/volumes/([^/]+)/look", Look),
        (r"/api/v1/volumes/([^/]+)/drain", Drain),
    ]
