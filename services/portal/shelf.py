"""Environments as pages know them: those of ``galilean.yaml`` and those that are kept online, side by side.

What somebody may start is asked anew each time. Titles for reports and lists are asked for everybody at once and
kept for some seconds: a title that is late harms nobody.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from extensions.imagebuilder import store
from extensions.imagebuilder.entries import MANAGE, Actor, Entry, Viewer
from extensions.imagebuilder.keys import Seal
from galilean.rights import slugs_of
from galilean.settings import EnvironmentSettings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor

TITLES_SECONDS = 10.0


def viewer(person: Visitor) -> Viewer:
    """Who looks. A node's token names its owner and is not its owner: whoever comes with one is nobody here."""
    if person.node is not None:
        return Viewer(name="", has_role=False)
    return Viewer(
        name=person.name,
        groups=frozenset(slugs_of(person.groups)),
        has_role=person.has_role,
        manages=person.may(MANAGE),
    )


def actor(person: Visitor, address: str = "") -> Actor:
    """Who changes something, for the audit log."""
    return Actor(name=person.name, address=address)


def has_pythons(portal: Portal) -> bool:
    """Whether environments are Python environments here, and not images."""
    return portal.settings.backend == "process"


async def kept_for(portal: Portal, person: Visitor) -> list[Entry]:
    """Entries kept online that somebody may start."""
    found = await portal.db.run_read(store.offered, viewer(person), python=has_pythons(portal))
    return [entry for entry in found if entry.name not in portal.settings.environments]


async def offered(portal: Portal, person: Visitor) -> dict[str, EnvironmentSettings]:
    """All that somebody may start, by name: those of the file first."""
    kept = await kept_for(portal, person)
    return {**portal.settings.environments, **{entry.name: entry.settings for entry in kept}}


async def titles(portal: Portal) -> Mapping[str, str]:
    """Name → title of everything there is or was, as of some seconds ago."""
    known: tuple[float, Mapping[str, str]] | None = portal.parts.get("environment_titles")
    if known is None or time.monotonic() - known[0] > TITLES_SECONDS:
        found = await portal.db.run_read(store.titles)
        found |= {name: entry.title for name, entry in portal.settings.environments.items()}
        known = portal.parts["environment_titles"] = (time.monotonic(), found)
    return known[1]


def forget(portal: Portal) -> None:
    """Something was changed here: ask again."""
    portal.parts.pop("environment_titles", None)


def seal(portal: Portal) -> Seal:
    """What closes names and passwords: portal and hub both know the portal's token, the database does not."""
    known = portal.parts.get("registry_seal")
    if known is None:
        known = portal.parts["registry_seal"] = Seal(portal.parts["machines_token"])
    return known
