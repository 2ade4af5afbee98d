"""Object stores by the API: kept, looked at, copied from and to (TI-5).

The secret key goes in and never comes out. A copy is a job at the files of a project or data set: how far it is, and its end,
are asked as of every other (``…/jobs/{id}``).
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from galilean.web.visitor import Visitor
from services.object_stores import transfers
from services.object_stores.bucket import Found
from services.object_stores.kept import Store
from services.object_stores.transfers import Transfer
from services.portal import object_stores as ours
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.file_models import PATHS_MOST, Exact, FileJob
from services.portal.api.file_work import QUICK_SECONDS, file_jobs, job_model
from services.portal.api.files import ITEM, FilesHandler
from services.portal.api.operation import PAGED, Operation
from services.portal.desks import KINDS
from services.portal.file_jobs import Job


class ObjectStorePlace(models.Incoming):
    name: str = Field(min_length=1, max_length=200, description="As it is shown.")
    endpoint: str = Field(
        min_length=1,
        max_length=300,
        description="Such as https://s3.example.edu; with TLS, unless the centre lists it.",
    )
    bucket: str = Field(min_length=1, max_length=80)
    prefix: str = Field(default="", max_length=512, description="Nothing outside of it is seen.")
    region: str = Field(default="", max_length=64, description="Empty = us-east-1.")
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Where the bucket stands: in the path, or in the name of the host."
    )
    writable: bool = Field(default=False, description="Whether files may be exported to it.")
    access_key_id: str = Field(min_length=1, max_length=255)


class NewObjectStore(ObjectStorePlace):
    secret_key: str = Field(min_length=1, max_length=255, description="Kept encrypted, never shown again.")
    centre: bool = Field(
        default=False, description="For everybody with a role; needs the right volumes:manage."
    )


class ObjectStoreChange(ObjectStorePlace):
    secret_key: str = Field(default="", max_length=255, description="Empty = the one that it has.")


class ObjectStore(models.Outgoing):
    id: str
    name: str
    centre: bool
    endpoint: str
    bucket: str
    prefix: str
    region: str
    addressing: str
    writable: bool
    access_key_id: str | None = Field(description="Null for whoever may not change it.")
    may_change: bool
    made_at: datetime


class StoredObject(models.Outgoing):
    """An object, or a folder: what keys have in common up to a slash."""

    key: str = Field(description="Below the store's prefix.")
    name: str
    kind: Literal["folder", "object"]
    size_bytes: int | None
    changed_at: datetime | None


class NewTransfer(Exact):
    do: Literal["import", "export"]
    store: str = Field(max_length=26, description="Id of the object store.")
    prefix: str = Field(
        default="",
        max_length=1024,
        description="Below the store's own prefix: where the names are (import), or where files go to (export).",
    )
    names: list[str] = Field(
        default=[],
        max_length=PATHS_MOST,
        description="Import: what of the prefix; with a slash at its end a folder, none = all.",
    )
    folder: str = Field(default="", max_length=16384, description="Import: where to, as in an address.")
    paths: list[str] = Field(
        default=[],
        max_length=PATHS_MOST,
        description="Export: which files and folders, as in addresses; none = all.",
    )
    taken: Literal["leave", "replace"] = Field(
        default="leave",
        description="When a name is taken by something else; what is the same is always left.",
    )


class ObjectTransfer(models.Outgoing):
    """A copy, also one of a portal that ended since (``broken``): begin it again, it goes on where it was."""

    id: str
    do: str
    store: str
    store_name: str
    state: Literal["working", "done", "cancelled", "broken"]
    job: str
    objects: int
    size_bytes: int
    began_at: datetime
    ended_at: datetime | None


def store_model(store: Store, person: Visitor) -> ObjectStore:
    """As the API shows it: never the secret key."""
    change = store.may_change(ours.viewer(person))
    return ObjectStore(
        id=store.id,
        name=store.name,
        centre=store.centre,
        endpoint=store.place.endpoint,
        bucket=store.place.bucket,
        prefix=store.place.prefix,
        region=store.place.region,
        addressing=store.place.addressing,
        writable=store.writable,
        access_key_id=store.access_key_id if change else None,
        may_change=change,
        made_at=store.made_at,
    )


def object_model(found: Found, store: Store) -> StoredObject:
    """As the API shows it; the store's own prefix is left off."""
    key = found.key.removeprefix(store.place.prefix)
    name = key.rstrip("/").rpartition("/")[2] + ("/" if found.folder else "")
    return StoredObject(
        key=key,
        name=name,
        kind="folder" if found.folder else "object",
        size_bytes=None if found.folder else found.size_bytes,
        changed_at=found.changed_at,
    )


def transfer_model(one: Transfer) -> ObjectTransfer:
    """As the API shows it."""
    return ObjectTransfer(
        id=one.id,
        do=one.asked.get("do", ""),
        store=one.store_id,
        store_name=one.store_name,
        state=one.state,
        job=one.job_id,
        objects=one.objects,
        size_bytes=one.size_bytes,
        began_at=one.began_at,
        ended_at=one.ended_at,
    )


def place_of(body: ObjectStorePlace) -> dict[str, Any]:
    """Where a store is, as it was typed."""
    return {
        "endpoint": body.endpoint,
        "bucket": body.bucket,
        "prefix": body.prefix,
        "region": body.region,
        "addressing": body.addressing,
    }


class ObjectStores(Handler):
    async def get(self) -> None:
        found = await ours.stores(self.portal, self.person)
        self.write_json(models.ListOf[ObjectStore](items=[store_model(one, self.person) for one in found]))

    async def post(self) -> None:
        body = self.body(NewObjectStore)
        made = await ours.keep(
            self.portal,
            self.person,
            centre=body.centre,
            name=body.name,
            place=place_of(body),
            access_key_id=body.access_key_id,
            secret=body.secret_key,
            writable=body.writable,
            address=self.address,
        )
        self.set_header("Location", f"{self.portal.prefix}api/v1/object-stores/{made.id}")
        self.write_json(store_model(made, self.person), 201)


