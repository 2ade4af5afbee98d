"""Images at an address: looked at, registered as an environment or a version; names and passwords of registries.

Registering asks the registry, decides (:mod:`extensions.imagebuilder.looks`), and only then writes. A look costs a
few requests to a machine that somebody else named, so nobody has more than a few going.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from extensions.imagebuilder import entries, keys, looks, store
from extensions.imagebuilder.entries import Entry
from extensions.imagebuilder.looks import Look
from extensions.imagebuilder.registry.access import Credentials
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import APIHandler
from galilean.web.visitor import Visitor
from services.portal import shelf
from services.portal.api import environment_models as models
from services.portal.api.base import Handler
from services.portal.api.environments import Environments as Listed
from services.portal.api.environments import OneHandler, grantees_of, reach, reach_entry, told
from services.portal.api.models import ListOf
from services.portal.api.operation import Operation

LOOK_SECONDS = 60
LOOKS_AT_ONCE = 2
LOOKS_A_MINUTE = 20


def new_owner(portal: Portal, person: Visitor, centre: bool) -> str:
    """Whose a new entry is; empty = the centre's.

    Raises
    ------
    UserError
        409 where there are no images, 403 for whoever may not.
    """
    entries.need_make(shelf.viewer(person), portal.settings, centre=centre)
    return "" if centre else person.name


async def look(portal: Portal, person: Visitor, image: models.Image) -> Look:
    """What is at an address.

    Raises
    ------
    UserError
        As :func:`extensions.imagebuilder.looks.look`; 400 when the name and password are another registry's,
        429 for too many at once.
    """
    viewer = shelf.viewer(person)
    if portal.settings.backend == "process":
        raise entries.no_images()
    if not viewer.has_role:
        entries.need_make(viewer, portal.settings, centre=False)
    reference = looks.parse(image.address)
    credentials: Credentials | None = None
    if image.key:

        def open_key(conn: Connection) -> tuple[Credentials, str]:
            return (
                keys.opened(conn, shelf.seal(portal), image.key, viewer=viewer),
                keys.registry_of(conn, image.key),
            )

        credentials, registry = await portal.db.run_read(open_key)
        if registry != reference.registry:
            raise UserError(
                400,
                mark("This name and password are for {registry}, not for {other}."),
                registry=registry,
                other=reference.registry,
                reason="key-other",
            )
    with _Turn(portal, person.name):
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await looks.look(portal.settings, image.address, credentials)
        except TimeoutError:
            raise UserError(
                503,
                mark("The image registry {registry} does not answer. Try again in a few minutes."),
                registry=reference.registry,
                reason="registry-away",
            ) from None


class _Turn:
    """Counts what one person asks for."""

    def __init__(self, portal: Portal, name: str) -> None:
        self._going: dict[str, int] = portal.parts.setdefault("image_looks", {})
        self._lately: dict[str, list[float]] = portal.parts.setdefault("image_looks_lately", {})
        self._name = name

    def __enter__(self) -> None:
        now = time.monotonic()
        lately = [at for at in self._lately.get(self._name, []) if now - at < 60]
        if self._going.get(self._name, 0) >= LOOKS_AT_ONCE or len(lately) >= LOOKS_A_MINUTE:
            raise UserError(
                429, mark("You look at many images at once. Try again in a minute."), reason="looks"
            )
        self._lately[self._name] = [*lately, now]
        self._going[self._name] = self._going.get(self._name, 0) + 1

    def __exit__(self, *_: object) -> None:
        left = self._going.get(self._name, 1) - 1
        if left:
            self._going[self._name] = left
        else:
            self._going.pop(self._name, None)


def _version(found: Look, tag: str, key: str, note: str = "") -> store.NewVersion:
    return store.NewVersion(
        tag=entries.check_tag(tag or found.reference.tag or "1"),
        image=str(found.image),
        digest=found.image.digest,
        source=str(found.reference),
        key_id=key,
        size_bytes=found.size_bytes,
        layers=found.layers,
        platform=found.platform,
        told=found.told,
        note=note,
    )


async def create(portal: Portal, person: Visitor, body: models.NewEnvironment, *, address: str = "") -> Entry:
    """Register the image at an address as a new entry.

    Raises
    ------
    UserError
        As :func:`look` and :func:`extensions.imagebuilder.store.create`.
    """
    settings, viewer = portal.settings, shelf.viewer(person)
    owner = new_owner(portal, person, body.centre)
    title = entries.check_title(body.title)
    field = entries.check_field(body.field, settings)
    start = entries.check_start(body.start, settings, viewer)
    shared = await grantees_of(portal, body.shared_with)
    visibility = body.visibility or ("own" if owner else "public")
    entries.check_visibility(visibility, owner, shared)
    reference = looks.parse(body.image.address)
    slug = body.name or entries.slug_of(title) or entries.slug_of(reference.repository.rpartition("/")[2])
    entries.check_slug(slug)
    found = await look(portal, person, body.image)
    made = await portal.db.run(
        store.create,
        actor=shelf.actor(person, address),
        owner=owner,
        slug=slug,
        title=title,
        description=body.description,
        field=field,
        start=start,
        version=_version(found, body.tag, body.image.key),
        visibility=visibility,
        shared_with=shared if visibility == "group" else [],
        reserved=tuple(settings.environments),
        now=portal.clock(),
    )
    shelf.forget(portal)
    return made


async def add_version(
    portal: Portal, person: Visitor, entry: Entry, body: models.NewVersion, *, address: str = ""
) -> Entry:
    """Register the image at an address as a new version."""
    found = await look(portal, person, body.image)
    return await portal.db.run(
        store.add_version,
        entry.id,
        _version(found, body.tag, body.image.key, body.note),
        actor=shelf.actor(person, address),
        now=portal.clock(),
        use=body.use,
    )


async def keep_key(
    portal: Portal, person: Visitor, body: models.NewKey, *, address: str = ""
) -> keys.RegistryKey:
    """Keep a registry's name and password.

    Raises
    ------
    UserError
        400 for no registry; 403 for whoever may not register images.
    """
    owner = new_owner(portal, person, body.centre)
    registry = looks.parse(f"{body.registry.strip().removeprefix('https://').rstrip('/')}/x").registry
    if registry in portal.settings.images.plain_http:
        raise UserError(
            400,
            mark("Passwords are not sent to {registry}, which is spoken to without TLS."),
            registry=registry,
        )
    return await portal.db.run(
        keys.keep,
        shelf.seal(portal),
        actor=shelf.actor(person, address),
        owner=owner,
        registry=registry,
        credentials=Credentials(body.username, body.password),
        now=portal.clock(),
    )


async def forget_key(portal: Portal, person: Visitor, key_id: str, *, address: str = "") -> int:
    """Delete a name and password."""
    return await portal.db.run(
        keys.forget,
        key_id,
        viewer=shelf.viewer(person),
        actor=shelf.actor(person, address),
        now=portal.clock(),
    )


async def keys_of(portal: Portal, person: Visitor) -> list[keys.RegistryKey]:
    """What somebody may register images with."""
    return await portal.db.run_read(keys.keys_of, shelf.viewer(person))


def key_model(key: keys.RegistryKey) -> models.Key:
    """As the API shows it: never the password."""
    return models.Key(
        id=key.id, registry=key.registry, username=key.username, centre=key.centre, made_at=key.made_at
    )


# -------------------------------------------------------------------------------------------------------- handlers


class Environments(Listed, OneHandler):
    """The list, and a new one."""

    async def post(self) -> None:
        body = self.body(models.NewEnvironment)
        made = await create(self.portal, self.person, body, address=self.address)
        self.set_header("Location", f"{self.portal.prefix}api/v1/environments/{made.id}")
        await self.answer(await reach(self.portal, self.person, made.id), 201)


class Versions(OneHandler):
    async def post(self, key: str) -> None:
        body = self.body(models.NewVersion)
        entry = await reach_entry(self.portal, self.person, key)
        await add_version(self.portal, self.person, entry, body, address=self.address)
        await self.answer(await reach(self.portal, self.person, entry.id), 201)


class ImageLooks(Handler):
    async def post(self) -> None:
        found = await look(self.portal, self.person, self.body(models.Image))
        self.write_json(
            models.Looked(
                image=str(found.image),
                digest=found.image.digest,
                tag=found.reference.tag,
                size_bytes=found.size_bytes,
                layers=found.layers,
                platform=found.platform,
                told=[told(one, self.translate) for one in found.told],
            )
        )


class Keys(Handler):
    async def get(self) -> None:
        found = await keys_of(self.portal, self.person)
        self.write_json(ListOf[models.Key](items=[key_model(one) for one in found]))

    async def post(self) -> None:
        body = self.body(models.NewKey)
        self.write_json(key_model(await keep_key(self.portal, self.person, body, address=self.address)), 201)


class Key(Handler):
    async def delete(self, key_id: str) -> None:
        await forget_key(self.portal, self.person, key_id, address=self.address)
        self.set_status(204)


_MADE: dict[int, Any] = {201: models.EnvironmentDetail}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/environments",
        summary="Register the image at an address as an environment; it is kept by its digest",
        takes=models.NewEnvironment,
        answers=_MADE,
    ),
    Operation(
        method="post",
        path="/environments/{id}/versions",
        summary="Register the image at an address as a new version; runs that are there keep theirs",
        takes=models.NewVersion,
        answers=_MADE,
    ),
    Operation(
        method="post",
        path="/image-looks",
        summary="Tell what is at an image's address, and why it could not be registered",
        takes=models.Image,
        answers={200: models.Looked},
    ),
    Operation(
        method="get",
        path="/registry-keys",
        summary="List the registries for which one keeps a name and password",
        answers={200: ListOf[models.Key]},
    ),
    Operation(
        method="post",
        path="/registry-keys",
        summary="Keep a registry's name and password; the password is never shown again",
        takes=models.NewKey,
        answers={201: models.Key},
    ),
    Operation(
        method="delete",
        path="/registry-keys/{id}",
        summary="Forget a registry's name and password",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/api/v1/environments", Environments),
        (r"/api/v1/environments/([^/]+)/versions", Versions),
        (r"/api/v1/image-looks", ImageLooks),
        (r"/api/v1/registry-keys", Keys),
        (r"/api/v1/registry-keys/([^/]+)", Key),
    ]
