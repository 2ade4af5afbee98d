"""What the centre says to everybody: its home page, announcements, the message of the day, where help is.

All of it stands under two keys of what the centre decides (:mod:`galilean.centre`), so that pages, API and
``galilean apply`` change the same and each process reads it again only when something moved. A part of the home
page that is empty is the product's own. What administrators write as HTML is shown in a frame of opaque origin
(:mod:`services.portal.pages.welcome`) and never put into a page of ours; everything else is plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection
from ulid import ULID

from galilean import audit, centre
from galilean.db import Database
from galilean.errors import UserError, mark

HOME, MESSAGES = "home", "messages"
PART_MOST = 300_000
TEXT_MOST = 2_000
ANNOUNCEMENTS_MOST = 50

Tone = Literal["info", "warn", "bad"]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HomePage(_Kept):
    """The page that visitors see: HTML, CSS, JavaScript of administrators. Empty parts are the product's own."""

    title: str = Field(
        default="", max_length=200, description="Title of the browser’s tab, and of the product’s own page."
    )
    body: str = Field(
        default="", max_length=PART_MOST, description="HTML of the page; empty = the product’s own."
    )
    footer: str = Field(default="", max_length=PART_MOST, description="HTML of the footer.")
    css: str = Field(default="", max_length=PART_MOST, description="Style, after Bootstrap’s.")
    script: str = Field(
        default="", max_length=PART_MOST, description="JavaScript; it runs in the frame alone."
    )
    beside_sign_in: bool = Field(
        default=True, description="Whether it is shown beside the sign-in form, too."
    )

    @property
    def parts(self) -> tuple[str, ...]:
        """All that somebody wrote."""
        return (self.title, self.body, self.footer, self.css, self.script)


class Announcement(_Kept):
    """What stands on top of every page for some time."""

    id: str = Field(default="", pattern=r"^([0-9A-Z]{26})?$", description="Made by the product.")
    text: str = Field(min_length=1, max_length=TEXT_MOST, description="Plain text.")
    text_zh: str = Field(
        default="", max_length=TEXT_MOST, description="For who reads Chinese; empty = the text."
    )
    tone: Tone = "info"
    starts_at: AwareDatetime | None = Field(default=None, description="Not before; null = at once.")
    ends_at: AwareDatetime | None = Field(
        default=None, description="Not after; null = until it is taken away."
    )
    visitors: bool = Field(default=False, description="Whether it is also shown before sign-in.")

    @field_validator("text", "text_zh")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

    def holds(self, now: datetime) -> bool:
        """Whether it is shown."""
        return (self.starts_at is None or self.starts_at <= now) and (
            self.ends_at is None or now < self.ends_at
        )

    def said(self, language: str) -> str:
        """Its text for who reads a language."""
        return self.text_zh if language == "zh_CN" and self.text_zh else self.text


