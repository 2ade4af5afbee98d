"""Section ``object_stores`` of ``galilean.yaml``: who may bring data from object stores (S3), and from where.

Addresses of stores are typed by people, so the portal would go wherever they say. It goes to addresses of the public
internet alone, by TLS, unless a name or network is listed here: a centre's own store usually is.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from galilean.reachable import words_of_reachable
from galilean.settings_places import Section


class ObjectStores(Section):
    """Object stores (S3), from which files come into projects and data sets and to which they go."""

    enabled: bool = Field(
        default=True, description="Whether there are any at all; false = nobody copies from or to one."
    )
    own: bool = Field(
        default=True,
        description="Whether everybody with a role may keep stores of their own; else only the centre's are there.",
    )
    reachable: tuple[str, ...] = Field(
        default=(),
        description="Stores that may be asked although their address is private or without TLS: `s3.example.edu`, "
        "`10.1.2.3:9000`, or a whole network as `10.1.0.0/16`. All others must be on the public internet, with TLS.",
    )
    ca_file: str = Field(
        default="",
        description="Who signs the stores' certificates, as PEM; empty = whom the machine trusts.",
    )

    @field_validator("reachable")
    @classmethod
    def _reachable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return words_of_reachable(value)
