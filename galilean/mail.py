"""Mail to people, when the settings name a server. The product works without.

``smtplib`` blocks, so a message is sent in a thread; a server that is away costs a line in the log and
nothing else. Addresses and subjects never carry what somebody wrote into a header unchecked:
``EmailMessage`` refuses line breaks.
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

from galilean.settings import Mail

log = logging.getLogger("galilean.mail")
TIMEOUT_SECONDS = 20


def send(settings: Mail, *, to: Sequence[str], subject: str, text: str) -> bool:
    """Send one message to each address; whether it was handed to a server.

    Raises
    ------
    OSError, smtplib.SMTPException
        When the server cannot be reached or refuses.
    """
    if not settings.host or not to:
        return False
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    # Not every server takes eight bits, and the one next to ours is asked by nobody.
    message.set_content(text, cte=None if text.isascii() else "base64")
    with smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_SECONDS) as server:
        if settings.starttls:
            server.starttls()
        if settings.username:
            password = Path(settings.password_file).read_text(encoding="utf-8").strip()
            server.login(settings.username, password)
        server.send_message(message)
    return True


async def send_soon(settings: Mail, *, to: Sequence[str], subject: str, text: str) -> bool:
    """The same from an event loop: in a thread, and a failure is logged, not raised."""
    try:
        return await asyncio.to_thread(send, settings, to=to, subject=subject, text=text)
    except (OSError, smtplib.SMTPException) as error:
        log.warning("mail to %d people was not sent: %s", len(to), error)
        return False
