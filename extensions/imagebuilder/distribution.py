"""Which image of the catalogue is on which machine, and what is brought where: the rules and the rows (CG-34, CG-38).

Every entry that takes runs has one current image. For each of them and each machine a row says: *present*, *pulling* with
bytes where the machine tells them, *failed* with the reason, or *absent*. What is missing is fetched as soon as it is
added, or a machine is: one image at a time on a machine, on a few machines at once, and on average no faster than the
settings say. What failed is tried again after a while, or when somebody presses *Redistribute*. Nothing waits for it: a
run whose image is not there fetches it itself.

Nobody fills a machine's disk by it. Fetched beforehand is only what others than its owner see, or what an administrator
asked for; and only where the image leaves so much of the disk free as the settings say. Images behind a person's own
name and password are fetched with the run alone, which has them; here they are looked for and never fetched. Nothing is
ever removed by this: what a cluster runs stays, and what a machine removed by itself is not pressed upon it.

The work is :mod:`extensions.imagebuilder.distributing`'s; a machine of Docker and those of a Kubernetes are two
:class:`Machines`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from extensions.imagebuilder.tables import (
    environment_versions,
    environments,
    image_place_events,
    image_places,
)
from galilean.errors import UserError, mark
from galilean.settings import Settings
from galilean.settings_distribution import Distribution

PRESENT, PULLING, FAILED, ABSENT = "present", "pulling", "failed", "absent"
#: A fetch that failed is tried again after so long; what vanished after it was fetched comes back no sooner.
AGAIN = timedelta(minutes=15)
#: A machine tells of what it fetched a little later.
LAG = timedelta(seconds=60)
#: Where a machine cannot name all that it has, what was fetched is believed to be there for so long.
SURE = timedelta(hours=6)
#: What an image takes of a disk while it is fetched, against its size in a registry: packed, and unpacked beside it.
UNPACKED_TIMES = 4
#: Taken for the size of an image of which it is not known.
UNKNOWN_BYTES = 2 << 30
EVENTS_KEPT = timedelta(days=90)

_FAULT = mark("Something went wrong. The administrators can look into the log.")
_NO_ROOM = mark(
    "It would leave too little of the disk: it may take {needed} MB, {free} MB are free, and {reserve} MB are to stay free. "
    "Give the machine more disk, or remove images there that nobody runs."
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """The current image of one or several entries.

    Attributes
    ----------
    private
        Only a run's own key fetches it.
    beforehand
        It is fetched without being asked for.
    size_bytes
        As its registry keeps it; None = nobody knows.
    """

    image: str
    private: bool = False
    beforehand: bool = True
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a look at a machine showed.

    Attributes
    ----------
    present
        Images of those asked for that are there.
    whole
        Whether the machine names all that it has: only then is what it does not name absent.
    takes
        Whether something may be fetched to it now.
    """

    machine: str
    present: frozenset[str] = frozenset()
    whole: bool = True
    takes: bool = True


@dataclass(frozen=True, kw_only=True)
class Room:
    """Of the disk that a machine keeps images on."""

    free_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One image on one machine.

    Attributes
    ----------
    asked_at
        When somebody wanted it fetched anew; None once that was begun.
    why, why_params
        Of a failure, a message and its values.
    fetched_at
        When it was fetched here last.
    """

    image: str
    machine: str
    state: str
    done_bytes: int = 0
    total_bytes: int | None = None
    why: str = ""
    why_params: Mapping[str, Any] | None = None
    private: bool = False
    beforehand: bool = True
    changed_at: datetime
    asked_at: datetime | None = None
    fetched_at: datetime | None = None

    @property
    def error(self) -> UserError | None:
        """Why it could not be fetched."""
        return UserError(502, self.why, **dict(self.why_params or {})) if self.why else None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to an image on a machine; ``what`` as the table says."""

    id: int
    image: str
    machine: str
    at: datetime
    what: str
    seconds: int | None = None
    why: str = ""
    why_params: Mapping[str, Any] | None = None
    actor: str = ""

    @property
    def error(self) -> UserError | None:
        return UserError(502, self.why, **dict(self.why_params or {})) if self.why else None


class Machines(Protocol):
    """Those that images are fetched to.

    Attributes
    ----------
    tidy
        Whether they remove images by themselves when their disk fills, by percent of it, as kubelets do.
    """

    tidy: bool

    async def begin(self) -> None:
        """Put right what a killed service left."""
        ...

    async def look(self, images: Collection[str]) -> Sequence[Sight]:
        """All of them; complete or an exception."""
        ...

    async def room(self, machine: str) -> Room:
        """The room on a machine's disk; an exception where nobody can say."""
        ...

    async def fetch(self, machine: str, image: str, progress: Callable[[int, int], None]) -> None:
        """Have it there; ``UserError`` says why not."""
        ...


# ------------------------------------------------------------------------------------------------------------ rules


def reserve_bytes(room: Room, limits: Distribution, *, tidy: bool) -> int:
    """What stays free of a disk."""
    part = room.disk_bytes * limits.reserve_percent // 100
    return part if tidy else min(part, limits.reserve_most)


