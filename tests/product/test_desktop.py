"""Desktops beside JupyterLab, on every node of a running cluster, through the product's own proxy."""

from __future__ import annotations

import shlex
import stat
import sys
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.product.code import in_node
from tests.product.conftest import SETTINGS
from tests.product.product import Product, free_port, processes_of, running_product, wait_for

SCREEN = b"RFB 003."
#: VNC takes eight characters.
PASSWORD = "Kx7!geheim-of-the-image"
PORT = free_port()


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """With desktops of ours, and an environment that brings its own."""
    both = {"interfaces": ["jupyter", "desktop"]}
    settings = {
        **SETTINGS,
        "environments": {
            "desktop": {"title": "Desktop", **both},
            "brought": {"title": "Brought", **both, "vnc": {"port": PORT, "password": PASSWORD}},
        },
        "defaults": {**SETTINGS["defaults"], "environment": "desktop"},
    }
    with running_product(tmp_path_factory.mktemp("desktops"), settings) as running:
        yield running


def test_each_node_has_a_desktop_for_its_owner_alone_and_it_ends_with_the_cluster(product: Product) -> None:
    ada, eve = product.person("ada"), product.person("eve")
    slug = ada.running("Drawings", nodes=2)
    (cluster,) = ada.clusters()
    said = ada.portal("GET", f"/clusters/{cluster['id']}").raise_for_status().json()
    for rank, node in enumerate(said["node_list"]):
        (door,) = [door for door in node["doors"] if door["name"] == "desktop"]
        path = door["url"].removeprefix(product.url)
        assert path == f"/user/ada/{slug}/" + (f"node-{rank}/" if rank else "") + "desktop/"
        assert ada.api("GET", path).status_code == 200
        assert eve.api("GET", path).status_code in (403, 404)
        address = f"ws://127.0.0.1:{product.port}{path}vnc"
        for nobody in ({}, {"Authorization": f"token {eve.token}"}):
            with pytest.raises(InvalidStatus):
                connect(address, additional_headers=nobody)
        with connect(
            address, additional_headers={"Authorization": f"token {ada.token}"}, open_timeout=120
        ) as picture:
            assert bytes(picture.recv(timeout=120)).startswith(SCREEN)

    def screens() -> list[str]:
        return [command for command in processes_of(product.state).values() if "-rfbunixpath" in command]

    assert len(screens()) == 2, "one for each node"
    ada.stop(slug)
    wait_for(lambda: not ada.clusters() and not screens(), "the desktops ended with their nodes", seconds=60)


#: A VNC server as an image might bring one: it asks for the password and does not take it.
REFUSES = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    line, _ = server.accept()
    with line:
        line.sendall(b"RFB 003.008\\n"); line.recv(12)
        line.sendall(bytes([1, 2])); line.recv(1)
        line.sendall(bytes(16)); line.recv(16)
        line.sendall((1).to_bytes(4, "big") + (5).to_bytes(4, "big") + b"wrong")
"""


def test_the_password_of_an_images_own_desktop_is_shown_nowhere(product: Product) -> None:
    mary = product.person("mary")
    slug = mary.running("Brought", environment="brought")
    (cluster,) = mary.clusters()
    # Away from the kernel, which ends what it started when it ends.
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(REFUSES)} {PORT} >/dev/null 2>&1 &"
    in_node(
        mary, slug, f"import subprocess; subprocess.run(['setsid', 'bash', '-c', {command!r}], check=True)"
    )
    node = f"/user/mary/{slug}/"
    said: dict[str, str] = {}

    def why() -> str:
        return str(mary.api("POST", f"{node}desktop/api/start", json={}).json())

    wait_for(lambda: "does not take the password" in why(), "the desktop says why it is not there")
    said["why the desktop is not there"] = why()
    portal = "/services/portal/"
    for who in (mary, product.admin):
        for path in (
            "/environments", "/environments/brought", "/clusters", f"/clusters/{cluster['id']}",
            "/projects/mary/" + slug, "/openapi.json", "/ssh-keys",
        ):  # fmt: skip
            said[f"{who.name} {path}"] = who.portal("GET", path).text
    browser = mary.sign_in()
    for path in (
        portal, f"{portal}environments", f"{portal}environments/brought", f"{portal}projects/mary/{slug}/run",
        f"{portal}projects/new", f"{node}desktop/", f"{node}desktop/api/status", f"{node}galilean/api/status",
        f"{node}server-proxy/servers-info", f"{node}lab",
    ):  # fmt: skip
        answer = browser.get(path)
        assert answer.status_code in (200, 404), path
        said[path] = answer.text
    for path in ("/hub/api/users/mary", "/hub/api/users?state=active&include_stopped_servers=1"):
        said[path] = product.admin.api("GET", path).text
    for words in (("config", "check"), ("doctor",), ("sweep",)):
        said[" ".join(words)] = product.command(*words, code=None)
    said["what it printed"] = product.output.read_text(errors="replace")
    said["arguments of processes"] = str(processes_of(product.state))
    for what, text in said.items():
        assert PASSWORD[:8] not in text, what
    for path in product.state.rglob("*"):
        if path.is_file() and PASSWORD[:8].encode() in path.read_bytes():
            # What the node is made of, and what its sign-ins by ssh are given: for the hub's own account alone.
            assert path.is_relative_to(product.state / "clusters"), path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    mary.stop(slug)
