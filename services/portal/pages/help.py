"""The documentation, inside the product."""

from __future__ import annotations

from typing import Any

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal.library import PART_WORDS, PARTS, first_page, library, rendered, topic_of


class Help(PageHandler):
    """A page, with the menu of all."""

    async def get(self, name: str = "") -> None:
        prefix = self.portal.prefix + "help/"
        found = rendered(name or first_page(admin=self.person.admin), self.language, prefix)
        if found is None:
            raise UserError(404, mark("There is no such page in the help."))
        shelf, names = library(), library().names()
        menu = {
            part: [(one, shelf.title(one, self.language)) for one in names if one.startswith(part + "/")]
            for part in PARTS
        }
        await self.render_page(
            "help.html",
            found=found,
            menu=menu,
            part_words={part: self.translate(word) for part, word in PART_WORDS.items()},
            help_prefix=prefix,
        )


class Picture(PageHandler):
    """A picture of the documentation."""

    async def get(self, name: str) -> None:
        content = library().picture(name)
        if content is None:
            raise UserError(404, mark("There is no such page in the help."))
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(content)


async def extras(handler: PageHandler) -> dict[str, Any]:
    """Variables of ``page.html``: where the page's help opens, and where all of it does."""
    path = handler.request.path.removeprefix(handler.portal.prefix)
    root = f"{handler.portal.prefix}help"
    return {"help_page": f"{root}/{topic_of(path)}", "help_root": root}


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/help/?", Help),
        (r"/help/pictures/([a-z0-9-]+\.png)", Picture),
        (r"/help/([a-z0-9-]+/[a-z0-9-]+)", Help),
    ]
