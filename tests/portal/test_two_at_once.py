"""Two who decide something at the same moment: both count, or the second is told; nothing is lost or half (SC-17).

The first has looked and written and is not done yet when the second begins: on a real PostgreSQL the second would
see what was before, if it did not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from extensions.quota import store
from extensions.quota.measures import Measure
from extensions.quota.policy import limits_of
from extensions.quota.store import Actor
from extensions.quota.tables import quota_exceptions
from galilean import centre
from galilean.db import Database
from galilean.errors import UserError
from galilean.rights import all_groups
from galilean.settings import Settings
from galilean.tables import audit_log
from hub_config.seeding import seed
from services.people import roles
from services.release import rules, schedules
from services.release.calendar import Schedule

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOSS = Actor(name="boss", roles=("admin",))
AS: dict[str, Any] = {"now": NOW, "by": "boss"}
ACTED: dict[str, Any] = {"now": NOW, "actor": BOSS}
Change = Callable[[Connection], Any]


@pytest.fixture
def site(db: Database) -> Database:
    with db.write() as conn:
        seed(conn, Settings(), NOW)
    return db


def both(site: Database, first: Change, second: Change) -> list[Any]:
    """What two transactions answer, the second begun while the first has written and not committed."""
    written, commit = threading.Event(), threading.Event()

    def one() -> Any:
        with site.write() as conn:
            answer = first(conn)
            written.set()
            commit.wait(10)
            return answer

    def other() -> Any:
        written.wait(10)
        with site.write() as conn:
            return second(conn)

    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(one)
        waits = pool.submit(other)
        assert written.wait(10)
        try:
            waits.result(0.3)  # long enough to read, should it not wait
        except (TimeoutError, UserError):
            pass
        commit.set()
        answers: list[Any] = []
        for future in (begun, waits):
            try:
                answers.append(future.result(10))
            except UserError as error:
                answers.append(error)
        return answers


def test_a_limit_that_two_set_is_the_laters_and_the_log_tells_both(site: Database) -> None:
    narrow = Measure.parse("nodes@default")
    answers = both(
        site,
        lambda conn: store.set_limits(conn, [("student", narrow, 3)], **ACTED),
        lambda conn: store.set_limits(conn, [("student", narrow, 4)], **ACTED),
    )
    assert answers == [1, 1]
    with site.read() as conn:
        limits = limits_of(conn, "lena", ("student",), NOW)
        told = conn.execute(select(audit_log.c.before, audit_log.c.after).order_by(audit_log.c.id)).all()
    assert limits is not None
    assert limits.amount(narrow) == 4
    assert [(row.before["amount"], row.after["amount"]) for row in told] == [(None, 3), (3, 4)]


def test_an_exception_that_two_give_is_one_and_the_first_ends(site: Database) -> None:
    def give(amount: int) -> Change:
        return lambda conn: store.give(
            conn, "lena", [(Measure("total_gpu"), amount)], reason="thesis", **ACTED
        )

    both(site, give(1), give(2))
    with site.read() as conn:
        q = quota_exceptions.c
        assert conn.execute(select(q.amount).where(q.ended_at.is_(None))).scalars().all() == [2]
        assert conn.execute(select(func.count()).select_from(quota_exceptions)).scalar() == 2


def test_an_exception_that_is_ended_is_not_changed_at_the_same_moment_nor_ended_twice(site: Database) -> None:
    def given(user: str) -> str:
        with site.write() as conn:
            return store.give(conn, user, [(Measure("total_gpu"), 1)], reason="thesis", **ACTED)[0].id

    for user, second in (
        ("lena", lambda conn, one: store.change(conn, one, amount=3, expires_at=NOW + timedelta(1), **ACTED)),
        ("mara", lambda conn, one: store.end(conn, one, **ACTED)),
    ):
        one = given(user)
        answers = both(site, lambda conn: store.end(conn, one, **ACTED), lambda conn: second(conn, one))  # noqa: B023
        assert isinstance(answers[1], UserError), user
        assert answers[1].status == 409


def test_two_fields_of_the_release_rules_are_both_kept(site: Database) -> None:
    by = {"now": NOW, "actor": "boss"}
    both(
        site,
        lambda conn: rules.set_site(conn, {"grace_seconds": 120}, **by),
        lambda conn: rules.set_site(conn, {"default": "2h"}, **by),
    )
    both(
        site,
        lambda conn: rules.set_role(conn, "student", {"most_seconds": 7200}, **by),
        lambda conn: rules.set_role(conn, "student", {"default": "2h"}, **by),
    )
    with site.read() as conn:
        found = rules.read(conn)
    assert (found.site.grace_seconds, found.site.default) == (120, "2h")
    assert (found.roles["student"].most_seconds, found.roles["student"].default) == (7200, "2h")


def test_roles_and_groups_that_two_make_or_change_are_one_and_whole(site: Database) -> None:
    answers = both(
        site,
        lambda conn: roles.create_role(conn, name="tutor", title="Tutor", rights=[], **AS),
        lambda conn: roles.create_role(conn, name="tutor", title="Other", rights=[], **AS),
    )
    assert isinstance(answers[1], UserError)
    assert answers[1].status == 409
    both(
        site,
        lambda conn: roles.change_role(conn, "tutor", title="Tutors", **AS),
        lambda conn: roles.change_role(conn, "tutor", rights=["audit:read"], **AS),
    )
    with site.read() as conn:
        tutor = centre.all_roles(conn)["tutor"]
    assert (tutor.title, tutor.rights) == ("Tutors", {"audit:read"})
    answers = both(
        site,
        lambda conn: roles.create_group(conn, title="Course", **AS),
        lambda conn: roles.create_group(conn, title="Course", **AS),
    )
    assert isinstance(answers[1], UserError)
    both(
        site,
        lambda conn: roles.change_group(conn, "course", title="Course 1", **AS),
        lambda conn: roles.change_group(conn, "course", given=["tutor"], **AS),
    )
    with site.read() as conn:
        course = all_groups(conn)["course"]
    assert (course.title, course.roles) == ("Course 1", ("tutor",))


def test_a_schedule_that_is_changed_while_its_start_is_noted_is_not_started_again(site: Database) -> None:
    with site.write() as conn:
        made = schedules.create(
            conn,
            Schedule(
                id="", user="lena", project_id="P", request={}, weekdays=(0,), ready_minute=480, release_minute=1080,
                zone="UTC", holidays=False, enabled=True, created_at=NOW,
            ),
        )  # fmt: skip
    both(
        site,
        lambda conn: schedules.note_done(conn, made.id, NOW.date(), run_id="R"),
        lambda conn: schedules.change(conn, made.id, "lena", {"request": {"nodes": 2}}, now=NOW),
    )
    with site.read() as conn:
        kept = schedules.get(conn, made.id, "lena")
    assert (kept.done_day, kept.run_id, kept.request) == ("2026-11-23", "R", {"nodes": 2})
