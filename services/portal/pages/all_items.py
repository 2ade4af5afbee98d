"""Administration → All projects, All data sets, Environments: everybody's, with search and filters, and acts on many at once.

One page for projects and data sets, one way of acting for all three; what is done with one of them is the API's own act. What cannot be done with one is told and keeps nobody else's from being
done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.catalog.access import Kind
from services.catalog.fields import FIELDS
from services.catalog.search import COUNT_MOST, Wanted
from services.portal.api import either
from services.portal.api.gallery import find, item_path
from services.portal.pages.project_frame import said

SHOWN = 50
MOST_AT_ONCE = 200


class AllOfAKind(PageHandler):
    """What both handlers know of their kind.

    Attributes
    ----------
    kind
        Projects or data sets; its plural is the page's place, its events' and its templates' name.
    sorts
        What the list can be sorted by, with what people read.
    """

    kind: Kind
    sorts: Mapping[str, str]

    @staticmethod
    def by_id(conn: Connection, item_id: str) -> Any:
        """One that lives; ``None`` when it does not."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """The page's address."""
        return f"{self.portal.prefix}admin/{self.kind}s"


class AllItems(AllOfAKind):
    """The list; for htmx the table alone."""

    async def get(self) -> None:
        def word(name: str, most: int = 255) -> str:
            return self.get_query_argument(name, "").strip()[:most]

        chosen = {
            "q": word("q", 200),
            "author": word("author"),
            "field": word("field", 64),
            "sort": word("sort", 20),
        }
        if chosen["sort"] not in self.sorts:
            chosen["sort"] = "recent"
        shown = await find(
            self.portal,
            self.person,
            Wanted(
                kind=self.kind,
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
        place = self.place

        def address(**changes: Any) -> str:
            query = urlencode({key: value for key, value in {**chosen, **changes}.items() if value})
            return f"{place}?{query}" if query else place

        ids = [card.item_id for card in shown.cards]
        values = {
            "place": place,
            "address": address,
            "chosen": chosen,
            "shown": shown,
            "rows": await self.portal.db.run_read(lambda conn: {one: self.by_id(conn, one) for one in ids}),
            "cursor": word("cursor", 400),
            "most": COUNT_MOST,
            "sorts": self.sorts,
            "fields": FIELDS,
            "item_path": item_path,
            "said": said,
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment(f"admin_{self.kind}s_table.html", **values)
        else:
            await self.render_page(f"admin_{self.kind}s.html", **values)


class ActOnChosen(PageHandler):
    """The second step of what is done with those chosen, and the act itself.

    Attributes
    ----------
    kind
        The name of a row's box, of its templates' and events' plural.
    none_chosen
        What is said to whoever chose nothing.
    """

    kind: Any
    none_chosen: str

    @staticmethod
    def by_id(conn: Connection, item_id: str) -> Any:
        """One that lives; ``None`` when it does not."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """The list's address."""
        return f"{self.portal.prefix}admin/{self.kind}s"

    async def act(self, act: str, found: Any) -> None:
        """Do it with one of them."""
        raise NotImplementedError

    def _chosen(self) -> list[str]:
        ids = list(dict.fromkeys(self.get_arguments(self.kind)))[:MOST_AT_ONCE]
        if not ids:
            raise UserError(400, self.none_chosen)
        return ids

    async def get(self, act: str) -> None:
        ids = self._chosen()
        found: Sequence[Any] = await self.portal.db.run_read(
            lambda conn: [item for item in (self.by_id(conn, one) for one in ids) if item is not None]
        )
        await self.render_fragment(
            f"admin_{self.kind}s_dialog.html",
            act=act,
            place=f"{self.place}/{act}",
            public=sum(item.visibility == "public" for item in found),
            **{f"{self.kind}s": found},
        )

    async def post(self, act: str) -> None:
        failed: list[str] = []
        ids = self._chosen()
        for item_id in ids:
            found = await self.portal.db.run_read(self.by_id, item_id)
            if found is None:
                continue
            try:
                await self.act(act, found)
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
                f"galilean:{self.kind}s": {},
            }
        )


class ActOnItems(AllOfAKind, ActOnChosen):
    """What projects and data sets have in common."""

    async def act(self, act: str, found: Any) -> None:
        portal, person, address = self.portal, self.person, self.address
        if act == "take-down":
            reason = self.get_body_argument("reason", "")
            await either.take_down(portal, person, found, reason, address=address)
        elif act == "put-back":
            await either.put_back(portal, person, found, address=address)
        elif act == "owner":
            owner = self.get_body_argument("owner", "").strip()
            if not owner:
                raise UserError(400, mark("Say who the new owner is."))
            await either.change_owner(portal, person, found, owner, address=address)
        else:
            await self.own_act(act, found)

    async def own_act(self, act: str, found: Any) -> None:
        """Do with one of them what only this kind has, or has in a way of its own."""
        raise NotImplementedError
