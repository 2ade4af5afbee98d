"""Which volume takes something new, and when one may be drained or deleted (CG-36, CG-37).

Pure: what is on a volume, and what its disk has free, the caller counts and hands in. A volume of which nothing
is known just now takes nothing new, and harms nobody else's page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal

from galilean.errors import UserError, mark

Holds = Literal["both", "projects", "datasets"]
KINDS = ("directory", "claim")
HOLDS = ("both", "projects", "datasets")
STATES = ("open", "closed", "draining")
#: Of what is free: files of running clusters grow, too.
KEPT_FREE_BYTES = 1 << 30
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_CLAIM = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_SYSTEM = tuple(
    map(
        PurePosixPath,
        ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/sbin", "/sys", "/usr"),
    )
)
_WHOLE = frozenset(map(PurePosixPath, ("/", "/root", "/home", "/var", "/tmp", "/mnt", "/srv", "/opt")))  # noqa: S108


@dataclass(frozen=True, kw_only=True)
class VolumeRow:
    """A volume as it is registered.

    Attributes
    ----------
    holds
        What new things it is for; what is on it stays there whatever is said later.
    state
        ``open``, ``closed`` (takes nothing new), ``draining`` (everything moves to ``drains_to``).
    total_bytes, free_bytes
        As seen at ``looked_at``; ``None`` = could not be looked at.
    problem
        Why it could not, in the system's words; empty = it could.
    registered_by
        Who registered it online; empty = the settings.
    """

    id: str
    kind: str
    path: str
    claim: str = ""
    holds: str = "both"
    state: str = "open"
    drains_to: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None
    looked_at: datetime | None = None
    problem: str = ""
    registered_by: str = ""
    created_at: datetime | None = None

    def takes(self, kind: str) -> bool:
        """Whether new projects (``project``) or data sets (``dataset``) may come here at all."""
        return self.state == "open" and self.holds in ("both", f"{kind}s")


def place(volumes: Iterable[VolumeRow], kind: str, *, size_bytes: int = 0) -> str:
    """The volume for something new: the one with most free space that takes it (CG-36).

    Parameters
    ----------
    volumes
        All that are registered.
    kind
        ``project`` or ``dataset``.
    size_bytes
        How much it will have at once: of a fork, of an import.

    Raises
    ------
    UserError
        503 when none can be looked at, 507 when none has the room.
    """
    known = [v for v in volumes if v.takes(kind) and v.free_bytes is not None and not v.problem]
    if not known:
        raise UserError(503, mark("No volume can be reached just now. An administrator must look at it."))
    best = min(known, key=lambda volume: (-(volume.free_bytes or 0), volume.id))
    if size_bytes and (best.free_bytes or 0) < size_bytes + KEPT_FREE_BYTES:
        raise UserError(
            507,
            mark("No volume has room for it: {size_bytes} bytes are needed, at most {free_bytes} are free."),
            size_bytes=size_bytes,
            free_bytes=max(0, (best.free_bytes or 0) - KEPT_FREE_BYTES),
        )
    return best.id


def check_volume(volume: VolumeRow, others: Collection[VolumeRow]) -> None:
    """Refuse a volume that cannot be registered, or changed to be so.

    Raises
    ------
    UserError
        400 for what it cannot be; 409 when its name or place is another's.
    """
    if not _ID.fullmatch(volume.id):
        raise UserError(
            400,
            mark(
                "“{volume}” cannot be a volume's name: small letters, digits and hyphens, at most 40 characters."
            ),
            volume=volume.id[:60],
        )
    if volume.kind not in KINDS:
        raise UserError(400, mark("A volume is one of: {known}."), known=", ".join(KINDS))
    if volume.holds not in HOLDS:
        raise UserError(400, mark("A volume is for one of: {known}."), known=", ".join(HOLDS))
    if volume.kind == "claim" and not _CLAIM.fullmatch(volume.claim):
        raise UserError(400, mark("Say which PersistentVolumeClaim it is."))
    if volume.kind == "directory" and volume.claim:
        raise UserError(400, mark("A directory has no claim."))
    path = PurePosixPath(volume.path)
    if not path.is_absolute() or ".." in path.parts or "\0" in volume.path or len(volume.path) > 1024:
        raise UserError(400, mark("Give the whole path, from / on, without “..”."))
    if path in _WHOLE or any(path == system or system in path.parents for system in _SYSTEM[1:]):
        raise UserError(
            400, mark("“{path}” belongs to the system. Give a directory of its own."), path=str(path)
        )
    for other in others:
        if other.id == volume.id:
            raise UserError(409, mark("There is a volume “{volume}” already."), volume=volume.id)
        there = PurePosixPath(other.path)
        if path == there or there in path.parents or path in there.parents:
            raise UserError(
                409, mark("“{path}” is the place of the volume “{volume}”."), path=str(path), volume=other.id
            )


def check_drain(volume: VolumeRow, target: VolumeRow, *, size_bytes: int) -> None:
    """Refuse to move everything from one volume to another that cannot take it.

    Raises
    ------
    UserError
        409 for a target that is no target, 507 when it has too little room.
    """
    if target.id == volume.id:
        raise UserError(409, mark("Choose another volume to move everything to."))
    if target.state != "open" or target.problem or target.free_bytes is None:
        raise UserError(409, mark("The volume “{volume}” takes nothing just now."), volume=target.id)
    if target.holds not in ("both", volume.holds):
        raise UserError(
            409, mark("The volume “{volume}” is not for what lies on this one."), volume=target.id
        )
    if target.free_bytes < size_bytes + KEPT_FREE_BYTES:
        raise UserError(
            507,
            mark("The volume “{volume}” has room for {free_bytes} bytes; {size_bytes} are to be moved."),
            volume=target.id,
            free_bytes=max(0, target.free_bytes - KEPT_FREE_BYTES),
            size_bytes=size_bytes,
        )


def check_delete(volume: VolumeRow, others: Collection[VolumeRow], *, items: int, configured: bool) -> None:
    """Refuse to delete a volume that is not empty, is the last, or comes from the settings (CG-37).

    Parameters
    ----------
    volume
        The one to delete.
    others
        All other volumes.
    items
        How many projects and data sets have files on it, those in its bin included.
    configured
        Whether ``galilean.yaml`` names it: then it would be back at the next start.

    Raises
    ------
    UserError
        409 with the reason and the way out.
    """
    if items:
        raise UserError(
            409,
            mark(
                "The volume “{volume}” is not empty: {items} projects and data sets have files on it, the bin "
                "included. Move them to another volume first."
            ),
            volume=volume.id,
            items=items,
        )
    for kind in ("project", "dataset"):
        if volume.holds in ("both", f"{kind}s") and not any(other.takes(kind) for other in others):
            raise UserError(
                409,
                mark("“{volume}” is the last volume for new projects or data sets. Register another first."),
                volume=volume.id,
            )
    if configured:
        raise UserError(
            409,
            mark("The volume “{volume}” is named in galilean.yaml. Take it out there first."),
            volume=volume.id,
        )
