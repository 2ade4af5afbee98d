"""Administration → Export and import: projects as an archive, out of this site and into it (CG-41)."""

from __future__ import annotations

from typing import Any

from galilean.web.handlers import PageHandler
from services.catalog import store
from services.catalog.archives.planning import ACTIONS, Choice
from services.catalog.shares import Actor
from services.portal import archives
from services.portal.addresses import project_path
from services.portal.archives import RIGHT, Job

LISTED = 50


class Archives(PageHandler):
    """Choose what goes out; bring in what comes."""

    right = RIGHT

    async def get(self) -> None:
        query = self.get_query_argument("q", "").strip()[:200]
        found, following = await self.portal.db.run_read(
            lambda conn: store.list_for(
                conn, None, query=query, limit=LISTED, cursor=self.get_query_argument("cursor", "") or None
            )
        )
        values: dict[str, Any] = {
            "address": f"{self.portal.prefix}admin/archives",
            "found": [project for project in found if not project.busy],
            "following": following,
            "query": query,
            "project_url": lambda one: self.portal.prefix + project_path(one.owner, one.slug),
            "jobs": archives.imports(self.portal).all(),
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_archives_list.html", **values)
        else:
            await self.render_page("admin_archives.html", **values)


class Export(PageHandler):
    """The archive of what was chosen."""

    right = RIGHT
    long = True

    async def post(self) -> None:
        await archives.export(self, self.get_body_arguments("project"))


class Import(PageHandler):
    """One archive that came in: what is in it, what is in the way, how far it is."""

    right = RIGHT

    async def get(self, job_id: str) -> None:
        await self.show(archives.imports(self.portal).get(job_id))

    async def show(self, job: Job) -> None:
        """The page, or for htmx its part that changes."""
        outcomes = {one.number: one for one in job.outcomes}
        values: dict[str, Any] = {
            "address": f"{self.portal.prefix}admin/archives/{job.id}",
            "back": f"{self.portal.prefix}admin/archives",
            "job": job,
            "outcomes": outcomes,
            "project_url": lambda owner, slug: self.portal.prefix + project_path(owner, slug),
            "said": lambda one: self.translate(one.message).format(**one.params),
            "told": lambda error: error.text(self.translate),
            "any_public": any(one.seen.meta.visibility == "public" for one in job.planned),
        }
        if self.is_fragment:
            await self.render_fragment("admin_archive_body.html", **values)
        else:
            await self.render_page("admin_archive.html", **values)

    def choices(self, job: Job) -> dict[int, Choice]:
        """What the form says of each project."""
        found: dict[int, Choice] = {}
        for one in job.planned:
            number = one.seen.number
            action = self.get_body_argument(f"action-{number}", "skip")
            owner = self.get_body_argument(f"owner-{number}", one.choice.owner).strip()[:255]
            known = action if action in ACTIONS else "skip"
            found[number] = Choice(action=known, owner=owner)  # type: ignore[arg-type]
        return found

    async def post(self, job_id: str) -> None:
        kept = archives.imports(self.portal)
        job = kept.get(job_id)
        choices = self.choices(job)
        if self.get_body_argument("do", "") == "look":
            await kept.plan(job, choices)
        else:
            publish = bool(self.get_body_argument("publish", ""))
            actor = Actor(name=self.person.name, address=self.address)
            await kept.begin(job, choices, publish=publish, actor=actor)
        await self.show(job)

    async def delete(self, job_id: str) -> None:
        kept = archives.imports(self.portal)
        job = kept.get(job_id)
        ended = job.state == "importing"
        await kept.give_up(job, actor=Actor(name=self.person.name, address=self.address))
        if ended:
            await self.show(job)
        else:
            self.set_header("HX-Redirect", f"{self.portal.prefix}admin/archives")
            self.finish("")


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/archives", Archives),
        (r"/admin/archives/export", Export),
        (r"/admin/archives/([0-9A-Z]{26})", Import),
    ]
