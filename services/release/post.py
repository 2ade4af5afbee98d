"""Mailing notices to people who have no page open (BX-2).

Whoever has a page open sees a notice there; it is mailed when it was not read within a minute all the same. In
both languages: nobody has told the service which one a person reads. Addresses are the hub's: a name that is a
mail address is one, for the others the hub is asked.
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from galilean import notices
from galilean.db import Database
from galilean.errors import UserError, mark, render
from galilean.hubapi import HubAPI
from galilean.i18n import translations
from galilean.mail import send
from galilean.notices import Notice
from galilean.settings import Settings
from services.release.store import last_anywhere
from services.release.terms import WITNESS_LAG_SECONDS

log = logging.getLogger("galilean.release")

#: Who has a page open is given this long to read it there.
READ_SECONDS = 60
#: What could not be sent for so long says nothing new any more.
STALE_SECONDS = 3600
RETRY_SECONDS = 60.0

Send = Callable[..., bool]
_SUBJECTS = {
    "warning": mark("{site}: {project} goes back soon"),
    "released": mark("{site}: {project} went back"),
    "schedule": mark("{site}: {project} was not started as its schedule says"),
}
_SUBJECT = mark("{site}: news for you")


@dataclass(frozen=True)
class Letter:
    """A notice on its way."""

    notice: Notice
    subject: str
    text: str


def to_send(
    found: Sequence[Notice], there_at: dict[str, datetime], now: datetime
) -> tuple[list[Notice], list[Notice]]:
    """Which notices are mailed now, and which never.

    Parameters
    ----------
    found
        Marked for mail and not mailed.
    there_at
        When people were last seen on any page.
    now
        UTC.
    """
    send_now, never = [], []
    for notice in found:
        age = (now - notice.at).total_seconds()
        seen = there_at.get(notice.user)
        there = seen is not None and (now - seen).total_seconds() < WITNESS_LAG_SECONDS
        if notice.read_at is not None or age > STALE_SECONDS:
            never.append(notice)
        elif not there or age >= READ_SECONDS:
            send_now.append(notice)
    return send_now, never


def letter_of(notice: Notice, settings: Settings, url: str, now: datetime) -> Letter:
    """Subject and text, the site's language first."""
    own = settings.site.language
    zone = settings.site.zone
    parts = [
        notices.words(notice, translations(language).gettext, zone, now)
        for language in (own, *(name for name in ("en", "zh_CN") if name != own))
    ]
    if url:
        parts.append(url)
    subject = render(
        _SUBJECTS.get(notice.kind, _SUBJECT),
        {"site": settings.site.name, "project": " ".join(str(notice.params.get("project", "")).split())[:80]},
        translations(own).gettext,
    )
    return Letter(notice, subject, "\n\n".join(parts) + "\n")


class Post:
    """Sends what is to be mailed; :meth:`round` is one look.

    Parameters
    ----------
    settings, db, hub
        The site, our database, the hub with a token that may ``custom:galilean:addresses``.
    monotonic
        Seconds; after a failure it is not tried again for a while.
    send
        Hands a message to the mail server.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        hub: HubAPI,
        *,
        monotonic: Callable[[], float],
        send: Send = send,
    ) -> None:
        self.settings, self.db, self.hub, self.monotonic, self._send = settings, db, hub, monotonic, send
        self._not_before = float("-inf")

    async def round(self, now: datetime) -> int:
        """Mail what is due; how many letters went."""
        found = await self.db.run_read(notices.to_mail)
        if not found:
            return 0
        if not self.settings.mail.host:
            await self.db.run(_mark, [notice.id for notice in found], now)
            return 0
        if self.monotonic() < self._not_before:
            return 0
        there_at = await self.db.run_read(last_anywhere, {notice.user for notice in found})
        send_now, never = to_send(found, there_at, now)
        if never:
            await self.db.run(_mark, [notice.id for notice in never], now)
        return await self._mail(send_now, now) if send_now else 0

    async def _mail(self, found: Sequence[Notice], now: datetime) -> int:
        try:
            addresses = await self._addresses({notice.user for notice in found})
        except UserError as error:
            log.warning("people's addresses are not known now: %s", error)
            self._not_before = self.monotonic() + RETRY_SECONDS
            return 0
        went = 0
        for notice in found:
            address = addresses.get(notice.user)
            if address:
                letter = letter_of(notice, self.settings, self._url(notice), now)
                try:
                    await asyncio.to_thread(
                        self._send, self.settings.mail, to=[address], subject=letter.subject, text=letter.text
                    )
                except (OSError, smtplib.SMTPException, ValueError) as error:
                    log.warning("a notice was not mailed: %s", error)
                    if not isinstance(error, smtplib.SMTPRecipientsRefused | ValueError):
                        self._not_before = self.monotonic() + RETRY_SECONDS
                        return went
                else:
                    went += 1
            await self.db.run(_mark, [notice.id], now)
        return went

    def _url(self, notice: Notice) -> str:
        site = self.settings.web.public_url.rstrip("/")
        return f"{site}/services/portal/{notice.address}" if site else ""

    async def _addresses(self, names: set[str]) -> dict[str, str]:
        known = {name: name for name in names if "@" in name}
        others = sorted(name for name in names if name not in known)
        if others:
            try:
                answer = await self.hub.request("POST", "/galilean/addresses", json={"names": others})
            except UserError as error:
                if error.status != 404:  # a hub whose accounts have no addresses
                    raise
            else:
                known |= {name: str(at) for name, at in answer.json().items() if at}
        return known


def _mark(conn: Connection, ids: Sequence[str], now: datetime) -> None:
    for notice_id in ids:
        notices.mark_mailed(conn, notice_id, now)
