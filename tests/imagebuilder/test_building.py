"""Builds on a real Docker and a real registry: what becomes of a Dockerfile, and what it does not reach."""

from __future__ import annotations

import asyncio
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from ulid import ULID

from extensions.imagebuilder import build_steps, building
from extensions.imagebuilder.build_network import BUILDS
from extensions.imagebuilder.building import Builder, Order
from extensions.imagebuilder.container import READER, GivenUp
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.saving import NoBooks, Place, Result, Saver, Task
from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.settings_builds import Builds
from hub_config.docker_ground import make_own_network
from spawner.docker import firewall
from spawner.docker.api import DockerAPI
from tests.docker.daemon import IMAGE, POOL, listening
from tests.imagebuilder.ground import INSTANCE, OpenDaemon, OpenRegistry, daemon_and_registry

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
DAY = datetime(2026, 3, 1, tzinfo=UTC)
#: Debian's Python is all that the tests' image runs.
SHELL = 'FROM base\nSHELL ["/opt/galilean/bin/python", "-IS", "-c"]\n'


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[OpenDaemon, OpenRegistry]]:
    with daemon_and_registry() as found:
        yield found


@pytest.fixture
def builder(ground: tuple[OpenDaemon, OpenRegistry], tmp_path: Path) -> Iterator[Builder]:
    daemon, registry = ground
    saver = Saver(DockerAPI(daemon.url), INSTANCE, Place(registry.address), tmp_path / "images")
    yield Builder(saver, Builds(allowed=True), pool=IPv4Network(POOL), contexts=tmp_path / "builds")
    assert not [one for one in daemon.containers() if READER in one["Config"]["Labels"]]
    assert not daemon.containers(), "a container of a build is left"
    assert not daemon.client.networks(filters={"label": BUILDS}), "its network is left"
    assert not list((tmp_path / "images").glob("*")), "what was on its way is still there"


def files(tmp_path: Path, **named: str) -> Path:
    path = tmp_path / "context.tar"
    with tarfile.open(path, "w") as archive:
        for name, text in named.items():
            (tmp_path / name).write_text(text)
            archive.add(tmp_path / name, name)
    return path


def go(builder: Builder, text: str, tag: str = "1", task: Task | None = None, **more: Any) -> Result:
    order = Order(
        id=more.pop("id", f"01HBBBBB{tag:0>18}"),
        owner="ada",
        dockerfile=text,
        images={"base": IMAGE, **more.pop("images", {})},
        **more,
    )
    return asyncio.run(builder.build(task or Task(utcnow), order, ImageName("built", tag)))


def said_by(daemon: OpenDaemon, image: str, code: str) -> str:
    made = daemon.client.create_container_from_config(
        {
            "Image": image,
            "Entrypoint": [],
            "Cmd": ["/opt/galilean/bin/python", "-IS", "-c", code],
            "HostConfig": {"NetworkMode": "none"},
        }
    )["Id"]
    try:
        daemon.client.start(made)
        daemon.client.wait(made, timeout=60)
        return daemon.client.logs(made).decode().strip()
    finally:
        daemon.client.remove_container(made, force=True)


def in_registry(registry: OpenRegistry, tag: str) -> bool:
    return any(
        path.name == tag for path in registry.data.rglob("repositories/people/ada/built/_manifests/tags/*")
    )


def test_a_dockerfile_becomes_an_image_with_what_its_steps_did(
    builder: Builder, ground: Any, tmp_path: Path
) -> None:
    daemon, _ = ground
    text = SHELL + (
        "COPY hello /opt/said/hello\n"
        "RUN import os; os.remove('/etc/group'); open('/opt/said/new', 'w').write('n' * 5000)\n"
        "RUN import shutil; shutil.rmtree('/home/jovyan'); import os; os.mkdir('/home/jovyan')\n"
        "ENV WHO=ada\n"
    )
    task = Task(utcnow)
    result = go(builder, text, task=task, context=files(tmp_path, hello="hello"))
    assert result.layers == 4 and result.changes["packed_bytes"] > 0
    assert result.dockerfile == text
    largest = dict(result.changes["added"]["largest"])
    assert largest["opt/said/new"] == 5000
    assert ["etc/group", 0] in result.changes["deleted"]["largest"]
    assert "Step 1/" in task.log and "ready as" in task.log
    code = (
        "import os; print(open('/opt/said/hello').read(), os.path.exists('/etc/group'), os.environ['WHO'], "
        "os.listdir('/home/jovyan'), sorted(n for n in os.listdir('/') if 'galilean' in n))"
    )
    assert said_by(daemon, str(result.image), code) == "hello False ada [] []"


