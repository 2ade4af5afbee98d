"""Section ``images.distribution`` of ``galilean.yaml``: bringing images to machines before somebody waits for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from galilean.amounts import parse_bytes
from galilean.settings_places import Section

_Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]


class Distribution(Section):
    """Which image is on which machine, and fetching what is missing. Backends docker and kubernetes."""

    beforehand: bool = Field(
        default=True,
        description="Whether images are fetched before somebody runs them; off = with their first run, or when an "
        "administrator presses *Redistribute*.",
    )
    at_once: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Machines that fetch at a time; each fetches one image at a time.",
    )
    bytes_per_second: _Bytes = Field(
        default=0,
        ge=0,
        description="What all machines together may fetch on average; 0 = no limit. An image is fetched as fast as it "
        "comes, and the next one begins when the average allows it.",
    )
    reserve_percent: int = Field(
        default=20,
        ge=0,
        le=90,
        description="Of a machine's disk: what stays free. Below 15 kubelets usually begin to remove images themselves.",
    )
    reserve_most: _Bytes = Field(
        default=20 << 30,
        ge=0,
        description="No more than this stays free where nothing removes images by itself, as Docker: a fifth of a large disk "
        "would be hundreds of gigabytes. Kubelets go by percent whatever the size, so there it does not count.",
    )
    minutes: int = Field(
        default=60, ge=1, le=24 * 60, description="Longest that a machine may fetch one image."
    )
