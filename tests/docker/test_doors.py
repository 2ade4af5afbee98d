"""A port of a program in a container, lent to somebody by name and taken back while they are connected."""

from __future__ import annotations

import pytest

from tests.docker.daemon import Daemon
from tests.docker.test_product import DockerProduct
from tests.product import shared_port
from tests.product.product import wait_for
from tests.product.split import split

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def test_a_port_of_a_container_is_lent_to_a_named_person_and_taken_back_while_they_are_connected(
    daemon: Daemon,
) -> None:
    directory = daemon.directory.parent / "doors"
    directory.mkdir(mode=0o755)
    product = DockerProduct(directory, daemon, {"ports": {"share": True}})
    split(product, host=daemon.machine.address)
    try:
        product.start()
        ada, eve, mary = (product.person(name) for name in ("ada", "eve", "mary"))
        slug = ada.project("Wiki")
        answer = ada.run(slug, project=slug, nodes=2, cpu=1, memory="1G")
        assert answer.status_code in (201, 202), answer.text
        wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
        shared_port.tell(ada, eve, mary, slug, daemon.machine.address)
    finally:
        product.close()
        daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)
