"""*Stop everything* on a machine: by its name typed again, by whoever may, and everybody there reads why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from galilean.tables import audit_log
from spawner import records
from tests.machines.conftest import Park
from tests.web.conftest import Visitor


def stop(visitor: Visitor, typed: str, machine: str = "m1") -> Any:
    return visitor.script("POST", f"admin/machines/{machine}/stop", data={"typed": typed, "why": "smoke"})


def asked(park: Park, *runs: str) -> list[bool]:
    with park.site.portal.db.read() as conn:
        found = [records.get(conn, run) for run in runs]
    return [run is not None and run.stop_asked_at is not None for run in found]


def test_everything_goes_back_when_the_name_was_typed_again(park: Park, maria: Visitor) -> None:
    here, both, elsewhere = (
        park.run("alice", "m1", name="Folding"),
        park.run("bob", "m1", "m2", name="Heat"),
        park.run("alice", "m2", name="Other"),
    )
    assert "Stop everything" in maria.get("admin/machines/m1").text
    dialog = maria.script("GET", "admin/machines/m1/stop").text
    assert "Folding" in dialog and "Heat" in dialog and "Other" not in dialog
    answer = stop(maria, " m1 ")
    assert "2 clusters go back" in json.loads(answer.headers["HX-Trigger"])["galilean:toast"]["text"]
    assert asked(park, here, both, elsewhere) == [True, True, False]
    with park.site.portal.db.read() as conn:
        actions = conn.execute(select(audit_log.c.action, audit_log.c.subject)).all()
    assert ("machine.stop-everything", "m1") in [tuple(row) for row in actions]


@pytest.mark.parametrize("typed", ["", "m2", "M1", "m1x"])
def test_without_its_name_nothing_is_stopped(park: Park, maria: Visitor, typed: str) -> None:
    run = park.run("alice", "m1")
    assert stop(maria, typed).status_code == 400
    assert asked(park, run) == [False]


def test_where_nobody_holds_anything_there_is_nothing_to_press(park: Park, maria: Visitor) -> None:
    assert "Stop everything" not in maria.get("admin/machines/m1").text
    assert stop(maria, "m1").status_code == 409


def test_only_whoever_may_release_all_stops_everything(park: Park) -> None:
    run = park.run("bob", "m1")
    with Visitor(park.site, "alice") as alice:
        alice.get("")
        assert stop(alice, "m1").status_code == 403
    assert asked(park, run) == [False]
