"""What the centre says to everybody: kept whole, shown when it holds, never a link that runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from galilean import centre, messages
from galilean.db import Database
from galilean.errors import UserError
from galilean.messages import Announcement, HomePage, Messages
from galilean.tables import audit_log

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BY = {"actor": "root", "now": NOW}
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("starts", "ends", "holds"),
    [
        (None, None, True),
        (NOW, None, True),
        (NOW + HOUR, None, False),
        (None, NOW, False),
        (NOW - HOUR, NOW + HOUR, True),
        (NOW - 2 * HOUR, NOW - HOUR, False),
    ],
)
def test_an_announcement_is_shown_from_its_start_until_its_end(
    starts: datetime | None, ends: datetime | None, holds: bool
) -> None:
    assert Announcement(text="x", starts_at=starts, ends_at=ends).holds(NOW) is holds


def test_visitors_see_what_is_for_visitors() -> None:
    said = Messages(announcements=(Announcement(text="inside"), Announcement(text="all", visitors=True)))
    assert [one.text for one in said.now(NOW)] == ["inside", "all"]
    assert [one.text for one in said.now(NOW, visitors=True)] == ["all"]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "ftp://x", "x y", "https://"]
)
def test_a_link_that_runs_or_leads_astray_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        Messages(ticket_url=address)


def test_a_ticket_knows_page_and_person() -> None:
    said = Messages(ticket_url="https://desk.example/?p={page}&u={user}")
    assert said.ticket(page="/a b&u=c", user="ada") == "https://desk.example/?p=%2Fa%20b%26u%3Dc&u=ada"


def test_each_reads_their_language_where_it_was_written() -> None:
    both, one = Announcement(text="Hello", text_zh="您好"), Announcement(text="Hello")
    assert (both.said("zh_CN"), both.said("en"), one.said("zh_CN")) == ("您好", "Hello", "Hello")


def test_a_change_is_kept_noted_and_moves_the_version(db: Database) -> None:
    with db.write() as conn:
        before = centre.version(conn)
        messages.set_home(conn, HomePage(body="<h1>Hi</h1>"), **BY)
        messages.set_home(conn, HomePage(body="<h1>Hi</h1>"), **BY)  # the same: nothing
        assert centre.version(conn) == before + 1
        assert messages.read(conn).home.body == "<h1>Hi</h1>"
        messages.set_home(conn, HomePage(), **BY)
        assert messages.read(conn).home == HomePage()
        assert centre.value(conn, messages.HOME) is None
        assert [row.action for row in conn.execute(select(audit_log))] == ["site.home"] * 2


def test_announcements_come_change_and_go(db: Database) -> None:
    with db.write() as conn:
        first = messages.change_messages(
            conn, lambda old: messages.with_announcement(old, Announcement(text="one")), **BY
        ).announcements[0]
        messages.change_messages(
            conn, lambda old: messages.with_announcement(old, Announcement(text="two")), **BY
        )
        messages.change_messages(conn, lambda _old: {"today": "Soup"}, **BY)
        messages.change_messages(
            conn, lambda old: messages.with_announcement(old, first.model_copy(update={"text": "1"})), **BY
        )
        assert [one.text for one in messages.read(conn).messages.announcements] == ["two", "1"]
        messages.change_messages(conn, lambda old: messages.without_announcement(old, first.id), **BY)
        assert [one.text for one in messages.read(conn).messages.announcements] == ["two"]
        assert messages.read(conn).messages.today == "Soup"
        with pytest.raises(UserError, match="no such"):
            messages.change_messages(conn, lambda old: messages.without_announcement(old, first.id), **BY)


def test_the_same_said_again_by_file_keeps_its_id(db: Database) -> None:
    said = Messages(announcements=(Announcement(text="one"),))
    with db.write() as conn:
        first = messages.set_messages(conn, said, **BY)
        version = centre.version(conn)
        assert messages.set_messages(conn, said, **BY) == first
        assert centre.version(conn) == version


def test_an_end_before_the_start_is_refused(db: Database) -> None:
    with db.write() as conn, pytest.raises(UserError, match="after"):
        messages.set_messages(
            conn, Messages(announcements=(Announcement(text="x", starts_at=NOW, ends_at=NOW),)), **BY
        )


async def test_a_process_looks_again_when_something_moved(db: Database) -> None:
    clock = [0.0]
    known = messages.Known(db, monotonic=lambda: clock[0])
    assert (await known.get()).messages.today == ""
    with db.write() as conn:
        messages.change_messages(conn, lambda _old: {"today": "Soup"}, **BY)
    assert (await known.get()).messages.today == ""
    clock[0] = 3.0
    assert (await known.get()).messages.today == "Soup"
