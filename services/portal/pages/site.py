"""Administration → Home page and messages (CG-43, SC-21)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from galilean import messages
from galilean.errors import UserError, mark
from galilean.messages import Announcement, HomePage, Messages
from galilean.web.handlers import PageHandler
from galilean.web.problems import BodyError
from services.portal.pages.welcome import said_of, write_frame

PARTS = ("title", "body", "footer", "css", "script")


class Site(PageHandler):
    """The page."""

    right = "site:manage"

    async def get(self) -> None:
        await self.render_page("admin_site.html", **await self.values())

    async def values(self) -> dict[str, Any]:
        """What the page and its parts show."""
        said = await self.portal.db.run_read(messages.read)
        now = self.portal.clock()
        return {
            "home": said.home,
            "own": any(said.home.parts),
            "said": said.messages,
            "sorted_announcements": sorted(
                said.messages.announcements, key=lambda one: (self.state_of(one, now) != "now", one.id)
            ),
            "state_of": lambda one: self.state_of(one, now),
            "local": self.local,
            "zone": self.portal.settings.site.timezone,
            "address": self.portal.prefix + "admin/site",
        }

    @staticmethod
    def state_of(one: Announcement, now: datetime) -> str:
        """``now``, ``later`` or ``over``."""
        if one.holds(now):
            return "now"
        return "later" if one.starts_at and one.starts_at > now else "over"

    def local(self, at: datetime | None) -> str:
        """A time as a field of the browser takes it, in the site's zone."""
        return at.astimezone(self.portal.settings.site.zone).strftime("%Y-%m-%dT%H:%M") if at else ""

    def text(self, name: str, *, strip: bool = True) -> str:
        return self.get_body_argument(name, "", strip=strip).replace("\r\n", "\n")

    def moment(self, name: str) -> datetime | None:
        """A time from the browser's field.

        Raises
        ------
        UserError
            400 for what is none.
        """
        value = self.text(name)
        try:
            return (
                datetime.fromisoformat(value).replace(tzinfo=self.portal.settings.site.zone)
                if value
                else None
            )
        except ValueError:
            raise UserError(400, mark("This is no time: {value}."), value=value[:40]) from None

    def home_sent(self) -> HomePage:
        """The home page as the form says it."""
        with_breaks = {name: self.text(name, strip=False) for name in PARTS}
        kept = {name: value if value.strip() else "" for name, value in with_breaks.items()}
        return _checked(lambda: HomePage(**kept, beside_sign_in=bool(self.text("beside_sign_in"))))

    @property
    def by(self) -> Mapping[str, Any]:
        """Who changes something, when and from where."""
        return {"actor": self.person.name, "now": self.portal.clock(), "address": self.address}

    async def answer(self, message: str) -> None:
        """Say that it is done, and show the messages as they are now."""
        said_of(self.portal).forget()
        self.toast(self.translate(message))
        await self.render_fragment("admin_site_messages.html", **await self.values())


class Home(Site):
    """Keep the home page, or go back to the product's own."""

    async def get(self) -> None:
        self.redirect(self.portal.prefix + "admin/site")

    async def post(self) -> None:
        back = self.text("do") == "restore"
        home = HomePage() if back else self.home_sent()
        await self.portal.db.run(messages.set_home, home, **self.by)
        said_of(self.portal).forget()
        self.toast(
            self.translate(
                mark("The product’s own home page is shown again.")
                if back
                else mark("The home page is kept.")
            )
        )
        await self.render_fragment("admin_site_home.html", **await self.values())


class Preview(Site):
    """The document as it would be: it is answered into a frame of the page."""

    async def get(self) -> None:
        self.redirect(self.portal.prefix + "admin/site")

    async def post(self) -> None:
        said = await said_of(self.portal).get()
        write_frame(self, self.home_sent(), said.messages, announce=True)


class Announcements(Site):
    """One more announcement, or one that is another now."""

    async def get(self) -> None:
        self.redirect(self.portal.prefix + "admin/site")

    async def post(self) -> None:
        if self.text("do") == "delete":
            gone = self.text("id")
            await self.change(lambda old: messages.without_announcement(old, gone))
            await self.answer(mark("The announcement is gone."))
            return
        one = _checked(
            lambda: Announcement(
                id=self.text("id"),
                text=self.text("text"),
                text_zh=self.text("text_zh"),
                tone=self.text("tone") or "info",  # type: ignore[arg-type]
                starts_at=self.moment("starts_at"),
                ends_at=self.moment("ends_at"),
                visitors=bool(self.text("visitors")),
            )
        )
        await self.change(lambda old: messages.with_announcement(old, one))
        await self.answer(mark("The announcement is kept."))

    async def change(self, change: Callable[[Messages], Mapping[str, Any]]) -> None:
        """Change the messages, whatever others change meanwhile."""
        await self.portal.db.run(messages.change_messages, change, **self.by)


class Links(Announcements):
    """The message of the day and the links."""

    async def post(self) -> None:
        names = ("today", "today_zh", "help_url", "ticket_url")
        values = {name: self.text(name) for name in names}
        _checked(lambda: Messages.model_validate(values))
        await self.change(lambda _old: values)
        await self.answer(mark("Saved."))


def _checked(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ValidationError as error:
        raise BodyError(error) from error


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/site", Site),
        (r"/admin/site/home", Home),
        (r"/admin/site/preview", Preview),
        (r"/admin/site/announcements", Announcements),
        (r"/admin/site/links", Links),
    ]
