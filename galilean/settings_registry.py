"""Section ``images.registry`` of ``galilean.yaml``: where images that people save are kept.

Empty on one machine with Docker: then the product starts a registry of its own there (Debian's ``docker-registry``),
at the loopback address, for itself alone. A centre's own registry is named by its address; the password is in a file
that the image service alone reads.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from galilean.amounts import parse_bytes
from galilean.settings_places import Section

_Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]


class Registry(Section):
    """Where saved images are kept. Backends docker and kubernetes."""

    address: str = Field(
        default="",
        description="`https://registry.example.edu`; empty = one of our own on this machine, where Debian's "
        "docker-registry is installed. `http://` only at this machine's own addresses.",
    )
    username: str = Field(default="", description="Of the account that may push, pull and delete there.")
    password_file: str = Field(
        default="", description="File with its password; only the image service reads it."
    )
    prefix: str = Field(
        default="",
        pattern=r"^([a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*)?$",
        description="Begins the names of all repositories, such as the name of a project of the registry.",
    )
    ca_file: str = Field(
        default="",
        description="Who signs its certificate, as PEM; empty = whom the machine trusts. Docker wants it, too.",
    )
    per_person: _Bytes = Field(
        default=0,
        ge=0,
        description="Bytes of saved images that a person may keep, with what lies below them where "
        "it comes from an entry of their own; 0 = no limit of its own.",
    )

    upload: _Bytes = Field(
        default=32 << 30,
        ge=0,
        description="The most that a packed image may have which somebody uploads; 0 = nobody uploads any.",
    )
    upload_folder: str = Field(
        default="",
        description="Where packed images come in; empty = `image-uploads` below the state directory. Portal and image "
        "service both read and write there, on whichever machines they are.",
    )

    @field_validator("address")
    @classmethod
    def _whole(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or "@" in parts.netloc
        ):
            raise ValueError(f"{value!r} is no address such as https://registry.example.edu")
        return value.rstrip("/")