def refusal(image: Image, room: Room, reserve: int) -> UserError | None:
    """Why an image is not fetched to a disk of which so many bytes are to stay free; None when it may be."""
    needed = UNPACKED_TIMES * (image.size_bytes or UNKNOWN_BYTES)
    if room.free_bytes - needed >= reserve:
        return None
    return UserError(
        507,
        _NO_ROOM,
        reason="disk-reserve",
        needed=needed >> 20,
        free=room.free_bytes >> 20,
        reserve=reserve >> 20,
    )


def images_named(settings: Settings) -> list[str]:
    """Images that the settings name for nodes, those that only this machine knows left out."""
    said = {settings.kubernetes.image, *(one.image for one in settings.environments.values())}
    return sorted(image for image in said if image and not image.startswith("localhost/"))


def next_of(found: Iterable[Spot], now: datetime, *, tidy: bool = True) -> Spot | None:
    """What is fetched next to a machine: what was asked for first, then what is new, then what failed long ago.

    What a ``tidy`` machine fetched and removed by itself is not pressed upon it at once; where nothing but a person
    removes images, one that is to be there comes back.
    """
    fetchable = [one for one in found if not one.private]
    asked = sorted((one for one in fetchable if one.asked_at), key=lambda one: (one.asked_at, one.image))
    by_itself = [one for one in fetchable if one.beforehand]
    new = [
        one
        for one in by_itself
        if one.state == ABSENT and (not tidy or one.fetched_at is None or now - one.fetched_at >= AGAIN)
    ]
    again = [one for one in by_itself if one.state == FAILED and now - one.changed_at >= AGAIN]
    return next(iter((*asked, *new, *again)), None)


def chosen(
    known: Iterable[Spot],
    *,
    ready: Collection[str],
    going: Collection[str],
    at_once: int,
    now: datetime,
    tidy: bool = True,
) -> list[Spot]:
    """What is begun now: one image for each machine that is ready and idle, as long as places are left.

    Machines take turns: what was asked for goes first, then machines that have waited longest for something.
    """
    of: dict[str, list[Spot]] = {}
    for spot in known:
        if spot.machine in ready and spot.machine not in going:
            of.setdefault(spot.machine, []).append(spot)
    found = [one for spots_there in of.values() if (one := next_of(spots_there, now, tidy=tidy)) is not None]
    found.sort(key=lambda one: (one.asked_at is None, one.asked_at or one.changed_at, one.machine))
    return found[: max(0, at_once - len(going))]


def paced(not_before: datetime | None, now: datetime, size_bytes: int, bytes_per_second: int) -> datetime:
    """When the next fetch may begin, one of so many bytes beginning now."""
    begins = max(now, not_before or now)
    if not bytes_per_second:
        return begins
    return begins + timedelta(seconds=min(size_bytes / bytes_per_second, 86400))


def seen(before: Spot, sight: Sight, now: datetime) -> str:
    """The state of a place after a look at its machine."""
    if before.state == PULLING:
        return PULLING
    if before.image in sight.present:
        return PRESENT
    if before.state != PRESENT:
        return before.state
    trust = LAG if sight.whole else SURE
    if before.fetched_at is not None and now - before.fetched_at < trust:
        return PRESENT
    return ABSENT


# ------------------------------------------------------------------------------------------------------------- rows


def wanted(conn: Connection, *, ours: str = "") -> list[Image]:
    """Current images of all entries that take runs.

    Those of the registry ``ours`` are fetched beforehand whoever sees them: where only this service knows its password, a
    run could not fetch them itself.
    """
    rows = conn.execute(
        select(
            environment_versions.c.image,
            environment_versions.c.key_id,
            environment_versions.c.size_bytes,
            or_(environments.c.visibility != "own", environments.c.beforehand).label("beforehand"),
        )
        .join(
            environments,
            and_(
                environments.c.id == environment_versions.c.environment_id,
                environments.c.version == environment_versions.c.number,
            ),
        )
        .where(environments.c.deleted_at.is_(None), environments.c.retired_at.is_(None))
    )
    found: dict[str, Image] = {}
    for row in rows:
        other = found.get(row.image)
        found[row.image] = Image(
            image=row.image,
            private=bool(row.key_id) and (other is None or other.private),
            beforehand=bool(row.beforehand)
            or (bool(ours) and row.image.startswith(f"{ours}/"))
            or (other is not None and other.beforehand),
            size_bytes=row.size_bytes or (other.size_bytes if other else None),
        )
    return [found[image] for image in sorted(found)]


def spots(conn: Connection, *, image: str = "", machine: str = "") -> list[Spot]:
    """What is known, by image and machine."""
    query = select(image_places).order_by(image_places.c.image, image_places.c.machine)
    if image:
        query = query.where(image_places.c.image == image)
    if machine:
        query = query.where(image_places.c.machine == machine)
    return [Spot(**row._mapping) for row in conn.execute(query)]


