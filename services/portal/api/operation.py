"""What the OpenAPI document says of one method of one address."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel

PAGED = {"limit": "At most this many, 1 to 200.", "cursor": "“next” of the page before."}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one address."""

    method: str
    path: str
    summary: str
    answers: dict[int, type[BaseModel] | None]
    takes: type[BaseModel] | None = None
    raw_body: bool = False
    query: dict[str, str] = field(default_factory=dict)
    public: bool = False
