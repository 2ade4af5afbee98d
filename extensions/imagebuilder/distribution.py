"""Which image of the catalogue is on which machine, and bringing it there before somebody waits for it (CG-34, CG-38).

Every entry that takes runs has one current image. For each of them and each machine a row says: *present*, *pulling* with
bytes, *failed* with the reason, or *absent*. With Docker there is one machine, this one, and the image service fetches
what is missing, one image at a time so that a network is never full of it, as soon as it is added; what failed is tried
again after a while, or when somebody presses *Redistribute*. Nothing waits for it: a run whose image is not here fetches
it itself, as before. Images behind a name and password are fetched with the run alone, which has them; here they are
looked for and never fetched. Nothing is ever removed by this: what a cluster runs stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, and_, delete, insert, select, update

from extensions.imagebuilder.tables import environment_versions, environments, image_places
from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError, mark

log = logging.getLogger("galilean.imagebuilder")

PRESENT, PULLING, FAILED, ABSENT = "present", "pulling", "failed", "absent"
#: A fetch that failed is tried again after so long.
AGAIN = timedelta(minutes=15)
TELL_SECONDS = 0.5

_FAULT = mark("Something went wrong. The administrators can look into the log.")


@dataclass(frozen=True, kw_only=True)
class Image:
    """The current image of one or several entries; ``private`` is one that is fetched with a run's own key alone."""

    image: str
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One image on one machine.

    Attributes
    ----------
    asked_at
        When somebody wanted it fetched anew; None once that was begun.
    why, why_params
        Of a failure, a message and its values.
    """

    image: str
    machine: str
    state: str
    done_bytes: int = 0
    total_bytes: int | None = None
    why: str = ""
    why_params: Mapping[str, Any] | None = None
    private: bool = False
    changed_at: datetime
    asked_at: datetime | None = None

    @property
    def error(self) -> UserError | None:
        """Why it could not be fetched."""
        return UserError(502, self.why, **dict(self.why_params or {})) if self.why else None


class Machine(Protocol):
    """What fetches images to one machine. Both block."""

    name: str

    def has(self, image: str) -> bool: ...

    def fetch(self, image: str, progress: Callable[[int, int], None]) -> None: ...


# ------------------------------------------------------------------------------------------------------------- rows


def wanted(conn: Connection) -> list[Image]:
    """Current images of all entries that take runs."""
    rows = conn.execute(
        select(environment_versions.c.image, environment_versions.c.key_id)
        .join(
            environments,
            and_(
                environments.c.id == environment_versions.c.environment_id,
                environments.c.version == environment_versions.c.number,
            ),
        )
        .where(environments.c.deleted_at.is_(None), environments.c.retired_at.is_(None))
    )
    found: dict[str, bool] = {}
    for row in rows:
        found[row.image] = found.get(row.image, True) and bool(row.key_id)
    return [Image(image=image, private=private) for image, private in sorted(found.items())]


def spots(conn: Connection, *, image: str = "", machine: str = "") -> list[Spot]:
    """What is known, by image and machine."""
    query = select(image_places).order_by(image_places.c.image, image_places.c.machine)
    if image:
        query = query.where(image_places.c.image == image)
    if machine:
        query = query.where(image_places.c.machine == machine)
    return [Spot(**row._mapping) for row in conn.execute(query)]


def note(
    conn: Connection, machine: str, found: Mapping[str, Image], there: Iterable[str], *, now: datetime
) -> None:
    """Keep what a look at a machine showed: ``found`` are the images that shall be there, ``there`` those that are."""
    present, known = set(there), {one.image: one for one in spots(conn, machine=machine)}
    gone = [image for image in known if image not in found]
    if gone:
        conn.execute(
            delete(image_places).where(image_places.c.machine == machine, image_places.c.image.in_(gone))
        )
    for image, said in found.items():
        before = known.get(image)
        state = PRESENT if image in present else ABSENT
        if before is None:
            values = {
                "image": image,
                "machine": machine,
                "state": state,
                "private": said.private,
                "changed_at": now,
            }
            conn.execute(insert(image_places).values(**values))
        elif (state == PRESENT) != (before.state == PRESENT) and before.state != PULLING:
            if state == ABSENT or before.state in (ABSENT, FAILED):
                set_state(conn, image, machine, state, now=now)
        elif before.private != said.private:
            conn.execute(_row(image, machine).values(private=said.private))


def set_state(
    conn: Connection,
    image: str,
    machine: str,
    state: str,
    *,
    now: datetime,
    error: UserError | None = None,
    fault: bool = False,
) -> None:
    """Another state; ``fault`` is one of ours, which the service's log has."""
    why = error.message if error else _FAULT if fault else ""
    params = dict(error.params) if error else {}
    values = {"state": state, "done_bytes": 0, "total_bytes": None, "why": why, "why_params": params}
    conn.execute(_row(image, machine).values(**values, changed_at=now, asked_at=None))


