"""The addresses of data sets in the API: each method is a few lines over :mod:`services.portal.api.datasets`."""

from __future__ import annotations

from typing import Any

from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler
from services.catalog import shares
from services.catalog.access import Access, Share
from services.catalog.search import Scope
from services.portal.api import dataset_models as models
from services.portal.api import datasets, either, sharing
from services.portal.api.base import Handler
from services.portal.api.either import OfEither
from services.portal.api.gallery import card_model, dataset_path, find, wanted_of
from services.portal.api.models import Binned, Card, Cover, ListOf, NewOwner, TakeDown
from services.portal.api.models import Share as ShareModel
from services.portal.api.operation import PAGED, Operation
from services.portal.api.projects import project_for

DATASET = "/datasets/{owner}/{slug}"
PROJECT = "/projects/{owner}/{slug}"
SCOPES: tuple[Scope, ...] = ("mine", "shared", "public", "favourites", "all", "everything")


class DatasetHandler(OfEither):
    """How a data set is reached and shown."""

    async def reach(self, owner: str, slug: str, least: Access = Access.READ) -> tuple[Any, Access]:
        return await datasets.reach(self.portal, self.person, f"{owner}/{slug}", least=least)

    def answer(self, found: Any, level: Access = Access.OWN, status: int = 200) -> None:
        self.write_json(datasets.dataset_model(self.portal, self.person, found, level), status)


class Datasets(DatasetHandler):
    async def get(self) -> None:
        shown = await find(
            self.portal,
            self.person,
            wanted_of(self, "dataset", self.query("sort") or "recent"),
            scope=self.word("scope", *SCOPES),  # type: ignore[arg-type]  # one of them
            limit=self.limit(),
            cursor=self.query("cursor") or None,
        )
        items = [card_model(self.portal, card, card.item_id in shown.favourites) for card in shown.cards]
        self.write_json(ListOf[Card](items=items, next=shown.next))

    async def post(self) -> None:
        made = await datasets.create(self.portal, self.person, self.body(models.NewDataset))
        self.set_header("Location", f"{self.portal.prefix}api/v1/{dataset_path(made.owner, made.slug)}")
        self.answer(made, status=201)


