"""Who we are to a registry: a name and a password, shown as they are or changed for a token of an hour.

A registry that wants to know answers 401 and says how: ``Basic``, or ``Bearer`` with the address (*realm*)
at which a token is to be had for exactly the repositories and actions in question. Nothing here does I/O.
Credentials have no readable form: neither ``repr`` nor an exception shows them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_PART = re.compile(r'[\s,]*([A-Za-z0-9._-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')
HEADER_AT_MOST = 4096


@dataclass(frozen=True)
class Credentials:
    """A registry's name and password (AP-13)."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """One way in that a registry offers; ``scheme`` in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """What the ``WWW-Authenticate`` headers of an answer offer, in their order; nonsense offers nothing."""
    found: list[Challenge] = []
    for header in headers:
        place = 0
        header = header[:HEADER_AT_MOST]
        while match := _PART.match(header, place):
            place = match.end()
            name, quoted, plain = match[1].lower(), match[2], match[3]
            if quoted is None and plain is None:
                found.append(Challenge(name, {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                found[-1] = Challenge(found[-1].scheme, {**found[-1].parameters, name: value})
    return found


def scope(repository: str, *actions: str) -> str:
    """The right that a token is asked for: ``repository:people/ada/paint:pull,push``."""
    return f"repository:{repository}:{','.join(actions)}"
