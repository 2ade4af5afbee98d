"""The home page, announcements and links by the API (CG-43, SC-21)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from galilean import messages
from galilean.messages import Announcement, HomePage, Messages
from galilean.web.problems import BodyError
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.pages.welcome import said_of


class Links(models.Incoming):
    """Message of the day and links; what is left out stays."""

    today: str | None = None
    today_zh: str | None = None
    help_url: str | None = None
    ticket_url: str | None = None


class Shown(models.Outgoing):
    """What everybody is told now."""

    announcements: list[Announcement]
    today: str
    help_url: str
    ticket_url: str


class Announced(Handler):
    """What is told now, in the visitor's language where it was written in it."""

    async def get(self) -> None:
        said = (await said_of(self.portal).get()).messages
        self.write_json(
            Shown(
                announcements=[
                    one.model_copy(update={"text": one.said(self.language), "text_zh": ""})
                    for one in said.now(self.portal.clock())
                ],
                today=said.today_in(self.language),
                help_url=said.help_url or self.portal.settings.site.help_url,
                ticket_url=said.ticket_url,
            )
        )


class Changing(Handler):
    """What administrators of the site change."""

    right = "site:manage"

    @property
    def by(self) -> Mapping[str, Any]:
        """Who changes something, when and from where."""
        return {"actor": self.person.name, "now": self.portal.clock(), "address": self.address}

    async def change(self, change: Any) -> Messages:
        """Change the messages, whatever others change meanwhile."""
        changed: Messages = await self.portal.db.run(messages.change_messages, change, **self.by)
        said_of(self.portal).forget()
        return changed

    async def kept(self) -> messages.Said:
        """As it stands in the database."""
        return await self.portal.db.run_read(messages.read)


class Home(Changing):
    async def get(self) -> None:
        self.write_json((await self.kept()).home)

    async def put(self) -> None:
        home = self.body(HomePage)
        await self.portal.db.run(messages.set_home, home, **self.by)
        said_of(self.portal).forget()
        self.write_json(home)

    async def delete(self) -> None:
        await self.portal.db.run(messages.set_home, HomePage(), **self.by)
        said_of(self.portal).forget()
        self.set_status(204)


class AllMessages(Changing):
    async def get(self) -> None:
        self.write_json((await self.kept()).messages)

    async def patch(self) -> None:
        sent = self.body(Links).model_dump(exclude_none=True)
        try:
            checked = Messages.model_validate(sent)
        except ValidationError as error:
            raise BodyError(error) from error
        values = {name: getattr(checked, name) for name in sent}
        self.write_json(await self.change(lambda _old: values))


class Announcements(Changing):
    async def post(self) -> None:
        one = self.body(Announcement).model_copy(update={"id": ""})
        changed = await self.change(lambda old: messages.with_announcement(old, one))
        self.write_json(changed.announcements[0], 201)


class OneAnnouncement(Changing):
    async def put(self, announcement_id: str) -> None:
        one = self.body(Announcement).model_copy(update={"id": announcement_id})
        await self.change(lambda old: messages.with_announcement(old, one))
        self.write_json(one)

    async def delete(self, announcement_id: str) -> None:
        await self.change(lambda old: messages.without_announcement(old, announcement_id))
        self.set_status(204)


OPERATIONS = (
    Operation(
        method="get", path="/announcements", summary="What everybody is told now", answers={200: Shown}
    ),
    Operation(
        method="get", path="/site/home", summary="The home page as it was written", answers={200: HomePage}
    ),
    Operation(
        method="put",
        path="/site/home",
        summary="Write the home page",
        takes=HomePage,
        answers={200: HomePage},
    ),
    Operation(
        method="delete",
        path="/site/home",
        summary="Go back to the product’s own home page",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/site/messages",
        summary="Announcements and links, all of them",
        answers={200: Messages},
    ),
    Operation(
        method="patch",
        path="/site/messages",
        summary="Change the message of the day or links",
        takes=Links,
        answers={200: Messages},
    ),
    Operation(
        method="post",
        path="/site/announcements",
        summary="Announce something",
        takes=Announcement,
        answers={201: Announcement},
    ),
    Operation(
        method="put",
        path="/site/announcements/{id}",
        summary="Change an announcement",
        takes=Announcement,
        answers={200: Announcement},
    ),
    Operation(
        method="delete",
        path="/site/announcements/{id}",
        summary="Take an announcement away",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/api/v1/announcements", Announced),
        (r"/api/v1/site/home", Home),
        (r"/api/v1/site/messages", AllMessages),
        (r"/api/v1/site/announcements", Announcements),
        (r"/api/v1/site/announcements/([0-9A-Z]{26})", OneAnnouncement),
    ]
