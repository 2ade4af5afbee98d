"""Sign-in by password with open sign-up, on NativeAuthenticator's table (AP-1, AP-2).

A new account may sign in and look; it can do nothing until it is given a role. So nobody needs to be
authorised first, and the parent's pages for that, whose links change state by GET, are not served.
What differs besides: hashing a password takes a good part of a second, so it runs in a thread and the hub's
loop goes on; a wrong name costs as much time as a wrong password; guessing one account's password is
slowed down in words; names of administrators, and of people whom the hub knows already from elsewhere,
cannot be signed up. Another authenticator takes the place of this one by ``jupyterhub:`` in the settings;
nothing else of the product depends on it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bcrypt
from nativeauthenticator import NativeAuthenticator
from nativeauthenticator import orm as native
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Set, Unicode

from galilean.errors import UserError, mark
from galilean.web.language import translate
from hub_config.blocked import check_sign_in

#: bcrypt reads no further than this.
PASSWORD_BYTES = 72
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?", re.ASCII)
#: Names that a person would take for the product's or the machine's own.
RESERVED = frozenset(
    {"admin", "administrator", "root", "system", "galilean", "hub", "jupyterhub", "portal", "www", "support"}
)
UserInfo: Any = native.UserInfo  # without types
#: The hash of a password that nobody knows: a name without an account costs as much time as one with.
_NOBODY = b"$2b$12$NHN6PSJjNYPGe0ooa2WfK.ci6m7RG9tS2hf2Hsg0cTOp5KKRwBfgC"


def hashing_threads(processors: int | None) -> int:
    """How many passwords are hashed at once: half of the processors, and two where there are few."""
    return max(2, (processors or 1) // 2)


class WrongPasswords:
    """Wrong passwords of late, by name; bounded, so that made-up names cannot fill the memory.

    Parameters
    ----------
    allowed
        How many in a row before the name has to wait; 0 = no limit.
    wait_seconds
        How long it then waits.
    monotonic
        Seconds that never go back; handed in for tests.
    """

    def __init__(
        self, allowed: int, wait_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.allowed, self.wait_seconds, self._monotonic = allowed, wait_seconds, monotonic
        self._last: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def must_wait(self, name: str) -> float:
        """Seconds until the name may try again; 0 = now."""
        count, at = self._last.get(name, (0, 0.0))
        left = at + self.wait_seconds - self._monotonic()
        if count and left <= 0:
            del self._last[name]
            return 0.0
        return left if self.allowed and count >= self.allowed else 0.0

    def wrong(self, name: str) -> None:
        count, _ = self._last.pop(name, (0, 0.0))
        self._last[name] = (count + 1, self._monotonic())
        if len(self._last) > 10_000:
            self._last.popitem(last=False)

    def right(self, name: str) -> None:
        self._last.pop(name, None)


def check_name(name: str, reserved: Iterable[str]) -> str:
    """A name as somebody may sign up with.

    Raises
    ------
    UserError
        400 with the rule; 409 for a name that is kept for administrators.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            400,
            mark(
                "A user name has 1 to 32 small letters, digits, dots, hyphens or underscores, and begins and "
                "ends with a letter or digit."
            ),
        )
    if name in RESERVED or name in reserved:
        raise UserError(409, mark("The name “{name}” is taken. Choose another one."), name=name)
    return name


