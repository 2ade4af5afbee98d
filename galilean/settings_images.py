"""Section ``images`` of ``galilean.yaml``: who may keep environments online, and which registries are asked.

Addresses of images are typed by people, so the portal would go wherever they say. It goes to addresses of the
public internet alone, unless a name or network is listed here: a centre's own registry usually is.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from galilean.reachable import HOST, words_of_reachable
from galilean.settings_builds import Builds as Builds
from galilean.settings_distribution import Distribution as Distribution
from galilean.settings_places import ENTRY, Section
from galilean.settings_registry import Registry as Registry


class Images(Section):
    """Environments that are kept online, beside those of this file. Backends docker and kubernetes."""

    own: bool = Field(
        default=True,
        description="Whether everybody with a role may keep environments of their own; administrators may anyway.",
    )
    fields: dict[str, str] = Field(
        default={},
        description="Fields of the catalogue besides the nine that are built in: short name → title.",
    )
    reachable: tuple[str, ...] = Field(
        default=(),
        description="Registries that may be asked although their address is private: `registry.example.edu`, "
        "`10.1.2.3:5000`, or a whole network as `10.1.0.0/16`. All others must be on the public internet.",
    )
    plain_http: tuple[str, ...] = Field(
        default=(),
        description="Registries that are spoken to without TLS, as `host:port`. Never send passwords there.",
    )
    ca_file: str = Field(
        default="",
        description="Who signs the registries' certificates, as PEM; empty = whom the machine trusts.",
    )
    platform: str = Field(
        default="",
        description="What the machines are, such as `linux/arm64`; empty = the same as this one.",
    )

    adapter: str = Field(
        default="",
        max_length=512,
        description="The image of the parts that images which nobody made for nodes are adapted with "
        "(`scripts/images.py adapter`): as Docker has it, or its address; empty = none are adapted.",
    )
    registry: Registry = Registry()
    builds: Builds = Builds()
    distribution: Distribution = Distribution()

    @field_validator("fields")
    @classmethod
    def _fields(cls, value: dict[str, str]) -> dict[str, str]:
        for name, title in value.items():
            if not ENTRY.fullmatch(name):
                raise ValueError(f"{name!r}: a field's name has lower-case letters, digits and hyphens")
            if not 0 < len(title) <= 60:
                raise ValueError(f"{name}: a title has 1 to 60 characters")
        return value

    @field_validator("reachable")
    @classmethod
    def _reachable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return words_of_reachable(value)

    @field_validator("plain_http")
    @classmethod
    def _plain(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.startswith("[") and not HOST.fullmatch(text):
                raise ValueError(f"{text!r} is no host or host:port")
        return value

    @field_validator("platform")
    @classmethod
    def _platform(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", value):
            raise ValueError(f"{value!r} is no platform such as linux/amd64")
        return value
