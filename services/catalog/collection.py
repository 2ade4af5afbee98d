"""Data sets as pages and the API use them: the row and the directory together, off the event loop.

As with projects (:mod:`services.catalog.projects`): the row first, then the files, so that nothing is left that
somebody could reach when something breaks between.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from galilean import audit
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Settings
from services.catalog import cards, datasets, owners, shares
from services.catalog.access import no_such_thing
from services.catalog.datasets import Dataset
from services.catalog.fields import check_field
from services.catalog.projects import Projects, check_there, from_bin, to_bin
from services.catalog.shares import Actor
from services.catalog.tables import datasets as datasets_table
from services.catalog.tables import project_datasets
from services.files.root import Root


class Datasets:
    """The catalogue's data sets with their files.

    Parameters
    ----------
    db, settings, clock
        Of the site.
    projects
        Whose threads and whose look at the volumes are used, too.
    """

    def __init__(self, db: Database, settings: Settings, projects: Projects, clock: Clock = utcnow) -> None:
        self._db, self._settings, self._clock, self._projects = db, settings, clock, projects

    async def create(self, owner: str, name: str, **more: Any) -> Dataset:
        """Make a data set and its directory, on the volume with most space; ``more`` as for the row.

        Raises
        ------
        UserError
            400, 409 as :func:`services.catalog.datasets.create`; 503 or 507 when no volume takes it.
        """
        volume_id = await self._projects.place(kind="dataset")
        check_field(more.get("field") or "")
        made = await self._db.run(
            datasets.create, owner=owner, name=name, volume_id=volume_id, now=self._clock(), **more
        )
        await self._projects.files(made)
        return made

    async def files(self, dataset: Dataset) -> Root:
        """Its files; their methods block.

        Raises
        ------
        UserError
            503 when the volume is not there.
        """
        return await self._projects.files(dataset)

    async def delete(self, dataset: Dataset, *, actor: Actor) -> datasets.Uses:
        """Put a data set into the bin, with its files; its owner's projects go on without it.

        Raises
        ------
        UserError
            409 while other people's projects, or running clusters, use it; 404 when it was deleted already.
        """
        found = await self._db.run_serialised("admission", _delete, dataset, actor=actor, now=self._clock())
        await self._projects.move(to_bin, dataset)
        return found

    async def restore(self, dataset_id: str) -> Dataset:
        """Take a data set out of the bin with its files.

        Raises
        ------
        UserError
            404 when it is not in it, or its files are gone; 503 when its volume is not there.
        """
        binned = await self._db.run_read(datasets.by_id, dataset_id, deleted=True)
        if binned is not None:
            await self._projects.move(check_there, binned)
        found = await self._db.run(datasets.restore, dataset_id, now=self._clock())
        await self._projects.move(from_bin, found)
        return found

    async def touch(self, dataset: Dataset) -> None:
        """Note that files changed."""
        await self._db.run(datasets.touch, dataset.id, self._clock())


def _delete(conn: Connection, dataset: Dataset, *, actor: Actor, now: datetime) -> datasets.Uses:
    if dataset.busy:
        raise UserError(
            409,
            mark("“{name}” is being moved to another volume just now. Try again when that is done."),
            reason="busy",
            name=dataset.name,
        )
    found = datasets.delete(conn, dataset, now=now)
    _note(conn, dataset, "delete", actor, now, before={"name": dataset.name, "id": dataset.id})
    return found


def give_to(conn: Connection, dataset: Dataset, owner: str, *, actor: Actor, now: datetime) -> Dataset:
    """Make somebody else the owner; shares and whoever uses it stay. Nobody but the new owner writes it then.

    Raises
    ------
    UserError
        404 when it is not there any more; 409 when no address is left.
    """
    found = datasets.by_id(conn, dataset.id)
    if found is None:
        raise no_such_thing()
    if found.owner == owner:
        return found
    slug = owners.rename(
        conn,
        datasets_table,
        found,
        owner,
        about=found.summary,
        full=mark("{owner} has too many data sets of this name."),
    )
    shares.not_with(conn, "dataset", found.id, owner)
    conn.execute(
        update(project_datasets).where(project_datasets.c.dataset_id == found.id).values(writable=False)
    )
    cards.put(conn, "dataset", found.id)
    told = {"before": {"owner": found.owner, "slug": found.slug}, "after": {"owner": owner, "slug": slug}}
    _note(conn, found, "owner", actor, now, **told)
    after = datasets.by_id(conn, found.id)
    assert after is not None
    return after


def _note(conn: Connection, dataset: Dataset, action: str, actor: Actor, now: datetime, **more: Any) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor.name,
        address=actor.address,
        action=f"dataset.{action}",
        subject=f"{dataset.owner}/{dataset.slug}",
        **more,
    )
