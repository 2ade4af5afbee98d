"""Mail to people, when the settings name a server. The product works without.

``smtplib`` blocks, so a message is sent in a thread, one that the end of the process does not wait for; a server
that is away costs a line in the log and nothing else. With STARTTLS the server has to prove its name before it is told
a password or a letter; one that cannot, or that offers no STARTTLS any more, is a server that is away. Addresses and
subjects never carry what somebody wrote into a header unchecked: ``EmailMessage`` refuses line breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import smtplib
import ssl
import threading
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import TypeVar

from galilean.settings import Mail

log = logging.getLogger("galilean.mail")
TIMEOUT_SECONDS = 20
T = TypeVar("T")


def send(settings: Mail, *, to: Sequence[str], subject: str, text: str) -> bool:
    """Send one message to each address; whether it was handed to a server.

    Raises
    ------
    OSError, smtplib.SMTPException
        When the server cannot be reached, is another one than it should be, or refuses.
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
            _encrypt(server, settings)
        if settings.username:
            password = Path(settings.password_file).read_text(encoding="utf-8").strip()
            try:
                server.login(settings.username, password)
            except smtplib.SMTPNotSupportedError as error:  # the site's matter, not this letter's
                raise ConnectionError(f"{settings.host} takes no password: {error}") from None
            except UnicodeError:
                raise ConnectionError("the mail server's password has other letters than ASCII") from None
        server.send_message(message)
    return True


def _encrypt(server: smtplib.SMTP, settings: Mail) -> None:
    """Speak TLS from now on, with the server that the settings name.

    What goes wrong is raised as ``ConnectionError``: it says nothing about a letter, which waits.
    """
    try:
        server.starttls(context=ssl.create_default_context(cafile=settings.ca_file or None))
    except ssl.SSLCertVerificationError as error:
        raise ConnectionError(f"the certificate of {settings.host}: {error.verify_message}") from error
    except smtplib.SMTPNotSupportedError:
        raise ConnectionError(f"{settings.host} offers no STARTTLS (mail.starttls)") from None


def in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run a call in a thread of its own that ends with the process.

    The event loop's own threads are waited for when it closes, however long a server keeps one of them.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:  # told to whoever waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="mail", daemon=True).start()
    return future


async def send_soon(settings: Mail, *, to: Sequence[str], subject: str, text: str) -> bool:
    """The same from an event loop: in a thread, and a failure is logged, not raised."""
    try:
        return await in_thread(partial(send, settings, to=to, subject=subject, text=text))
    except (OSError, smtplib.SMTPException) as error:
        log.warning("mail to %d people was not sent: %s", len(to), error)
        return False
