"""Trouble with what the product stands on: the disk, the database, ports, and nodes that nobody knows of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from spawner.tables import clusters
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product, alive, running_product, wait_for
from tests.product.truth import TOLD_SECONDS


def test_a_taken_port_is_said_plainly(product: Product, tmp_path: Path):
    other = Product(tmp_path)
    other.port = product.port
    other.launch()
    assert other.process is not None
    try:
        assert other.process.wait(60) != 0
        assert str(product.port) in other.said() and "Traceback" not in other.said()
    finally:
        other.close()


def test_a_locked_database_is_said_plainly_and_heals(product: Product, ada: Person):
    slug = ada.project("Locked out")
    with product.db.write():
        answer = ada.run(slug, project=slug)
        listed = ada.portal("GET", "/projects")
    assert answer.status_code == 503, answer.text
    assert "busy" in answer.json()["message"]
    assert listed.status_code == 200, "reading goes on"
    assert not ada.clusters()
    product.wait_truth(TOLD_SECONDS)
    assert ada.run(slug, project=slug).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "the next start works", seconds=60)


def test_orphans_are_found_and_removed_by_the_sweeper(product: Product, ada: Person):
    slug = ada.running("Left alone", nodes=2)
    pids = [product.node_pid(ada.name, slug, rank) for rank in (0, 1)]
    with product.db.write() as conn:  # what no code of ours does: the row is closed under a living cluster
        conn.execute(
            update(clusters)
            .where(clusters.c.user == ada.name)
            .values(status="released", target="released", released_at=datetime.now(UTC))
        )
    assert f"{ada.name}/{slug}" not in product.command("sweep", code=None), "it may be on its way still"
    told = product.command("sweep", "--older-than", "0", code=1)
    assert f"orphan  {ada.name}/{slug} node 0" in told and f"{ada.name}/{slug} node 1" in told
    assert all(alive(pid) for pid in pids), "a dry run removes nothing"
    product.command("sweep", "--older-than", "0", "--remove")
    wait_for(lambda: not any(alive(pid) for pid in pids), "the orphans are gone", seconds=TOLD_SECONDS)
    wait_for(lambda: not ada.is_ready(slug), "the hub has noticed", seconds=TOLD_SECONDS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``small_disk(megabytes)``: a directory on a disk of its own, which may be filled."""
    mounted: list[Path] = []

    def make(megabytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}M", "tmpfs", str(place)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("only root can make a small disk; the same is tested with faults that are put in")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take the last byte of a disk; the file to delete."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(place).f_bavail == 0
    return filler


def test_a_disk_with_no_room_is_refused_before_anything_is_started(small_disk: Callable[[int], Path]):
    other = Product(small_disk(50))
    other.launch()
    assert other.process is not None
    try:
        assert other.process.wait(60) != 0
        assert "full" in other.said() and "Traceback" not in other.said()
    finally:
        other.close()


def test_a_disk_that_fills_up_is_said_plainly_takes_nothing_along_and_heals(
    small_disk: Callable[[int], Path],
):
    place = small_disk(400)
    with running_product(place, SETTINGS) as product:
        eve = product.person("eve")
        held, other = eve.running("Held"), eve.project("Other")
        file = f"/projects/{eve.name}/{other}/files/notes.txt"
        assert eve.portal("PUT", file, content=b"first").status_code in (200, 201, 204)
        parts = {name: life["pid"] for name, life in product.status()["parts"].items()}
        filler = fill(place)

        answers = {
            "a file": eve.portal("PUT", file, content=b"x" * 2**20),
            "a project": eve.portal("POST", "/projects", json={"name": "No room"}),
            "a run": eve.run(other, project=other),
        }
        for what, answer in answers.items():
            assert answer.status_code == 507, (what, answer.status_code, answer.text)
            said = answer.json()
            text = said.get("detail") or said["message"]
            assert "full" in text and "Traceback" not in text, (what, text)
        assert eve.portal("GET", file).content == b"first", "what was there is untouched"
        assert eve.node(held).status_code == 200, "clusters run on"
        assert {name: life["pid"] for name, life in product.status()["parts"].items()} == parts

        filler.unlink()
        assert eve.portal("PUT", file, content=b"second").status_code in (200, 201, 204)
        product.wait_truth(TOLD_SECONDS)
        assert eve.run(other, project=other).status_code in (201, 202)
        wait_for(lambda: eve.is_ready(other), "the next start works", seconds=60)
        assert product.end() == 0, product.said()
