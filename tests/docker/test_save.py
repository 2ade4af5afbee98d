"""The whole thread on a real product: a person installs something, saves the node, and the image holds it and no secret."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from spawner.docker import names
from tests.docker.daemon import Daemon
from tests.docker.test_product import DockerProduct
from tests.product.product import at_once, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "saving"
    directory.mkdir(mode=0o755)
    found = DockerProduct(directory, daemon)
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def saved(person: Any, name: str, cluster: str, seconds: float = 240) -> dict[str, Any]:
    answer = person.portal("POST", "/images", json={"cluster": cluster, "rank": 0, "name": name})
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["id"]

    def over() -> bool:
        return person.portal("GET", f"/images/{image_id}").json()["state"] != "saving"

    wait_for(over, f"{name} is saved or not", seconds=seconds)
    return person.portal("GET", f"/images/{image_id}").json()


def bytes_of(daemon: Daemon, image: str) -> Iterator[tuple[str, bytes]]:
    """Every byte of an image as Docker hands it out: documents, and files of the layers with their names."""
    client = docker.APIClient(daemon.url, version="auto", timeout=300)
    try:
        whole = io.BytesIO(b"".join(client.get_image(image)))
    finally:
        client.close()
    with tarfile.open(fileobj=whole) as outer:
        for member in outer:
            if member.isfile() and (file := outer.extractfile(member)) is not None:
                yield member.name, file.read()


def secrets_of(product: DockerProduct, node: dict[str, Any]) -> list[bytes]:
    """What must be in no image of that node: its token, and the keys of all runs without the lines around them."""
    environment = dict(item.partition("=")[::2] for item in node["Config"]["Env"])
    keys = [path.read_bytes() for path in (product.state / "clusters").rglob("secrets/*") if path.is_file()]
    return [
        environment["JUPYTERHUB_API_TOKEN"].encode(),
        *(
            b"".join(key.splitlines()[1:-1]) if b"BEGIN" in key else key
            for key in keys
            if b"ssh-" not in key[:40]
        ),
    ]


def test_what_was_installed_is_in_the_image_and_no_secret_of_the_run_is(
    product: DockerProduct, daemon: Daemon
) -> None:
    ada = product.person("ada")
    slug = ada.project("Heat")
    assert ada.run(slug, project=slug, nodes=1, cpu=1, memory="1G").status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
    (cluster,) = ada.clusters()
    (node,) = daemon.containers(**{names.INSTANCE: product.instance})
    environment = dict(item.partition("=")[::2] for item in node["Config"]["Env"])
    token = environment["JUPYTERHUB_API_TOKEN"]
    daemon.execute(
        node["Id"],
        "/bin/sh",
        "-c",
        "cd /home/jovyan && mkdir tool && echo works > tool/it && echo typed > .bash_history && echo x > /tmp/x"
        " && echo mine > work/kept && mkdir -p .local/lib/python3.11/site-packages"
        " && echo 'answer = 42' > .local/lib/python3.11/site-packages/heat.py",
    )
    held = ada.portal("GET", f"/clusters/{cluster['id']}/nodes/0/would-hold")
    assert held.status_code == 200, held.text
    assert held.json()["added"] > 0
    assert "/home/jovyan/work" in held.json()["mounted"]
    image = saved(ada, "my-tools:1", cluster["id"])
    assert image["state"] == "ready", image
    assert image["changes"]["frozen_seconds"] <= 2, image["log"]
    assert ada.node(slug).status_code == 200  # goes on as if nothing were
    assert "FROM " in image["dockerfile"]

    secret = secrets_of(product, node)
    assert len(secret) >= 4
    found: dict[str, bytes] = {}
    for name, content in bytes_of(daemon, image["image"]):
        assert not [value for value in secret if value in content or value in content.replace(b"\n", b"")], (
            name
        )
        if name.endswith("layer.tar"):
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                for member in layer:
                    file = layer.extractfile(member) if member.isfile() else None
                    found[member.name.removeprefix("./")] = file.read() if file else b""
    assert found["home/jovyan/tool/it"] == b"works\n"
    assert not {"tmp/x", "home/jovyan/.bash_history", "home/jovyan/work/kept"} & found.keys()
    assert not [name for name in found if name.startswith("home/jovyan/.galilean")]
    assert token not in json.dumps(daemon.client.inspect_image(image["image"]))


def test_somebody_else_runs_two_nodes_of_an_image_in_the_library(
    product: DockerProduct, daemon: Daemon
) -> None:
    ada, bob = product.person_named("ada"), product.person("bob", role="student")
    (image,) = ada.portal("GET", "/images").json()["items"]
    assert (
        bob.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "public"}).status_code == 404
    )
    slug = bob.project("Class")
    hidden = bob.run(slug, project=slug, nodes=2, cpu=0.5, memory="1G", environment="ada/my-tools")
    assert hidden.status_code in (400, 404), hidden.text
    added = ada.portal("PUT", f"/images/{image['id']}/library", json={"visibility": "public"})
    assert added.status_code == 200, added.text
    name = added.json()["name"]
    answer = bob.run(slug, project=slug, nodes=2, cpu=0.5, memory="1G", environment=name)
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: bob.is_ready(slug), f"{slug} is ready", seconds=400)
    mine = [
        one
        for one in daemon.containers(**{names.INSTANCE: product.instance})
        if one["Config"]["Labels"][names.EXACT_USER] == "bob"
    ]
    assert len(mine) == 2
    for one in mine:
        said = daemon.execute(one["Id"], "/usr/bin/python3", "-c", "import heat; print(heat.answer)")
        assert said.strip() == "42"
    (listed,) = ada.portal("GET", "/images").json()["items"]
    assert listed["in_library"]
    assert ada.portal("DELETE", f"/images/{image['id']}").status_code == 409
    assert bob.stop(slug).status_code in (202, 204)
    wait_for(lambda: not bob.clusters(), "the cluster is closed", seconds=60)
    assert ada.portal("DELETE", f"/images/{image['id']}/library").status_code == 204


def test_a_token_under_an_odd_name_is_refused_with_the_files_name(
    product: DockerProduct, daemon: Daemon
) -> None:
    ada = product.person_named("ada")
    (cluster,) = ada.clusters()
    (node,) = daemon.containers(**{names.INSTANCE: product.instance})
    daemon.execute(
        node["Id"],
        "/usr/bin/python3",
        "-c",
        "import base64, os; t = open('/proc/1/environ', 'rb').read().split(b'JUPYTERHUB_API_TOKEN=')[1].split(b'\\0')[0];"
        "open('/home/jovyan/tool/picture.png', 'wb').write(b'abc' + base64.b64encode(b'x' + t))",
    )
    image = saved(ada, "my-tools:2", cluster["id"])
    assert image["state"] == "failed"
    assert "/home/jovyan/tool/picture.png" in image["why"]
    listed = daemon.client.images(name="*/people/ada/my-tools")
    assert len(listed) <= 1  # the first alone
    daemon.execute(node["Id"], "rm", "/home/jovyan/tool/picture.png")


def test_nobody_saves_somebody_elses_node(product: DockerProduct) -> None:
    ada, eve = product.person_named("ada"), product.person("eve")
    (cluster,) = ada.clusters()
    answer = eve.portal("POST", "/images", json={"cluster": cluster["id"], "rank": 0, "name": "mine:1"})
    assert answer.status_code == 404
    assert eve.portal("GET", f"/clusters/{cluster['id']}/nodes/0/would-hold").status_code == 404
    (first, *_) = ada.portal("GET", "/images").json()["items"]
    assert eve.portal("GET", f"/images/{first['id']}").status_code == 404
    assert eve.portal("DELETE", f"/images/{first['id']}").status_code == 404


def test_no_name_reaches_out_of_ones_own_and_saves_at_once_under_one_name_are_one(
    product: DockerProduct,
) -> None:
    ada, eve = product.person_named("ada"), product.person_named("eve")
    (cluster,) = ada.clusters()
    kept = [one["id"] for one in ada.portal("GET", "/images").json()["items"]]

    def asked(name: str, **more: Any) -> Any:
        return ada.portal("POST", "/images", json={"cluster": cluster["id"], "rank": 0, "name": name, **more})

    for name in (
        "../eve/x:1", "people/eve/x:1", "eve/../x:1", "./x:1", "x//y:1", "/x:1", "-x:1", "x:-1", "x:../../1",
        "My-tools:3", "x", "x:", ":1", "", "x:latest", f"x@sha256:{'0' * 64}", f"x:sha256-{'0' * 20}",
        "127.0.0.1:5000/x:1", "localhost/x:1", "registry.example/x:1", f"{'a' * 60}:1", "ｘ:1", "%2e%2e/x:1",
        "x:1;id", "$(id):1", "x\n:1", "x\0:1",
    ):  # fmt: skip
        answer = asked(name)
        assert answer.status_code == 422, (name, answer.text)
    for more in (
        {"rank": 1},
        {"rank": -1},
        {"rank": "0"},
        {"cluster": cluster["id"].lower()},
        {"owner": "eve"},
    ):
        assert asked("x:1", **more).status_code in (400, 404), more
    assert [one["id"] for one in ada.portal("GET", "/images").json()["items"]] == kept

    answers = at_once(*[lambda: asked("twin:1")] * 4)
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    (image,) = (answer.json() for answer in answers if answer.status_code == 202)
    assert eve.portal("POST", f"/images/{image['id']}/cancel").status_code == 404
    assert eve.portal("PATCH", f"/images/{image['id']}", json={"description": "mine"}).status_code == 404

    def over() -> Any:
        found = ada.portal("GET", f"/images/{image['id']}").json()
        return found if found["state"] != "saving" else None

    assert wait_for(over, "it is saved", seconds=240)["state"] == "ready"
    assert ada.portal("DELETE", f"/images/{image['id']}").status_code == 204


def test_a_name_is_taken_once_and_free_again_after_a_deletion(product: DockerProduct, daemon: Daemon) -> None:
    ada = product.person_named("ada")
    (cluster,) = ada.clusters()
    wrong = ada.portal(
        "POST", "/images", json={"cluster": cluster["id"], "rank": 0, "name": "my-tools:latest"}
    )
    assert wrong.status_code == 422
    again = ada.portal("POST", "/images", json={"cluster": cluster["id"], "rank": 0, "name": "my-tools:1"})
    assert again.status_code == 409
    image = next(one for one in ada.portal("GET", "/images").json()["items"] if one["state"] == "ready")
    assert ada.portal("DELETE", f"/images/{image['id']}").status_code == 204

    def gone() -> bool:
        return not daemon.client.images(name=image["image"].partition("@")[0])

    wait_for(gone, "the image is off the machine", seconds=60)
