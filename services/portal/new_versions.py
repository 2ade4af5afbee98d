"""Images that were uploaded or adapted for an entry become its new version, when they are ready: by whoever may do it now.

The image service, which made them, knows nobody's rights. Hours may lie between the beginning and the end: an owner may have left,
been blocked or lost the right meanwhile, and what they began must not be what all new runs of the centre's entry get. So the portal
asks once more, of the hub and not of what it remembers, and makes the version or says in the image's log why there is none.
The image is its owner's all the same.
"""

from __future__ import annotations

import logging

from extensions.imagebuilder import saved
from extensions.imagebuilder.entries import MANAGE, Viewer
from galilean import rights
from galilean.errors import UserError
from galilean.web.context import Portal

log = logging.getLogger("galilean.portal.versions")


async def go_on(portal: Portal) -> None:
    """One round; a hub that does not answer is asked again by the next."""
    for image in await portal.db.run_read(saved.for_entries):
        viewer = await viewer_of(portal, image.owner)
        try:
            await portal.db.run(
                lambda conn, image=image, viewer=viewer: saved.into_entry(
                    conn, image.id, viewer=viewer, now=portal.clock()
                )
            )
        except UserError as refused:
            log.info("image %s of %s makes no version: %s", image.id, image.owner, refused)
            line = f"{portal.clock():%Y-%m-%d %H:%M:%S}Z not a version of the environment: {refused}\n"
            await portal.db.run(
                lambda conn, image=image, line=line: saved.not_into_entry(conn, image.id, log=line)
            )


async def viewer_of(portal: Portal, name: str) -> Viewer:
    """Who somebody is now, without a request of theirs; who is gone or blocked may nothing.

    Raises
    ------
    UserError
        503 when the hub does not answer.
    """
    portal.people.forget(name)
    try:
        groups = await portal.people.groups(name)
    except UserError as error:
        if error.status != 404:
            raise
        groups = frozenset()
    known = await portal.rights.get()
    roles = known.roles_of(groups)
    return Viewer(
        name=name,
        groups=frozenset(rights.slugs_of(groups)),
        has_role=bool(roles) and rights.BLOCKED not in groups,
        manages=MANAGE in known.rights_of(roles) and rights.BLOCKED not in groups,
    )
