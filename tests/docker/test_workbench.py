"""On a real product: a workbench where the centre gives root. Packages are installed as root, saved, and another person has them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spawner.docker import names
from tests import repositories
from tests.docker.daemon import IMAGE, Daemon
from tests.docker.test_product import DockerProduct
from tests.docker.test_save import bytes_of, secrets_of
from tests.imagebuilder import story
from tests.product.product import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOTED = "galilean-test:rooted"
#: What an image with sudo and dpkg has besides this machine's programs.
FILES = {
    "etc/sudoers": (0o440, "root ALL=(ALL:ALL) ALL\njovyan ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    "etc/pam.d/sudo": (0o644, "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession optional pam_permit.so\n"),
    "var/lib/dpkg/status": (0o644, ""),
    "var/lib/dpkg/available": (0o644, ""),
    "var/lib/dpkg/updates/.keep": (0o644, ""),
    "var/lib/dpkg/info/format": (0o644, "1\n"),
    "var/lib/dpkg/triggers/.keep": (0o644, ""),
    "var/log/.keep": (0o644, ""),
    "var/lib/apt/lists/partial/.keep": (0o644, ""),
    "var/lib/apt/extended_states": (0o644, ""),
    "var/cache/apt/archives/partial/.keep": (0o644, ""),
    "etc/apt/preferences.d/.keep": (0o644, ""),
    "etc/apt/apt.conf.d/90root": (0o644, 'APT::Sandbox::User "root";\n'),
    "etc/apt/sources.list": (0o644, "deb [trusted=yes] file:/home/jovyan/work/apt ./\n"),
    "usr/.keep": (0o644, ""),
}  # fmt: skip


def rooted_image(daemon: Daemon) -> None:
    """The tests' image with an account that may use sudo and with a data base of packages."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, (mode, text) in FILES.items():
            member = tarfile.TarInfo(f"files/{name}")
            member.mode, member.size = mode, len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        dockerfile = f"FROM {IMAGE}\nCOPY files/ /\n".encode()
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile)
        archive.addfile(member, io.BytesIO(dockerfile))
    layer.seek(0)
    told = list(daemon.client.build(fileobj=layer, custom_context=True, tag=ROOTED, decode=True))
    assert not [line for line in told if "error" in line], told


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "workbench"
    directory.mkdir(mode=0o755)
    files = directory / "files"
    files.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nosuid,size=64m", "galilean-test", str(files)], check=True, timeout=30
    )
    try:
        rooted_image(daemon)
        place = files / "default"
        place.mkdir(mode=0o700)
        found = DockerProduct(
            directory,
            daemon,
            {
                "docker": {
                    "image": ROOTED, "url": daemon.url, "cpu_overcommit": 8, "instance": "bench",
                },
                "workbench": {"root": True},
                "volumes": {"default": {"path": str(place)}},
            },
        )  # fmt: skip
        found.start()
        yield found
        found.close()
        daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)
    finally:
        subprocess.run(["umount", "-l", str(files)], check=False, timeout=30)


def nodes_of(product: DockerProduct, daemon: Daemon, user: str) -> list[dict[str, Any]]:
    return [
        one
        for one in daemon.containers(**{names.INSTANCE: product.instance})
        if one["Config"]["Labels"][names.EXACT_USER] == user
    ]


def opened(person: Any, key: str = "jupyter") -> tuple[dict[str, Any], dict[str, Any]]:
    """A workbench that is running, and its cluster."""
    bench = person.portal("POST", "/workbenches", json={"environment": key}).json()
    answer = person.portal("POST", f"/workbenches/{bench['id']}/clusters", json={"cpu": 1, "memory": "1G"})
    assert answer.status_code in (200, 202), answer.text
    wait_for(lambda: person.is_ready(bench["server"]), "the workbench is ready", seconds=400)
    return bench, answer.json()


def in_node(daemon: Daemon, node: dict[str, Any], text: str) -> str:
    return daemon.execute(node["Id"], "/bin/sh", "-c", text)


