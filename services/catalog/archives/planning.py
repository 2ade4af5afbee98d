"""What would be in the way of each project of an archive, and what is done about it unless somebody says otherwise.

Nothing is refused that can be had another way: a taken address gets a number, an owner who is not here gives way to
whoever imports, an environment that is not here to the site's, a data set that is not here is left out. All of it is
told before anything is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.names import is_slug, numbered, slugify
from galilean.settings import Settings
from services.catalog import datasets, environments, store
from services.catalog.access import Viewer, access, may_see
from services.catalog.archives.meta import DatasetMeta
from services.catalog.archives.reading import Seen
from services.catalog.shares import of as shares_of
from services.catalog.tables import projects

Action = Literal["import", "replace", "skip"]
ACTIONS: tuple[Action, ...] = ("import", "replace", "skip")


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Something in the way; ``kind`` is ``slug``, ``owner``, ``environment``, ``dataset``, ``left-out``."""

    kind: str
    message: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is done with one project.

    Attributes
    ----------
    action
        ``import`` as a new project, ``replace`` the one at its address (which goes to the bin), or ``skip``.
    owner
        Whose it will be.
    """

    action: Action = "import"
    owner: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A project of an archive, as it would be imported."""

    seen: Seen
    choice: Choice
    slug: str
    conflicts: tuple[Conflict, ...] = ()


def wanted_slug(seen: Seen) -> str:
    """The address that a project had, or one that may be."""
    return seen.meta.slug if is_slug(seen.meta.slug) else slugify(seen.meta.name)


def free_slug(conn: Connection, owner: str, wanted: str) -> str:
    """The address, or the first number of it that is free."""
    taken = store.slugs_like(conn, projects, owner, wanted)
    return next(slug for n in range(1, store.NUMBERS_MOST) if (slug := numbered(wanted, n)) not in taken)


def dataset_here(conn: Connection, viewer: Viewer, one: DatasetMeta) -> datasets.Dataset | None:
    """The data set of this site that has the address, if the new owner may read it."""
    found = datasets.get(conn, one.owner, one.slug)
    if found is None:
        return None
    level = access(viewer, found, shares_of(conn, "dataset", found.id), kind="dataset")
    return found if may_see(level) else None


def plan(
    conn: Connection,
    settings: Settings,
    seen: list[Seen],
    *,
    importer: str,
    is_known: Callable[[str], bool],
    viewer_of: Callable[[str], Viewer] = lambda name: Viewer(name=name),
    choices: Mapping[int, Choice] | None = None,
) -> list[Planned]:
    """What an import would do.

    Parameters
    ----------
    conn, settings
        Of this site.
    seen
        What the archive holds.
    importer
        Who gets what belongs to nobody here.
    is_known
        Whether there is an account of a name.
    viewer_of
        What somebody may see.
    choices
        What somebody has chosen already, by number; others go as they would by themselves.
    """
    planned: list[Planned] = []
    asked: set[tuple[str, str]] = set()
    for one in seen:
        conflicts: list[Conflict] = []
        choice = (choices or {}).get(one.number)
        known = is_known(one.meta.owner)
        if not known:
            conflicts.append(
                Conflict(
                    kind="owner",
                    message=mark("There is no account “{owner}” here."),
                    params={"owner": one.meta.owner},
                )
            )
        choice = choice or Choice(owner=one.meta.owner if known else importer)
        wanted = wanted_slug(one)
        slug = free_slug(conn, choice.owner, wanted)
        if slug != wanted or (choice.owner, wanted) in asked:
            conflicts.append(
                Conflict(
                    kind="slug",
                    message=mark("{owner} has a project at “{slug}” already."),
                    params={"owner": choice.owner, "slug": wanted},
                )
            )
        asked.add((choice.owner, wanted))
        conflicts += _missing(conn, settings, viewer_of(choice.owner), one)
        planned.append(
            Planned(
                seen=one,
                choice=choice,
                slug=wanted if choice.action == "replace" else slug,
                conflicts=tuple(conflicts),
            )
        )
    return planned


def environment_here(settings: Settings, name: str) -> str:
    """The environment, or empty for the site's own when there is none of the name."""
    try:
        environments.check_environment(settings, name)
    except UserError:
        return ""
    return name


def _missing(conn: Connection, settings: Settings, viewer: Viewer, one: Seen) -> list[Conflict]:
    found: list[Conflict] = []
    if one.meta.environment and not environment_here(settings, one.meta.environment):
        found.append(
            Conflict(
                kind="environment",
                message=mark("There is no environment “{name}” here: it gets the site’s own."),
                params={"name": one.meta.environment},
            )
        )
    for dataset in one.meta.datasets:
        if dataset_here(conn, viewer, dataset) is None:
            found.append(
                Conflict(
                    kind="dataset",
                    message=mark("The data set “{name}” is not here, or not for this owner: it is left out."),
                    params={"name": f"{dataset.owner}/{dataset.slug}"},
                )
            )
    if one.left_out:
        found.append(
            Conflict(
                kind="left-out",
                message=mark(
                    "{count} files could not be packed when the archive was made, such as {example}."
                ),
                params={"count": len(one.left_out), "example": one.left_out[0]},
            )
        )
    return found
