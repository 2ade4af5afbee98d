"""Administration → Online: every cluster that is held now, live, and releasing one or many (CG-27, CG-47).

The address says what is shown: search, filters, order, so that a view can be sent as a link. Filtering and
ordering are pure functions over the open runs, of which there are hundreds, not millions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal.api.clusters import cluster_for, release_cluster
from services.portal.machines import park_of
from services.portal.pages.table_view import TableView
from spawner import records
from spawner.records import Run

SORTS = ("held", "person", "project", "pool", "nodes", "cores", "memory", "gpu")
HELD = {"1h": timedelta(hours=1), "2h": timedelta(hours=2), "8h": timedelta(hours=8), "1d": timedelta(days=1)}
WORDS = ("running", "starting", "waiting", "releasing")
PAGE_SIZE = 50


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """Whoever holds longest first, until asked otherwise."""

    word: str = ""
    held: str = ""
    policy: str = ""
    sort: str = "held"
    descending: bool = True

    sorts = SORTS
    words_in = ("person", "project", "pool")

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        word, held = query.get("state", ""), query.get("held", "")
        return {
            "word": word if word in WORDS else "",
            "held": held if held in HELD else "",
            "policy": query.get("policy", "")[:32],
        }

    def filters(self) -> dict[str, str]:
        return {"state": self.word, "held": self.held, "policy": self.policy}


def fits(run: Run, view: View, now: datetime) -> bool:
    """Whether a run is in a view."""
    if view.text:
        haystack = f"{run.user}\n{run.project_name}\n{run.project_slug}".casefold()
        if not all(word in haystack for word in view.text.casefold().split()):
            return False
    if view.pool and run.pool != view.pool:
        return False
    if view.word and run.word != view.word:
        return False
    if view.policy and run.release_policy != view.policy:
        return False
    return not view.held or (run.ready_at is not None and now - run.ready_at > HELD[view.held])


def arrange(runs: Iterable[Run], view: View, now: datetime) -> list[Run]:
    """The runs of a view, in its order; equals by id, so that a live table does not dance."""
    keys: dict[str, Any] = {
        "held": lambda run: (now - run.ready_at).total_seconds() if run.ready_at else -1.0,
        "person": lambda run: run.user.casefold(),
        "project": lambda run: run.project_name.casefold(),
        "pool": lambda run: run.pool,
        "nodes": lambda run: run.nodes,
        "cores": lambda run: run.together("cpu_millicores"),
        "memory": lambda run: run.together("memory_bytes"),
        "gpu": lambda run: run.together("gpu"),
    }
    found = sorted((run for run in runs if fits(run, view, now)), key=lambda run: run.id)
    return sorted(found, key=keys[view.sort], reverse=view.descending)


def sums(runs: Sequence[Run]) -> dict[str, int]:
    """What runs hold together."""
    return {
        "clusters": len(runs),
        "nodes": sum(run.nodes for run in runs),
        "cpu_millicores": sum(run.together("cpu_millicores") for run in runs),
        "memory_bytes": sum(run.together("memory_bytes") for run in runs),
        "gpu": sum(run.together("gpu") for run in runs),
        "people": len({run.user for run in runs}),
    }


class Online(PageHandler):
    """The page; for htmx the table alone."""

    right = "clusters:read-all"

    async def get(self) -> None:
        view = View.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})
        now = self.portal.clock()
        runs = await self.portal.db.run_read(records.all_open)
        shown = arrange(runs, view, now)
        values = {
            "view": view,
            "address": f"{self.portal.prefix}admin/online",
            "all_sums": sums(runs),
            "whole": (await park_of(self.portal)).whole,
            "shown_sums": sums(shown),
            "running": sum(run.word == "running" for run in runs),
            "waiting": [run for run in runs if run.word == "waiting"],
            "rows": shown[view.offset : view.offset + PAGE_SIZE],
            "page_size": PAGE_SIZE,
            "pools": sorted({run.pool for run in runs}),
            "pool_titles": {name: pool.title or name for name, pool in self.portal.settings.pools.items()},
            "several_pools": len({run.pool for run in runs} | self.portal.settings.pools.keys()) > 1,
            "policies": sorted({run.release_policy for run in runs}),
            "held_choices": list(HELD),
            "words": WORDS,
            "grace_seconds": self.portal.settings.release.grace_seconds,
            "unisolated": self.portal.settings.backend == "process",
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_online_table.html", **values)
        else:
            await self.render_page("admin_online.html", **values)


class ReleaseMany(PageHandler):
    """The second step of a forced release, and the release; the reason is told to the people."""

    right = "clusters:release-all"

    async def get(self) -> None:
        await self.render_fragment(
            "admin_release_dialog.html", **await self._chosen(self.get_query_arguments("run"))
        )

    async def post(self) -> None:
        chosen = (await self._chosen(self.get_body_arguments("run")))["runs"]
        why = self.get_body_argument("why", "").strip()[:300]
        watcher = self.portal.parts["watcher"]
        failed = 0
        for run in chosen:
            try:
                await release_cluster(
                    self.portal,
                    self.person,
                    self.hub_as_visitor(),
                    await cluster_for(self.portal, self.person, run.id),
                    why=why,
                    address=self.address,
                )
            except UserError:
                failed += 1
            watcher.tell(run.user, "clusters")
        watcher.tell(self.person.name, "online")
        if failed:
            raise UserError(
                502,
                mark("{failed} of {n} could not be released just now. Try again."),
                failed=failed,
                n=len(chosen),
            )
        text = self.translate(mark("{n} clusters go back. Their people are told why.")).format(n=len(chosen))
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:online": {}}
        )

    async def _chosen(self, ids: list[str]) -> dict[str, Any]:
        wanted = set(ids[:1000])
        runs = [run for run in await self.portal.db.run_read(records.all_open) if run.id in wanted]
        if not runs:
            raise UserError(409, mark("None of these clusters is held any more."))
        return {"runs": runs, "together": sums(runs)}


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/online", Online), (r"/admin/online/release", ReleaseMany)]
