"""Upload a packed image (CG-38): the file, its name, and what it becomes; bytes as they go, paused and gone on with."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from extensions.imagebuilder import entries
from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import image_uploads, saving


def words(translate: Any) -> dict[str, str]:
    """What the page's script says."""
    texts = {
        "Pause": mark("Pause"),
        "Go on": mark("Go on"),
        "Paused": mark("Paused"),
        "{done} of {all}": mark("{done} of {all}"),
        "No connection. Goes on by itself.": mark("No connection. Goes on by itself."),
        "Choose the archive.": mark("Choose the archive."),
        "This browser cannot upload in pieces.": mark("This browser cannot upload in pieces."),
        "The archive has {size}; you may upload {most} at once.": mark(
            "The archive has {size}; you may upload {most} at once."
        ),
    }
    return {key: translate(text) for key, text in texts.items()}


class Upload(PageHandler):
    """The form; for htmx what the name would be."""

    async def get(self) -> None:
        may = image_uploads.may_upload(self.portal, self.person)
        if self.is_fragment:
            if may:
                await self._say_of_name(self.get_query_argument("name", ""))
            else:
                image_uploads.need_upload(self.portal, self.person)
            return
        offered = image_uploads.offered(self.portal)
        into = self.get_query_argument("into", "")[:128]
        changeable = await image_uploads.changeable(self.portal, self.person) if may else []
        chosen = next((one for one in changeable if into in (one.id, one.name)), None)
        await self.render_page(
            "image_upload.html",
            may=may,
            offered=offered,
            most=await image_uploads.most_bytes(self.portal, self.person) if may else 0,
            entries=changeable,
            chosen=chosen,
            slugs={one.id: entries.slug_of(one.name.rpartition("/")[2]) for one in changeable},
            own=saving.name_space(self.person.name),
            words=lambda: words(self.translate),
        )

    async def _say_of_name(self, text: str) -> None:
        name, refusal = None, None
        if text.strip():
            try:
                name = await saving.check_name(self.portal, self.person, text)
            except UserError as error:
                refusal = error
        await self.render_fragment(
            "image_name.html",
            whole=saving.whole_name(self.person, name) if name else "",
            refusal=refusal.text(self.translate) if refusal else "",
        )


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/images/upload", Upload)]
