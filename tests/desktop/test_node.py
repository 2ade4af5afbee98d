"""The desktop in a node of a cluster: below its path, only where the environment has one."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.process.jupyter import TOKEN, Jupyter

pytestmark = pytest.mark.process


def test_a_node_shows_the_desktop_of_its_environment(tmp_path: Path) -> None:
    node = Jupyter(
        tmp_path,
        more={
            "GALILEAN_INTERFACES": "jupyter,desktop",
            "GALILEAN_DESKTOP_COMMAND": "exec openbox",
        },
    )
    try:
        page = node.client.get("desktop/")
        assert page.status_code == 200
        assert "/user/ada/heat/desktop/static/" in page.text
        address = f"{node.url.replace('http', 'ws', 1)}desktop/vnc?token={TOKEN}"
        with connect(address, open_timeout=120) as picture:
            assert bytes(picture.recv(timeout=120)).startswith(b"RFB 003.")
        assert node.client.get("desktop/api/status").json()["state"] == "running"
        assert node.client.post("desktop/api/restart", json={}).json()["state"] == "running"
        tiles = node.client.get("server-proxy/servers-info").json()["server_processes"]
        (tile,) = [item for item in tiles if item["name"] == "desktop"]
        assert tile["launcher_entry"]["path_info"] == "desktop/"
        icon = node.client.get("server-proxy/icon/desktop")
        assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
    finally:
        node.stop()


def test_a_node_without_a_desktop_has_none(tmp_path: Path) -> None:
    node = Jupyter(tmp_path)
    try:
        assert node.client.get("desktop/api/status").status_code == 404
    finally:
        node.stop()
