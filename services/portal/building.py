"""Building an image from files of a project, as pages and API ask for it: who may, what would be built, the packed files.

As with a save the portal touches no Docker: it reads the recipe (:mod:`extensions.imagebuilder.recipes`), says which
image each FROM is for this person, packs the files that a Dockerfile gets to see, and writes a row. Files are read by
descriptors and never through a link; those that lead out of the project are left out when the image service unpacks them.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.utils.build import PatternMatcher
from sqlalchemy import Connection
from ulid import ULID

from extensions.imagebuilder import recipes, saved, store
from extensions.imagebuilder.build_context import MEMBERS_MOST, too_large
from extensions.imagebuilder.entries import Actor, Entry
from extensions.imagebuilder.names import name_space
from extensions.imagebuilder.recipes import DOCKERFILE, TEXT_MOST_BYTES, Recipe
from extensions.imagebuilder.saved import SavedImage
from galilean import disk_reserve
from galilean.errors import UserError, mark
from galilean.settings import EnvironmentSettings, Settings
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.files import packing
from services.files.root import Root
from services.portal import saving, shelf
from services.portal.desks import Desk, desk_of

#: Of ``.dockerignore``.
PATTERNS_MOST, PATTERN_MOST_SIGNS = 100, 200

_NOT_HERE = mark("Images are not built here.")
_NO_RECIPE = mark(
    "There is nothing to build from: neither a Dockerfile nor apt.txt, environment.yml or requirements.txt, at the top of "
    "the project or in the folder “binder”."
)
_NO_ROLE = mark("Your account waits for a role. An administrator has been told; nothing is lost.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a project would be built from.

    Attributes
    ----------
    texts
        Name → what stands in each file of the recipe.
    """

    desk: Desk
    recipe: Recipe
    texts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A Dockerfile with what its FROM lines are, and the environment whose start options a result begins with."""

    dockerfile: str
    images: Mapping[str, str]
    environment: str


def offered(portal: Portal) -> bool:
    """Whether images are built here."""
    settings = portal.settings
    return saving.offered(portal) and settings.backend == "docker" and settings.images.builds.allowed


def need(portal: Portal, person: Visitor) -> None:
    """Refuse where nothing is built, or for whoever has no role.

    Raises
    ------
    UserError
        501, 403.
    """
    if not offered(portal):
        raise UserError(501, _NOT_HERE, reason="not-here")
    if not person.has_role or person.node is not None:
        raise UserError(403, _NO_ROLE)


async def find(portal: Portal, person: Visitor, ident: str) -> Found | None:
    """What a project that somebody may read is built from; None where there is nothing.

    Raises
    ------
    UserError
        404, 501, 403; 422 when a file cannot be read as text.
    """
    need(portal, person)
    desk = await desk_of(portal, person, "project", ident)
    found = await portal.files.ask(desk.item.volume_id, _look, desk.root)
    return None if found is None else Found(desk=desk, recipe=found[0], texts=found[1])


async def need_found(portal: Portal, person: Visitor, ident: str) -> Found:
    """The same, refused where there is nothing.

    Raises
    ------
    UserError
        409.
    """
    found = await find(portal, person, ident)
    if found is None:
        raise UserError(409, _NO_RECIPE, reason="no-recipe")
    return found


def _look(root: Root) -> tuple[Recipe, dict[str, str]] | None:
    there: set[str] = set()
    for path in recipes.candidates():
        if "/" in path and path.partition("/")[0] not in there:
            continue
        try:
            kind = root.stat(path).kind
        except UserError as error:
            if error.status in (400, 403, 404):
                continue
            raise
        if kind == ("folder" if path in recipes.FOLDERS else "file"):
            there.add(path)
    recipe = recipes.recipe_of(there)
    return (
        None if recipe is None else (recipe, {name: _text(root, recipe.path(name)) for name in recipe.files})
    )


def _text(root: Root, path: str) -> str:
    with root.open(path) as file:
        content = file.read(TEXT_MOST_BYTES + 1)
    try:
        if len(content) <= TEXT_MOST_BYTES:
            return content.decode()
    except UnicodeDecodeError:
        pass
    raise UserError(
        422,
        mark("“{path}” is no text of at most {most} KB."),
        reason="recipe",
        path=path,
        most=TEXT_MOST_BYTES >> 10,
    )


# ---------------------------------------------------------------------------------------------- what FROM is


async def environments(portal: Portal, person: Visitor) -> dict[str, EnvironmentSettings]:
    """Environments that somebody may build on, by name."""
    found = await shelf.offered(portal, person)
    return {name: one for name, one in found.items() if image_of(portal.settings, one)}


def image_of(settings: Settings, environment: EnvironmentSettings) -> str:
    """An environment's image; empty where it has none."""
    return environment.image or settings.docker.image


