"""A packed image on a real product: uploaded in pieces, kept on the machine, run by its digest; or nothing of it."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from docker.errors import ImageNotFound

from extensions.imagebuilder.looks import NODE_LABEL
from spawner.docker import names
from tests.docker.daemon import IMAGE, ROOT, Daemon
from tests.docker.test_product import DockerProduct
from tests.product.product import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def product(daemon: Daemon) -> Iterator[DockerProduct]:
    directory = daemon.directory.parent / "uploads"
    directory.mkdir(mode=0o755)
    found = DockerProduct(directory, daemon)
    found.start()
    yield found
    found.close()
    daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


def packed(daemon: Daemon) -> bytes:
    """What ``docker save`` writes of an image that this machine forgets afterwards."""
    client, name = daemon.client, "elsewhere/tools"
    made = client.create_container(IMAGE, ["true"])
    client.commit(made, name, "7", changes=f"LABEL {NODE_LABEL}=/x\nENV HEAT=42\nENTRYPOINT /sbin/init")
    client.remove_container(made)
    whole = b"".join(client.get_image(f"{name}:7"))
    client.remove_image(f"{name}:7", force=True)
    return gzip.compress(whole, 1)


def uploaded(person: Any, archive: bytes, name: str) -> dict[str, Any]:
    """Upload in two pieces and wait for what comes of it."""
    metadata = ",".join(
        f"{key} {base64.b64encode(text.encode()).decode()}"
        for key, text in (("filename", "x"), ("name", name))
    )
    made = person.portal(
        "POST",
        "/images/uploads",
        headers={**TUS, "Upload-Length": str(len(archive)), "Upload-Metadata": metadata},
    )
    assert made.status_code == 201, made.text
    place = "/images/uploads/" + made.headers["Location"].rpartition("/")[2]
    half = len(archive) // 2
    for offset, piece in ((0, archive[:half]), (half, archive[half:])):
        answer = person.portal(
            "PATCH",
            place,
            content=piece,
            headers={**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"},
        )
        assert answer.status_code == 204, answer.text
    image = answer.headers["Galilean-Path"]
    wait_for(
        lambda: person.portal("GET", f"/images/{image}").json()["state"] != "saving",
        f"{name} is there",
        seconds=300,
    )
    return person.portal("GET", f"/images/{image}").json()


def test_a_packed_image_is_uploaded_added_and_run(product: DockerProduct, daemon: Daemon) -> None:
    ada = product.person("ada")
    image = uploaded(ada, packed(daemon), "tools:7")
    assert image["state"] == "ready", image
    assert daemon.client.inspect_image(image["image"])["RepoDigests"] == [image["image"]]
    assert not list((product.state / "image-uploads").rglob("*.tar"))
    body = {"visibility": "own", "title": "Tools"}
    entry = ada.portal("PUT", f"/images/{image['id']}/library", json=body).json()
    assert any("ENTRYPOINT" in text for text in entry["versions"][0]["told"])
    admin = product.admin

    def place() -> tuple[str, str]:
        found = admin.portal("GET", "/image-places", params={"image": image["image"]})
        assert found.status_code == 200, found.text
        return next(((one["state"], one["changed_at"]) for one in found.json()["items"]), ("", ""))

    def here() -> bool:
        with suppress(ImageNotFound):
            return bool(daemon.client.inspect_image(image["image"]))
        return False

    wait_for(lambda: place()[0] == "present", "the image is known to be here", seconds=120)
    daemon.client.remove_image(image["image"], force=True)  # somebody tidied up: it comes back by itself
    wait_for(lambda: here() and place()[0] == "present", "it came back", seconds=120)
    log = admin.portal("GET", "/image-places/log", params={"image": image["image"]}).json()["items"]
    assert [one["what"] for one in log[:3]] == ["present", "begun", "gone"], "nobody but one brings it back"
    assert log[0]["seconds"] is not None
    start = {"start": {"variables": {"PYTHONPATH": str(ROOT)}}}
    assert ada.portal("PATCH", f"/environments/{entry['id']}", json=start).status_code == 200
    slug = ada.project("Heat")
    answer = ada.run(slug, project=slug, environment=entry["name"], nodes=1, cpu=1, memory="1G")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
    (node,) = daemon.containers(**{names.INSTANCE: product.instance})
    assert node["Config"]["Image"] == image["image"]
    assert "HEAT=42" in node["Config"]["Env"]


def test_an_archive_that_was_changed_on_its_way_leaves_nothing(
    product: DockerProduct, daemon: Daemon
) -> None:
    ada = product.person_named("ada")
    whole = bytearray(gzip.decompress(packed(daemon)))
    at = whole.find(b"ustar", len(whole) // 2)
    whole[at + 400] ^= 1
    image = uploaded(ada, bytes(whole), "broken:1")
    assert (image["state"], image["image"]) == ("failed", "")
    assert image["why"]
    assert not list((product.state / "image-uploads").rglob("*.tar"))
    assert not list((product.state / "images").glob("*"))
    data = product.state / "registry" / "data"
    assert not [path for path in data.rglob("_manifests/tags/*") if "broken" in str(path)]