class Messages(_Kept):
    """Announcements, the message of the day and links."""

    announcements: tuple[Announcement, ...] = Field(default=(), max_length=ANNOUNCEMENTS_MOST)
    today: str = Field(
        default="", max_length=TEXT_MOST, description="Message of the day, on everybody’s home."
    )
    today_zh: str = Field(default="", max_length=TEXT_MOST, description="The same for who reads Chinese.")
    help_url: str = Field(default="", max_length=1_000, description="The centre’s own help, in every footer.")
    ticket_url: str = Field(
        default="",
        max_length=1_000,
        description="Where problems are reported: an address, or mailto:. {page} and {user} are filled in.",
    )

    @field_validator("help_url", "ticket_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_address(value)

    def now(self, at: datetime, *, visitors: bool = False) -> list[Announcement]:
        """What is announced at a moment; ``visitors`` = to who has not signed in."""
        return [one for one in self.announcements if one.holds(at) and (one.visitors or not visitors)]

    def today_in(self, language: str) -> str:
        """The message of the day for who reads a language."""
        return self.today_zh if language == "zh_CN" and self.today_zh else self.today

    def ticket(self, *, page: str, user: str) -> str:
        """Where a problem on a page is reported."""
        return self.ticket_url.replace("{page}", quote(page, safe="")).replace("{user}", quote(user, safe=""))


class Said(_Kept):
    """Both."""

    home: HomePage = HomePage()
    messages: Messages = Messages()


def check_address(value: str) -> str:
    """An address that a link may have: ``https``, ``http``, ``mailto`` or a path of this site; empty = none.

    Raises
    ------
    ValueError
        For any other (``javascript:`` runs as the visitor).
    """
    value = value.strip()
    if not value or (value.startswith("/") and not value.startswith(("//", "/\\"))):
        return value
    parts = urlsplit(value)
    known = (parts.scheme in ("http", "https") and parts.netloc) or (parts.scheme == "mailto" and parts.path)
    if not known or any(char.isspace() or ord(char) < 32 for char in value):
        raise ValueError("begin with https://, http://, mailto: or /")
    return value


def read(conn: Connection) -> Said:
    """What holds now."""
    return Said(
        home=HomePage.model_validate(centre.value(conn, HOME) or {}),
        messages=Messages.model_validate(centre.value(conn, MESSAGES) or {}),
    )


def as_value(kept: HomePage | Messages) -> dict[str, Any]:
    """As it is kept, and as ``galilean export`` writes it: without what is as it was made."""
    return kept.model_dump(mode="json", exclude_defaults=True)


def set_home(
    conn: Connection, home: HomePage, *, actor: str, now: datetime, address: str = "", reason: str = ""
) -> None:
    """Make this the home page."""
    _set(conn, HOME, as_value(home), actor=actor, now=now, address=address, reason=reason)


def set_messages(
    conn: Connection, messages: Messages, *, actor: str, now: datetime, address: str = "", reason: str = ""
) -> Messages:
    """Make these the messages; announcements without an id get one, or keep that of one just like it."""
    ids = {one.model_copy(update={"id": ""}): one.id for one in read(conn).messages.announcements}
    known = tuple(
        one if one.id else one.model_copy(update={"id": ids.get(one) or str(ULID.from_datetime(now))})
        for one in messages.announcements
    )
    for one in known:
        if one.starts_at and one.ends_at and one.ends_at <= one.starts_at:
            raise UserError(400, mark("An announcement ends after it starts."))
    messages = messages.model_copy(update={"announcements": known})
    _set(conn, MESSAGES, as_value(messages), actor=actor, now=now, address=address, reason=reason)
    return messages


def change_messages(conn: Connection, change: Callable[[Messages], Mapping[str, Any]], **by: Any) -> Messages:
    """Change some of the messages, whatever others change meanwhile.

    Parameters
    ----------
    conn
        A transaction that writes.
    change
        Gives the values that are new, from what there is.
    by
        As for :func:`set_messages`.
    """
    centre.decide_alone(conn)
    old = read(conn).messages
    return set_messages(conn, Messages.model_validate({**old.model_dump(), **change(old)}), **by)


def with_announcement(old: Messages, one: Announcement) -> dict[str, Any]:
    """For :func:`change_messages`: one more, or one that is another now (by its id).

    Raises
    ------
    UserError
        404 for an id that is none; 409 when there are too many.
    """
    if one.id and one.id not in {other.id for other in old.announcements}:
        raise no_announcement()
    if not one.id and len(old.announcements) >= ANNOUNCEMENTS_MOST:
        raise UserError(
            409, mark("There are {most} announcements already. Take old ones away."), most=ANNOUNCEMENTS_MOST
        )
    kept = tuple(one if other.id == one.id else other for other in old.announcements)
    return {"announcements": kept if one.id else (one, *kept)}


def without_announcement(old: Messages, announcement_id: str) -> dict[str, Any]:
    """For :func:`change_messages`: one less.

    Raises
    ------
    UserError
        404.
    """
    kept = tuple(other for other in old.announcements if other.id != announcement_id)
    if len(kept) == len(old.announcements):
        raise no_announcement()
    return {"announcements": kept}


def no_announcement() -> UserError:
    """Of an id that is none."""
    return UserError(404, mark("There is no such announcement."))


def _set(
    conn: Connection,
    key: str,
    value: dict[str, Any],
    *,
    actor: str,
    now: datetime,
    address: str,
    reason: str,
) -> None:
    old = centre.value(conn, key) or {}
    if old == value:
        return
    if value:
        centre.put(conn, key, value, now=now, by=actor)
    else:
        centre.drop(conn, key)
    audit.write(
        conn,
        at=now,
        actor=actor,
        address=address,
        action=f"site.{key}",
        subject=key,
        before=_short(old),
        after=_short(value),
        reason=reason,
    )
    centre.bump(conn, now, actor)


def _short(value: Any) -> Any:
    """For the audit log, which is kept for ever: a page's worth of HTML by its length."""
    if isinstance(value, str) and len(value) > 500:
        return f"{value[:500]}… ({len(value)})"
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return value


class Known(centre.Known[Said]):
    """What is said, as a process knows it."""

    def __init__(self, database: Database, **more: Any) -> None:
        super().__init__(database, read, **more)
