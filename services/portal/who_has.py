"""Who has which role, for counting and for finding a person: asked of the hub, kept for some seconds.

A site may have ten thousand people. So the hub is asked once for whatever number of changed cells and typed
letters, and the answer is that of a few seconds ago at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from galilean.hubapi import HubAPI
from galilean.rights import Known

KEEP_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Everybody:
    """All accounts with their effective roles."""

    roles_of: Mapping[str, tuple[str, ...]]

    def of(self, role: str) -> frozenset[str]:
        """Names of those who have a role."""
        return frozenset(name for name, roles in self.roles_of.items() if role in roles)

    def find(self, text: str, most: int) -> list[str]:
        """Names that hold ``text``; those that begin with it first."""
        wanted = text.strip().casefold()
        found = [name for name in self.roles_of if wanted in name.casefold()]
        return sorted(found, key=lambda name: (not name.casefold().startswith(wanted), name))[:most]


class WhoHas:
    """The answer of some seconds ago; one question however many ask at once.

    Parameters
    ----------
    hub
        With a token that may list people.
    rights
        Which roles groups give.
    monotonic
        Seconds that never go back.
    """

    def __init__(self, hub: HubAPI, rights: Known, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._rights = rights
        self._monotonic = monotonic
        self._known: tuple[float, Everybody] | None = None
        self._asking = asyncio.Lock()

    async def everybody(self) -> Everybody:
        """Everybody with a name, whether with a role or without.

        Raises
        ------
        UserError
            503 when the hub does not answer.
        """
        async with self._asking:
            now = self._monotonic()
            if self._known is None or now - self._known[0] > KEEP_SECONDS:
                models, rights = await self._hub.users(), await self._rights.get()
                roles_of = {model["name"]: rights.roles_of(model.get("groups") or ()) for model in models}
                self._known = (now, Everybody(roles_of=roles_of))
            return self._known[1]

    def forget(self) -> None:
        """Ask again the next time: a role was just given or taken."""
        self._known = None
