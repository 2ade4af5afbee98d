"""What a fork takes along, and what it does not (CG-14).

A fork copies the files and what the Run panel starts with; data sets stay where they are and are used by
reference, if the person may read them. It begins private, without shares, favourites or counts, and knows
where it came from. What a person may not read is not copied in name either: of such data sets only the number
is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from services.catalog.access import Access, Viewer, access, may_fork, may_see, need
from services.catalog.mounts import Linked
from services.catalog.store import NAME_LENGTH, Project


@dataclass(frozen=True, kw_only=True)
class KeptLink:
    """A data set that a fork uses, too."""

    dataset_id: str
    mount: str
    writable: bool


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A fork to be made.

    Attributes
    ----------
    files, size_bytes
        How much is to be copied, as last counted; ``None`` = never counted.
    links
        Data sets that it uses.
    left_out
        How many data sets it lacks because the person may not read them.
    """

    forked_from: str
    name: str
    description: str
    environment: str
    default_request: Mapping[str, Any] | None
    field: str
    tags: tuple[str, ...]
    cover: str
    readme: str
    files: int | None
    size_bytes: int | None
    links: tuple[KeptLink, ...]
    left_out: int


def plan_fork(
    viewer: Viewer,
    project: Project,
    level: Access,
    links: Iterable[Linked] = (),
    *,
    name: str | None = None,
) -> Fork:
    """What a fork of ``project`` by ``viewer`` is.

    Parameters
    ----------
    viewer, project
        Who forks what.
    level
        What the viewer may do with the project (:func:`access`).
    links
        The project's data sets.
    name
        Of the fork; ``None`` = the same, with a word more for one's own (a duplicate).

    Raises
    ------
    UserError
        404, 403, 409 as :func:`check_forkable`; 409 for what is busy.
    """
    check_forkable(viewer, project, level)
    if project.busy:
        raise busy(project)
    kept: list[KeptLink] = []
    left_out = 0
    for link in links:
        if link.deleted_at is not None:
            continue
        if may_see(access(viewer, link, link.shares, kind="dataset")):
            writable = link.writable and link.owner == viewer.name
            kept.append(KeptLink(dataset_id=link.id, mount=link.mount, writable=writable))
        else:
            left_out += 1
    if name is None:
        name = project.name
        if project.owner == viewer.name:
            name = name[: NAME_LENGTH - 4].rstrip() + " (2)"
    return Fork(
        forked_from=project.id,
        name=name,
        description=project.description,
        environment=project.environment,
        default_request=dict(project.default_request) if project.default_request else None,
        field=project.field,
        tags=project.tags,
        cover=project.cover,
        readme=project.readme,
        files=project.file_count,
        size_bytes=project.size_bytes,
        links=tuple(kept),
        left_out=left_out,
    )


def check_forkable(viewer: Viewer, project: Project, level: Access) -> None:
    """Refuse what may not be copied by somebody, when it is asked for and again before it is done.

    Raises
    ------
    UserError
        404 for what they may not see, 403 without a role or for what was taken down, 409 for what lies in the bin.
    """
    need(viewer, level, Access.READ)
    if project.deleted_at is not None:
        raise UserError(409, mark("This lies in the bin. Restore it first."))
    if not may_fork(viewer, level, project):
        need(viewer, level, Access.RUN)  # without a role: says so
    if project.taken_down_at is not None and not viewer.manages("project"):
        # Its copy could be published as if nothing had been decided.
        raise UserError(
            403, mark("An administrator took this down. It can be copied again when they allow it.")
        )


def busy(project: Project) -> UserError:
    """The refusal while something is done to the files."""
    return UserError(
        409,
        mark("The files of “{name}” are being copied or moved. Try again when that is done."),
        reason="busy",
        name=project.name,
    )
