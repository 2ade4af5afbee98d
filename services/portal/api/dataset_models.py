"""Data sets and volumes as they go into the API and come out of it; see :mod:`services.portal.api.models`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from services.portal.api.models import (
    DESCRIPTION_LENGTH,
    NAME_LENGTH,
    Incoming,
    Outgoing,
    Publication,
)


class NewDataset(Incoming):
    name: str = Field(min_length=1, max_length=NAME_LENGTH, description="As people call it, in any script.")
    slug: str | None = Field(
        default=None, max_length=60, description="Its part of addresses; left out = made from the name."
    )
    mount: str | None = Field(
        default=None,
        max_length=100,
        description="Its directory below ~/datasets in projects; left out = its address.",
    )
    summary: str = Field(default="", max_length=1000, description="A sentence.")
    description: str = Field(default="", max_length=DESCRIPTION_LENGTH, description="Markdown.")
    field: str = Field(default="", max_length=64)
    tags: list[str] = Field(default=[], max_length=50)


class DatasetChange(Incoming):
    """Only the keys that are sent are changed."""

    name: str | None = Field(default=None, min_length=1, max_length=NAME_LENGTH)
    mount: str | None = Field(default=None, max_length=100)
    summary: str | None = Field(default=None, max_length=1000)
    description: str | None = Field(default=None, max_length=DESCRIPTION_LENGTH)
    field: str | None = Field(default=None, max_length=64)
    tags: list[str] | None = Field(default=None, max_length=50)


class Uses(Outgoing):
    """Who uses a data set, in numbers."""

    own: int = Field(description="Projects of its owner.")
    others: int = Field(description="Projects of other people.")
    running: int = Field(description="Clusters that are held now of any of them.")


class Dataset(Outgoing):
    id: str
    owner: str
    slug: str
    name: str
    summary: str
    description: str
    mount: str = Field(description="Its directory below ~/datasets in projects that choose no other.")
    visibility: Literal["private", "shared", "public"]
    taken_down: bool
    taken_down_reason: str = Field(description="Told to its owner and to administrators.")
    access: Literal["read", "own"] = Field(description="What the caller may do with it.")
    field: str
    tags: list[str]
    cover: str | None
    busy: str = Field(description="What is being done to its files; empty = nothing.")
    size_bytes: int | None = Field(description="As last counted; null = not yet.")
    file_count: int | None
    created_at: datetime
    changed_at: datetime
    published_at: datetime | None
    volume: str | None = Field(description="Where its files lie; for those who manage it.")
    version: int = Field(
        description="Which version of another data set it is, whose files never change; 0 = none, files change."
    )
    version_of: str = Field(description="The id of that data set; empty = none.")
    url: str


class DatasetPublication(Publication):
    for_ever: bool = Field(description="Whether it cannot be taken back.")


class GiveRead(Incoming):
    person: str | None = Field(default=None, max_length=255, description="With whom; this or group.")
    group: str | None = Field(default=None, max_length=255)


class UsedBy(Outgoing):
    """A project that uses a data set, as far as the caller may know of it."""

    id: str
    owner: str
    slug: str
    name: str
    mount: str
    changed_at: datetime
    url: str


class UsedByAll(Outgoing):
    uses: Uses
    items: list[UsedBy]


class AddDataset(Incoming):
    dataset: str = Field(min_length=1, max_length=300, description="Its id, or owner/slug.")
    mount: str | None = Field(
        default=None, max_length=100, description="The directory below ~/datasets; left out = its own."
    )
    writable: bool = Field(default=False, description="Whether runs of its owner may write it.")


class LinkChange(Incoming):
    mount: str | None = Field(default=None, max_length=100)
    writable: bool | None = None
    version: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Which version; 0 = the data set itself, whose files change.",
    )


class LinkedDataset(Outgoing):
    """A data set of a project. What the caller may not read has its mount directory alone."""

    id: str
    mount: str
    writable: bool
    available: bool = Field(description="Whether a run that the caller starts now gets it.")
    why: str = Field(description="Why not, in the language asked for.")
    owner: str = ""
    slug: str = ""
    name: str = ""
    url: str = ""
    version: int = Field(default=0, description="0 = the data set itself, whose files change.")
    versions: list[int] = Field(
        default=[], description="Its versions that the caller may read, newest first."
    )


# --- volumes -------------------------------------------------------------------------------------------


class NewVolume(Incoming):
    id: str = Field(min_length=1, max_length=40)
    kind: Literal["directory", "claim"] = "directory"
    path: str = Field(max_length=1024, description="Where hub and portal have it, the whole path.")
    claim: str = Field(default="", max_length=253, description="Of Kubernetes: the PersistentVolumeClaim.")
    holds: Literal["both", "projects", "datasets"] = "both"


class VolumeChange(Incoming):
    holds: Literal["both", "projects", "datasets"] | None = None
    state: Literal["open", "closed"] | None = Field(default=None, description="Opening ends a drain.")


class OnMachine(Outgoing):
    machine: str = Field(description="Its name; empty = wherever Kubernetes chose to look.")
    problem: Literal["", "absent", "other", "silent", "refused"] = Field(
        description="Empty = the volume is there. absent: its mark is not; other: another volume's is; silent: "
        "nothing was said within a minute; refused: no pod could be made there."
    )
    said: str = Field(description="The same in words; empty = it is there.")


class Drain(Incoming):
    to: str = Field(min_length=1, max_length=64, description="The volume that takes everything.")


class Draining(Outgoing):
    to: str
    left: int = Field(description="Projects and data sets that are still to be moved.")
    waiting: int = Field(description="Of these, how many wait for clusters that run.")
    left_bytes: int
    moving: str = Field(description="What is moved just now.")
    problem: str = Field(description="What went wrong last; it is tried again.")


class Volume(Outgoing):
    id: str
    kind: str
    path: str
    claim: str
    holds: str
    state: Literal["open", "closed", "draining"]
    configured: bool = Field(description="Whether galilean.yaml names it.")
    total_bytes: int | None
    free_bytes: int | None
    looked_at: datetime | None
    problem: str = Field(description="Why it cannot be used just now; empty = it can.")
    projects: int
    datasets: int
    binned: int
    size_bytes: int = Field(description="Of everything on it, as last counted.")
    draining: Draining | None = None
