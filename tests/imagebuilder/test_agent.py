"""The agent on a machine: whom it believes, what it makes of a real overlay, and that nobody stays held."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from extensions.imagebuilder import bundle
from extensions.imagebuilder.agent import FORGOTTEN_SECONDS, Agent, application, most_bytes
from extensions.imagebuilder.bundle import Group, Places, is_wanted
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.space import Space
from spawner.kubernetes import names

pytestmark = pytest.mark.process
KEY = "k" * 64
TOKEN = "0123456789abcdef" * 2
CONTAINER = "c" * 64
WANTED = Wanted("ada", "x", "01RUN", 0)
POD = names.pod_name(names.base_name("ada", "x"), 0)
TOLD: dict[str, Any] = {
    "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-namespace": "centre",
        "io.kubernetes.cri.sandbox-name": POD,
        "io.kubernetes.cri.image-name": "registry.example/jupyter:1",
    },
    "process": {
        "env": [f"JUPYTERHUB_API_TOKEN={TOKEN}", "GALILEAN_CLUSTER=01RUN", "HOME=/home/jovyan"],
    },
    "mounts": [{"destination": "/proc"}, {"destination": "/home/jovyan/work"}],
    "linux": {},
}


@dataclass
class Machine:
    """A machine with one container; its control group is two files."""

    places: Places
    agent: Agent
    root: Path
    group: Path
    client: httpx.AsyncClient

    @property
    def held(self) -> bool:
        return (self.group / "cgroup.freeze").read_text().strip() == "1"


class QuickGroup(Group):
    """Files do not say that they are frozen; a kernel does."""

    def _is_held(self) -> bool:
        return self.is_told_to_hold()


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    monkeypatch.setattr(bundle, "Group", QuickGroup)
    root = tmp_path / "bundles" / CONTAINER / "rootfs"
    low, upper, work = (tmp_path / "snapshots" / name for name in ("1/fs", "2/fs", "2/work"))
    for folder in (root, low, upper, work):
        folder.mkdir(parents=True)
    (low / "home/jovyan/work").mkdir(parents=True)
    (low / "home/jovyan/old").write_text("old")
    options = f"lowerdir={low},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    mounted = subprocess.run(  # noqa: ASYNC221
        ["mount", "-t", "overlay", "overlay", "-o", options, str(root)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("overlayfs cannot be mounted here")
    (root.parent / "config.json").write_text(json.dumps(TOLD))
    group = tmp_path / f"groups/kubepods.slice/cri-containerd-{CONTAINER}.scope"
    group.mkdir(parents=True)
    (group / "cgroup.freeze").write_text("0\n")
    (group / "cgroup.procs").write_text("12\n13\n")
    places = Places(tmp_path / "bundles", tmp_path / "snapshots", tmp_path / "groups")
    agent = Agent(places, "centre", tmp_path / "saves")
    agent.begin()
    server = HTTPServer(application(agent, KEY))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
        trust_env=False,
    )
    try:
        yield Machine(places, agent, root, group, client)
    finally:
        await client.aclose()
        server.stop()
        await asyncio.to_thread(agent.close)
        subprocess.run(["umount", "-l", str(root)], check=True)  # noqa: ASYNC221
    assert not list((tmp_path / "saves").iterdir()), "what was on its way is still there"


def question(**more: Any) -> dict[str, Any]:
    asked = {"container": CONTAINER, "user": "ada", "server": "x", "run": "01RUN", "rank": 0}
    return {**asked, "secrets": {}, "name": "ada/tools:1", **more}


async def over(machine: Machine, made: str) -> dict[str, Any]:
    while True:
        told = (await machine.client.get(f"/saves/{made}")).json()
        if told["state"] != "going":
            return told
        await asyncio.sleep(0.02)


async def test_a_layer_of_what_was_changed_is_made_and_handed_out(machine: Machine) -> None:
    home = machine.root / "home/jovyan"
    (home / "tool").mkdir()
    (home / "tool/it").write_text("works")
    (home / "old").unlink()
    (home / ".bash_history").write_text("typed")
    (home / ".galilean").mkdir()
    (home / ".galilean/port").write_text("1")
    look = (await machine.client.post("/look", json=question())).json()
    assert (look["added"], look["deleted"], look["processes"]) == (1, 1, 2)
    assert look["mounted"] == ["/home/jovyan/work"]
    begun = await machine.client.post("/saves", json=question())
    assert begun.status_code == 202
    told = await over(machine, begun.json()["id"])
    assert told["state"] == "done", told
    assert not machine.held
    where = f"/saves/{told['id']}"
    packed = (await machine.client.get(f"{where}/layer")).content
    assert told["result"]["digest"] == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert told["result"]["changes"]["frozen_seconds"] <= 2
    plain = gzip.decompress(packed)
    assert told["result"]["diff_id"] == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
        found = set(layer.getnames())
    assert {"home/jovyan/tool/it", "home/jovyan/.wh.old"} <= found
    assert not {"home/jovyan/.bash_history", "home/jovyan/.galilean/port"} & found
    assert (await machine.client.delete(where)).status_code == 204
    assert (await machine.client.get(where)).status_code == 404


@pytest.mark.parametrize("how", ["of its variables", "of its keys"])
async def test_a_secret_is_refused_and_its_layer_never_leaves(machine: Machine, how: str) -> None:
    key = b"\x91" * 8 + b"only this run has it!" + b"\x17" * 8
    planted = b"abc" + base64.b64encode(b"x" + TOKEN.encode()) if how == "of its variables" else b"--" + key
    (machine.root / "home/jovyan/odd name.dat").write_bytes(planted)
    asked = question(secrets={"cookie_secret": base64.b64encode(key).decode()})
    made = (await machine.client.post("/saves", json=asked)).json()["id"]
    told = await over(machine, made)
    assert told["state"] == "failed"
    assert told["error"]["params"]["path"] == "/home/jovyan/odd name.dat"
    assert (await machine.client.get(f"/saves/{made}/layer")).status_code == 409
    assert TOKEN not in json.dumps(told)


async def test_a_file_of_nothing_but_a_length_is_refused_and_fills_no_disk(machine: Machine) -> None:
    empty = machine.root / "home/jovyan/empty"
    empty.touch()
    os.truncate(empty, 8 << 40)
    look = (await machine.client.post("/look", json=question())).json()
    assert look["size_bytes"] >= 8 << 40
    told = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert (told["error"]["reason"], told["error"]["params"]["size"]) == ("save-large", 8 << 20)
    assert not machine.held
    os.truncate(empty, 80 << 20)
    machine.agent.space = Space(machine.agent.directory, 159 << 20)
    told = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert (told["error"]["reason"], told["error"]["params"]["most"]) == ("save-large", 79)
    machine.agent.space = Space(machine.agent.directory, 161 << 20)
    told = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert told["state"] == "done", told


async def test_layers_that_wait_count_for_the_next_save(machine: Machine) -> None:
    (machine.root / "home/jovyan/data").write_bytes(os.urandom(20 << 20))
    machine.agent.space = Space(machine.agent.directory, 55 << 20)
    first = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert first["state"] == "done", first
    second = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert second["error"]["reason"] == "disk-full"
    assert (await machine.client.delete(f"/saves/{first['id']}")).status_code == 204
    third = await over(machine, (await machine.client.post("/saves", json=question())).json()["id"])
    assert third["state"] == "done", third


@pytest.mark.parametrize(
    ("said", "most"), [("", None), ("50Gi", 45 << 30), ("10G", 9 * 10**9), ("129e6", 116_100_000)]
)
def test_less_than_kubernetes_allows_is_taken(said: str, most: int | None) -> None:
    assert most_bytes(said) == most


async def test_whoever_has_not_the_key_is_told_nothing(machine: Machine) -> None:
    for said in ("", f"Bearer {'x' * 64}", f"token {KEY}", "Bearer"):
        for method, path in (("POST", "/look"), ("POST", "/saves"), ("GET", "/saves/" + "0" * 26)):
            answer = await machine.client.request(
                method, path, json=question(), headers={"Authorization": said}
            )
            assert answer.status_code == 401
    assert not machine.agent.jobs


@pytest.mark.parametrize(
    "asked",
    [
        {"user": "eve"},
        {"server": "y"},
        {"run": "01OTHER"},
        {"run": ""},
        {"rank": 1},
        {"container": "d" * 64},
        {"container": f"../bundles/{CONTAINER}"},
    ],
)
async def test_nobody_saves_what_is_not_that_persons_node(machine: Machine, asked: dict[str, Any]) -> None:
    for path in ("/look", "/saves"):
        answer = await machine.client.post(path, json=question(**asked))
        assert (answer.status_code, answer.json()["reason"]) == (409, "node-gone")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("io.kubernetes.cri.sandbox-namespace", "kube-system"),
        ("io.kubernetes.cri.container-type", "sandbox"),
        ("io.kubernetes.cri.sandbox-name", "kube-proxy-x"),
    ],
)
def test_a_container_of_the_system_is_nobodys_node(key: str, value: str) -> None:
    environment = {"GALILEAN_CLUSTER": "01RUN"}
    assert is_wanted(TOLD["annotations"], environment, "centre", WANTED)
    assert not is_wanted({**TOLD["annotations"], key: value}, environment, "centre", WANTED)
    assert not is_wanted(TOLD["annotations"], {}, "centre", WANTED)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"container": 1}'])
async def test_nonsense_is_refused(machine: Machine, body: bytes) -> None:
    assert (await machine.client.post("/saves", content=body)).status_code == 400


async def test_whoever_is_held_is_let_go_when_the_save_is_given_up(machine: Machine) -> None:
    (machine.root / "home/jovyan/big").write_bytes(os.urandom(8 << 20))
    made = (await machine.client.post("/saves", json=question())).json()["id"]
    assert (await machine.client.delete(f"/saves/{made}")).status_code == 204
    await asyncio.to_thread(machine.agent.close)
    assert not machine.held


async def test_a_save_of_which_nobody_asks_is_given_up(machine: Machine) -> None:
    made = (await machine.client.post("/saves", json=question())).json()["id"]
    assert (await over(machine, made))["state"] == "done"
    machine.agent.sweep(time.monotonic() + FORGOTTEN_SECONDS - 1)
    assert machine.agent.jobs
    machine.agent.sweep(time.monotonic() + FORGOTTEN_SECONDS + 1)
    assert not machine.agent.jobs


async def test_a_new_agent_lets_go_whom_a_killed_one_held_but_nobody_elses(machine: Machine) -> None:
    (machine.group / "cgroup.freeze").write_text("1\n")
    assert bundle.put_right(machine.places, "another") == 0
    assert machine.held
    machine.agent.begin()
    assert not machine.held


async def test_the_freezer_of_the_first_version_is_known(tmp_path: Path) -> None:
    group = tmp_path / "freezer/kubepods/burstable/pod1" / CONTAINER
    group.mkdir(parents=True)
    (group / "freezer.state").write_text("THAWED\n")
    found = Group.of(tmp_path, CONTAINER)
    assert found is not None
    found.hold()
    assert (group / "freezer.state").read_text() == "FROZEN"
    assert found.release()
    assert (group / "freezer.state").read_text() == "THAWED"


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="characters"):
        application(Agent(Places(tmp_path, tmp_path, tmp_path), "centre", tmp_path), "short")
