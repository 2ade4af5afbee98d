"""Containers started inside of nodes, by a tool without rights: what it can, and what it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spawner.docker import containers, seccomp
from tests.docker.daemon import UID, Daemon
from tests.docker.hub import DockerHub
from tests.docker.test_containers import PLACE, spec_of

pytestmark = pytest.mark.timeout(300)


def test_a_node_gets_name_spaces_and_no_right_on_the_machine() -> None:
    granted = containers.host_config(spec_of(containers=True), 0, PLACE)
    usual = containers.host_config(spec_of(), 0, PLACE)
    assert {key for key in granted if granted[key] != usual.get(key)} == {"SecurityOpt"}
    assert granted["CapDrop"] == ["ALL"]
    assert (granted["CapAdd"], granted["Privileged"]) == ([], False)
    first, profile, apparmor = granted["SecurityOpt"]
    assert (first, apparmor) == ("no-new-privileges:true", "apparmor=unconfined")
    assert json.loads(profile.removeprefix("seccomp=")) == seccomp.profile()
    assert not [text for text in granted["SecurityOpt"] if "systempaths" in text]


def test_sudo_and_containers_are_not_given_together() -> None:
    granted = containers.host_config(spec_of(containers=True, sudo=True), 0, PLACE)
    assert granted["CapAdd"] == []
    assert "no-new-privileges:true" in granted["SecurityOpt"]


def test_the_profile_shuts_what_is_no_containers_business() -> None:
    profile = seccomp.profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    named = [name for rule in profile["syscalls"] for name in rule["names"]]
    never = (
        "bpf", "setns", "keyctl", "add_key", "request_key", "perf_event_open", "userfaultfd", "io_uring_setup",
        "open_by_handle_at", "init_module", "finit_module", "kexec_load", "reboot", "swapon", "syslog", "sethostname",
        "fsopen", "fsconfig", "move_mount", "open_tree", "mount_setattr", "settimeofday", "iopl", "quotactl",
    )  # fmt: skip
    assert not set(never) & set(named)
    unfiltered = [name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]]
    assert not {"clone", "unshare"} & set(unfiltered), "their flags are looked at"
    assert len(set(unfiltered)) == len(unfiltered)


# ---- real containers


@pytest.fixture(scope="module")
def nested(hub_of: Callable[..., DockerHub]) -> Iterator[DockerHub]:
    """Ada's node with containers inside and one without; Eve's node with containers inside."""
    if not shutil.which("ch-run"):
        pytest.skip("missing: ch-run (scripts/test-deps docker)")
    hub = hub_of()
    for server, user in (("nested", "ada"), ("plain", "ada"), ("nested", "eve")):
        hub.run(server, user)
        root_of(hub.work / user / server / "image")
    yield hub
    for server, user in (("nested", "ada"), ("plain", "ada"), ("nested", "eve")):
        hub.release(server, user)


def root_of(place: Path) -> None:
    """A container image as a directory: a few programs of this machine and their libraries, and a word of its own."""
    for folder in ("bin", "dev", "proc", "sys", "tmp", "etc", "home", "usr/bin", "mnt"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    for name in ("sh", "cat", "id", "ls"):
        program = shutil.which(name)
        assert program
        shutil.copy(program, place / "bin" / name)
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in (word for word in said.split() if word.startswith("/")):
            target = place / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (place / "etc" / name).touch()
    (place / "etc/word").write_text("inside the image\n")
    for folder, _, files in os.walk(place):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, UID, UID)


def says(daemon: Daemon, node: str, command: str) -> str:
    """What a shell in a node says, whatever its end."""
    return daemon.execute(
        node, "sh", "-c", f"export USER=jovyan HOME=/home/jovyan; cd ~; {{ {command} ; }} 2>&1; true"
    )


RUN = "ch-run ~/work/image --"


@pytest.mark.docker
def test_an_image_is_run_inside_a_node(nested: DockerHub, daemon: Daemon) -> None:
    said = says(daemon, nested.container("nested"), f"{RUN} /bin/sh -c 'cat /etc/word; id -u; ls /'")
    lines = said.splitlines()
    assert lines[:2] == ["inside the image", str(UID)], said
    assert "opt" not in lines[2:], "it has the image's directories, not the node's"
    (item,) = nested.containers("nested")
    assert item["HostConfig"]["Privileged"] is False
    assert item["HostConfig"]["CapAdd"] in (None, [])


@pytest.mark.docker
def test_an_environment_without_the_option_cannot(nested: DockerHub, daemon: Daemon) -> None:
    said = says(daemon, nested.container("plain"), f"{RUN} /bin/cat /etc/word")
    assert "inside the image" not in said, said
    assert "not permitted" in said


@pytest.mark.docker
def test_who_is_root_inside_is_root_of_nothing_else(nested: DockerHub, daemon: Daemon) -> None:
    """In a user name space one has every capability, and the machine's files, devices and networks stay away."""
    node = nested.container("nested")
    work = nested.work / "ada" / "nested"
    (work / "roots").write_text("root's own")
    os.chown(work / "roots", 0, 0)
    (work / "roots").chmod(0o600)
    theirs = nested.work / "eve" / "nested" / "theirs"
    theirs.write_text("a secret of hers")

    def root(command: str) -> str:
        return says(daemon, node, f"unshare --user --map-root-user --mount sh -c '{command}'")

    assert root("id -u").strip() == "0"
    assert "root's own" not in root("cat ~/work/roots")
    assert "secret of hers" not in root(f"cat {theirs}")
    assert "secret of hers" not in root(
        f"mkdir -p /tmp/m && mount --bind {theirs.parent} /tmp/m && cat /tmp/m/theirs"
    )
    assert "secret of hers" not in root("cat /proc/1/root/home/jovyan/../../work/*/theirs")
    assert "not permitted" in root("mknod /tmp/disk b 254 0")
    assert "made" not in root("mkdir -p /tmp/p && mount -t proc none /tmp/p && echo made"), (
        "proc stays masked"
    )
    assert "taken" not in root("umount /proc/kcore && echo taken"), "what Docker masks stays masked"
    assert "not permitted" in says(daemon, node, "unshare --user --map-root-user --net true")
    assert "not permitted" in says(daemon, node, "unshare --mount true"), (
        "without a name space of users nothing"
    )
    for name in ("CapEff", "CapBnd"):
        caps = says(daemon, node, f"grep {name} /proc/self/status").split()
        assert caps[-1] == "0" * 16
