"""The network and the containers of a cluster as data: what is asked of Docker, and what never is."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spawner.docker import containers, names
from spawner.docker.spec import ClusterSpec, Given
from spawner.labels import READER
from spawner.plan import Mount
from spawner.process.layout import base_name

GOLDEN = Path(__file__).parent / "golden"
PLACE = Given(network=IPv4Network("10.213.0.32/27"))


def spec_of(**more: Any) -> ClusterSpec:
    return ClusterSpec(
        **{
            "instance": "galilean",
            "user": "ada@example.edu",
            "server": "heat",
            "run": "01J0000000000000000000HEAT",
            "nodes": 2,
            "project": "ada@example.edu/heat",
            "prefix": "/user/ada@example.edu/heat/",
            "shared": {
                "JUPYTERHUB_API_TOKEN": "the-token",
                "JUPYTERHUB_API_URL": "http://10.213.0.1:23456/hub/api",
                "JUPYTERHUB_SERVER_NAME": "heat",
            },
            "image": "galilean-jupyter:1",
            "command": ("python", "-m", "spawner.node.container"),
            "cpu_millicores": 1500,
            "memory_bytes": 2 * 2**30,
            "shm_bytes": 2**30,
            "secrets": "/state/clusters/x/secrets",
            "mounts": (
                Mount(source="/state/volumes/default/ada/heat", target="work"),
                Mount(source="/data/corpus", target="data/corpus", read_only=True),
            ),
            "portal_url": "http://10.213.0.1:23457/services/portal",
            **more,
        }
    )


def test_no_label_of_an_image_holds_for_a_node() -> None:
    """What is not said of a container its image may say: cards that are held, or a reader that is cleared away."""
    for rank in (0, 1):
        said = containers.container(spec_of(), rank, PLACE)["Labels"]
        assert (said[names.GPUS], said[names.GPU_MODEL], said[READER]) == ("", "", "")


def test_what_is_asked_of_docker_is_written_down() -> None:
    """To write it anew: remove the file, run the test twice, read the difference."""
    found = {
        "network": containers.network(spec_of(), PLACE),
        "head": containers.container(spec_of(), 0, PLACE),
        "worker": containers.container(
            spec_of(gpu=1, gpu_model="A100"), 1, replace(PLACE, gpus={0: ["a"], 1: ["b"]})
        ),
    }
    golden = GOLDEN / "cluster.json"
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
        raise AssertionError(f"{golden} was written anew: read it")
    assert text == golden.read_text()


def test_every_limit_of_the_plan_holds_and_there_is_no_swap() -> None:
    host = containers.container(spec_of(), 0, PLACE)["HostConfig"]
    assert host["NanoCpus"] == 1_500_000_000
    assert host["Memory"] == host["MemorySwap"] == 2 * 2**30
    assert host["PidsLimit"] == 4096
    assert host["ShmSize"] == 2**30


def test_the_site_s_own_words_do_not_loosen_ours() -> None:
    loose = {
        "Privileged": True,
        "CapAdd": ["SYS_ADMIN"],
        "CapDrop": [],
        "NetworkMode": "host",
        "Memory": 0,
        "PidsLimit": 0,
        "SecurityOpt": ["apparmor=mine"],
        "Mounts": [{"Type": "bind", "Source": "/opt/site", "Target": "/opt/site", "ReadOnly": True}],
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "PortBindings": {"8888/tcp": [{"HostPort": "80"}]},
        "RestartPolicy": {"Name": "always"},
        "IpcMode": "host",
    }
    plain = containers.container(spec_of(), 1, PLACE)["HostConfig"]
    found = containers.container(spec_of(extra_host_config=loose), 1, PLACE)["HostConfig"]
    assert found["Ulimits"] == loose["Ulimits"]
    assert found["SecurityOpt"] == ["apparmor=mine", "no-new-privileges:true"]
    assert found["Mounts"] == [*loose["Mounts"], *plain["Mounts"]]
    for name in plain.keys() - {"Mounts", "SecurityOpt"}:
        assert found[name] == plain[name], name


def test_data_sets_are_read_only_and_the_work_is_not() -> None:
    mounts = containers.container(spec_of(), 0, PLACE)["HostConfig"]["Mounts"]
    assert {item["Target"]: item["ReadOnly"] for item in mounts if item["Type"] == "bind"} == {
        "/run/galilean/secrets": True,
        "/home/jovyan/work": False,
        "/home/jovyan/data/corpus": True,
    }


def test_scratch_is_a_volume_of_the_containers_own() -> None:
    mounts = containers.container(spec_of(), 0, PLACE)["HostConfig"]["Mounts"]
    (found,) = (item for item in mounts if item["Target"] == "/home/jovyan/scratch")
    assert "Source" not in found, "one with a name would stay when its container goes"
    assert found["VolumeOptions"]["Labels"] == containers.labels(spec_of())


def test_a_node_without_cards_asks_for_none_and_one_with_names_them() -> None:
    assert "DeviceRequests" not in containers.container(spec_of(), 0, PLACE)["HostConfig"]
    place = replace(PLACE, gpus={0: ["GPU-1", "GPU-2"], 1: ["GPU-3", "GPU-4"]})
    body = containers.container(spec_of(gpu=2), 1, place)
    (request,) = body["HostConfig"]["DeviceRequests"]
    assert request == {"Driver": "", "DeviceIDs": ["GPU-3", "GPU-4"], "Capabilities": [["gpu"]]}
    assert body["Labels"][names.GPUS] == "GPU-3,GPU-4"


@given(st.text(min_size=1, max_size=80), st.text(max_size=40), st.integers(0, 20))
def test_any_name_of_a_person_makes_names_that_docker_takes(user: str, server: str, rank: int) -> None:
    user, server = (text.encode("utf-8", "replace").decode() for text in (user, server))
    spec = spec_of(user=user, server=server, nodes=21)
    body = containers.container(spec, rank, Given(network=IPv4Network("10.213.0.64/26")))
    assert len(names.bridge_name("galilean", spec.base)) == 15
    name = spec.name(rank)
    assert name.isascii()
    assert all(letter.isalnum() or letter in "-_." for letter in name)
    told = names.told(body["Labels"], "galilean")
    assert told == names.Told(user, server, spec.run, base_name(user, server), rank)
    assert all(len(body["Labels"][key]) <= 63 for key in (names.USER, names.SERVER))


def test_labels_that_do_not_agree_are_not_ours() -> None:
    labels = containers.container(spec_of(), 1, PLACE)["Labels"]
    assert names.told(labels, "galilean") is not None
    assert names.told(labels, "another") is None
    for name in (names.EXACT_USER, names.EXACT_SERVER, names.CLUSTER, names.RUN):
        assert names.told({**labels, name: ""}, "galilean") is None, name
        assert names.told({key: labels[key] for key in labels if key != name}, "galilean") is None
    assert names.told({**labels, names.RANK: "01"}, "galilean") is None


def test_all_nodes_of_a_cluster_know_the_same_hub_and_their_own_place() -> None:
    zero, one = (containers.variables(spec_of(), rank) for rank in (0, 1))
    differ = {name for name in zero.keys() | one.keys() if zero.get(name) != one.get(name)}
    assert differ == {
        "GALILEAN_RANK",
        "NODE_RANK",
        "JUPYTERHUB_ACTIVITY_INTERVAL",
        "JUPYTERHUB_SERVICE_PREFIX",
        "JUPYTERHUB_SERVICE_URL",
    }
    assert zero["MASTER_ADDR"] == "node-0"
    assert containers.url(PLACE, 1) == "http://10.213.0.35:8888"


def test_who_may_become_root_gets_no_more_than_sudo_needs() -> None:
    plain = containers.container(spec_of(), 0, PLACE)["HostConfig"]
    assert plain["SecurityOpt"] == ["no-new-privileges:true"]
    assert plain["CapAdd"] == []
    found = containers.container(spec_of(sudo=True), 0, PLACE)
    assert found["User"] == "1000:1000"
    assert found["HostConfig"]["SecurityOpt"] == []
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert "SETUID" in found["HostConfig"]["CapAdd"]
    assert not {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "MKNOD", "SYS_PTRACE"} & set(
        found["HostConfig"]["CapAdd"]
    )
    assert not found["HostConfig"]["Privileged"]


def test_nodes_call_themselves_as_the_environment_says_and_are_found_as_ever() -> None:
    found = containers.container(spec_of(hostname="licensed"), 1, PLACE)
    assert found["Hostname"] == "licensed-1"
    (network,) = found["NetworkingConfig"]["EndpointsConfig"].values()
    assert network["Aliases"] == ["node-1"]


def test_a_node_without_cards_sees_none_whatever_its_image_or_entry_says() -> None:
    greedy = {"NVIDIA_VISIBLE_DEVICES": "all"}
    assert containers.variables(spec_of(variables=greedy), 0)["NVIDIA_VISIBLE_DEVICES"] == "void"
