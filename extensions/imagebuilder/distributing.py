"""Keeps the rows of :mod:`extensions.imagebuilder.distribution` true, and the images on their machines.

A round looks at all machines and begins what the rules choose; fetches are tasks of their own, so that a slow one holds
up neither looks nor the others. When the work ends (another process has the lease, the service stops) they are given up;
whoever comes next looks again and begins anew, and what a machine has of an image already it need not fetch twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from extensions.imagebuilder import container, distribution
from extensions.imagebuilder.distribution import (
    ABSENT,
    FAILED,
    PRESENT,
    PULLING,
    Image,
    Machines,
    Room,
    Sight,
)
from extensions.imagebuilder.names import Pinned
from extensions.imagebuilder.saving import Saver
from galilean.clock import Clock
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings_distribution import Distribution
from spawner.docker.api import ImageNotFound

log = logging.getLogger("galilean.imagebuilder")

TELL_SECONDS = 0.5
LOOK_SECONDS = 10.0

_UNKNOWN_ROOM = mark("Nobody can say how much room the machine's disk has.")


class Distributor:
    """Keeps the rows of all machines true, and the images there.

    Parameters
    ----------
    db, clock
        Our database and the time.
    machines
        Looks and fetches.
    limits
        How much at once, and what of a disk stays free.
    fixed
        Images besides those of the catalogue: those that the settings name.
    ours
        The registry whose password this service alone has; empty = machines have it, too.
    """

    def __init__(
        self,
        db: Database,
        machines: Machines,
        clock: Clock,
        *,
        limits: Distribution | None = None,
        fixed: Iterable[Image] = (),
        ours: str = "",
    ) -> None:
        self._ours = ours
        self.db, self.machines, self.clock = db, machines, clock
        self.limits = limits or Distribution()
        self._fixed = {one.image: one for one in fixed}
        self._going: dict[str, asyncio.Task[None]] = {}
        self._not_before: datetime | None = None
        self._begun = False

    async def run(self) -> None:
        """Round after round; to be cancelled."""
        silent = False
        try:
            while True:
                try:
                    await self.tick()
                    silent = False
                except Exception as error:
                    if not silent:
                        log.warning("machines could not be looked at for images: %s", error)
                    silent = True
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self.close()

    async def close(self) -> None:
        """Give up what is being fetched."""
        for task in self._going.values():
            task.cancel()
        await self.idle()

    async def idle(self) -> None:
        """Wait until nothing is being fetched."""
        await asyncio.gather(*self._going.values(), return_exceptions=True)
        self._going.clear()

    async def tick(self) -> None:
        """One round: look, and begin what is missing."""
        if not self._begun:
            await self.machines.begin()
            await self.db.run(distribution.let_go, self.clock())
            self._begun = True
        wanted = await self.db.run_read(lambda conn: distribution.wanted(conn, ours=self._ours))
        found = self._fixed | {one.image: one for one in wanted}
        sights = await self.machines.look(list(found))
        await self.db.run(lambda conn: distribution.note(conn, sights, found, now=self.clock()))
        self._going = {machine: task for machine, task in self._going.items() if not task.done()}
        known = await self.db.run_read(distribution.spots)
        if not self.limits.beforehand:
            known = [one for one in known if one.asked_at or self._is_ours(one.image)]
        begins = distribution.chosen(
            known,
            ready={one.machine for one in sights if one.takes},
            going=self._going,
            at_once=self.limits.at_once,
            now=self.clock(),
            tidy=self.machines.tidy,
        )
        for one in begins:
            now = self.clock()
            if self._not_before is not None and now < self._not_before:
                break
            image = found[one.image]
            self._not_before = distribution.paced(
                self._not_before, now, image.size_bytes or 0, self.limits.bytes_per_second
            )
            await self._set(one.image, one.machine, PULLING, what="begun")
            self._going[one.machine] = asyncio.create_task(self._fetch(image, one.machine))

    def _is_ours(self, image: str) -> bool:
        """Whether nobody but this service could fetch it, a run neither."""
        return bool(self._ours) and image.startswith(f"{self._ours}/")

    async def _fetch(self, image: Image, machine: str) -> None:
        far = [0, 0]

        def progress(done: int, total: int) -> None:
            far[0], far[1] = done, total

        async def tell() -> None:
            while True:
                await asyncio.sleep(TELL_SECONDS)
                if far[1]:
                    with suppress(Exception):
                        await self.db.run(
                            lambda conn: distribution.at(conn, image.image, machine, far[0], far[1])
                        )

        begun = self.clock()
        teller = asyncio.create_task(tell())
        more: dict[str, Any] = {"state": FAILED, "what": "failed"}
        try:
            async with asyncio.timeout(self.limits.minutes * 60):
                await self._room(image, machine)
                await self.machines.fetch(machine, image.image, progress)
            more = {"state": PRESENT, "what": "present", "fetched": True}
        except asyncio.CancelledError:
            more = {"state": ABSENT}
            raise
        except TimeoutError:
            more["error"] = UserError(
                504,
                mark("It was not there after {minutes} min, and was given up."),
                reason="too-slow",
                minutes=self.limits.minutes,
            )
        except UserError as refused:
            more["error"] = refused
            log.warning("%s is not on %s: %s", image.image, machine, refused)
        except Exception:
            more["fault"] = True
            log.exception("%s is not on %s", image.image, machine)
        finally:
            teller.cancel()
            with suppress(asyncio.CancelledError):
                await teller
            seconds = round((self.clock() - begun).total_seconds())
            await asyncio.shield(self._set(image.image, machine, seconds=seconds, **more))

    async def _room(self, image: Image, machine: str) -> None:
        """Refuse where the image would not leave enough of the disk."""
        try:
            room = await self.machines.room(machine)
        except UserError:
            raise
        except Exception as error:
            log.warning("room on %s: %s", machine, error)
            raise UserError(503, _UNKNOWN_ROOM, reason="room-unknown") from error
        reserve = distribution.reserve_bytes(room, self.limits, tidy=self.machines.tidy)
        if (refused := distribution.refusal(image, room, reserve)) is not None:
            raise refused

    async def _set(self, image: str, machine: str, state: str, **more: Any) -> None:
        await self.db.run(
            lambda conn: distribution.set_state(conn, image, machine, state, now=self.clock(), **more)
        )


class DockerMachine:
    """The one machine that all of it runs on, by its Docker; implements :class:`distribution.Machines`."""

    tidy = False

    def __init__(self, saver: Saver) -> None:
        self.name = os.uname().nodename
        self._saver = saver

    async def begin(self) -> None:
        """Nothing: Docker gives up what nobody waits for."""

    async def look(self, images: Collection[str]) -> Sequence[Sight]:
        """What Docker has."""

        def there() -> frozenset[str]:
            client = self._saver.docker.client()
            found = set()
            for image in images:
                with suppress(ImageNotFound):
                    client.inspect_image(image)
                    found.add(image)
            return frozenset(found)

        return [Sight(machine=self.name, present=await self._saver.docker.do(there))]

    async def room(self, machine: str) -> Room:
        """Of the disk that Docker's own directory is on."""

        def ask() -> Room:
            told: Mapping[str, Any] = self._saver.docker.client().info()
            disk = shutil.disk_usage(str(told["DockerRootDir"]))
            return Room(free_bytes=disk.free, disk_bytes=disk.total)

        return await self._saver.docker.do(ask)

    async def fetch(self, machine: str, image: str, progress: Callable[[int, int], None]) -> None:
        """Bring it here; only our own registry is told our password."""
        place = self._saver.place
        ours = Pinned.parse(image).registry == place.name
        await self._saver.docker.do(
            lambda: container.fetch(
                self._saver.docker.client(), image, place.for_docker if ours else None, progress
            )
        )
