"""Mailing notices to people who have no page open (BX-2).

Whoever has a page open sees a notice there; it is mailed when it was not read within a minute all the same. In
both languages: nobody has told the service which one a person reads. Addresses are the hub's: a name that is a
mail address is one, for the others the hub is asked.
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from galilean import notices
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError, mark, render
from galilean.hubapi import HubAPI
from galilean.i18n import translations
from galilean.mail import in_thread, send
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
#: A round that is cancelled waits so long for the letter that is on its way.
END_SECONDS = 3.0

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


def refused_for_good(error: Exception) -> bool:
    """Whether this one letter will never be taken, whatever the server takes otherwise.

    A sender or a password that the server refuses is the site's mistake, and no letter's: those wait for it.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPDataError):
        return error.smtp_code >= 500
    # An address that cannot be written, or only in a way that the server does not know.
    return isinstance(error, smtplib.SMTPNotSupportedError | ValueError)


def refused_alone(error: Exception) -> bool:
    """Whether the others may go all the same: the server answered, and said it of this letter."""
    own = smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError
    return refused_for_good(error) or isinstance(error, own)


class Post:
    """Sends what is to be mailed; :meth:`round` is one look, :meth:`tick` the same by the clock.

    It is a task of the service beside its ticks, so that a mail server that takes its time holds up no release.
    A round that is cancelled (the service ends, or another process works now) lets the letter that is on its way
    arrive, and no other begin. Should it not arrive in time, it is sent again: rather twice than never.

    Parameters
    ----------
    settings, db, hub
        The site, our database, the hub with a token that may ``custom:galilean:addresses``.
    clock, monotonic
        UTC, and seconds: after a failure it is not tried again for a while.
    send
        Hands a message to the mail server; called in a thread of its own.
    details
        Shown by ``/health``.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        hub: HubAPI,
        *,
        clock: Clock = utcnow,
        monotonic: Callable[[], float] = time.monotonic,
        send: Send = send,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.settings, self.db, self.hub, self._send = settings, db, hub, send
        self.clock, self.monotonic = clock, monotonic
        self.details = {} if details is None else details
        self._not_before = float("-inf")
        self._later: dict[str, float] = {}

    async def tick(self) -> None:
        """One round."""
        await self.round(self.clock())

    async def round(self, now: datetime) -> int:
        """Mail what is due; how many letters went."""
        if self.monotonic() < self._not_before:
            return 0
        self._later = {one: at for one, at in self._later.items() if at > self.monotonic()}
        found = await self.db.run_read(notices.to_mail, but=self._later)
        if not found:
            return 0
        if not self.settings.mail.host:
            await self.db.run(_mark, [notice.id for notice in found], now)
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
            self._wait(f"people's addresses are not known now: {error}")
            return 0
        went = 0
        for notice in found:
            address = addresses.get(notice.user)
            if address:
                try:
                    await self._hand_over(notice, address, now)
                except (OSError, smtplib.SMTPException, ValueError) as error:
                    if not refused_alone(error):
                        self._wait(f"the mail server: {error}")
                        return went
                    log.warning("a notice was not mailed: %s", error)
                    if not refused_for_good(error):
                        self._later[notice.id] = self.monotonic() + RETRY_SECONDS
                        continue
                else:
                    went += 1
            await self.db.run(_mark, [notice.id], now)
        self.details["mail"] = "goes"
        return went

    def _wait(self, why: str) -> None:
        log.warning("no mail for %d seconds: %s", RETRY_SECONDS, why)
        self.details["mail"] = f"waits: {why}"[:300]
        self._not_before = self.monotonic() + RETRY_SECONDS

    async def _hand_over(self, notice: Notice, address: str, now: datetime) -> None:
        letter = letter_of(notice, self.settings, self._url(notice), now)
        sending = in_thread(
            partial(self._send, self.settings.mail, to=[address], subject=letter.subject, text=letter.text)
        )
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            done, _ = await asyncio.wait({sending}, timeout=END_SECONDS)
            if done and not sending.cancelled() and sending.exception() is None:
                await self.db.run(_mark, [notice.id], now)
            raise

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
