"""Administration → Volumes: what is there, what is free, who keeps how much; register, close, drain, delete (CG-37).

Everything is changed by the API. A volume that is away is said so, and the page waits for none longer than for
a few seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, literal, select, union_all

from galilean.errors import mark
from galilean.web import language
from galilean.web.handlers import PageHandler
from services.catalog import volume_store
from services.catalog.tables import datasets, projects
from services.portal.api import volumes as calls
from services.portal.pages.project_frame import said

KEEPERS_SHOWN = 20
HOLDS = {
    "both": mark("Projects and data sets"),
    "projects": mark("Projects only"),
    "datasets": mark("Data sets only"),
}
_WORDS = (mark("Saved"),)


def words() -> dict[str, str]:
    """The sentences of this page's script, in the language of the request."""
    return {english: language.translate(english) for english in _WORDS}


def keepers(conn: Connection, most: int = KEEPERS_SHOWN) -> list[Any]:
    """Who keeps most, as last counted, what lies in bins included: owner, projects, datasets, total (bytes)."""
    parts = [
        select(
            table.c.owner,
            func.coalesce(table.c.size_bytes, 0).label("size"),
            literal(kind).label("kind"),
        ).where(table.c.purged_at.is_(None))
        for kind, table in (("project", projects), ("dataset", datasets))
    ]
    all_of = union_all(*parts).subquery()
    total = func.sum(all_of.c.size)
    of_sets = func.sum(all_of.c.size).filter(all_of.c.kind == "dataset")
    return list(
        conn.execute(
            select(
                all_of.c.owner,
                func.coalesce(of_sets, 0).label("datasets"),
                total.label("total"),
                func.count().label("things"),
            )
            .group_by(all_of.c.owner)
            .order_by(total.desc(), all_of.c.owner)
            .limit(most)
        )
    )


class Volumes(PageHandler):
    """The page; for htmx the table alone."""

    right = calls.RIGHT

    async def get(self) -> None:
        values = {
            "volumes": await calls.all_volumes(self.portal),
            "holds": HOLDS,
            "said": said,
            "words": words,
            "kind": "claim" if self.portal.settings.backend == "kubernetes" else "directory",
            "place": f"{self.portal.prefix}admin/volumes",
            "api": f"{self.portal.prefix}api/v1/volumes",
        }
        if self.is_fragment:
            await self.render_fragment("admin_volumes_table.html", **values)
            return
        kept = await self.portal.db.run_read(keepers)
        await self.render_page("admin_volumes.html", **values, keepers=kept)


class Look(PageHandler):
    """Whether a volume is mounted on every machine: the question, and what was seen."""

    right = calls.RIGHT

    async def get(self, volume_id: str) -> None:
        volume = await self.portal.db.run_read(volume_store.get, volume_id)
        place = f"{self.portal.prefix}admin/volumes"
        await self.render_fragment("admin_volumes_look.html", volume=volume, place=place)

    async def post(self, volume_id: str) -> None:
        await self.render_fragment("admin_volumes_seen.html", seen=await calls.look(self.portal, volume_id))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/volumes", Volumes), (r"/admin/volumes/([^/]+)/look", Look)]


ROUTES = routes()