class GalileanAuthenticator(NativeAuthenticator):
    """See the module."""

    reserved_names = Set(Unicode(), help="Names that cannot be signed up: administrators.").tag(config=True)
    wrong_passwords = AnyTrait(help="Counts wrong passwords; made from the two settings for it.")
    signed_up = AnyTrait(help="Called with name and mail address of each new account.").tag(config=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wrong_passwords = WrongPasswords(self.allowed_failed_logins, self.seconds_before_next_try)
        self._hashing = ThreadPoolExecutor(hashing_threads(os.cpu_count()), thread_name_prefix="passwords")

    @property
    def _session(self) -> Any:
        return self._deprecated_db_session

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The name of the account when name and password belong together, else ``None``.

        Raises
        ------
        tornado.web.HTTPError
            403 while the name has to wait after too many wrong passwords.
        """
        name = self.normalize_username(data.get("username", ""))
        seconds = self.wrong_passwords.must_wait(name)
        if seconds:
            error = UserError(
                403,
                mark("Too many wrong passwords for “{name}”. Try again in {minutes} min."),
                name=name[:64],
                minutes=max(1, round(seconds / 60)),
            )
            raise web.HTTPError(403, error.text(translate).replace("%", "%%"))
        info = self.get_user(name)
        right = await self.in_thread(
            bcrypt.checkpw, _bytes(data.get("password", "")), info.password if info else _NOBODY
        )
        if info and right and info.is_authorized:
            check_sign_in(handler, name)  # told only to whoever knows the password
            self.wrong_passwords.right(name)
            return name
        self.wrong_passwords.wrong(name)
        return None

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run something slow; few at once, so that sign-ups and imports cannot take all processors."""
        return await asyncio.get_running_loop().run_in_executor(self._hashing, function, *args)

    def check_password(self, name: str, password: str) -> None:
        """Whether a person may choose this password.

        Raises
        ------
        UserError
            400 with the rule that it breaks.
        """
        if len(password) < self.minimum_password_length:
            raise UserError(
                400,
                mark("A password has at least {least} characters."),
                least=self.minimum_password_length,
            )
        if len(password.encode()) > PASSWORD_BYTES:
            raise UserError(
                400,
                mark("A password has at most {most} bytes; letters of Chinese take three."),
                most=PASSWORD_BYTES,
            )
        if password.lower() == name or (self.check_common_password and self.is_password_common(password)):
            raise UserError(400, mark("This password is among the first that others would guess."))

    async def sign_up(self, handler: Any, name: str, password: str, email: str) -> None:
        """Make an account without a role.

        Raises
        ------
        UserError
            400 or 409 in words, also when the hub knows the name from elsewhere: whoever signed it up would
            otherwise take over what that person may do.
        """
        check_name(name, self.reserved_names)
        self.check_password(name, password)
        if email and not plausible(email):
            raise UserError(400, mark("“{email}” does not look like a mail address."), email=email[:80])
        if self.get_user(name) or handler.find_user(name):
            raise UserError(409, mark("The name “{name}” is taken. Choose another one."), name=name)
        hashed = await self.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        if self.get_user(name):  # two at once
            raise UserError(409, mark("The name “{name}” is taken. Choose another one."), name=name)
        self.keep_password(name, hashed, email=email)
        self.log.info("New account: %s", name)
        if self.signed_up:
            self.signed_up(name, email)

    def keep_password(self, name: str, hashed: bytes, *, email: str = "") -> None:
        """Write the account's row, or the new password of an account that has one."""
        info = self.get_user(name)
        if info is None:
            info = UserInfo(username=name, password=hashed, is_authorized=True, email=email or None)
            self._session.add(info)
        info.password, info.is_authorized = hashed, True
        self._session.commit()
        self.wrong_passwords.right(name)

    def get_user(self, username: str) -> Any:
        """The account's row."""
        return UserInfo.find(self._session, self.normalize_username(username))

    def keep_address(self, username: str, email: str) -> None:
        """Another mail address than at sign-up; empty = none."""
        info = self.get_user(username)
        if info is not None:
            info.email = email or None
            self._session.commit()

    def address_of(self, username: str) -> str:
        """The mail address that somebody gave at sign-up, or empty."""
        info = self.get_user(username)
        return (info.email or "") if info is not None else ""

    def add_new_table(self) -> None:
        UserInfo.metadata.create_all(self._session.get_bind(), tables=[UserInfo.__table__], checkfirst=True)

    def delete_user(self, user: Any) -> None:
        info = self.get_user(user.name)
        if info is not None:
            self._session.delete(info)
            self._session.commit()
        self.allowed_users.discard(user.name)

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        from hub_config.accounts import HANDLERS

        return list(HANDLERS)


def _bytes(password: str) -> bytes:
    # Too long is simply wrong: bcrypt refuses more than it reads.
    encoded = password.encode()
    return encoded if len(encoded) <= PASSWORD_BYTES else b""


def plausible(email: str) -> bool:
    """Whether a text looks like a mail address."""
    return (
        len(email) <= 128 and re.fullmatch(r"[A-Za-z0-9.+_-]+@[A-Za-z0-9._-]+\.[a-zA-Z]+", email) is not None
    )
