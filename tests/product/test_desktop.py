"""Desktops beside JupyterLab, on every node of a running cluster, through the product's own proxy."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.product.conftest import SETTINGS
from tests.product.product import processes_of, running_product, wait_for

SCREEN = b"RFB 003."


def test_each_node_has_a_desktop_for_its_owner_alone_and_it_ends_with_the_cluster(tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "environments": {"desktop": {"title": "Desktop", "interfaces": ["jupyter", "desktop"]}},
        "defaults": {**SETTINGS["defaults"], "environment": "desktop"},
    }
    with running_product(tmp_path, settings) as product:
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
        wait_for(
            lambda: not ada.clusters() and not screens(), "the desktops ended with their nodes", seconds=60
        )