def test_what_did_not_change_is_not_run_again(builder: Builder, ground: Any) -> None:
    text = SHELL + "RUN import time; open('/opt/now', 'w').write(str(time.time_ns()))\n"
    first, second = Task(utcnow), Task(utcnow)
    go(builder, text, "2", first)
    go(builder, text + "ENV A=1\n", "3", second)
    assert "Using cache" not in first.log.partition("RUN")[2]
    assert "Using cache" in second.log.partition("RUN")[2]


def test_a_build_reaches_neither_hub_nor_machine_nor_clusters(builder: Builder, ground: Any) -> None:
    daemon, registry = ground
    machine, pool = daemon.machine, IPv4Network(POOL)
    address = str(pool[1])
    make_own_network(daemon.client, INSTANCE, pool)
    neighbour = _listening_node(daemon)
    hub, other = listening(machine, address, 20001), listening(machine, machine.address, 20002)
    rules = firewall.rules(
        firewall.Reach(pool=POOL, address=address, ports=[20001], not_outside=("10.0.0.0/8", "198.18.0.0/16"))
    )
    places = [(address, 20001), (machine.address, 20002), (neighbour, 8888), (machine.outside, registry.port)]
    code = (
        "import socket\n"
        "def at(place):\n"
        "    try:\n"
        "        socket.create_connection(place, 2).close()\n"
        "        return 1\n"
        "    except OSError:\n"
        "        return 0\n"
        f"print('reached', [at(place) for place in {places}])"
    )
    shut, opened = Task(utcnow), Task(utcnow)
    try:
        subprocess.run(machine.command("nft", "-f", "-"), input=rules, text=True, check=True, timeout=30)
        go(builder, SHELL + f"RUN exec({code!r})\n", "4", shut)
        machine.run("nft", "delete", "table", "inet", firewall.TABLE)
        go(builder, SHELL + f"ENV WITHOUT=rules\nRUN exec({code!r})\n", "5", opened)
    finally:
        machine.run("nft", "delete", "table", "inet", firewall.TABLE, check=False)
        for service in (hub, other):
            service.kill()
            service.wait(10)
        daemon.client.remove_container("neighbour", force=True)
        daemon.client.remove_network(f"{INSTANCE}-hub")
    assert "reached [0, 0, 0, 0]" in shut.log
    assert "reached [1, 1, 0, 1]" in opened.log, "without the rules there is something to reach"


def _listening_node(daemon: OpenDaemon) -> str:
    """A container of another network that answers at port 8888; its address."""
    code = "import socket; s = socket.create_server(('', 8888))\nwhile True: s.accept()[0].close()"
    daemon.client.create_container_from_config(
        {
            "Image": IMAGE,
            "Cmd": ["/opt/galilean/bin/python", "-IS", "-c", code],
            "HostConfig": {"NetworkMode": f"{INSTANCE}-hub"},
        },
        "neighbour",
    )
    daemon.client.start("neighbour")
    networks = daemon.client.inspect_container("neighbour")["NetworkSettings"]["Networks"]
    return str(networks[f"{INSTANCE}-hub"]["IPAddress"])


def test_an_image_of_somebody_elses_is_not_built_on(builder: Builder, ground: Any) -> None:
    daemon, _ = ground
    daemon.client.tag(IMAGE, "eve/secret", "1")
    for text in ("FROM eve/secret:1\n", SHELL + "COPY --from=eve/secret:1 /etc /x\n"):
        with pytest.raises(UserError) as refused:
            go(builder, text, "6")
        assert refused.value.status == 422