def note(conn: Connection, sights: Iterable[Sight], found: Mapping[str, Image], *, now: datetime) -> None:
    """Keep what a look at all machines showed; ``found`` are the images that shall be there."""
    of = {one.machine: one for one in sights}
    known = {(one.image, one.machine): one for one in spots(conn)}
    for image, machine in known:
        if image not in found or machine not in of:
            conn.execute(delete(image_places).where(_is(image, machine)))
    new = []
    for machine, sight in of.items():
        for image, said in found.items():
            before = known.get((image, machine))
            if before is None:
                state = PRESENT if image in sight.present else ABSENT
                row = {"image": image, "machine": machine, "state": state, "changed_at": now}
                new.append(row | {"private": said.private, "beforehand": said.beforehand})
                continue
            if (before.private, before.beforehand) != (said.private, said.beforehand):
                values = {"private": said.private, "beforehand": said.beforehand}
                conn.execute(update(image_places).where(_is(image, machine)).values(**values))
            state = seen(before, sight, now)
            if state != before.state:
                set_state(conn, image, machine, state, now=now, what="gone" if state == ABSENT else "present")
    if new:
        conn.execute(insert(image_places), new)


def set_state(
    conn: Connection,
    image: str,
    machine: str,
    state: str,
    *,
    now: datetime,
    error: UserError | None = None,
    fault: bool = False,
    what: str = "",
    seconds: int | None = None,
    fetched: bool = False,
) -> None:
    """Another state; ``fault`` is one of ours, which the service's log has. With ``what`` the log has it, too."""
    why = error.message if error else _FAULT if fault else ""
    params = dict(error.params) if error else {}
    values: dict[str, Any] = {
        "state": state,
        "done_bytes": 0,
        "total_bytes": None,
        "why": why,
        "why_params": params,
        "changed_at": now,
        "asked_at": None,
    }
    if fetched:
        values["fetched_at"] = now
    done = conn.execute(update(image_places).where(_is(image, machine)).values(**values))
    if what and done.rowcount:
        tell(conn, image, machine, what, now=now, seconds=seconds, why=why, why_params=params)


def at(conn: Connection, image: str, machine: str, done_bytes: int, total_bytes: int) -> None:
    """How far a fetch is."""
    values = {"done_bytes": done_bytes, "total_bytes": total_bytes or None}
    conn.execute(update(image_places).where(_is(image, machine)).values(**values))


def ask(conn: Connection, *, image: str = "", machine: str = "", now: datetime, actor: str = "") -> int:
    """Have it fetched wherever it is not and may be; how many places that are.

    What only its owner sees is asked for by its name, never with all others.
    """
    may: list[Any] = [image_places.c.state.in_((ABSENT, FAILED)), image_places.c.private.is_(False)]
    may += [image_places.c.image == image] if image else [image_places.c.beforehand.is_(True)]
    if machine:
        may.append(image_places.c.machine == machine)
    places = conn.execute(select(image_places.c.image, image_places.c.machine).where(*may)).all()
    conn.execute(update(image_places).where(*may).values(asked_at=now))
    for row in places:
        tell(conn, row.image, row.machine, "asked", now=now, actor=actor)
    return len(places)


def mark_beforehand(conn: Connection, image: str, beforehand: bool) -> int:
    """Have an image on every machine though its entries are their owners' alone, or no more; how many entries."""
    of = select(environment_versions.c.environment_id).where(
        environment_versions.c.image == image,
        environment_versions.c.environment_id == environments.c.id,
        environment_versions.c.number == environments.c.version,
    )
    done = conn.execute(
        update(environments)
        .where(
            environments.c.id.in_(of), environments.c.deleted_at.is_(None), environments.c.visibility == "own"
        )
        .values(beforehand=beforehand)
    )
    if done.rowcount:
        conn.execute(update(image_places).where(image_places.c.image == image).values(beforehand=beforehand))
    return done.rowcount


def tell(
    conn: Connection,
    image: str,
    machine: str,
    what: str,
    *,
    now: datetime,
    seconds: int | None = None,
    why: str = "",
    why_params: Mapping[str, Any] | None = None,
    actor: str = "",
) -> None:
    """Write a line of the log."""
    line = {"image": image, "machine": machine, "at": now, "what": what, "seconds": seconds, "actor": actor}
    conn.execute(insert(image_place_events).values(**line, why=why, why_params=dict(why_params or {})))


def events(conn: Connection, image: str, *, machine: str = "", most: int = 200) -> list[Event]:
    """The log of an image, the newest first."""
    query = select(image_place_events).where(image_place_events.c.image == image)
    if machine:
        query = query.where(image_place_events.c.machine == machine)
    rows = conn.execute(query.order_by(image_place_events.c.id.desc()).limit(most))
    return [Event(**row._mapping) for row in rows]


def let_go(conn: Connection, now: datetime) -> None:
    """What a killed service was fetching is looked for, and fetched again; old lines of the log go."""
    conn.execute(
        update(image_places).where(image_places.c.state == PULLING).values(state=ABSENT, changed_at=now)
    )
    conn.execute(delete(image_place_events).where(image_place_events.c.at < now - EVENTS_KEPT))


def _is(image: str, machine: str) -> Any:
    return and_(image_places.c.image == image, image_places.c.machine == machine)
