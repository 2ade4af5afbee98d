"""Section ``images.builds`` of ``galilean.yaml``: images from a Dockerfile or lists of packages in a project.

Whoever builds is root in a container of Docker's own while it lasts, with what Docker gives to every container, so it
is off until the centre switches it on, as ``allow_sudo`` is.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from galilean.amounts import parse_bytes
from galilean.settings_places import Section

_Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]


class Builds(Section):
    """Images built from files of a project. Backend docker, where images can be saved."""

    allowed: bool = Field(
        default=False,
        description="Whether people with a role may build images from files of a project: while it is built they are "
        "root in a container with the rights that Docker usually gives, cut off from hub, clusters and machine.",
    )
    at_once: int = Field(default=1, ge=1, le=16, description="Builds at a time; others wait.")
    cpu: float = Field(default=2.0, gt=0, description="CPUs of a build.")
    memory: _Bytes = Field(default=4 << 30, ge=64 << 20, description="Memory of a build.")
    minutes: int = Field(default=60, ge=1, le=24 * 60, description="Longest that a build may take.")
    files: _Bytes = Field(
        default=200 << 20, ge=1 << 20, description="Most of a project's files that a Dockerfile gets to see."
    )
    size: _Bytes = Field(
        default=10 << 30, ge=1 << 20, description="Most that a build may add to the image it stands on."
    )
    cache_days: int = Field(
        default=7, ge=0, le=365, description="For how long the steps of a build are kept for the next."
    )
