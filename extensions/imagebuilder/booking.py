"""What an image takes of its owner's share of the registry, booked in its row before anything of it is pushed.

Images that are being saved count as those that are saved, so that twenty which are begun at once do not each find the
share empty. What is booked is what it adds: its own layers, and what lies below them where its owner brought that, too
(an entry of their own, of an image that some registry has); once, however many images stand on it. What lies below
images of the centre's or of others is charged to nobody who only saves from them.

What lies below is copied to ``bases/`` (:mod:`extensions.imagebuilder.saving`). A row says which place it is before it is
filled, so that places on which no image stands any more are known also after a kill; they are emptied while nothing is pushed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Connection, or_, select, update

from extensions.imagebuilder.names import name_space
from extensions.imagebuilder.saved import SavedImage, used_bytes
from extensions.imagebuilder.tables import saved_images
from galilean.db import Database
from galilean.errors import UserError, mark

_FULL = mark(
    "Your saved images take {used} MB of the {most} MB that they may take, and this one {more} MB more. Delete images "
    "that you no longer need."
)
#: Of a row's ``changes``: what :mod:`extensions.imagebuilder.saving` says of the result is put beside them.
BASE, BASE_BYTES, PACKED_BYTES = "base", "base_bytes", "packed_bytes"


def owns_what_is_below(row: SavedImage) -> bool:
    """Whether what an image stands on was brought by its owner: by the name of the entry, which outlives the entry."""
    return row.environment.partition("/")[0] == name_space(row.owner) and "/" in row.environment


def bases(conn: Connection, *, needed: bool = False) -> set[str]:
    """Places in ``bases/`` that rows tell of; ``needed``: of images that are there or being saved."""
    wanted = select(saved_images.c.changes).where(saved_images.c.changes.is_not(None))
    if needed:
        wanted = wanted.where(
            saved_images.c.deleted_at.is_(None),
            or_(saved_images.c.state == "ready", saved_images.c.state == "saving"),
        )
    found = conn.execute(wanted).scalars()
    return {str(changes[BASE]) for changes in found if changes and changes.get(BASE)}


def book(conn: Connection, row: SavedImage, booked: dict[str, Any], most_bytes: int) -> None:
    """Note what a row that is being saved takes, if there is room for it.

    Raises
    ------
    UserError
        507.
    """
    if most_bytes and booked.get(PACKED_BYTES):
        used = used_bytes(conn, row.owner, without=row.id)
        whole = used_bytes(conn, row.owner, without=row.id, more=booked)
        if whole > most_bytes:
            raise UserError(
                507,
                _FULL,
                reason="images-full",
                used=used >> 20,
                most=most_bytes >> 20,
                more=(whole - used) >> 20,
            )
    conn.execute(
        update(saved_images)
        .where(saved_images.c.id == row.id, saved_images.c.state == "saving")
        .values(changes=booked)
    )


class Book:
    """Books for one row; see :class:`extensions.imagebuilder.saving.Books`.

    Parameters
    ----------
    db, row
        Whose row.
    most_bytes
        Of its owner; 0 = no limit.
    turn
        One books at a time.
    bases
        Every place that was filled since the service began: this one is put there, too.
    """

    def __init__(
        self, db: Database, row: SavedImage, most_bytes: int, turn: asyncio.Lock, bases: set[str]
    ) -> None:
        self._db, self._row, self._most, self._turn, self._bases = db, row, most_bytes, turn, bases
        self.booked: dict[str, Any] = {}

    @property
    def below(self) -> dict[str, Any]:
        """What is kept with the image when it is ready."""
        return {key: value for key, value in self.booked.items() if key != PACKED_BYTES}

    async def base(self, place: str) -> None:
        """It stands on what is in a place below ``bases/``, or will be."""
        self._bases.add(place)
        await self._write({BASE: place})

    async def room(self, own_bytes: int, below_bytes: int = 0) -> None:
        """It takes so many bytes, and so many lie below it in that place.

        Raises
        ------
        UserError
            507 when that is more than its owner may have.
        """
        charged = BASE in self.booked and owns_what_is_below(self._row)
        await self._write({PACKED_BYTES: own_bytes} | ({BASE_BYTES: below_bytes} if charged else {}))

    async def _write(self, more: dict[str, Any]) -> None:
        booked = self.booked | more
        async with self._turn:
            await self._db.run(lambda conn: book(conn, self._row, booked, self._most))
        self.booked = booked