class OneObjectStore(Handler):
    async def put(self, store_id: str) -> None:
        body = self.body(ObjectStoreChange)
        changed = await ours.keep(
            self.portal,
            self.person,
            store_id=store_id,
            name=body.name,
            place=place_of(body),
            access_key_id=body.access_key_id,
            secret=body.secret_key,
            writable=body.writable,
            address=self.address,
        )
        self.write_json(store_model(changed, self.person))

    async def delete(self, store_id: str) -> None:
        await ours.forget(self.portal, self.person, store_id, address=self.address)
        self.set_status(204)


class StoredObjects(Handler):
    async def get(self, store_id: str) -> None:
        store, page = await ours.browse(
            self.portal,
            self.person,
            store_id,
            prefix=self.get_query_argument("prefix", "", strip=False),
            begins=self.get_query_argument("q", "", strip=False),
            limit=self.limit(default=200, most=1000),
            cursor=self.query("cursor") or None,
        )
        self.write_json(
            models.ListOf[StoredObject](
                items=[object_model(found, store) for found in page.found], next=page.next
            )
        )


class Transfers(FilesHandler):
    """Copies from and to object stores at a project or data set."""

    ending = "object-transfers"

    async def get(self, *_: str) -> None:
        ours.check_enabled(self.portal)
        desk = await self.at_desk(write=False)
        found = await self.portal.db.run_read(transfers.of, by=self.person.name, item_id=desk.item.id)
        self.write_json(models.ListOf[ObjectTransfer](items=[transfer_model(one) for one in found]))

    async def post(self, *_: str) -> None:
        body = self.body(NewTransfer)
        await self._begin(body.model_dump(mode="json"))

    async def _begin(self, asked: dict[str, Any]) -> None:
        plural, ident = self.path_args[0], self.path_args[1]
        desk, job = await ours.begin(
            self.portal, self.person, file_jobs(self.portal), ident, KINDS[plural], asked
        )
        try:
            await asyncio.wait_for(job.over.wait(), QUICK_SECONDS)
        except TimeoutError:
            pass
        self.set_header("Location", f"{desk.api}/jobs/{job.id}")
        self._answer(job)

    def _answer(self, job: Job) -> None:
        self.write_json(job_model(job, self.translate), 200 if job.is_over else 202)


class OneTransfer(Transfers):
    """One that was broken off: POST begins it again; DELETE takes it off the list."""

    async def _one(self) -> Transfer:
        ours.check_enabled(self.portal)
        desk = await self.at_desk(write=False)
        return await self.portal.db.run_read(
            transfers.get, self.path_args[2], by=self.person.name, item_id=desk.item.id
        )

    async def get(self, *_: str) -> None:
        self.write_json(transfer_model(await self._one()))

    async def post(self, *_: str) -> None:
        await self._begin((await self._one()).asked)

    async def delete(self, *_: str) -> None:
        one = await self._one()
        await self.portal.db.run(transfers.forget, one)
        self.set_status(204)


def _operations(item: str, what: str) -> tuple[Operation, ...]:
    listed = item + "/object-transfers"
    return (
        Operation(
            method="get",
            path=listed,
            summary=f"List one's own copies from and to object stores at a {what}",
            answers={200: models.ListOf[ObjectTransfer]},
        ),
        Operation(
            method="post",
            path=listed,
            summary="Import objects into a folder, or export files; what is the same already is left alone",
            takes=NewTransfer,
            answers={200: FileJob, 202: FileJob},
        ),
        Operation(
            method="get",
            path=listed + "/{id}",
            summary="One copy",
            answers={200: ObjectTransfer},
        ),
        Operation(
            method="post",
            path=listed + "/{id}",
            summary="Begin a copy again: it goes on where it was",
            answers={200: FileJob, 202: FileJob},
        ),
        Operation(
            method="delete",
            path=listed + "/{id}",
            summary="Take a copy that is over off the list",
            answers={204: None},
        ),
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/object-stores",
        summary="List the object stores that one may copy from",
        answers={200: models.ListOf[ObjectStore]},
    ),
    Operation(
        method="post",
        path="/object-stores",
        summary="Keep an object store, once its bucket answers; the secret key is never shown again",
        takes=NewObjectStore,
        answers={201: ObjectStore},
    ),
    Operation(
        method="put",
        path="/object-stores/{id}",
        summary="Change an object store, once its bucket answers",
        takes=ObjectStoreChange,
        answers={200: ObjectStore},
    ),
    Operation(
        method="delete",
        path="/object-stores/{id}",
        summary="Forget an object store and its key; what lies in it stays",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/object-stores/{id}/objects",
        summary="A page of what lies in an object store",
        query={
            "prefix": "The folder, with a slash at its end; empty = the top.",
            "q": "Only names that begin so.",
            **PAGED,
        },
        answers={200: models.ListOf[StoredObject]},
    ),
    *_operations("/projects/{owner}/{slug}", "project"),
    *_operations("/datasets/{owner}/{slug}", "data set"),
)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/object-stores", ObjectStores),
        (r"/api/v1/object-stores/([0-9A-Z]{26})", OneObjectStore),
        (r"/api/v1/object-stores/([0-9A-Z]{26})/objects", StoredObjects),
        (ITEM + r"/object-transfers", Transfers),
        (ITEM + r"/object-transfers/([0-9A-Z]{26})", OneTransfer),
    ]
