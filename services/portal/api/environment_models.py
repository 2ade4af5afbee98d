"""Bodies of the environments' addresses (:mod:`services.portal.api.environments`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from services.portal.api.models import Incoming, Outgoing

Visibility = Literal["own", "group", "public"]


class Grantee(Incoming):
    """A person or a group of people."""

    person: str = Field(default="", max_length=255)
    group: str = Field(default="", max_length=255)

    @model_validator(mode="after")
    def _one(self) -> Grantee:
        if bool(self.person) == bool(self.group):
            raise ValueError("name a person or a group")
        return self


class Image(Incoming):
    """Where an image is, as somebody types it; `key` is the id of a kept name and password."""

    address: str = Field(min_length=1, max_length=512)
    key: str = Field(default="", max_length=26)


class NewEnvironment(Incoming):
    """A new entry, from the image at an address."""

    name: str = Field(default="", max_length=60)
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=2000)
    field: str = Field(default="", max_length=64)
    image: Image
    tag: str = Field(default="", max_length=128)
    centre: bool = False
    start: dict[str, Any] = {}
    visibility: Visibility | None = None
    shared_with: list[Grantee] = Field(default=[], max_length=200)


class EnvironmentChange(Incoming):
    """What shall be different; what is left out stays."""

    title: str | None = Field(default=None, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    documentation: str | None = Field(default=None, max_length=60_000)
    field: str | None = Field(default=None, max_length=64)
    start: dict[str, Any] | None = None
    visibility: Visibility | None = None
    shared_with: list[Grantee] | None = Field(default=None, max_length=200)


class NewVersion(Incoming):
    """Another image for an entry; new runs get it unless `use` is false."""

    image: Image
    tag: str = Field(default="", max_length=128)
    note: str = Field(default="", max_length=500)
    use: bool = True


class Version(Outgoing):
    number: int
    tag: str
    image: str
    digest: str
    source: str
    size_bytes: int | None
    layers: int | None
    platform: str
    told: list[str]
    note: str
    added_at: datetime
    added_by: str
    current: bool


class Environment(Outgoing):
    """An entry as lists show it."""

    id: str
    name: str
    title: str
    description: str
    gpu: bool
    default: bool
    from_file: bool
    owner: str
    field: str
    interfaces: list[str]
    visibility: Visibility
    version: str
    digest: str
    retired: bool
    open_clusters: int
    last_use: datetime | None


class EnvironmentDetail(Environment):
    documentation: str
    start: dict[str, Any]
    versions: list[Version]
    shared_with: list[str]
    may_change: bool


class Looked(Outgoing):
    """What is at an address."""

    image: str
    digest: str
    tag: str
    size_bytes: int
    layers: int
    platform: str
    told: list[str]


class NewKey(Incoming):
    """A registry's name and password; they are never shown again."""

    registry: str = Field(min_length=1, max_length=255)
    username: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=16_384, repr=False)
    centre: bool = False


class Key(Outgoing):
    id: str
    registry: str
    username: str
    centre: bool
    made_at: datetime


class Logo(Outgoing):
    """Where the picture is; `cover` because pages crop all pictures alike."""

    cover: str