async def choose(portal: Portal, person: Visitor, dockerfile: str, environment: str) -> Chosen:
    """Say what the FROM lines of a Dockerfile are for somebody.

    ``environment`` is the one that start options come from where the Dockerfile stands on none by name.

    Raises
    ------
    UserError
        422 for a Dockerfile that cannot be, and for FROM with something that they may not start.
    """
    steps = recipes.parse(dockerfile)
    wanted = recipes.bases(steps)
    known = await environments(portal, person)
    kept = await shelf.kept_for(portal, person)

    def more(conn: Connection) -> list[tuple[str, str, str]]:
        return [*_versions(conn, kept), *_saved(conn, person.name)]

    names = {one: (image_of(portal.settings, entry), one) for one, entry in known.items()}
    images = {image: (image, name) for image, name in reversed(names.values())}
    others: dict[str, tuple[str, str]] = {}
    if not all(text in names or text in images for text in wanted):
        for text, image, name in await portal.db.run_read(more):
            others.setdefault(text, (image, name))
    found: dict[str, tuple[str, str]] = {}
    for text in wanted:
        one = names.get(text) or images.get(text) or others.get(text)
        if one is None:
            line = next(step.line for step in steps if step.word == "FROM" and text in step.rest.split())
            raise recipes.unknown_base(line, text)
        found[text] = one
    return Chosen(
        dockerfile=dockerfile,
        images={text: image for text, (image, _) in found.items()},
        environment=found[wanted[-1]][1] or environment,
    )


def _versions(conn: Connection, kept: Iterable[Entry]) -> Iterable[tuple[str, str, str]]:
    """Versions of entries: by tag and by image."""
    for entry in kept:
        for version in store.versions(conn, entry.id):
            yield f"{entry.name}:{version.tag}", version.image, entry.name
            yield version.image, version.image, entry.name


def _saved(conn: Connection, owner: str) -> Iterable[tuple[str, str, str]]:
    """One's own saved images: as they are called and by digest."""
    for one in saved.list_saved(conn, owner, limit=500):
        if one.state == "ready":
            yield f"{name_space(owner)}/{one.name}:{one.tag}", one.image, one.environment
            yield one.image, one.image, one.environment


async def chosen_of(portal: Portal, person: Visitor, found: Found, environment: str = "") -> Chosen:
    """What a project's recipe is built as; ``environment`` is what lists of packages stand on.

    Raises
    ------
    UserError
        As :func:`choose`; 400 for an environment that is not there for them.
    """
    known = await environments(portal, person)
    if environment and environment not in known:
        raise UserError(400, mark("There is no environment “{name}”."), name=environment[:60])
    environment = environment or default_environment(portal, found, known)
    if found.recipe.by_dockerfile:
        return await choose(portal, person, found.texts[DOCKERFILE], environment)
    settings = portal.settings.docker
    text = recipes.dockerfile_of(
        found.recipe, found.texts, base=environment, account=settings.account, home=settings.home_dir
    )
    return await choose(portal, person, text, environment)


def default_environment(portal: Portal, found: Found, known: Mapping[str, object]) -> str:
    """The project's, else the site's, else any."""
    wanted = (getattr(found.desk.item, "environment", ""), portal.settings.defaults.environment, *known)
    return next((name for name in wanted if name and name in known), "")


# ------------------------------------------------------------------------------------------------ begin


async def begin(
    portal: Portal,
    person: Visitor,
    found: Found,
    text: str,
    *,
    environment: str = "",
    description: str = "",
    address: str = "",
) -> SavedImage:
    """Begin to build from a project.

    Raises
    ------
    UserError
        409, 422 as for a save; 413 when the files are too many; 507 when the person's images take too much.
    """
    name = await saving.check_name(portal, person, text)
    chosen = await chosen_of(portal, person, found, environment)
    await _need_room(portal, person)
    recipe = found.recipe
    item = found.desk.item
    build = {
        "images": dict(chosen.images),
        "project": f"{item.owner}/{item.slug}",
        "project_name": item.name,
        "files": [recipe.path(name) for name in recipe.files],
        "context": "",
    }
    only = None if recipe.by_dockerfile else {recipe.path(name) for name in recipe.files}
    path = contexts(portal.settings) / f"{ULID()}.tar"
    if not recipe.by_dockerfile and recipe.files == (recipes.APT,):
        path = None
    else:
        await portal.files.run(
            item.volume_id,
            pack,
            found.desk.root,
            path,
            most_bytes=portal.settings.images.builds.files,
            only=only,
        )
        build["context"] = path.name
    try:
        return await _begin(portal, person, chosen, name, build, description, address)
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


async def begin_from(
    portal: Portal, person: Visitor, image: SavedImage, text: str, *, description: str = "", address: str = ""
) -> SavedImage:
    """Begin to build anew what was recorded of a saved image of the person's own.

    Raises
    ------
    UserError
        409 when nothing was recorded, or it needs files of a project; others as :func:`begin`.
    """
    need(portal, person)
    require_recorded(image)
    name = await saving.check_name(portal, person, text)
    chosen = await choose(portal, person, image.dockerfile, image.environment)
    await _need_room(portal, person)
    build = {"images": dict(chosen.images), "of": f"{image.name}:{image.tag}", "context": ""}
    return await _begin(portal, person, chosen, name, build, description, address)


