from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from galilean import centre
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import parse_settings
from galilean.tables import audit_log
from services.release import rules
from services.release.rules import RoleRule, Rules, SiteRule, default_for, offered_to, terms_for
from tests.metering.rows import T0, at

SITE = SiteRule(offered=("auto", "auto-when-done", "manual", "2h", "7d"), default="2h")
RULES = Rules(
    site=SITE,
    roles={
        "student": RoleRule(offered=("auto", "2h"), default="auto", most_seconds=86400, idle_seconds=3600),
        "teacher": RoleRule(most_seconds=7 * 86400, idle_seconds=0),
    },
)


@pytest.mark.parametrize(
    ("roles", "manual", "expected"),
    [
        (["student"], True, ("auto", "2h")),
        (["teacher"], False, ("auto", "auto-when-done", "2h", "7d")),
        (["teacher"], True, ("auto", "auto-when-done", "manual", "2h", "7d")),
        (["student", "teacher"], False, ("auto", "auto-when-done", "2h", "7d")),
        ([], False, ("auto", "auto-when-done", "2h", "7d")),
    ],
)
def test_who_may_choose_what(roles: list[str], manual: bool, expected: tuple[str, ...]) -> None:
    assert offered_to(RULES, roles, manual) == expected


def test_the_default_is_the_projects_then_the_roles_then_the_sites_and_never_what_is_not_allowed() -> None:
    assert default_for(RULES, ["student"], False, ["7d"]) == "auto"
    assert default_for(RULES, ["student"], False, ["2h"]) == "2h"
    assert default_for(RULES, ["teacher"], False, ["manual", None]) == "2h"


def test_the_most_generous_of_several_roles_holds() -> None:
    student = terms_for(RULES, ["student"], "auto", False)
    assert (student.most_seconds, student.idle_seconds, student.extend_seconds) == (86400, 3600, 7200)
    both = terms_for(RULES, ["student", "teacher"], "auto", False)
    assert (both.most_seconds, both.idle_seconds, both.extend_seconds) == (7 * 86400, None, 7 * 86400)
    assert terms_for(RULES, [], "auto", False).most_seconds is None


def test_a_site_begins_as_its_file_says_and_the_file_is_not_asked_again(db: Database) -> None:
    first = parse_settings("release: {offered: [auto, 2h], grace_seconds: 120}")
    with db.write() as conn:
        assert rules.seed(conn, first, T0)
        assert not rules.seed(conn, parse_settings(""), T0)
        assert rules.read(conn).site == SiteRule(grace_seconds=120, offered=("auto", "2h"))


def test_changes_are_kept_with_a_line_in_the_audit_log_and_move_the_version(db: Database) -> None:
    with db.write() as conn:
        centre.seed(conn, parse_settings(""), T0)
        before = centre.version(conn)
        rules.set_site(conn, {"grace_seconds": 600}, now=at(1), actor="root", address="10.0.0.1")
        rules.set_role(
            conn, "student", {"offered": ["2h", "auto"], "most_seconds": 86400}, now=at(2), actor="root"
        )
        rules.set_role(conn, "student", {"offered": ["auto", "2h"]}, now=at(3), actor="root")  # the same
    with db.read() as conn:
        found = rules.read(conn)
        assert centre.version(conn) == before + 2
        lines = conn.execute(select(audit_log).where(audit_log.c.action == "release.set")).all()
    assert found.site.grace_seconds == 600
    assert found.roles["student"] == RoleRule(offered=("auto", "2h"), most_seconds=86400)
    assert [(line.subject, line.before, line.after) for line in lines] == [
        ("site", {"grace_seconds": 300}, {"grace_seconds": 600}),
        (
            "student",
            {"offered": None, "most_seconds": None},
            {"offered": ["auto", "2h"], "most_seconds": 86400},
        ),
    ]


def test_a_role_that_says_nothing_of_its_own_any_more_leaves_no_row(db: Database) -> None:
    with db.write() as conn:
        centre.seed(conn, parse_settings(""), T0)
        rules.set_role(conn, "student", {"most_seconds": 86400}, now=T0, actor="root")
        rules.set_role(conn, "student", {"most_seconds": None}, now=T0, actor="root")
        assert rules.read(conn).roles == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"grace_seconds": 29}, {"grace_seconds": 1.5}, {"grace_seconds": True}, {"grace_seconds": 10**9},
        {"offered": []}, {"offered": ["manual"]}, {"offered": ["3h"]}, {"offered": "auto"},
        {"offered": ["2h"]}, {"default": "3h"}, {"default": None}, {"most_seconds": -1}, {"most_seconds": 0},
        {"idle_seconds": 1}, {"idle_percent": 0}, {"idle_percent": 101}, {"extend_seconds": 0},
        {"holidays": ["tomorrow"]}, {"holidays": ["2026-02-30"]}, {"unknown": 1},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(sqlite_db: Database, changes: dict[str, Any]) -> None:
    with sqlite_db.write() as conn:
        rules.seed(conn, parse_settings(""), T0)
    with pytest.raises(UserError) as refused, sqlite_db.write() as conn:
        rules.set_site(conn, changes, now=T0, actor="root")
    assert refused.value.status == 400
    with sqlite_db.read() as conn:
        assert rules.read(conn).site == SiteRule()


def test_a_role_that_is_not_there_and_a_default_that_it_does_not_offer_are_refused(
    sqlite_db: Database,
) -> None:
    with sqlite_db.write() as conn:
        centre.seed(conn, parse_settings(""), T0)
    for role, changes, status in (
        ("nobody", {"most_seconds": 86400}, 404),
        ("student", {"offered": ["auto"], "default": "2h"}, 400),
        ("student", {"offered": []}, 400),
    ):
        with pytest.raises(UserError) as refused, sqlite_db.write() as conn:
            rules.set_role(conn, role, changes, now=T0, actor="root")
        assert refused.value.status == status


def test_a_process_reads_again_only_what_was_decided_anew(sqlite_db: Database) -> None:
    freeze = rules.Freeze()
    with sqlite_db.write() as conn:
        rules.seed(conn, parse_settings(""), T0)
        frozen = freeze(conn, user="ada", roles=["student"], policy="2h", manual=False)
        rules.set_site(conn, {"most_seconds": 86400}, now=T0, actor="root")
        then = freeze(conn, user="ada", roles=["student"], policy="2h", manual=False)
    assert (frozen["most_seconds"], then["most_seconds"], then["policy"]) == (None, 86400, "2h")


def test_a_run_that_goes_on_alone_is_bounded_when_it_is_admitted() -> None:
    week = 7 * 86400
    generous = Rules(site=SiteRule(most_seconds=30 * 86400))
    assert terms_for(generous, [], "auto-when-done", False).most_seconds == week
    assert terms_for(generous, [], "auto", False).most_seconds == 30 * 86400
    assert terms_for(RULES, ["student"], "auto-when-done", False).most_seconds == 86400
