"""A machine is lost: what a backup, made while a cluster ran, and the volumes bring back on another one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hub_config.backup.half import NAME
from tests.product.conftest import SETTINGS
from tests.product.product import PASSWORD, Person, Product, processes_of, running_product, wait_for


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Product]:
    """A product of the test's own."""
    with running_product(tmp_path, {**SETTINGS, "sweep_seconds": 10}) as running:
        yield running


def lose(product: Product) -> datetime:
    """Power off: every process ends at once."""
    for pid in processes_of(product.state):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert product.process is not None
    product.process.wait(90)
    wait_for(lambda: not processes_of(product.state), "everything is off")
    if product._db is not None:  # ours is of the file that is lost
        product._db.close()
        product._db = None
    return datetime.now(UTC)


def usage(person: Person) -> dict[str, Any]:
    """Machine time by project, without what is counted still."""
    items = person.portal("GET", "/usage", params={"by": "project"}).raise_for_status().json()["items"]
    return {item["label"]: item for item in items}


def test_a_lost_machine_comes_back_with_people_projects_and_machine_time(mine: Product, tmp_path: Path):
    ada = mine.person("ada")
    mine.give_password("ada")
    done = ada.running("Finished work")
    ada.portal("PUT", f"/projects/ada/{done}/files/result.txt", content=b"42").raise_for_status()
    ada.stop(done)
    wait_for(lambda: not ada.clusters(), "the first is released")
    (finished,) = mine.runs("ada")
    counted = usage(ada)["Finished work"]
    held = ada.running("Still running", nodes=2)

    # While people work.
    file = tmp_path / "backup.tar.gz"
    said = mine.command("backup", str(file))
    assert "Not in this file" in said
    assert str(mine.state / "volumes" / "default") in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ada.is_ready(held)
    ada.project("Made after the backup")

    # Not over what lives.
    refused = mine.command("restore", str(file), "--replace", code=1)
    assert not refused
    assert ada.is_ready(held)

    lost_at = lose(mine)
    shutil.move(mine.state / "volumes", tmp_path / "volumes")  # they have a backup of their own
    shutil.rmtree(mine.state)
    said = mine.command("restore", str(file))
    assert "is not there" in said
    shutil.move(tmp_path / "volumes", mine.state / "volumes")
    mine.start()

    assert mine.output.read_text().count("An administrator was made") == 1, "the one of the first start"
    browser = ada.sign_in(PASSWORD)
    assert "Finished work" in browser.get("/services/portal/projects").text
    names = {item["name"] for item in ada.portal("GET", "/projects").raise_for_status().json()["items"]}
    assert names == {"Finished work", "Still running"}
    assert ada.portal("GET", f"/projects/ada/{done}/files/result.txt").content == b"42"
    assert usage(ada)["Finished work"] == counted
    (again,) = [run for run in mine.runs("ada") if run.id == finished.id]
    # Whether metering has summed it up by now is bookkeeping that goes on: what it says is compared above.
    assert replace(again, rolled_up=finished.rolled_up) == finished

    # The run that nobody saw end: closed, not before it began and not after the machine was lost.
    wait_for(lambda: not ada.clusters(), "what cannot be there any more is closed", seconds=60)
    mine.wait_truth(60)
    (open_then,) = [run for run in mine.runs("ada") if run.server == held]
    assert open_then.released_at is not None
    for node in mine.intervals(open_then.id):
        assert node.ready_at is not None and node.gone_at is not None
        assert node.ready_at <= node.gone_at <= lost_at, (node.ready_at, node.gone_at, lost_at)
    assert not ada.is_ready(held)
    # The hub may still be looking for the nodes that it knew, and takes no start meanwhile.
    wait_for(
        lambda: ada.run(held, project=held, nodes=2).status_code in (201, 202),
        "the next start is taken",
        seconds=60,
        every=1,
    )
    wait_for(lambda: ada.is_ready(held), "it starts again", seconds=60)
    assert ada.node(held, 1).status_code == 200


def test_an_older_state_is_put_back_in_the_place_of_a_newer_one(mine: Product, tmp_path: Path):
    ada = mine.person("ada")
    ada.project("Before")
    file = tmp_path / "backup.tar.gz"
    mine.command("backup", str(file))
    ada.portal("DELETE", "/projects/ada/before").raise_for_status()
    slug = ada.running("A mistake")
    mine.end(signal.SIGTERM)  # leaves the cluster running
    mine.db.close()
    mine._db = None
    assert mine.command("restore", str(file), code=1) == ""
    said = mine.command("restore", str(file), "--replace")
    assert "is kept in" in said
    mine.start()
    names = {item["name"] for item in ada.portal("GET", "/projects").raise_for_status().json()["items"]}
    assert names == {"Before"}
    # What the restored state knows nothing of does not go on in secret.
    wait_for(
        lambda: not [seen for seen in mine.sightings() if seen.user == "ada" and seen.alive],
        f"the nodes of {slug} are gone",
        seconds=120,
    )
    mine.wait_truth(30)


def test_the_product_does_not_start_on_half_of_a_restore(mine: Product, tmp_path: Path):
    mine.end()
    (mine.state / NAME).write_text("cut off\n")
    mine.launch()
    assert mine.process is not None
    assert mine.process.wait(90) == 1
    assert "broken off" in mine.said()
    (mine.state / NAME).unlink()
