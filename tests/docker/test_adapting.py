"""An image that nobody made for nodes, on a real product: plain Debian, uploaded, adapted, run on two nodes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spawner.docker import names
from tests.docker.daemon import Daemon
from tests.docker.test_product import DockerProduct
from tests.docker.test_uploads import uploaded
from tests.product.product import wait_for

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]
#: Whatever keeps a container from starting as we mean it.
HOSTILE = (
    'ENTRYPOINT ["/bin/false"]', "USER nobody", "VOLUME /home/jovyan", "VOLUME /opt", "ONBUILD RUN false",
    "ENV PYTHONHOME=/nowhere", "ENV LD_LIBRARY_PATH=/nowhere", "HEALTHCHECK CMD false",
)  # fmt: skip


def script(*words: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "images.py"), *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    _, reference, archive = script("adapter").strip().split("\t")
    daemon.load(archive)
    directory = daemon.directory.parent / "adapting"
    directory.mkdir(mode=0o755)
    found = DockerProduct(directory, daemon, {"images": {"adapter": reference}}, cluster={})
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


@pytest.fixture(scope="module")
def debian(daemon: Daemon) -> bytes:
    """Debian as mmdebstrap makes it, with an ENTRYPOINT and the like; packed, and unknown to the daemon."""
    (base,) = sorted((Path.home() / ".cache/galilean/images").glob("base-*.tar"))[-1:]
    daemon.client.import_image_from_file(str(base), repository="elsewhere/plain", tag="0")
    made = daemon.client.create_container("elsewhere/plain:0", ["true"])
    daemon.client.commit(made, "elsewhere/plain", "1", changes="\n".join(HOSTILE))
    daemon.client.remove_container(made, v=True)
    whole = b"".join(daemon.client.get_image("elsewhere/plain:1"))
    for tag in "10":
        daemon.client.remove_image(f"elsewhere/plain:{tag}", force=True)
    return gzip.compress(whole, 1)


def over(person: Any, image_id: str, seconds: float = 900) -> dict[str, Any]:
    place = f"/images/{image_id}"
    wait_for(lambda: person.portal("GET", place).json()["state"] != "saving", "it is over", seconds=seconds)
    return person.portal("GET", place).json()


def test_plain_debian_is_adapted_and_two_nodes_of_it_reach_one_another(
    product: DockerProduct, daemon: Daemon, debian: bytes
) -> None:
    ada = product.person("ada")
    image = uploaded(ada, debian, "plain:1")
    assert image["state"] == "ready", image
    entry = ada.portal(
        "PUT", f"/images/{image['id']}/library", json={"visibility": "own", "title": "Plain"}
    ).json()
    assert any("not made for nodes" in text for text in entry["versions"][0]["told"]), entry
    slug = ada.project("Heat")
    refused = ada.run(slug, project=slug, environment=entry["name"], nodes=2, cpu=0.5, memory="1G")
    assert refused.status_code == 400 and "adapted" in refused.text

    place = f"/environments/{entry['id']}/versions/1/adapted"
    begun = ada.portal("POST", place, json={})
    assert begun.status_code == 202, begun.text
    assert ada.portal("POST", place, json={"name": "plain:other"}).status_code == 409, "two at once"
    adapted = over(ada, begun.json()["id"])
    assert adapted["state"] == "ready", adapted
    assert not list((product.state / "images").glob("*"))
    detail: dict[str, Any] = {}

    def is_version() -> bool:
        detail.update(ada.portal("GET", f"/environments/{entry['id']}").json())
        return [one["image"] for one in detail["versions"] if one["current"]] == [adapted["image"]]

    wait_for(is_version, "it is the current version", seconds=60)
    (new,) = [one for one in detail["versions"] if one["current"]]
    assert not any("not made for nodes" in text for text in new["told"])
    again = ada.portal("POST", f"/environments/{entry['id']}/versions/{new['number']}/adapted", json={})
    assert again.status_code == 409 and "lacks nothing" in again.text

    answer = ada.run(slug, project=slug, environment=entry["name"], nodes=2, cpu=0.5, memory="1G")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=600)
    nodes = daemon.containers(**{names.INSTANCE: product.instance})
    assert len(nodes) == 2 and {one["Config"]["Image"] for one in nodes} == {adapted["image"]}
    head = next(one["Id"] for one in nodes if one["Config"]["Labels"][names.RANK] == "0")

    def said(command: str) -> str:
        return daemon.execute(head, "/bin/bash", "-c", command)

    assert said("PATH=$PATH:/opt/galilean/bin ssh node-1 hostname").strip() == "node-1"
    assert "node-1" in said("cat ~/.galilean/hostfile")
    assert said("command -v python3 || echo none").strip() == "/opt/galilean/bin/python3", "Debian has none"
    specs = json.loads(said("env -u LD_LIBRARY_PATH /opt/galilean/bin/jupyter kernelspec list --json"))
    assert set(specs["kernelspecs"]) == {"python3"}
    for rank in (0, 1):
        assert ada.node(slug, rank).status_code == 200
    assert ada.stop(slug).status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the cluster is closed", seconds=120)


def test_whoever_cancels_leaves_nothing_and_can_begin_again(product: DockerProduct) -> None:
    ada = product.person_named("ada")
    (entry,) = [one for one in ada.portal("GET", "/environments").json()["items"] if one["title"] == "Plain"]
    place = f"/environments/{entry['id']}/versions/1/adapted"
    begun = ada.portal("POST", place, json={"name": "plain:again"}).json()
    assert ada.portal("POST", f"/images/{begun['id']}/cancel").status_code in (200, 202, 204)
    assert over(ada, begun["id"])["state"] in ("cancelled", "ready")
    eve = product.person("eve")
    assert eve.portal("POST", place, json={}).status_code == 404, "what is somebody else's is not there"
