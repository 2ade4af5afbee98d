"""Waiting for what a real Kubernetes does: everything is on one machine, and a busy one is slow, not wrong.

Tests name the seconds that a quiet machine may take; they become those after which something is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.process.hub import eventually as eventually

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, *, seconds: float = 30, every: float = 0.2) -> T:
    """What ``look`` answers as soon as that is true; the last exception or answer is told otherwise."""
    from tests.product import product

    return product.wait_for(look, what, seconds=seconds, every=every)
