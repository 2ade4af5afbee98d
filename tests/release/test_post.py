"""Notices reach whoever has no page open by mail: a real server of mail, and the addresses of a real hub."""

from __future__ import annotations

import asyncio
import email
import smtplib
import threading
from datetime import timedelta
from email import policy
from typing import Any

import pytest

from galilean import notices
from galilean.db import Database
from galilean.notices import Notice
from galilean.settings import Settings
from services.release import messages, store
from services.release.post import Post, to_send
from tests.hub_config.conftest import SiteFactory, fill, site_of  # noqa: F401 - a fixture
from tests.hub_config.test_sign_up import Post as Server
from tests.metering.rows import T0, at


def tell(db: Database, user: str, minutes: float = 0, **more: object) -> str:
    with db.write() as conn:
        return notices.tell(
            conn, user, now=at(minutes), kind="warning", text=messages.WARNED["left"], mail=True,
            project="Heat", goes_at=at(minutes + 10).isoformat(), **more,
        )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.hub
async def test_who_has_no_page_open_gets_a_letter_in_both_languages(
    site_of: SiteFactory,  # noqa: F811
    sqlite_db: Database,
) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await fill(
            browser,
            "/hub/signup",
            username="eva",
            signup_password="winter is coming",
            email="eva@example.edu",
        )
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="bo", signup_password="winter is coming")
    server_post = Server()
    server = await asyncio.start_server(server_post, "127.0.0.1", 0)
    settings = Settings.model_validate(
        {
            "mail": {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]},
            "site": {"language": "zh_CN", "timezone": "Asia/Shanghai", "name": "Campus"},
            "web": {"public_url": "https://hub.example.edu"},
        }
    )
    for person in ("eva", "bo", "li@example.edu", "here@example.edu"):
        tell(sqlite_db, person)
    with sqlite_db.write() as conn:
        store.seen_on_platform(conn, "here@example.edu", T0)
    post = Post(settings, sqlite_db, site.api(site.secrets.tokens["release"]), monotonic=lambda: 0.0)
    assert await post.round(at(0.5)) == 2
    assert await post.round(at(0.6)) == 0  # once
    server.close()
    letters = [email.message_from_string(text, policy=policy.default) for text in server_post.messages]
    assert sorted(str(letter["To"]) for letter in letters) == ["eva@example.edu", "li@example.edu"]
    assert "Heat" in str(letters[0]["Subject"]) and "Campus" in str(letters[0]["Subject"])
    text = letters[0].get_content()
    assert "17:10" in text  # the site's clock
    assert text.index("您已离开") < text.index("because you left it")
    assert "https://hub.example.edu/services/portal/" in text
    with sqlite_db.read() as conn:
        assert [notice.user for notice in notices.to_mail(conn)] == ["here@example.edu"]


def notice(user: str, minutes: float, **more: object) -> Notice:
    return Notice(id=user, user=user, at=at(minutes), kind="warning", text="", params={}, mail=True, **more)  # type: ignore[arg-type]


def test_who_has_a_page_open_is_mailed_only_when_it_stays_unread() -> None:
    there = {"here": at(10), "long ago": at(1)}
    found = [
        notice("here", 9.9), notice("long ago", 9.9), notice("unknown", 9.9), notice("read", 9.9, read_at=at(10)),
        notice("stale", -60),
    ]  # fmt: skip
    now, never = to_send(found, there, at(10))
    assert [one.user for one in now] == ["long ago", "unknown"]
    assert [one.user for one in never] == ["read", "stale"]
    late, _ = to_send([notice("here", 9.9)], {"here": at(11)}, at(11))
    assert [one.user for one in late] == ["here"]


async def test_a_mail_server_that_is_away_is_tried_again_later_and_loses_nothing(sqlite_db: Database) -> None:
    seconds, sent = 0.0, []
    away = True

    def send(mail: object, *, to: list[str], subject: str, text: str) -> bool:
        sent.append(to)
        if away:
            raise OSError("no route")
        return True

    settings = Settings.model_validate({"mail": {"host": "mail.invalid"}})
    post = Post(settings, sqlite_db, None, monotonic=lambda: seconds, send=send)  # type: ignore[arg-type]
    tell(sqlite_db, "a@example.edu")
    assert await post.round(at(0.1)) == 0
    assert await post.round(at(0.2)) == 0
    assert len(sent) == 1  # not with each round
    seconds, away = 61.0, False
    assert await post.round(at(1.2)) == 1
    assert await post.round(at(1.3)) == 0