def require_recorded(image: SavedImage) -> None:
    """Refuse what was not recorded, or is built from a project.

    Raises
    ------
    UserError
        409.
    """
    if not image.dockerfile or image.state != "ready" or (image.build or {}).get("project"):
        raise UserError(409, mark("Nothing was recorded of this image."), reason="no-recipe")


async def _need_room(portal: Portal, person: Visitor) -> None:
    most = portal.settings.images.registry.per_person
    used = await portal.db.run_read(saved.used_bytes, person.name) if most else 0
    if most and used >= most:
        raise UserError(
            507,
            mark("Your saved images take all of the {most} MB that they may take. Delete some first."),
            reason="images-full",
            most=most >> 20,
        )


async def _begin(
    portal: Portal,
    person: Visitor,
    chosen: Chosen,
    name: Any,
    build: Mapping[str, Any],
    description: str,
    address: str,
) -> SavedImage:
    now = portal.clock()
    return await portal.db.run(
        lambda conn: saved.begin(
            conn,
            actor=Actor(name=person.name, address=address),
            name=name,
            now=now,
            description=description,
            environment=chosen.environment,
            parent=list(chosen.images.values())[-1],
            build=build,
            dockerfile=chosen.dockerfile,
        )
    )


# ------------------------------------------------------------------------------------------------- files


def contexts(settings: Settings) -> Path:
    """Where packed files wait for the image service."""
    return settings.state / "builds"


def pack(root: Root, path: Path, *, most_bytes: int, only: set[str] | None = None) -> None:
    """Pack a project's files for a build. Blocks.

    Parameters
    ----------
    root
        The project.
    path
        A new file; gone again where it fails.
    most_bytes
        Most of all files together.
    only
        These paths alone; None = all that ``.dockerignore`` does not name.

    Raises
    ------
    UserError
        413 when they are more; 507 when the disk has no room for them beside those that wait already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    matcher: Any = PatternMatcher([] if only is not None else _ignored(root))
    size = count = 0
    try:
        with (
            disk_reserve.in_words(path.parent),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
            tarfile.open(
                fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
            ) as archive,
            root.folder() as top,
        ):
            for one in packing.walk(top, (), "", []):
                name = one.name.rstrip("/")
                if not name or (only is not None and name not in only) or matcher.matches(name):
                    continue
                info = tarfile.TarInfo(name)
                info.mode, info.mtime = one.status.st_mode & 0o777, int(one.status.st_mtime)
                count += 1
                if one.link is not None:
                    info.type, info.linkname = tarfile.SYMTYPE, one.link
                elif one.file is None:
                    info.type = tarfile.DIRTYPE
                else:
                    info.size = one.status.st_size
                    size += info.size
                if size > most_bytes or count > MEMBERS_MOST:
                    raise too_large(most_bytes)
                disk_reserve.need(path.parent, info.size)
                if one.file is None:
                    archive.addfile(info)
                else:
                    with os.fdopen(os.dup(one.file), "rb") as content:
                        archive.addfile(info, _Exactly(content, info.size))  # type: ignore[arg-type]
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep each of them
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _ignored(root: Root) -> list[str]:
    try:
        text = _text(root, ".dockerignore")
    except UserError:
        return []
    lines = [line.strip() for line in text.splitlines()]
    found = [re.sub(r"^(!?)/+", r"\1", line) for line in lines if line and not line.startswith("#")]
    # Each becomes a regular expression that is tried on every name, and tries all ways to share a name among its stars.
    if len(found) > PATTERNS_MOST or any(_too_wild(line) for line in found):
        raise UserError(
            422,
            mark(
                ".dockerignore has more than {most} lines, or a line that is too long or has too many stars."
            ),
            reason="recipe",
            most=PATTERNS_MOST,
        )
    for line in found:
        matcher: Any = PatternMatcher([line])
        try:
            matcher.matches("x")
        except (re.error, IndexError):
            raise UserError(
                422,
                mark("“{pattern}” in .dockerignore is no pattern."),
                reason="recipe",
                pattern=line[:60],
            ) from None
    return found


def _too_wild(line: str) -> bool:
    """Whether a pattern is long to try: what one star takes is certain between two slashes, what two take is not."""
    parts = line.removeprefix("!").rstrip("/").split("/")
    # “[!x]” takes a slash, too; a class with a slash in it would hide where a part ends.
    stars = [part.count("*") + part.count("[!") for part in parts if part != "**"]
    open_class = any(part.rfind("[") > part.rfind("]") or re.search(r"\[!?\]", part) for part in parts)
    return (
        len(line) > PATTERN_MOST_SIGNS
        or parts[:-1].count("**") > 1
        or any("**" in part and part != "**" for part in parts)
        or max(stars, default=0) > 2
        or stars.count(2) > 1
        or open_class
    )


class _Exactly:
    """A file of which so many bytes are read: what grows is cut, what shrinks is filled up."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        found = self._file.read(wanted) if wanted else b""
        self._left -= wanted
        return found + bytes(wanted - len(found))
