"""The time, always aware and UTC. Functions that decide take ``now`` as an argument instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utcnow() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)
