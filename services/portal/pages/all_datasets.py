"""Administration → All data sets (CG-42): what is done with each of those chosen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from galilean.errors import mark
from services.catalog import datasets as store
from services.catalog.access import Kind
from services.catalog.datasets import Dataset
from services.portal.api import datasets as calls
from services.portal.pages.all_items import ActOnItems, AllItems, AllOfAKind
from services.portal.pages.datasets import SORTS

ACTS = ("take-down", "put-back", "owner", "delete")


class _Datasets(AllOfAKind):
    right = "datasets:manage"
    kind: Kind = "dataset"
    sorts = SORTS

    @staticmethod
    def by_id(conn: Connection, item_id: str) -> Dataset | None:
        return store.by_id(conn, item_id)


class AllDatasets(_Datasets, AllItems):
    """The list."""


class ActOnDatasets(_Datasets, ActOnItems):
    """Many at once."""

    none_chosen = mark("Choose at least one data set.")

    async def own_act(self, act: str, found: Dataset) -> None:
        await calls.delete(self.portal, self.person, found, address=self.address)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/datasets", AllDatasets), (rf"/admin/datasets/({'|'.join(ACTS)})", ActOnDatasets)]


ROUTES = routes()
