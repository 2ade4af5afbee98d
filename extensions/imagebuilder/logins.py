"""Names and passwords of registries that the portal hands to the image service, each for one piece of work.

What is kept of them in the database only portal and hub can open (:mod:`extensions.imagebuilder.keys`). For an image behind
a name and password to be adapted the portal opens them once and gives them here, by a ticket that stands in the row of
the work. They are in memory alone, are given out once, and are forgotten after an hour: a service that was restarted has
them no more, and the work ends with a word that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ulid import ULID

from extensions.imagebuilder.registry.access import Credentials

KEPT_SECONDS = 3600.0
#: Each waits for a row of a person's; who asks for more than this asks for none of them.
MOST = 1000


@dataclass(frozen=True)
class Login:
    """For one registry, and for no other."""

    registry: str
    credentials: Credentials = field(repr=False)

    def of(self, registry: str) -> Credentials | None:
        """What this registry may be told."""
        return self.credentials if registry == self.registry else None


class Logins:
    """Those that wait to be used.

    Parameters
    ----------
    monotonic
        The time.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[str, tuple[float, Login]] = {}

    def keep(self, login: Login) -> str:
        """Keep one; the ticket by which it is taken."""
        now = self._monotonic()
        self._kept = {key: one for key, one in self._kept.items() if now - one[0] < KEPT_SECONDS}
        while len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        ticket = str(ULID())
        self._kept[ticket] = (now, login)
        return ticket

    def take(self, ticket: str) -> Login | None:
        """Give one out, once; None = there is none."""
        found = self._kept.pop(ticket, None)
        return found[1] if found and self._monotonic() - found[0] < KEPT_SECONDS else None