class Dataset(DatasetHandler):
    async def get(self, owner: str, slug: str) -> None:
        self.answer(*await self.reach(owner, slug))

    async def patch(self, owner: str, slug: str) -> None:
        body = self.body(models.DatasetChange)
        found = await self.owned(owner, slug)
        self.answer(await datasets.change(self.portal, self.person, found, body, address=self.address))

    async def delete(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        await datasets.delete(self.portal, self.person, found, address=self.address)
        self.set_status(204)


class UsedBy(DatasetHandler):
    async def get(self, owner: str, slug: str) -> None:
        found, _ = await self.reach(owner, slug)
        uses, items = await datasets.used_by(self.portal, self.person, found)
        self.write_json(
            models.UsedByAll(
                uses=datasets.uses_model(uses), items=datasets.used_by_models(self.portal, items)
            )
        )


class Versions(DatasetHandler):
    async def get(self, owner: str, slug: str) -> None:
        found, _ = await self.reach(owner, slug)
        items = [
            datasets.dataset_model(self.portal, self.person, one, level)
            for one, level in await datasets.versions_of(self.portal, self.person, found)
        ]
        self.write_json(ListOf[models.Dataset](items=items))

    async def post(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        self.answer(await datasets.freeze(self.portal, self.person, found, address=self.address), status=202)


class PublicationOf(DatasetHandler):
    async def get(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        seen, complete = await datasets.what_is_seen(self.portal, found)
        self.write_json(
            models.DatasetPublication(
                files=seen.files,
                complete=complete,
                size_bytes=seen.size_bytes,
                notebooks=seen.notebooks,
                hidden=seen.hidden,
                secrets=list(seen.secrets),
                more_secrets=seen.more_secrets,
                unreadable=[],
                for_ever=True,
            )
        )

    async def put(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        await datasets.publish(self.portal, self.person, found, address=self.address)
        self.set_status(204)


class Shares(DatasetHandler):
    async def get(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        self._answer(await self.portal.db.run_read(shares.of, "dataset", found.id))

    async def put(self, owner: str, slug: str) -> None:
        body = self.body(models.GiveRead)
        found = await self.owned(owner, slug)
        kind, name = self._whom(body.person or "", body.group or "")
        share = Share(grantee_kind=kind, grantee=name, access="read")
        self._answer(
            await sharing.give(self.portal, self.person, "dataset", found.id, share, address=self.address)
        )

    async def delete(self, owner: str, slug: str) -> None:
        found = await self.owned(owner, slug)
        kind, name = self._whom(self.query("person"), self.query("group"))
        self._answer(
            await sharing.withdraw(
                self.portal, self.person, "dataset", found.id, kind, name, address=self.address
            )
        )

    @staticmethod
    def _whom(person: str, group: str) -> tuple[Any, str]:
        if bool(person) == bool(group):
            raise UserError(400, mark("Say with whom it is shared: a person's or a group's name."))
        return ("person", person) if person else ("group", group)

    def _answer(self, found: Any) -> None:
        self.write_json(ListOf[ShareModel](items=list(sharing.share_models(found))))


class CoverOf(DatasetHandler, either.CoverOf):
    """``…/cover``."""


class Owner(DatasetHandler, either.Owner):
    """``…/owner``."""


class TakenDown(DatasetHandler, either.TakenDown):
    """``…/taken-down``."""


class Bin(either.Bin):
    """``/bin/datasets``."""

    kind = "dataset"


class InBin(DatasetHandler):
    async def post(self, dataset_id: str) -> None:
        self.answer(await datasets.restore(self.portal, self.person, dataset_id, address=self.address))

    async def delete(self, dataset_id: str) -> None:
        await datasets.delete_for_ever(self.portal, self.person, dataset_id, address=self.address)
        self.set_status(204)


class Linking(Handler):
    """What the addresses of a project's data sets share."""

    async def answer(self, project: Any, status: int = 200) -> None:
        items = await datasets.linked(self.portal, self.person, project)
        self.write_json(ListOf[models.LinkedDataset](items=items), status)


class OfProject(Linking):
    """The data sets of a project."""

    async def get(self, owner: str, slug: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug, least=Access.READ)
        await self.answer(project)

    async def post(self, owner: str, slug: str) -> None:
        body = self.body(models.AddDataset)
        project = await project_for(self.portal, self.person, owner, slug, least=Access.WRITE)
        await datasets.add_to(self.portal, self.person, project, body)
        await self.answer(project, 201)


class LinkOf(Linking):
    """One of them."""

    async def patch(self, owner: str, slug: str, dataset_id: str) -> None:
        body = self.body(models.LinkChange)
        project = await project_for(self.portal, self.person, owner, slug, least=Access.WRITE)
        await datasets.change_link(self.portal, self.person, project, dataset_id, body)
        await self.answer(project)

    async def delete(self, owner: str, slug: str, dataset_id: str) -> None:
        project = await project_for(self.portal, self.person, owner, slug, least=Access.WRITE)
        await datasets.remove_from(self.portal, self.person, project, dataset_id)
        self.set_status(204)


_LINKS: dict[int, Any] = {200: ListOf[models.LinkedDataset]}
_SHARES: dict[int, Any] = {200: ListOf[ShareModel]}
_WHOM = {"person": "With whom; this or group.", "group": "With which group."}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/datasets",
        summary="Find data sets",
        query={
            "scope": "mine (default), shared, public, favourites, all that one may see, everything (with the right).",
            "q": "Words that must all be found in name, address, owner, tags or descriptions.",
            "field": "Exactly this field.",
            "tag": "Exactly this tag.",
            "author": "Of this person.",
            "sort": "recent (default), new, name, views, uses or favourites.",
            **PAGED,
        },
        answers={200: ListOf[Card]},
    ),
    Operation(
        method="post",
        path="/datasets",
        summary="Make a data set, private and empty",
        takes=models.NewDataset,
        answers={201: models.Dataset},
    ),
    Operation(method="get", path=DATASET, summary="Look at a data set", answers={200: models.Dataset}),
    Operation(
        method="patch",
        path=DATASET,
        summary="Change a data set's name, texts or mount directory; projects that have it keep theirs",
        takes=models.DatasetChange,
        answers={200: models.Dataset},
    ),
    Operation(
        method="delete",
        path=DATASET,
        summary="Put a data set into the bin for 30 days; refused while others use it",
        answers={204: None},
    ),
    Operation(
        method="get",
        path=DATASET + "/used-by",
        summary="List the projects that use a data set, and count those that one may not see",
        answers={200: models.UsedByAll},
    ),
    Operation(
        method="get",
        path=DATASET + "/versions",
        summary="List the versions of a data set that one may see, the newest first",
        answers={200: ListOf[models.Dataset]},
    ),
    Operation(
        method="post",
        path=DATASET + "/versions",
        summary="Make a version: the files as they are now, which never change; it is whole when “busy” is empty",
        answers={202: models.Dataset},
    ),
    Operation(
        method="get",
        path=DATASET + "/publication",
        summary="Tell what everybody would see of a data set",
        answers={200: models.DatasetPublication},
    ),
    Operation(
        method="put",
        path=DATASET + "/publication",
        summary="Publish a data set: for ever",
        answers={204: None},
    ),
    Operation(
        method="get", path=DATASET + "/shares", summary="List with whom a data set is shared", answers=_SHARES
    ),
    Operation(
        method="put",
        path=DATASET + "/shares",
        summary="Let a person or a group read a data set",
        takes=models.GiveRead,
        answers=_SHARES,
    ),
    Operation(
        method="delete",
        path=DATASET + "/shares",
        summary="Withdraw a share; runs that have the data set are released after ten minutes",
        query=_WHOM,
        answers=_SHARES,
    ),
    Operation(
        method="put",
        path=DATASET + "/cover",
        summary="Give a data set a cover: a PNG or JPEG of 280 × 157 pixels, or twice that",
        raw_body=True,
        answers={200: Cover},
    ),
    Operation(
        method="delete", path=DATASET + "/cover", summary="Take a data set's cover away", answers={204: None}
    ),
    Operation(
        method="put",
        path=DATASET + "/owner",
        summary="Give a data set to somebody else (with the right)",
        takes=NewOwner,
        answers={200: models.Dataset},
    ),
    Operation(
        method="put",
        path=DATASET + "/taken-down",
        summary="Hide a data set from everybody but its owner (with the right)",
        takes=TakeDown,
        answers={204: None},
    ),
    Operation(
        method="delete",
        path=DATASET + "/taken-down",
        summary="Show a data set again that was taken down (with the right)",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/bin/datasets",
        summary="List one's deleted data sets; each is kept for 30 days",
        answers={200: ListOf[Binned]},
    ),
    Operation(
        method="post",
        path="/bin/datasets/{id}",
        summary="Take a data set out of the bin",
        answers={200: models.Dataset},
    ),
    Operation(
        method="delete",
        path="/bin/datasets/{id}",
        summary="Delete a data set in the bin for ever",
        answers={204: None},
    ),
    Operation(
        method="get", path=PROJECT + "/datasets", summary="List the data sets of a project", answers=_LINKS
    ),
    Operation(
        method="post",
        path=PROJECT + "/datasets",
        summary="Take a data set into a project; 409 mount-taken offers a free directory in “errors”",
        takes=models.AddDataset,
        answers={201: ListOf[models.LinkedDataset]},
    ),
    Operation(
        method="patch",
        path=PROJECT + "/datasets/{id}",
        summary="Give a project's data set another directory or version, or let its owner's runs write it",
        takes=models.LinkChange,
        answers=_LINKS,
    ),
    Operation(
        method="delete",
        path=PROJECT + "/datasets/{id}",
        summary="Take a data set out of a project",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    dataset = r"/api/v1/datasets/([^/]+)/([^/]+)"
    project = r"/api/v1/projects/([^/]+)/([^/]+)"
    return [
        (r"/api/v1/datasets", Datasets),
        (dataset, Dataset),
        (dataset + r"/used-by", UsedBy),
        (dataset + r"/versions", Versions),
        (dataset + r"/publication", PublicationOf),
        (dataset + r"/shares", Shares),
        (dataset + r"/cover", CoverOf),
        (dataset + r"/owner", Owner),
        (dataset + r"/taken-down", TakenDown),
        (r"/api/v1/bin/datasets", Bin),
        (r"/api/v1/bin/datasets/([^/]+)", InBin),
        (project + r"/datasets", OfProject),
        (project + r"/datasets/([^/]+)", LinkOf),
    ]
