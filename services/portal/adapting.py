"""Adapting an image that was not made for nodes, as pages and API ask for it (CG-17): who may, which version, under which name.

The portal writes a row, which the image service takes up (:mod:`extensions.imagebuilder.adapting`); when it is done the
entry gets a new version (:mod:`services.portal.new_versions`), and those who run the old one keep it.
"""

from __future__ import annotations

import re

from sqlalchemy import Connection

from extensions.imagebuilder import keys, saved, store
from extensions.imagebuilder.entries import Entry, Version
from extensions.imagebuilder.looks import is_stock
from extensions.imagebuilder.names import MOST_CHARACTERS, ImageName
from extensions.imagebuilder.saved import SavedImage
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal import saving, shelf

_NOT_HERE = mark("Images are not adapted here.")
_NOTHING = mark("This version lacks nothing of a node.")


def offered(portal: Portal) -> bool:
    """Whether images are adapted here."""
    return saving.offered(portal) and bool(portal.settings.images.adapter)


def proposed(entry: Entry, version: Version) -> str:
    """A ``name:tag`` for the result."""
    tag = re.sub(r"[^a-z0-9._-]+", "-", version.tag.lower()).strip("-.")[:20] or str(version.number)
    slug = entry.name.rpartition("/")[2][: MOST_CHARACTERS - 40]
    return f"{slug}:{tag}-adapted"


def _going(conn: Connection, entry: Entry) -> SavedImage | None:
    there = (*saved.saving(conn), *saved.for_entries(conn))
    return next((row for row in there if row.how == "adapted" and row.into_id == entry.id), None)


async def going(portal: Portal, entry: Entry) -> SavedImage | None:
    """One that is under way for an entry, whoever began it."""
    return await portal.db.run_read(_going, entry)


def refusal(version: Version) -> UserError | None:
    """Why a version is not adapted."""
    if not is_stock(version.told):
        return UserError(409, _NOTHING, reason="image-whole")
    return None


async def _ticket(portal: Portal, version: Version) -> str:
    """Hand the name and password of a version's registry to the image service; empty where none is needed.

    Whoever may change the entry may do with its image what its runs do: fetch it. The password itself they do not see.

    Raises
    ------
    UserError
        404, 409 when it is there no more; 503 when the service does not answer.
    """
    if not version.key_id:
        return ""

    def login(conn: Connection) -> dict[str, str]:
        found = keys.opened(conn, shelf.seal(portal), version.key_id)
        registry = keys.registry_of(conn, version.key_id)
        return {"registry": registry, "username": found.username, "password": found.password}

    told = await saving.asked(portal, "/logins", await portal.db.run_read(login))
    return str(told["ticket"])


async def begin(
    portal: Portal, person: Visitor, entry: Entry, number: int, text: str = "", *, address: str = ""
) -> SavedImage:
    """Begin to adapt a version of an entry that the person may change.

    Raises
    ------
    UserError
        501 where it cannot be; 404 for the version; 409 when nothing is lacking, or one is under way; 422, 409 for the name.
    """
    if not offered(portal):
        raise UserError(501, _NOT_HERE, reason="not-here")
    there = await portal.db.run_read(store.versions, entry.id)
    version = next((one for one in there if one.number == number), None)
    if version is None:
        raise UserError(404, mark("There is no such version."), reason="version-unknown")
    if (why := refusal(version)) is not None:
        raise why
    name = await saving.check_name(portal, person, text.strip() or proposed(entry, version))
    _need_free(name, [one.tag for one in there], entry)
    ticket = await _ticket(portal, version)

    def start(conn: Connection) -> SavedImage:
        if other := _going(conn, entry):
            raise UserError(
                409,
                mark("“{title}” is being adapted already, as {name}. Wait for it, or cancel it."),
                title=entry.title,
                name=f"{other.name}:{other.tag}",
                reason="adapting",
            )
        return saved.begin(
            conn,
            actor=shelf.actor(person, address),
            name=name,
            now=portal.clock(),
            environment=entry.name,
            parent=version.image,
            into_id=entry.id,
            adapts={"entry": entry.name, "title": entry.title, "version": version.tag}
            | ({"ticket": ticket} if ticket else {}),
        )

    # Whoever comes second under another name, a moment later, has to see the first one's row.
    return await portal.db.run_serialised("adapting", start)


def _need_free(name: ImageName, tags: list[str], entry: Entry) -> None:
    if name.tag in tags:
        raise UserError(
            409,
            mark("“{name}” has a version {tag} already. Versions are never replaced: choose another tag."),
            name=entry.title,
            tag=name.tag,
            reason="tag-taken",
        )
