"""On a real product: a Dockerfile in a project becomes an image, and a cluster of two nodes runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from spawner.docker import names
from tests.docker.daemon import Daemon
from tests.docker.test_product import DockerProduct
from tests.product.product import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

DOCKERFILE = """
FROM jupyter
SHELL ["/opt/galilean/bin/python", "-IS", "-c"]
COPY heat.py /opt/
RUN import os; print('I am', os.getuid()); open('/opt/made', 'w').write('made')
USER 1000:1000
ENV PLACE=/home/jovyan/.local/lib/python3.11/site-packages
RUN import os, shutil; os.makedirs(os.environ['PLACE']); shutil.copy('/opt/heat.py', os.environ['PLACE'])
"""


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "building"
    directory.mkdir(mode=0o755)
    found = DockerProduct(
        directory, daemon, {"images": {"builds": {"allowed": True, "cpu": 1, "memory": "1G"}}}
    )
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def built(person: Any, place: str, name: str, seconds: float = 400) -> dict[str, Any]:
    answer = person.portal("POST", place, json={"name": name})
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["id"]

    def over() -> bool:
        return person.portal("GET", f"/images/{image_id}").json()["state"] != "saving"

    wait_for(over, f"{name} is built or not", seconds=seconds)
    return person.portal("GET", f"/images/{image_id}").json()


def test_a_project_becomes_an_image_that_two_nodes_run(product: DockerProduct, daemon: Daemon) -> None:
    ada = product.person("ada")
    slug = ada.project("Heat")
    place = f"/projects/ada/{slug}"
    for path, text in (("Dockerfile", DOCKERFILE), ("heat.py", "answer = 42\n")):
        assert ada.portal("PUT", f"{place}/files/{path}", content=text.encode()).status_code == 201
    image = built(ada, f"{place}/build", "heat:1")
    assert image["state"] == "ready", image
    assert "I am 0" in image["log"]
    assert image["changes"]["added"]["count"] >= 2
    assert not list((product.state / "builds").glob("*")), "the packed files are still there"
    added = ada.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "own"})
    assert added.status_code == 200, added.text
    answer = ada.run(slug, project=slug, nodes=2, cpu=0.5, memory="1G", environment=added.json()["name"])
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
    nodes = daemon.containers(**{names.INSTANCE: product.instance})
    assert len(nodes) == 2
    for one in nodes:
        assert (
            daemon.execute(one["Id"], "/usr/bin/python3", "-c", "import heat; print(heat.answer)") == "42\n"
        )
        assert daemon.execute(one["Id"], "/bin/cat", "/opt/made") == "made"
    assert ada.stop(slug).status_code in (202, 204)
    wait_for(lambda: not ada.clusters(), "the cluster is closed", seconds=120)


def test_an_image_is_built_on_ones_own_and_a_wrong_step_is_told(product: DockerProduct) -> None:
    ada = product.person_named("ada")
    slug = ada.project("On it")
    place = f"/projects/ada/{slug}"
    text = "FROM ada/heat:1\nRUN raise SystemExit(7)\n"
    assert ada.portal("PUT", f"{place}/files/Dockerfile", content=text.encode()).status_code == 201
    image = built(ada, f"{place}/build", "heat:2")
    assert image["state"] == "failed" and "7" in image["why"], image
    assert "RUN raise SystemExit(7)" in image["log"]
    assert ada.portal("DELETE", f"/images/{image['id']}").status_code == 204