def test_a_key_in_a_step_is_refused_and_nothing_is_pushed(builder: Builder, ground: Any) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAA="
    with pytest.raises(UserError) as refused:
        go(
            builder,
            SHELL
            + f"RUN open('/opt/picture.png', 'w').write('{key}')\nRUN import os; os.remove('/opt/picture.png')\n",
            "7",
        )
    assert refused.value.reason == "secret" and refused.value.params["path"] == "/opt/picture.png"
    with pytest.raises(UserError) as refused:
        go(builder, "FROM base\nENV TOKEN=ghp_" + "a1" * 20 + "\n", "7")
    assert refused.value.params["path"] == "/Dockerfile"
    assert not in_registry(ground[1], "7")


def test_a_step_that_fails_says_so_and_leaves_nothing(builder: Builder, ground: Any) -> None:
    task = Task(utcnow)
    with pytest.raises(UserError) as refused:
        go(builder, SHELL + "RUN print('no \\x1b[31mcompiler'); raise SystemExit(3)\n", "8", task)
    assert refused.value.reason == "build-failed" and "3" in refused.value.params["what"]
    assert "no compiler" in task.log
    assert not in_registry(ground[1], "8")


class Until(Task):
    """Does something when a word stands in the log."""

    def __init__(self, word: str, then: Any) -> None:
        super().__init__(utcnow)
        self._word, self._then, self._over = word, then, threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while not self._over.wait(0.05):
            if any(self._word in line for line in self.lines):
                self._then(self)
                return


def test_whoever_cancels_ends_what_runs(builder: Builder, ground: Any) -> None:
    task = Until("sleeping", lambda task: task.stop.set())
    with pytest.raises(GivenUp):
        go(builder, SHELL + "RUN import time; print('sleeping', flush=True); time.sleep(250)\n", "9", task)


def test_the_time_is_limited(builder: Builder, ground: Any) -> None:
    late = [0.0]
    task = Until("sleeping", lambda _: late.__setitem__(0, 1e6))
    task.monotonic = lambda: late[0]
    with pytest.raises(UserError) as refused:
        go(builder, SHELL + "RUN import time; print('sleeping', flush=True); time.sleep(250)\n", "10", task)
    assert refused.value.reason == "build-time"


def test_what_is_written_is_limited_while_it_is_written(builder: Builder, ground: Any) -> None:
    builder.limits = Builds(allowed=True, size=1 << 20)
    with pytest.raises(UserError) as refused:
        go(
            builder,
            SHELL + "RUN import time; open('/opt/large', 'wb').write(bytes(5 << 20)); time.sleep(250)\n",
            "11",
        )
    assert refused.value.reason == "build-large"


def test_cpu_memory_and_processes_are_limited(builder: Builder, ground: Any) -> None:
    builder.limits = Builds(allowed=True, memory=128 << 20, cpu=0.5)
    code = (
        "import time; time.sleep(2); "
        "read = lambda *names: next(open(n).read().strip() for n in names if __import__('os').path.exists(n)); "
        "print('limits', read('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'), "
        "read('/sys/fs/cgroup/cpu.max', '/sys/fs/cgroup/cpu/cpu.cfs_quota_us'), "
        "read('/sys/fs/cgroup/pids.max', '/sys/fs/cgroup/pids/pids.max'))"
    )
    task = Task(utcnow)
    go(builder, SHELL + f"RUN {code}\n", "12", task)
    line = next(one for one in task.lines if one.startswith("limits"))
    assert str(128 << 20) in line and "50000" in line and str(building.PIDS) in line


def test_steps_are_kept_for_some_days(builder: Builder, ground: Any) -> None:
    daemon, _ = ground
    text = SHELL + "ENV KEPT=1\n"
    go(builder, text, "13", id=str(ULID.from_datetime(DAY)))
    # The same again is the same image: what is under way keeps it, however old it is.
    last = str(ULID.from_datetime(DAY + timedelta(days=7)))
    name = build_steps.name_of(INSTANCE)

    def kept() -> set[str]:
        tags = {tag for one in daemon.client.images(name=name) for tag in one["RepoTags"]}
        return {tag.rpartition(":")[2] for tag in tags if tag.startswith(name)}

    builder.forget_steps(DAY + timedelta(days=6))
    assert str(ULID.from_datetime(DAY))[:10].lower() in {tag[:10] for tag in kept()}
    go(builder, text, "13", id=last)
    builder.forget_steps(DAY + timedelta(days=8))
    assert kept() == {last.lower()}
    builder._going.add(last)
    builder.forget_steps(DAY + timedelta(days=30))
    assert kept() == {last.lower()}
    builder._going.clear()
    builder.forget_steps(DAY + timedelta(days=30))
    assert not kept()


