"""``backend: docker`` in the settings: what follows from it, and what it refuses."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extensions.quota.limits import Held
from extensions.quota.room import HostRoom
from galilean.errors import UserError
from galilean.settings import BUILT_IMAGES, Settings, SettingsError, parse_settings
from galilean.settings_docker import Docker
from hub_config.addresses import Addresses
from hub_config.build import hub_traits
from hub_config.docker import rules_of
from hub_config.docker_ground import refuse_setuid_volumes
from hub_config.parts import all_parts, common_environment
from hub_config.ports import keep_ports
from hub_config.secrets import load_secrets
from hub_config.wiring import room_of
from services.catalog.environments import unlooked
from spawner.backends import SPAWNERS, inventory_of, use_meter_of
from spawner.docker.inventory import DockerInventory
from spawner.docker.setuid import first_open
from spawner.docker.use import DockerUseMeter
from spawner.plan import Mount
from tests.spawner.backends import plan_of

FILE: dict[str, Any] = {"backend": "docker", "docker": {"image": "nodes:1"}}


def settings_of(state: Path | None = None, **docker: Any) -> Settings:
    settings = parse_settings(json.dumps({**FILE, "docker": {**FILE["docker"], **docker}}))
    return settings.model_copy(update={"state": state}) if state else settings


def test_hub_and_portal_listen_where_nodes_reach_them_and_nothing_else_does(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    addresses = Addresses(settings, keep_ports(tmp_path, random.Random(1)))
    assert {name: addresses[name].host for name in ("hub", "portal", "proxy_api", "metering", "queue")} == {
        "hub": "10.213.0.1",
        "portal": "10.213.0.1",
        "proxy_api": "127.0.0.1",
        "metering": "127.0.0.1",
        "queue": "127.0.0.1",
    }
    text = rules_of(settings, addresses)
    ports = sorted((addresses["hub"].port, addresses["portal"].port))
    assert f"ip daddr 10.213.0.1 tcp dport {{ {ports[0]}, {ports[1]} }} accept" in text


def test_the_hub_is_given_containers_and_no_zygote(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, pids=100, account="1234:1235")
    # A registry is a part where this machine has the program.
    addresses = Addresses(settings, keep_ports(tmp_path, random.Random(1), more=("imagebuilder", "registry")))
    secrets = load_secrets(tmp_path)
    traits = hub_traits(settings, secrets, addresses)
    assert traits["JupyterHub"]["spawner_class"] == SPAWNERS["docker"]
    assert traits["JupyterHub"]["hub_connect_url"] == addresses.url("hub")
    found = traits["DockerCluster"]
    assert (found["image"], found["pids"], found["account"]) == ("nodes:1", 100, "1234:1235")
    assert found["portal_url"] == addresses.url("portal") + "/services/portal"
    assert "ProcessCluster" not in traits
    names = [part.name for part in all_parts(settings, secrets, addresses, proxy=["proxy"])]
    assert "zygote" not in names
    assert "machines" not in names
    assert isinstance(inventory_of(settings), DockerInventory)
    assert isinstance(use_meter_of(settings), DockerUseMeter)


def test_the_image_that_make_up_has_built_reaches_every_part_and_the_file_wins(tmp_path: Path) -> None:
    environ = {"BACKEND": "docker", "GALILEAN_DOCKER_IMAGE": "built:1", "DOCKER_HOST": "unix:///x"}
    settings = parse_settings("{}", environ=environ)
    assert settings.docker.image == "built:1"
    assert unlooked(settings, "").image == "built:1"
    assert parse_settings(json.dumps(FILE), environ=environ).docker.image == "nodes:1"
    inherited = common_environment(settings.model_copy(update={"state": tmp_path}), None, environ)
    assert inherited["GALILEAN_DOCKER_IMAGE"] == "built:1"
    assert inherited["DOCKER_HOST"] == "unix:///x"


def test_what_make_up_has_built_for_desktops_is_an_environment_unless_the_file_says_which_there_are() -> None:
    environ = {"BACKEND": "docker", **dict(zip(BUILT_IMAGES, ("built:1", "desktop:1"), strict=True))}
    settings = parse_settings("{}", environ=environ)
    assert list(settings.environments) == ["jupyter", "desktop"]
    desktop = settings.environments["desktop"]
    assert (desktop.image, desktop.interfaces) == ("desktop:1", ("jupyter", "desktop"))
    assert settings.defaults.environment == "jupyter"
    named = parse_settings("environments: {own: {title: Own}}\ndefaults: {environment: own}", environ=environ)
    assert list(named.environments) == ["own"]
    assert list(parse_settings("{}", environ=environ | {"BACKEND": "process"}).environments) == ["jupyter"]
    inherited = common_environment(settings, None, environ)
    assert [inherited[name] for name in BUILT_IMAGES] == ["built:1", "desktop:1"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"docker": {}}, "docker.image names none"),
        ({"docker": {"image": "x", "account": "0:0"}}, "never run as root"),
        ({"docker": {"image": "x", "account": "root"}}, "write it like 1000:1000"),
        ({"docker": {"image": "x", "network_pool": "10.0.0.0/27"}}, "no place for a cluster"),
        ({"docker": {"image": "x", "network_pool": "10.0.0.1/16"}}, "host bits"),
        ({"docker": {"image": "x", "instance": "Mine!"}}, "lower-case"),
        ({"docker": {"image": "x", "reaches": ["campus"]}}, "write it like 10.0.0.0/8"),
        ({"volumes": {"default": {"kind": "claim", "claim": "projects", "path": "/p"}}}, "a directory of"),
    ],
)
def test_what_cannot_be_is_refused_in_words(more: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        parse_settings(json.dumps({**FILE, **more}))


def test_more_than_the_machine_has_is_refused_with_the_numbers_and_a_full_one_waits() -> None:
    room = HostRoom(
        cpu_millicores=8000, memory_bytes=16 * 2**30, node_cpu_millicores=4000,
        node_memory_bytes=16 * 2**30, gpu=2, clusters=3,
    )  # fmt: skip
    plan = replace(plan_of(), nodes=1, cpu_millicores=4000, memory_bytes=2**30)
    assert room.fits(plan, Held())
    with pytest.raises(UserError, match=r"No node can have 5 CPUs .* this machine has 4 CPUs"):
        room.fits(replace(plan, cpu_millicores=5000), Held())
    with pytest.raises(UserError, match="this machine has 2"):
        room.fits(replace(plan, nodes=2, cpu_millicores=1000, gpu=2), Held())
    assert not room.fits(plan, Held(clusters=3)), "there is no network left"
    assert not room.fits(replace(plan, gpu=1), Held(gpu=2))
    assert not room.fits(plan, Held(cpu_millicores=4001))


def test_a_machine_s_room_is_what_it_really_has() -> None:
    room = room_of(settings_of())
    import os

    cpus = len(os.sched_getaffinity(0)) * 1000
    assert (room.node_cpu_millicores, room.cpu_millicores, room.gpu) == (cpus, cpus, 0)
    assert room.clusters == 2047
    assert HostRoom.of_containers(Docker(cpu_overcommit=3), clusters=1).cpu_millicores == 3 * cpus


def test_sudo_wants_volumes_where_no_program_is_root_s_own(tmp_path: Path) -> None:
    entry = {"title": "Workbench", "image": "nodes:1", "sudo": True}
    file = {**FILE, "allow_sudo": True, "environments": {"jupyter": entry}}

    def with_volume(path: Path, **changes: Any) -> Settings:
        return parse_settings(json.dumps({**file, "volumes": {"default": {"path": str(path)}}, **changes}))

    assert not os.statvfs(tmp_path).f_flag & os.ST_NOSUID, "a temporary directory as they usually are"
    with pytest.raises(UserError, match="nosuid"):
        refuse_setuid_volumes(with_volume(tmp_path / "not" / "there"))
    refuse_setuid_volumes(with_volume(tmp_path), lambda path: SimpleNamespace(f_flag=os.ST_NOSUID))
    without = {"jupyter": {**entry, "sudo": False}}
    refuse_setuid_volumes(with_volume(tmp_path, environments=without))


def test_at_a_start_with_sudo_each_disk_that_can_be_written_is_looked_at(tmp_path: Path) -> None:
    """Volumes are registered while everything runs, and environments may be added then, too."""
    plain, careful = (Mount(source=str(tmp_path / name), target=name) for name in ("work", "kept"))

    def look(path: Path) -> Any:
        return SimpleNamespace(f_flag=os.ST_NOSUID if path == tmp_path / "kept" else 0)

    (tmp_path / "kept").mkdir()
    assert first_open([careful, plain], look) == plain
    assert first_open([careful, replace(plain, read_only=True)], look) is None
    assert first_open([careful], look) is None
