"""Object stores: the list, and one that is added, changed, tested, deleted. What is copied is begun at the files."""

from __future__ import annotations

from typing import Any

from galilean.errors import mark
from services.portal import object_stores as ours
from services.portal.pages.roles import AdminPage

ADDRESSINGS = (
    ("auto", mark("as the address says")),
    ("path", mark("the path")),
    ("virtual", mark("the name of the host")),
)
EVENT = "galilean:object-stores"


class Page(AdminPage):
    """What the handlers share."""

    def word_of(self, name: str, most: int) -> str:
        return self.get_body_argument(name, "").strip()[:most]

    async def show(self) -> None:
        portal, person = self.portal, self.person
        found = await ours.stores(portal, person)
        who = ours.viewer(person)
        await self.answer(
            "object_stores.html",
            "object_stores_list.html",
            stores=found,
            may_change={one.id: one.may_change(who) for one in found},
            may_keep=ours.may_keep(portal, person),
            manages=who.manages,
            addressings=ADDRESSINGS,
            here=f"{portal.prefix}object-stores",
            event=EVENT,
        )

    async def keep(self, store_id: str = "") -> None:
        addressing = self.word_of("addressing", 8)
        made = await ours.keep(
            self.portal,
            self.person,
            store_id=store_id,
            centre=self.word_of("centre", 3) == "on",
            name=self.word_of("name", 200),
            place={
                "endpoint": self.word_of("endpoint", 300),
                "bucket": self.word_of("bucket", 80),
                "prefix": self.word_of("prefix", 512),
                "region": self.word_of("region", 64),
                "addressing": addressing if addressing in ("path", "virtual") else "auto",
            },
            access_key_id=self.word_of("access_key_id", 300),
            secret=self.word_of("secret_key", 300),
            writable=self.word_of("writable", 3) == "on",
            address=self.address,
        )
        self.done(mark("{name} is kept."), EVENT, name=made.name)


class ObjectStores(Page):
    async def get(self) -> None:
        await self.show()

    async def post(self) -> None:
        await self.keep()


class OneObjectStore(Page):
    async def get(self, _: str) -> None:  # its page is the list
        self.redirect(f"{self.portal.prefix}object-stores")

    async def post(self, store_id: str) -> None:
        await self.keep(store_id)

    async def delete(self, store_id: str) -> None:
        await ours.forget(self.portal, self.person, store_id, address=self.address)
        self.done(
            mark("Its key is forgotten here, and copies under way end. What lies in the bucket stays."), EVENT
        )


class Test(Page):
    """Whether a store answers."""

    async def post(self, store_id: str) -> None:
        store, _ = await ours.browse(
            self.portal, self.person, store_id, prefix="", begins="", limit=1, cursor=None
        )
        self.done(mark("{name} answers."), "galilean:none", name=store.name)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/object-stores", ObjectStores),
        (r"/object-stores/([0-9A-Z]{26})", OneObjectStore),
        (r"/object-stores/([0-9A-Z]{26})/test", Test),
    ]
