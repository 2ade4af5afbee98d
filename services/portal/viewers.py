"""From who made a request to who looks at the catalogue: the one place where the two words meet."""

from __future__ import annotations

from galilean.rights import slugs_of
from galilean.web.visitor import Visitor
from services.catalog.access import Viewer
from services.catalog.shares import Actor


def viewer_of(person: Visitor) -> Viewer:
    """Who looks, as :mod:`services.catalog.access` knows them.

    A node's token names its owner and is not its owner: whoever comes with one is nobody here.
    """
    if person.node is not None:
        return Viewer(name="", has_role=False)
    return Viewer(
        name=person.name,
        groups=frozenset(slugs_of(person.groups)),
        has_role=person.has_role,
        admin=person.admin,
        rights=person.rights,
    )


def actor_of(person: Visitor, address: str = "") -> Actor:
    """Who changes something, for the audit log."""
    return Actor(name=person.name, address=address)
