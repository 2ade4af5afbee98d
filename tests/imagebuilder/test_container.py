"""A container that is held is let go, however long Docker does not answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import requests

from extensions.imagebuilder import container


class Away:
    """A daemon that answers no question to let go for a while."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.let_go = threading.Event()

    def pause(self, _: str) -> None:
        pass

    def unpause(self, _: str) -> None:
        if self.refusals:
            self.refusals -= 1
            # What a connection raises that was closed under a request is not always requests' own.
            raise AttributeError if self.refusals == 1 else requests.ConnectionError
        self.let_go.set()

    def containers(self, **asked: Any) -> list[dict[str, str]]:
        return [] if asked.get("all") else [{"Id": "c"}]


@pytest.mark.parametrize("refusals", [0, 3, 30])
def test_whoever_is_held_is_let_go_though_docker_is_away_for_long(refusals: int) -> None:
    daemon: Any = Away(refusals)
    waits: list[float] = []
    held = container._Hold(daemon, "c", 60, lambda: 0.0, waits.append)
    held.begin()
    held.end()
    assert daemon.let_go.wait(20)
    assert len(waits) == refusals


def test_whoever_a_killed_service_held_is_let_go_though_docker_is_away_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container, "AGAIN_SECONDS", 0)
    daemon: Any = Away(5)
    assert container.put_right(daemon, "lab") == 1
    assert daemon.let_go.wait(20)
