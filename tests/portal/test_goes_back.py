"""What a person is told of when their cluster goes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.portal.goes_back import goes_back
from services.release.terms import Terms
from spawner.records import Run

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HELD = Run(
    id="01RUN",
    user="ada",
    server="heat",
    project_id="01PROJECT",
    project_owner="ada",
    project_slug="heat",
    project_name="Heat",
    environment="jupyter",
    backend="process",
    nodes=1,
    cpu_millicores=1000,
    memory_bytes=2**30,
    release_policy="auto",
    release_terms=Terms(policy="auto", grace_seconds=300).to_json(),
    request={},
    status="running",
    asked_by="ada",
    queued_at=NOW - timedelta(hours=2),
    ready_at=NOW - timedelta(hours=2),
)


def after(**minutes: float) -> datetime:
    return NOW + timedelta(**minutes)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({}, "policy", False),
        # Somebody is there: the end moves on with them and is not told as a moment.
        ({"release_at": after(seconds=290), "release_why": "left"}, "policy", False),
        ({"release_at": after(seconds=200), "release_why": "left"}, "left", True),
        (
            {"release_at": after(hours=1), "release_why": "left", "extended_until": after(hours=1)},
            "kept",
            True,
        ),
        ({"release_at": None, "extended_until": after(hours=1)}, "kept", True),
        # An extension that is over says nothing any more.
        (
            {"release_at": after(seconds=290), "release_why": "left", "extended_until": after(hours=-1)},
            "policy",
            False,
        ),
        ({"release_at": after(hours=1), "release_why": "most"}, "ends", True),
        (
            {"release_at": after(hours=1), "release_why": "budget", "extended_until": after(hours=3)},
            "ends",
            True,
        ),
        ({"release_at": after(hours=1), "release_why": "schedule"}, "ends", True),
        ({"release_policy": "manual", "release_terms": None}, "policy", False),
        ({"release_policy": "no-such", "release_terms": None, "release_at": after(hours=1)}, "policy", False),
        ({"status": "starting", "release_at": after(hours=1), "release_why": "most"}, "policy", False),
    ],
)
def test_a_moment_is_told_where_it_stands_and_the_policy_where_it_moves(changes, kind: str, told: bool):
    back = goes_back(replace(HELD, **changes), NOW)
    assert back.kind == kind
    assert (back.at is not None) == told


def test_a_warning_is_soon_while_it_holds():
    warned = replace(HELD, release_at=after(seconds=140), release_why="left", warned_at=NOW)
    assert goes_back(warned, NOW).soon
    assert not goes_back(replace(warned, release_at=after(hours=5), release_why="most"), NOW).soon
    assert not goes_back(replace(warned, warned_at=None), NOW).soon


def test_what_may_be_asked_for_is_told_with_it():
    back = goes_back(HELD, NOW, tells=True)
    assert back.may_when_done
    assert not goes_back(HELD, NOW).may_when_done, "nobody would know when it is done"
    assert back.may_extend is not None
    assert back.may_extend > NOW
    manual = goes_back(replace(HELD, release_policy="manual", release_terms=None), NOW, tells=True)
    assert not manual.may_when_done
    assert manual.may_extend is None