def test_a_package_installed_as_root_is_saved_in_the_browser_and_another_person_has_it(
    product: DockerProduct, daemon: Daemon, tmp_path: Path
) -> None:
    ada, bob = product.person("ada"), product.person("bob", role="student")

    def install(bench: story.Bench) -> None:
        (node,) = nodes_of(product, daemon, "ada")
        said = node["HostConfig"]
        assert (said["Privileged"], said["CapDrop"], node["Config"]["User"]) == (False, ["ALL"], "1000:1000")
        (work,) = [one["Source"] for one in node["Mounts"] if one["Destination"] == "/home/jovyan/work"]
        repositories.repository(Path(work) / "apt", tmp_path)
        repositories.index(Path(work) / "simple")
        assert in_node(daemon, node, "id -u; sudo id -u").split() == ["1000", "0"]
        told = in_node(
            daemon,
            node,
            "sudo apt-get update 2>&1; sudo apt-get install --yes heat 2>&1; echo kept > ~/work/kept",
        )
        assert "Setting up heat" in told, told
        # This machine's own programs cannot be written: what is root's in an image of its own goes to a place of root's here.
        told = in_node(
            daemon, node,
            "sudo /usr/bin/python3 -m pip install --index-url file:///home/jovyan/work/simple --target /opt/python warm 2>&1",
        )  # fmt: skip
        assert "Successfully installed warm-2.0" in told, told
        assert in_node(daemon, node, "cat /opt/heat/uid; stat -c %u /opt/heat/heat.py").split() == ["0", "0"]
        # Root inside has no power over the machine: neither devices, nor mounts, nor its network.
        for text in ("mknod /tmp/disk b 254 0", "mount -t tmpfs none /mnt", "ip link add x type dummy"):
            told = in_node(daemon, node, f"sudo {text} 2>/dev/null && echo done || echo refused")
            assert told.strip() == "refused"
        lost = ada.portal("GET", f"/clusters/{bench.cluster}/losses").json()
        assert lost["nodes"][0]["packages"] == {"apt": 1, "pip": 1}
        assert [line for line in lost["parts"][0]["lines"] if "heat" in line or "warm 2.0" in line]
        assert lost["parts"][0]["save_url"].endswith(f"clusters/{bench.cluster}/nodes/0/save")
        # It is nobody else's to look at, to save or to delete.
        (own,) = ada.portal("GET", "/workbenches").json()["items"]
        for method, path in (
            ("POST", "/images"),
            ("GET", f"/workbenches/{own['id']}"),
            ("POST", f"/workbenches/{own['id']}/clusters"),
            ("DELETE", f"/workbenches/{own['id']}"),
        ):
            body = {"cluster": bench.cluster, "rank": 0, "name": "mine:1"} if path == "/images" else None
            assert bob.portal(method, path, json=body).status_code == 404

    def check(bench: story.Bench, image: dict[str, Any]) -> None:
        assert "heat" in {one["name"] for one in image["changes"]["packages_added"]}
        (node,) = nodes_of(product, daemon, "ada")
        secrets = secrets_of(product, node)
        assert len(secrets) >= 4
        looked = 0
        for name, content in bytes_of(daemon, image["image"]):
            looked += len(content)
            found = [value for value in secrets if value in content or value in content.replace(b"\n", b"")]
            assert not found, name
        assert looked > 1 << 20

    slug = story.tell(
        product, ada, bob, install=install, holds="heat", size=(0.5, 1), check_saved=check, seconds=400
    )
    theirs = nodes_of(product, daemon, "bob")
    assert len(theirs) == 2
    for node in theirs:
        told = in_node(
            daemon,
            node,
            "PYTHONPATH=/opt/heat:/opt/python /usr/bin/python3 -c 'import heat, warm; print(heat.answer, warm.answer)'",
        )
        assert told.split() == ["42", "42"]
        # A cluster of a project is nobody's to become root in, whatever its image has.
        told = in_node(daemon, node, "sudo -n true 2>/dev/null && echo root || echo refused")
        assert told.strip() == "refused"
    (held_now,) = bob.clusters()
    nothing = bob.portal("GET", f"/clusters/{held_now['id']}/losses").json()
    assert [one["seen"] for one in nothing["nodes"]] == [True, True]
    # At most the log of this machine's own npm, which JupyterLab asks for its version.
    assert [(one["packages"], one["changed"], one["added"] <= 1) for one in nothing["nodes"]] == [
        ({}, 0, True)
    ] * 2
    assert ada.portal("GET", f"/clusters/{held_now['id']}/losses").status_code == 404
    assert bob.stop(slug).status_code in (202, 204)


def test_its_work_is_there_again_and_what_was_installed_is_not(
    product: DockerProduct, daemon: Daemon
) -> None:
    ada = product.person_named("ada")
    (bench,) = ada.portal("GET", "/workbenches").json()["items"]
    assert ada.portal("DELETE", f"/workbenches/{bench['id']}").status_code == 409
    assert ada.portal("DELETE", f"/clusters/{bench['cluster']}").status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the workbench is released", seconds=60)
    again, _ = opened(ada)
    assert again["id"] == bench["id"]
    (node,) = nodes_of(product, daemon, "ada")
    assert in_node(daemon, node, "cat ~/work/kept; ls /opt/heat 2>/dev/null | wc -l").split() == ["kept", "0"]
    (used, *_) = ada.portal("GET", "/usage", params={"by": "project"}).json()["items"]
    assert used["label"] == "Workbench: JupyterLab"
