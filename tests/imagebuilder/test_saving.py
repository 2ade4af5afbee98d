"""Saving on a real Docker and a real registry, and everything that can go wrong on the way: nothing half-visible stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extensions.imagebuilder import container, space
from extensions.imagebuilder.container import GivenUp, Wanted
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.saving import Place, Saver, Task
from galilean import disk_reserve
from galilean.clock import utcnow
from galilean.errors import UserError
from spawner.docker.api import DockerAPI
from tests.imagebuilder.ground import (
    INSTANCE,
    NAME,
    TOKEN,
    WANTED,
    OpenDaemon,
    OpenRegistry,
    daemon_and_registry,
    inside,
    node,
)

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[OpenDaemon, OpenRegistry]]:
    with daemon_and_registry() as found:
        yield found


@pytest.fixture
def saver(ground: tuple[OpenDaemon, OpenRegistry], tmp_path: Path) -> Iterator[Saver]:
    daemon, registry = ground
    node(daemon)
    inside(
        daemon, "import os; os.makedirs('/home/jovyan/d'); open('/home/jovyan/d/f', 'w').write('x' * 9999)"
    )
    yield Saver(DockerAPI(daemon.url), INSTANCE, Place(registry.address), tmp_path / "images")
    daemon.client.remove_container(NAME, force=True, v=True)
    assert not [one for one in daemon.containers() if container.READER in one["Config"]["Labels"]]
    assert not list((tmp_path / "images").glob("*")), "what was on its way is still there"


def go(saver: Saver, task: Task, tag: str = "1", wanted: Wanted = WANTED, name: str = "tools") -> Any:
    return asyncio.run(saver.save(task, wanted, ImageName(name, tag)))


def state(daemon: OpenDaemon) -> dict[str, Any]:
    return daemon.client.inspect_container(NAME)["State"]


class Told(Task):
    """Does something when a step begins."""

    def __init__(self, at: str, then: Any) -> None:
        super().__init__(utcnow)
        self._at, self._then = at, then

    def begin(self, step: str, total_bytes: int | None = None) -> None:
        super().begin(step, total_bytes)
        if step == self._at:
            self._then(self)


def test_an_image_of_a_node_starts_again_with_what_was_changed(saver: Saver, ground: Any) -> None:
    daemon, _ = ground
    inside(
        daemon,
        "import os; os.remove('/etc/group'); os.link('/home/jovyan/d/f', '/home/jovyan/d/hard'); "
        "open('/etc/passwd', 'a').write('new:x:9:9::/:/bin/sh\\n')",
    )
    task = Task(utcnow)
    result = go(saver, task)
    assert result.layers == 2
    assert not state(daemon)["Paused"]
    code = (
        "import os; print(os.path.exists('/etc/group'), os.stat('/home/jovyan/d/hard').st_nlink, "
        "'new:' in open('/etc/passwd').read(), 'JUPYTERHUB_API_TOKEN' in os.environ)"
    )
    made = daemon.client.create_container_from_config(
        {
            "Image": str(result.image),
            "Cmd": ["/opt/galilean/bin/python", "-IS", "-c", code],
            "HostConfig": {"NetworkMode": "none"},
        }
    )["Id"]
    try:
        daemon.client.start(made)
        daemon.client.wait(made, timeout=60)
        assert daemon.client.logs(made).decode().strip() == "False 2 True False"
    finally:
        daemon.client.remove_container(made, force=True)


def test_an_image_of_a_saved_image_sends_its_own_layer_alone(saver: Saver, ground: Any) -> None:
    first, second = Task(utcnow), Task(utcnow)
    go(saver, first, "2")
    go(saver, second, "3")
    assert "the image below was brought" not in second.log


def test_a_secret_is_refused_and_nothing_is_pushed(saver: Saver, ground: Any) -> None:
    daemon, registry = ground
    before = sorted(path.name for path in registry.data.rglob("sha256/*/*"))
    inside(daemon, f"open('/home/jovyan/d/odd name.dat', 'w').write('{TOKEN}'[::1])")
    with pytest.raises(UserError) as refused:
        go(saver, Task(utcnow), "4", name="secret")
    assert "/home/jovyan/d/odd name.dat" in str(refused.value)
    assert sorted(path.name for path in registry.data.rglob("sha256/*/*")) == before
    assert not state(daemon)["Paused"]


def test_a_node_of_somebody_else_or_of_another_run_is_refused(saver: Saver) -> None:
    for wanted in (
        Wanted("eve", "x", "run", 0),
        Wanted("ada", "x", "another run", 0),
        Wanted("ada", "x", "run", 1),
        Wanted("ada", "../x", "run", 0),
    ):
        with pytest.raises(UserError) as refused:
            go(saver, Task(utcnow), "5", wanted)
        assert refused.value.reason == "node-gone"


def test_a_container_that_stops_in_the_middle_is_told(saver: Saver, ground: Any) -> None:
    daemon, _ = ground
    task = Told("copying", lambda _: None)
    daemon.client.kill(NAME)
    with pytest.raises(UserError) as refused:
        go(saver, task, "6")
    assert refused.value.reason == "node-gone"


@pytest.mark.parametrize("step", ["copying", "writing", "pushing", "placing"])
def test_whoever_cancels_leaves_nothing(saver: Saver, ground: Any, step: str) -> None:
    daemon, registry = ground
    task = Told(step, lambda one: one.stop.set())
    with pytest.raises(GivenUp):
        go(saver, task, "7", name=f"cancelled-{step}")
    assert not state(daemon)["Paused"]
    tags = registry.data.rglob(f"*/cancelled-{step}/_manifests/tags/*")
    assert not list(tags)
    assert not daemon.client.images(name=f"*/people/ada/cancelled-{step}")


def test_a_registry_that_is_away_is_told_and_the_node_goes_on(
    saver: Saver, ground: Any, tmp_path: Path
) -> None:
    daemon, _ = ground

    async def at_once(_: float) -> None:
        pass

    from extensions.imagebuilder.registry.client import Registry

    nowhere = f"http://{daemon.machine.outside}:9"
    away = Saver(
        saver.docker,
        INSTANCE,
        Place(nowhere),
        saver.directory,
        registry=lambda: Registry(nowhere, wait=at_once),
    )
    with pytest.raises(UserError) as refused:
        go(away, Task(utcnow), "8")
    assert refused.value.reason == "registry-away"
    assert not state(daemon)["Paused"]


def test_a_full_disk_is_told_before_anybody_is_held(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "copy_changes", lambda *_, **__: pytest.fail("it was held"))
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: 0)
    with pytest.raises(UserError) as refused:
        go(saver, Task(utcnow), "9")
    assert (refused.value.status, refused.value.reason) == (507, "disk-full")


def test_a_file_of_nothing_but_a_length_is_told_before_anybody_is_held(
    ground: Any, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = ground
    monkeypatch.setattr(container, "copy_changes", lambda *_, **__: pytest.fail("it was held"))
    inside(daemon, "import os; open('/home/jovyan/empty', 'wb'); os.truncate('/home/jovyan/empty', 8 << 40)")
    with pytest.raises(UserError) as refused:
        go(saver, Task(utcnow), "9")
    assert (refused.value.status, refused.value.reason) == (413, "save-large")
    assert refused.value.params["size"] >= 8 << 20


@pytest.mark.parametrize("over", ["the most that can be saved", "the disk"])
def test_a_file_that_becomes_longer_while_it_is_copied_fills_no_disk(
    ground: Any, saver: Saver, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    daemon, _ = ground
    find = container.find

    def before(*asked: Any) -> container.Found:
        found = find(*asked)
        inside(
            daemon, "import os; open('/home/jovyan/grows', 'wb'); os.truncate('/home/jovyan/grows', 40 << 30)"
        )
        return found

    def free_bytes(folder: Path) -> int:
        taken = sum(path.stat().st_size for path in folder.glob("*/*"))
        return max(0, (300 << 20) - taken)

    monkeypatch.setattr(container, "find", before)
    if over == "the disk":
        monkeypatch.setattr(disk_reserve, "free_bytes", free_bytes)
    else:
        monkeypatch.setattr(space, "LIMIT_BYTES", 200 << 20)
    most = 0
    real = container.copy_changes

    def copied(*asked: Any, progress: Any, **more: Any) -> container.Copied:
        def at(done: int) -> None:
            nonlocal most
            most = max(most, done)
            progress(done)

        return real(*asked, progress=at, **more)

    monkeypatch.setattr(container, "copy_changes", copied)
    with pytest.raises(UserError) as refused:
        go(saver, Task(utcnow), "9")
    assert refused.value.reason == ("disk-full" if over == "the disk" else "save-large")
    assert most < 310 << 20
    assert not state(daemon)["Paused"]


def test_a_node_is_let_go_in_time_however_much_is_copied(ground: Any, saver: Saver, tmp_path: Path) -> None:
    daemon, _ = ground
    inside(
        daemon,
        "import os; f = open('/home/jovyan/big', 'wb'); [f.write(os.urandom(1 << 20)) for _ in range(30)]",
    )
    found = container.find(daemon.client, INSTANCE, WANTED)
    seen: list[bool] = []

    def slowly(done: int) -> None:
        if done > 2 << 20:
            if not seen:
                time.sleep(0.6)
            seen.append(bool(state(daemon)["Paused"]))

    pauser = DockerAPI(daemon.url).connect()
    with container.reader(daemon.client, INSTANCE, found) as source, open(tmp_path / "raw", "wb") as out:
        copied = container.copy_changes(
            DockerAPI(daemon.url).connect(), pauser, found, source, out, progress=slowly, freeze_seconds=0.2
        )
    pauser.close()
    assert not copied.one_moment
    assert seen and not any(seen), "it was copied on while the person worked"
    assert copied.size_bytes > 30 << 20


def test_what_a_killed_service_left_is_put_right(saver: Saver, ground: Any) -> None:
    daemon, _ = ground
    found = container.find(daemon.client, INSTANCE, WANTED)
    left = container.reader(daemon.client, INSTANCE, found)
    left.__enter__()
    daemon.client.pause(NAME)
    assert container.put_right(daemon.client, INSTANCE) == 2
    assert not state(daemon)["Paused"]
    assert container.put_right(daemon.client, INSTANCE) == 0