def at(conn: Connection, image: str, machine: str, done_bytes: int, total_bytes: int) -> None:
    """How far a fetch is."""
    conn.execute(_row(image, machine).values(done_bytes=done_bytes, total_bytes=total_bytes or None))


def ask(conn: Connection, *, image: str = "", machine: str = "", now: datetime) -> int:
    """Have it fetched wherever it is not and may be; how many places that are."""
    query = update(image_places).where(
        image_places.c.state.in_((ABSENT, FAILED)), image_places.c.private.is_(False)
    )
    if image:
        query = query.where(image_places.c.image == image)
    if machine:
        query = query.where(image_places.c.machine == machine)
    return conn.execute(query.values(asked_at=now)).rowcount


def next_of(found: Iterable[Spot], now: datetime) -> Spot | None:
    """What is fetched next: what was asked for first, then what is new, then what failed long ago."""
    fetchable = [one for one in found if not one.private]
    asked = sorted((one for one in fetchable if one.asked_at), key=lambda one: (one.asked_at, one.image))
    new = [one for one in fetchable if one.state == ABSENT]
    again = [one for one in fetchable if one.state == FAILED and now - one.changed_at >= AGAIN]
    return next(iter((*asked, *new, *again)), None)


def _row(image: str, machine: str) -> Any:
    return update(image_places).where(image_places.c.image == image, image_places.c.machine == machine)


# ------------------------------------------------------------------------------------------------------ the service


class Distributor:
    """Keeps one machine's rows true, and its images there.

    Parameters
    ----------
    db, clock
        Our database and the time.
    machine
        Looks and fetches.
    do
        Runs what blocks.
    """

    def __init__(self, db: Database, machine: Machine, clock: Clock, *, do: Callable[[Any], Any]) -> None:
        self.db, self.machine, self.clock, self._do = db, machine, clock, do
        self._begun = False

    async def tick(self) -> None:
        """One round: look, and fetch one image that is missing."""
        if not self._begun:
            # A service that was killed was fetching; it is looked for, and fetched again.
            await self.db.run(_let_go, self.machine.name, self.clock())
            self._begun = True
        found = {one.image: one for one in await self.db.run_read(wanted)}
        there = await self._do(lambda: [image for image in found if self.machine.has(image)])
        await self.db.run(lambda conn: note(conn, self.machine.name, found, there, now=self.clock()))
        known = await self.db.run_read(lambda conn: spots(conn, machine=self.machine.name))
        if (chosen := next_of(known, self.clock())) is not None:
            await self._fetch(chosen.image)

    async def _fetch(self, image: str) -> None:
        name = self.machine.name
        far = [0, 0]

        def progress(done: int, total: int) -> None:
            far[0], far[1] = done, total

        async def tell() -> None:
            while True:
                await asyncio.sleep(TELL_SECONDS)
                with suppress(Exception):
                    await self.db.run(lambda conn: at(conn, image, name, far[0], far[1]))

        await self.db.run(lambda conn: set_state(conn, image, name, PULLING, now=self.clock()))
        teller = asyncio.create_task(tell())
        error: UserError | None = None
        fault = False
        try:
            await self._do(lambda: self.machine.fetch(image, progress))
        except UserError as refused:
            error = refused
            log.warning("%s is not on this machine: %s", image, refused)
        except Exception:
            fault = True
            log.exception("%s is not on this machine", image)
        finally:
            teller.cancel()
            with suppress(asyncio.CancelledError):
                await teller
        state = FAILED if error or fault else PRESENT
        await self.db.run(
            lambda conn: set_state(conn, image, name, state, now=self.clock(), error=error, fault=fault)
        )


def _let_go(conn: Connection, machine: str, now: datetime) -> None:
    conn.execute(
        update(image_places)
        .where(image_places.c.machine == machine, image_places.c.state == PULLING)
        .values(state=ABSENT, changed_at=now)
    )
