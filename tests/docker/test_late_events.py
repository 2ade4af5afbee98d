"""A node made anew while the daemon's events come late: nobody takes its end on purpose for a loss."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from spawner.docker import again, containers, troubles
from spawner.docker.again import ContainerAgain
from spawner.docker.troubles import Container
from spawner.docker.watch import ContainerWatch
from spawner.renewal import RESTART
from spawner.renewing import NodeBack
from spawner.requests import OnTheWay
from tests.docker.test_containers import PLACE, spec_of
from tests.docker.test_troubles import inspected

SPEC = spec_of()


class FakeDaemon:
    """A daemon with one container, that was stopped a moment ago."""

    def __init__(self) -> None:
        self.started = False

    async def ask(self, function: Callable[[Any], Any]) -> Any:
        return function(self)

    async def do(self, function: Callable[[], Any]) -> Any:
        return function()

    def inspect_container(self, _: str) -> dict[str, Any]:
        over = {} if self.started else {"Status": "exited", "Running": False}
        return inspected(1, **over)

    def start(self, _: str) -> None:
        self.started = True


class LateWatch(ContainerWatch):
    """Tells what the test lets it tell, and nothing by itself."""

    def start(self) -> None:
        pass

    def tell(self, *, running: bool) -> None:
        found = troubles.container(inspected(1), self.instance)
        assert found is not None
        self._seen(replace(found, running=running))

    @property
    def told(self) -> Container:
        return self.containers(SPEC.base)[1]


class World:
    def __init__(self, tmp_path: Path) -> None:
        daemon: Any = FakeDaemon()
        self.daemon, self.watch = daemon, LateWatch(daemon, SPEC.instance)
        again.keep(tmp_path / "kept.json", SPEC.prefix, {"1": containers.container(SPEC, 1, PLACE)})
        self.progress = NodeBack(lambda host: None)

        async def answers(_: str) -> bool:
            return True

        log = logging.getLogger("tests")
        one = ContainerAgain(
            daemon, self.watch, OnTheWay(), SPEC.base, tmp_path / "kept.json", ask=answers, log=log
        )
        self.make = lambda: one.make(SPEC.run, 1, RESTART, self.progress)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_node_is_back_when_the_events_have_told_of_its_end_and_of_its_new_start(world: World) -> None:
    world.watch.tell(running=True)  # of the life before
    making = asyncio.ensure_future(world.make())
    await asyncio.sleep(0.05)
    assert not world.daemon.started, "its end would be told after its new start"
    world.watch.tell(running=False)
    await asyncio.sleep(0.05)
    assert world.daemon.started
    assert not world.progress.url, "a look would still find it ended"
    world.watch.tell(running=True)
    await asyncio.wait_for(making, 5)
    assert not world.watch.told.over
    assert world.progress.url


async def test_events_that_never_come_keep_no_node_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "TOLD_SECONDS", 0.05)
    world.watch.tell(running=True)
    await asyncio.wait_for(world.make(), 5)
    assert world.progress.url


class Hanging:
    """A daemon whose events flow, but that never answers a question about a container."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def connect(self, *, timeout: float | None = 60) -> Any:
        return HangingClient(self.over, timeout)


class HangingClient:
    def __init__(self, over: threading.Event, timeout: float | None) -> None:
        self._over, self._timeout = over, timeout

    def events(self, **_: Any) -> Iterator[dict[str, Any]]:
        return iter(())

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Id": "c1"}]

    def inspect_container(self, _: str) -> dict[str, Any]:
        if self._timeout is None:
            self._over.wait(10)
        raise requests.ReadTimeout("it hangs")

    def close(self) -> None:
        pass


async def test_a_question_that_hangs_ends_so_that_nobody_believes_what_is_old() -> None:
    daemon: Any = Hanging()
    watch = ContainerWatch(daemon, SPEC.instance)
    try:
        with pytest.raises(requests.ReadTimeout):
            await asyncio.wait_for(watch.look(), 3)
        assert not watch.current
    finally:
        daemon.over.set()
        await watch.stop()