async def test_without_a_mail_server_nothing_piles_up(sqlite_db: Database) -> None:
    tell(sqlite_db, "a@example.edu")
    post = Post(Settings(), sqlite_db, None, monotonic=lambda: 0.0)  # type: ignore[arg-type]
    assert await post.round(T0 + timedelta(seconds=5)) == 0
    with sqlite_db.read() as conn:
        assert notices.to_mail(conn) == []


async def test_a_name_of_a_project_cannot_write_into_a_letters_head(sqlite_db: Database) -> None:
    settings = Settings.model_validate({"mail": {"host": "mail.invalid"}})
    with sqlite_db.write() as conn:
        notices.tell(
            conn, "a@example.edu", now=T0, kind="released", text=messages.RELEASED["done"], mail=True,
            project="Heat\r\nBcc: all@example.edu",
        )  # fmt: skip
    subjects = []
    post = Post(
        settings, sqlite_db, None, monotonic=lambda: 0.0,  # type: ignore[arg-type]
        send=lambda mail, *, to, subject, text: bool(subjects.append(subject)) or True,
    )  # fmt: skip
    assert await post.round(at(2)) == 1
    assert "\n" not in subjects[0] and "\r" not in subjects[0]


class Mailbox:
    """A mail server by what it answers to each address."""

    def __init__(self, **answers: Exception) -> None:
        self.answers, self.went = answers, list[str]()

    def send(self, mail: object, *, to: list[str], subject: str, text: str) -> bool:
        error = self.answers.get(to[0].partition("@")[0])
        if error is not None:
            raise error
        self.went.append(to[0])
        return True


def posting(db: Database, send: Any, seconds: Any = lambda: 0.0) -> Post:
    settings = Settings.model_validate({"mail": {"host": "mail.invalid"}})
    return Post(settings, db, None, clock=lambda: at(0.1), monotonic=seconds, send=send)  # type: ignore[arg-type]


def waiting(db: Database) -> list[str]:
    with db.read() as conn:
        return [one.user for one in notices.to_mail(conn)]


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPRecipientsRefused({"a@example.edu": (550, b"no such person")}),
        smtplib.SMTPDataError(552, b"too long"),
        smtplib.SMTPNotSupportedError("SMTPUTF8"),
        UnicodeEncodeError("ascii", "x", 0, 1, "no"),
    ],
)
async def test_a_letter_that_is_refused_for_good_holds_up_no_other(
    sqlite_db: Database, error: Exception
) -> None:
    box = Mailbox(a=error)
    post = posting(sqlite_db, box.send)
    for user in ("a@example.edu", "b@example.edu"):
        tell(sqlite_db, user)
    assert await post.round(at(0.1)) == 1
    assert box.went == ["b@example.edu"] and waiting(sqlite_db) == []


async def test_a_letter_that_is_put_off_is_tried_again_alone(sqlite_db: Database) -> None:
    seconds = 0.0
    box = Mailbox(a=smtplib.SMTPRecipientsRefused({"a@example.edu": (450, b"come again")}))
    post = posting(sqlite_db, box.send, lambda: seconds)
    for user in ("a@example.edu", "b@example.edu"):
        tell(sqlite_db, user)
    assert await post.round(at(0.1)) == 1
    assert waiting(sqlite_db) == ["a@example.edu"]
    tell(sqlite_db, "c@example.edu")
    box.answers.clear()
    assert await post.round(at(0.2)) == 1
    assert box.went == ["b@example.edu", "c@example.edu"]
    seconds = 61.0
    assert await post.round(at(1.2)) == 1
    assert waiting(sqlite_db) == []


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPAuthenticationError(535, b"no"),
        smtplib.SMTPSenderRefused(550, b"no", "hub@example.edu"),
        smtplib.SMTPServerDisconnected("gone"),
    ],
)
async def test_what_the_site_did_wrong_costs_no_letter(sqlite_db: Database, error: Exception) -> None:
    post = posting(sqlite_db, Mailbox(a=error).send)
    for user in ("a@example.edu", "b@example.edu"):
        tell(sqlite_db, user)
    assert await post.round(at(0.1)) == 0
    assert len(waiting(sqlite_db)) == 2
    assert "waits" in post.details["mail"]


async def test_a_round_that_is_cancelled_lets_the_letter_on_its_way_arrive_and_begins_no_other(
    sqlite_db: Database,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    box = Mailbox()

    def slow(*args: Any, **words: Any) -> bool:
        begun.set()
        assert go_on.wait(60)
        return box.send(*args, **words)

    post = posting(sqlite_db, slow)
    for user in ("a@example.edu", "b@example.edu"):
        tell(sqlite_db, user)
    round_ = asyncio.create_task(post.round(at(0.1)))
    await asyncio.to_thread(begun.wait, 60)
    round_.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await round_
    assert box.went == ["a@example.edu"] and waiting(sqlite_db) == ["b@example.edu"]
