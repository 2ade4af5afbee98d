"""Disks: storage of one person's in whole GiB, with many readers or one writer, never both (TI-3, TI-10).

A *volume* is a place of the centre's; a *disk* is a person's own. It has a name, a size and a pool of machines, and a
run that asks for it has it at ``~/disks/<name>``: either *to read*, on all of its nodes, beside any number of other
readers; or *to write*, on ``node-0`` alone, as long as no other run has it at all. One writer is one node, for that is
what a block device with a file system on it bears.

Who has a disk is not written down twice: a use belongs to the row of a run (:mod:`services.catalog.disk_store`) and
holds for as long as that row is open, whatever ends it and whoever was down then. Admission decides in the serialised
transaction that makes the row, so that of two starts at once one is refused. A run that waits in line has its disks
already, as it counts against limits already: nothing is taken from it when its turn comes.

A disk counts with its whole size against what its owner may keep. Only a person's own request names disks: neither
the project that they run, nor a fork, nor a share brings one in. Here are the rules; they touch nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from galilean.amounts import GIB, format_apart
from galilean.errors import UserError, mark

BELOW = "disks"
NAME_MOST = 40
SIZE_MOST_GIB = 1 << 20
#: Of one person: each is a row in every list of theirs, and on Kubernetes a claim.
DISKS_OF_PERSON_MOST = 200
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Use:
    """A run that has a disk.

    Attributes
    ----------
    run_id, user
        Which, and whose.
    project
        What it is called.
    writes
        Whether it has it to write.
    word
        How the run is: waiting, starting, running, releasing.
    """

    run_id: str
    user: str
    project: str
    writes: bool
    word: str


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk with the runs that have it.

    Attributes
    ----------
    pool
        Where the runs are that have it.
    used_bytes
        As last counted; ``None`` = not known.
    deleted_at
        When its owner deleted it: nothing of it comes back.
    """

    id: str
    owner: str
    name: str
    size_bytes: int
    pool: str
    created_at: datetime
    used_bytes: int | None = None
    measured_at: datetime | None = None
    deleted_at: datetime | None = None
    uses: tuple[Use, ...] = ()

    @property
    def size_gib(self) -> int:
        return self.size_bytes // GIB


def may_have(writes: bool, held: Iterable[bool]) -> bool:
    """Whether one more run may have a disk, beside runs that have it to write (True) or to read."""
    held = list(held)
    return not held if writes else not any(held)


def check_free(name: str, writes: bool, uses: Sequence[Use]) -> None:
    """Refuse a run that would read what another writes, or write what another has.

    Raises
    ------
    UserError
        409 with reason ``disk-held``, naming who has it.
    """
    if may_have(writes, [use.writes for use in uses]):
        return
    holder = next((use for use in uses if use.writes), uses[0])
    message = mark(
        "Your run of “{project}” reads the disk “{disk}”: nobody writes it meanwhile. Mount it to read, or release that run."
    )
    if holder.writes:
        message = mark(
            "Your run of “{project}” writes to the disk “{disk}”: no other run has it meanwhile. Leave it out, or release "
            "that run."
        )
    raise UserError(409, message, reason="disk-held", project=holder.project, disk=name)


def check_name(name: str) -> str:
    """``name`` when a disk may be called so.

    Raises
    ------
    UserError
        400 with the rule in words.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            400,
            mark(
                "“{disk}” cannot be a disk's name: small letters, digits and hyphens, at most {most} characters, with a letter "
                "or digit at both ends."
            ),
            disk=name[:60],
            most=NAME_MOST,
        )
    return name


def check_size(size_gib: int) -> int:
    """The size in bytes.

    Raises
    ------
    UserError
        400 for what no disk can have.
    """
    if not 1 <= size_gib <= SIZE_MOST_GIB:
        raise UserError(400, mark("A disk has from 1 to {most} GiB."), most=SIZE_MOST_GIB)
    return size_gib * GIB


def check_room(more_bytes: int, kept_bytes: int, most_bytes: int | None) -> None:
    """Refuse what its owner may not keep; ``most_bytes`` ``None`` = no limit.

    Raises
    ------
    UserError
        507 with reason ``quota`` and the numbers (TI-15).
    """
    if most_bytes is None or kept_bytes + more_bytes <= most_bytes:
        return
    size, room = format_apart(more_bytes, max(0, most_bytes - kept_bytes))
    raise UserError(
        507,
        mark(
            "A disk counts with its whole size, here {size}; you may keep {room} more. Delete something, or ask an "
            "administrator."
        ),
        reason="quota",
        size=size,
        room=room,
    )


def check_larger(disk: Disk, size_bytes: int) -> None:
    """Refuse to make a disk smaller.

    Raises
    ------
    UserError
        409.
    """
    if size_bytes < disk.size_bytes:
        raise UserError(
            409,
            mark(
                "“{disk}” has {size} GiB, and no disk becomes smaller: make another one and copy what you need."
            ),
            disk=disk.name,
            size=disk.size_gib,
        )


def check_unused(disk: Disk) -> None:
    """Refuse to delete what a run has.

    Raises
    ------
    UserError
        409 with reason ``disk-held``.
    """
    if disk.uses:
        raise UserError(
            409,
            mark("The run of “{project}” has the disk “{disk}”. Release that run first."),
            reason="disk-held",
            project=disk.uses[0].project,
            disk=disk.name,
        )


def pool_of(found: Sequence[Disk], asked: str | None) -> str | None:
    """The pool that a run with these disks is in; ``None`` without disks: it may be in any.

    Raises
    ------
    UserError
        409 when they are in two, or the run was asked for elsewhere.
    """
    for disk in found:
        if disk.pool != found[0].pool:
            raise UserError(
                409,
                mark("The disks “{disk}” and “{other}” are in two pools of machines: no run can have both."),
                reason="disk-pool",
                disk=found[0].name,
                other=disk.name,
            )
    if found and asked is not None and asked != found[0].pool:
        raise UserError(
            409,
            mark("The disk “{disk}” is in the pool “{pool}”: run there, or leave the disk out."),
            reason="disk-pool",
            disk=found[0].name,
            pool=found[0].pool,
        )
    return found[0].pool if found else None


def no_such_disk(name: str = "") -> UserError:
    """The same refusal for what does not exist and for what is somebody else's."""
    if name:
        return UserError(404, mark("You have no disk “{disk}”."), disk=name[:60])
    return UserError(404, mark("There is no such disk of yours."))


def not_offered() -> UserError:
    """The refusal where there are none."""
    return UserError(404, mark("There are no disks here: no storage for them is set up."))
