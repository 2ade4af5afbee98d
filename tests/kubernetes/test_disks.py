"""Disks in a real Kubernetes: a claim made by the first run, written by one, read by another, gone when deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spawner.kubernetes.disks import claim_name
from tests.kubernetes.hub import only_if_possible
from tests.kubernetes.test_product_outside import Outside, ada, product, released
from tests.lab.waiting import wait_for
from tests.product.code import in_node
from tests.product.product import Person

__all__ = ["ada", "product"]  # fixtures
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
]
PLACE = "import pathlib; place = pathlib.Path.home() / 'disks/io-data'; "
WRITE = PLACE + "print((place / 'orbit').write_text('1.77 d'))"
READ = PLACE + "print((place / 'orbit').read_text())"
TRY = (
    PLACE
    + """
try:
    (place / 'theirs').write_text('x')
except OSError as error:
    print(error.strerror)
"""
)
THERE = PLACE + "print(place.exists())"


def claims(product: Outside) -> dict[str, Any]:
    found = product.namespace.kubectl("get", "pvc", "-n", product.namespace.name, "-o", "json")
    return {item["metadata"]["name"]: item for item in json.loads(found)["items"]}


def started(person: Person, slug: str, mode: str) -> None:
    answer = person.run(slug, project=slug, nodes=2, cpu=0.1, memory="512M", disks={"io-data": mode})
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: person.is_ready(slug), f"{slug} is ready", seconds=120)


def test_a_claim_is_written_by_one_run_read_by_another_and_gone_when_the_disk_is_deleted(
    product: Outside, ada: Person
) -> None:
    made = ada.portal("POST", "/disks", json={"name": "io-data", "size_gib": 1})
    assert made.status_code == 201, made.text
    disk = made.json()["id"]
    name = claim_name(disk)
    assert name not in claims(product)  # the first run makes it
    writer, reader = ada.project("Writer"), ada.project("Reader")
    started(ada, writer, "write")
    claim = claims(product)[name]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    in_node(ada, writer, WRITE)
    assert in_node(ada, writer, THERE, rank=1).strip() == "False"
    assert ada.run(reader, project=reader, disks={"io-data": "read"}).status_code == 409
    released(product, ada, writer)
    assert claims(product)[name]["metadata"]["uid"] == claim["metadata"]["uid"]

    started(ada, reader, "read")
    for rank in (0, 1):
        assert in_node(ada, reader, READ, rank=rank).strip() == "1.77 d"
        assert in_node(ada, reader, TRY, rank=rank).strip() == "Read-only file system"
    released(product, ada, reader)
    assert product.namespace.inventory() == []
    assert ada.portal("PATCH", f"/disks/{disk}", json={"size_gib": 2}).status_code == 409
    assert ada.portal("DELETE", f"/disks/{disk}").status_code == 204
    wait_for(lambda: name not in claims(product), "its claim is gone", seconds=60)
