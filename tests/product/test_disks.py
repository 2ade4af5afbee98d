"""A disk of a person's own, on the whole product: one run writes it, others read it, and it outlives a killed hub."""

from __future__ import annotations

from tests.product.code import in_node
from tests.product.product import Person, Product, wait_for

WRITE = "import pathlib; print(pathlib.Path.home().joinpath('disks/io-data/orbit').write_text('1.77 d'))"
READ = "import pathlib; print(pathlib.Path.home().joinpath('disks/io-data/orbit').read_text())"
THERE = "import pathlib; print(pathlib.Path.home().joinpath('disks').exists())"


def test_what_one_run_writes_to_a_disk_others_read_and_a_killed_hub_forgets_no_writer(
    product: Product, ada: Person
) -> None:
    made = ada.portal("POST", "/disks", json={"name": "io-data", "size_gib": 1})
    assert made.status_code == 201, made.text
    place = product.state / "disks" / made.json()["id"]
    writer = ada.running("Writer", nodes=2, disks={"io-data": "write"})
    in_node(ada, writer, WRITE)
    assert (place / "orbit").read_text() == "1.77 d"
    assert in_node(ada, writer, THERE, rank=1).strip() == "False"  # one writer is one node
    reader = ada.project("Reader")
    refused = ada.run(reader, project=reader, disks={"io-data": "read"})
    assert refused.status_code == 409, refused.text
    assert "writes to the disk" in refused.text

    old = product.kill("hub")
    product.wait_back("hub", old, seconds=60)
    product.wait_ready(60)
    assert ada.run(reader, project=reader, disks={"io-data": "read"}).status_code == 409
    assert ada.portal("DELETE", f"/disks/{made.json()['id']}").status_code == 409
    ada.stop(writer)
    wait_for(lambda: not ada.clusters(), "the writer went back", seconds=60)

    assert ada.run(reader, project=reader, nodes=2, disks={"io-data": "read"}).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(reader), "the reader is ready", seconds=60)
    assert [in_node(ada, reader, READ, rank=rank).strip() for rank in (0, 1)] == ["1.77 d", "1.77 d"]
    assert ada.run(writer, project=writer, disks={"io-data": "write"}).status_code == 409
    ada.stop(reader)
    wait_for(lambda: not ada.clusters(), "the reader went back", seconds=60)
    assert (place / "orbit").read_text() == "1.77 d"
    assert ada.portal("DELETE", f"/disks/{made.json()['id']}").status_code == 204
    wait_for(lambda: not place.exists(), "its files are gone", seconds=60)
