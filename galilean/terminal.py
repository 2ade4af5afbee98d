"""What commands say: in the language of the terminal, and how far a long step is.

English unless ``LC_ALL``, ``LC_MESSAGES`` or ``LANG`` (the first of them that says anything, as everywhere
on the system) names Chinese. Texts are message ids with parameters, as in :mod:`galilean.errors`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from galilean.amounts import format_bytes
from galilean.errors import render
from galilean.i18n import translations


class Say(Protocol):
    """Tells a line to whoever gave the command."""

    def __call__(self, message: str, **params: Any) -> None:
        """``message`` is a message id, ``params`` fill it."""
        ...


def terminal_language(environ: Mapping[str, str]) -> str:
    """``zh_CN`` or ``en``, by the variables that every program of the system goes by."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return "zh_CN" if environ[name].lower().startswith("zh") else "en"
    return "en"


def translate(message: str) -> str:
    """A message id in the language of this terminal."""
    return translations(terminal_language(os.environ)).gettext(message)


def sentence(message: str, **params: Any) -> str:
    """A message id in the language of this terminal, filled."""
    return render(message, params, translate)


def say(message: str, **params: Any) -> None:
    """Print a line."""
    _print(sentence(message, **params), sys.stdout)


def say_aside(message: str, **params: Any) -> None:
    """Print a line on standard error, where it is in the way of nobody who reads the output."""
    _print(sentence(message, **params), sys.stderr)


def _print(line: str, stream: TextIO) -> None:
    try:
        print(line, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal that knows ASCII only
        print(line.encode("ascii", "replace").decode(), file=stream, flush=True)


class Progress:
    """Tells how far a step is: nothing in its first second, then a line every few seconds.

    Parameters
    ----------
    say
        Where the lines go.
    message
        Message id with ``{done}`` and ``{total}``.
    amount
        How these are said; as amounts of bytes if it is not told.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        say: Say,
        message: str,
        *,
        amount: Callable[[int], str] = format_bytes,
        clock: Callable[[], float] = time.monotonic,
        first_seconds: float = 1.0,
        every_seconds: float = 5.0,
    ) -> None:
        self._say, self._message, self._amount, self._clock = say, message, amount, clock
        self._next = clock() + first_seconds
        self._every = every_seconds

    def at(self, done: int, whole: int | None) -> None:
        """Say where it stands, if it is time to."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every
        total = self._amount(whole) if whole else "?"
        self._say(self._message, done=self._amount(done), total=total)