def test_stages_and_steps_of_a_build_that_failed_are_given_back(builder: Builder, ground: Any) -> None:
    daemon, _ = ground
    before = {one["Id"] for one in daemon.client.images(all=True)}
    two = SHELL.replace("FROM base", "FROM base AS first") + (
        "RUN open('/opt/first', 'w').write('1')\n" + SHELL + "COPY --from=first /opt/first /opt/second\n"
    )
    broken = two.replace("COPY", "RUN open('/opt/more', 'w')\nRUN raise SystemExit(3)\nCOPY").replace(
        "'1'", "'2'"
    )
    result = go(builder, two, "20", id=str(ULID.from_datetime(DAY)))
    with pytest.raises(UserError):
        go(builder, broken, "21", id=str(ULID.from_datetime(DAY + timedelta(hours=1))))
    builder.put_right(set())
    for _ in range(2):  # of one second, it may be in the other order, and is done when looked at again
        builder.forget_steps(DAY + timedelta(days=30))
    image = daemon.client.inspect_image(str(result.image))["Id"]
    rest = {one["Id"]: one for one in daemon.client.images(all=True) if one["Id"] not in before}
    while image in rest:  # what people have, with the steps that it stands on
        image = rest.pop(image)["ParentId"]
    assert not rest, "a stage or a step is left"


def test_what_was_made_between_a_step_and_its_name_is_found_by_the_step_below() -> None:
    def image(name: str, parent: str = "", *tags: str, digests: tuple[str, ...] = ()) -> dict[str, Any]:
        return {
            "Id": name,
            "ParentId": parent,
            "RepoTags": list(tags) or ["<none>:<none>"],
            "RepoDigests": digests,
        }

    listed = [
        image("base", "", "debian:12"),
        image("step", "base", "galilean-build/t:01abc-2"),
        image("left", "step"),
        image("inner", "step"),
        image("kept", "inner", "people/ada:1"),
        image("pulled", "step", digests=("people/ada@sha256:1",)),
        image("somebodys", "base"),
        image("others", "x", "galilean-build/u:01abc"),
    ]
    assert list(build_steps.nameless(listed, "galilean-build/t")) == [("left", "01abc")]


@pytest.mark.parametrize("where", ["below", "step"])
def test_labels_by_which_nodes_are_known_are_refused(builder: Builder, ground: Any, where: str) -> None:
    daemon, _ = ground
    made = daemon.client.create_container(IMAGE, ["true"])["Id"]
    daemon.client.commit(made, "eve/node", "1", changes=f"LABEL {READER}={INSTANCE}")
    daemon.client.remove_container(made)
    text = "FROM eve\nENV A=1\n" if where == "below" else f"FROM base\nLABEL {READER}={INSTANCE}\n"
    with pytest.raises(UserError) as refused:
        go(builder, text, "22", images={"eve": "eve/node:1"})
    assert refused.value.reason == "image-labels"
    daemon.client.remove_image("eve/node:1")


def test_more_than_a_person_may_keep_is_refused_after_the_push_and_taken_back(
    builder: Builder, ground: Any
) -> None:
    class Full(NoBooks):
        async def room(self, own_bytes: int, below_bytes: int = 0) -> None:
            assert own_bytes > 100 and not below_bytes
            raise UserError(507, "full", reason="images-full")

    with pytest.raises(UserError) as refused:
        go(builder, SHELL + "RUN open('/opt/x', 'w').write('x' * 999)\n", "14", Task(utcnow, books=Full()))
    assert refused.value.reason == "images-full"
    assert not ground[0].client.images(name=f"{builder.saver.place.name}/people/ada/built:14")


def test_what_a_killed_service_left_is_put_right(builder: Builder, ground: Any, tmp_path: Path) -> None:
    daemon, _ = ground
    daemon.client.create_network(f"{INSTANCE}-build-x", labels={BUILDS: INSTANCE})
    builder.contexts.mkdir()
    for name in ("wanted.tar", "left.tar"):
        (builder.contexts / name).write_bytes(b"")
    builder.put_right({"wanted.tar"})
    assert [path.name for path in builder.contexts.iterdir()] == ["wanted.tar"]
