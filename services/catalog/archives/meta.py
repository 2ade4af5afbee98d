"""What an archive says of a project, and of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Said(BaseModel):
    # Of a newer version that keeps the number there may be more: it is left out.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Head(_Said):
    """The first member."""

    format: str
    version: int
    site: str = ""
    made_at: datetime | None = None
    projects: int = Field(ge=0)


class DatasetMeta(_Said):
    """A data set that the project uses: where it was, not its files."""

    owner: str = Field(max_length=255)
    slug: str = Field(max_length=64)
    name: str = Field(default="", max_length=255)
    mount: str = Field(max_length=64)
    writable: bool = False


class ProjectMeta(_Said):
    """``project.json``."""

    id: str = Field(max_length=26)
    owner: str = Field(max_length=255)
    slug: str = Field(max_length=64)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=20_000)
    environment: str = Field(default="", max_length=128)
    default_request: dict[str, Any] | None = None
    visibility: Literal["private", "shared", "public"] = "private"
    field: str = Field(default="", max_length=64)
    tags: tuple[str, ...] = Field(default=(), max_length=50)
    readme: str = Field(default="", max_length=255)
    created_at: datetime | None = None
    changed_at: datetime | None = None
    datasets: tuple[DatasetMeta, ...] = Field(default=(), max_length=200)
    cover: str = Field(default="", max_length=64, description="Name of the cover’s member; empty = none.")


class NotebookMeta(_Said):
    """What a notebook says of itself."""

    kernel: str = Field(default="", max_length=200)
    language: str = Field(default="", max_length=200)
    cells: int = 0


class FileMeta(_Said):
    """A line of ``manifest.json``."""

    path: str
    kind: Literal["file", "folder", "link"]
    size: int = 0
    sha256: str = ""
    to: str = ""
    notebook: NotebookMeta | None = None


class Manifest(_Said):
    """``manifest.json``."""

    files: tuple[FileMeta, ...]
    left_out: tuple[str, ...] = ()


class End(_Said):
    """The last member."""

    projects: int
    manifests: dict[str, str]
