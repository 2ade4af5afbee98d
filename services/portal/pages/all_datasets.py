"""Administration → Data sets: everybody's, with search and filters; taken down, given away, deleted, many at once.

Each act is the one that the API has, one by one: what cannot be done with one is told and keeps nobody else's
from being done (CG-42).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.catalog import datasets as store
from services.catalog.datasets import Dataset
from services.catalog.fields import FIELDS
from services.catalog.search import COUNT_MOST, Wanted
from services.portal.api import datasets as calls
from services.portal.api.gallery import find, item_path
from services.portal.pages.datasets import SORTS
from services.portal.pages.project_frame import said

SHOWN = 50
MOST_AT_ONCE = 200
ACTS = ("take-down", "put-back", "owner", "delete")


class AllDatasets(PageHandler):
    """The list; for htmx the table alone."""

    right = "datasets:manage"

    async def get(self) -> None:
        def word(name: str, most: int = 255) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "author": word("author"),
            "field": word("field", 64),
            "sort": word("sort", 20),
        }
        if chosen["sort"] not in SORTS:
            chosen["sort"] = "recent"
        shown = await find(
            self.portal,
            self.person,
            Wanted(
                kind="dataset",
                text=chosen["q"],
                author=chosen["author"],
                field=chosen["field"],
                sort=chosen["sort"],  # type: ignore[arg-type]  # one of those above
            ),
            scope="everything",
            limit=SHOWN,
            cursor=word("cursor", 400) or None,
            counted=True,
        )
        place = f"{self.portal.prefix}admin/datasets"

        def address(**changes: Any) -> str:
            query = urlencode({key: value for key, value in {**chosen, **changes}.items() if value})
            return f"{place}?{query}" if query else place

        ids = [card.item_id for card in shown.cards]
        rows = await self.portal.db.run_read(
            lambda conn: {dataset_id: store.by_id(conn, dataset_id) for dataset_id in ids}
        )
        values = {
            "place": place,
            "address": address,
            "chosen": chosen,
            "shown": shown,
            "rows": rows,
            "cursor": word("cursor", 400),
            "most": COUNT_MOST,
            "sorts": SORTS,
            "fields": FIELDS,
            "item_path": item_path,
            "said": said,
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_datasets_table.html", **values)
        else:
            await self.render_page("admin_datasets.html", **values)


class ActOnDatasets(PageHandler):
    """The second step of what is done with those chosen, and the act itself."""

    right = "datasets:manage"

    def _chosen(self) -> list[str]:
        ids = list(dict.fromkeys(self.get_arguments("dataset")))[:MOST_AT_ONCE]
        if not ids:
            raise UserError(400, mark("Choose at least one data set."))
        return ids

    async def get(self, act: str) -> None:
        ids = self._chosen()
        found = await self.portal.db.run_read(lambda conn: [store.by_id(conn, one) for one in ids])
        await self.render_fragment(
            "admin_datasets_dialog.html",
            act=act,
            datasets=[one for one in found if one is not None],
            place=f"{self.portal.prefix}admin/datasets/{act}",
        )

    async def post(self, act: str) -> None:
        failed: list[str] = []
        ids = self._chosen()
        for dataset_id in ids:
            found = await self.portal.db.run_read(store.by_id, dataset_id)
            if found is None:
                continue
            try:
                await self._act(act, found)
            except UserError as error:
                if error.status == 400 and act in ("take-down", "owner"):
                    raise  # it is the same for all of them
                failed.append(error.text(self.translate))
        text = self.translate(mark("{count} done.")).format(count=len(ids) - len(failed))
        if failed:
            text += " " + self.translate(mark("{count} not: {why}")).format(count=len(failed), why=failed[0])
        self.answer_events(
            {
                "galilean:toast": {"text": text, "tone": "bad" if failed else "ok"},
                "galilean:close-dialog": {},
                "galilean:datasets": {},
            }
        )

    async def _act(self, act: str, found: Dataset) -> None:
        portal, person, address = self.portal, self.person, self.address
        if act == "take-down":
            await calls.take_down(
                portal, person, found, self.get_body_argument("reason", ""), address=address
            )
        elif act == "put-back":
            await calls.put_back(portal, person, found, address=address)
        elif act == "owner":
            owner = self.get_body_argument("owner", "").strip()
            if not owner:
                raise UserError(400, mark("Say who the new owner is."))
            await calls.change_owner(portal, person, found, owner, address=address)
        else:
            await calls.delete(portal, person, found, address=address)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/datasets", AllDatasets), (rf"/admin/datasets/({'|'.join(ACTS)})", ActOnDatasets)]


ROUTES = routes()
