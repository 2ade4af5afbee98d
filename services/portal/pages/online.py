"""Administration → Online: every cluster that is held now, live, and releasing one or many (CG-27, CG-47).

The address says what is shown: search, filters, order, so that a view can be sent as a link, and the file is
of exactly what is shown. What the rows say stands in :mod:`services.portal.online`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.portal import losses
from services.portal.api.clusters import cluster_for, release_cluster
from services.portal.machines import park_of
from services.portal.my_limits import site_grace_seconds
from services.portal.online import (
    CSV_HEAD,
    HELD,
    WORDS,
    Row,
    View,
    arrange,
    csv_line,
    read_held,
    rows_of,
    sums,
    whole_rows,
)
from services.portal.usage_csv import csv_text, send_csv, stamp
from spawner import records

PAGE_SIZE = 50
#: Of so many clusters the dialog tells what each would lose.
LOOKED_AT = 5


class OnlinePage(PageHandler):
    """What the page and its file have in common."""

    right = "clusters:read-all"
    grace_seconds: int

    async def shown(self, most: int | None = None) -> tuple[View, list[Row], list[Row], list[Row]]:
        """The view that the address asks for, all rows, those of the view, and those of its page, whole.

        Parameters
        ----------
        most
            How many a page has; ``None`` = all of the view are one page.
        """
        view = View.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})
        return view, *await self.portal.db.run_read(self._read, view, self.portal.clock(), most)

    def _read(
        self, conn: Connection, view: View, now: datetime, most: int | None
    ) -> tuple[list[Row], list[Row], list[Row]]:
        self.grace_seconds = site_grace_seconds(conn, self.portal)
        rows = rows_of(*read_held(conn), now, grace_seconds=self.grace_seconds)
        shown = arrange(rows, view, now)
        page = shown if most is None else shown[view.offset : view.offset + most]
        return rows, shown, whole_rows(conn, page)


class OnlineFile(OnlinePage):
    """The rows of the view, all of them, as CSV."""

    async def get(self) -> None:
        _, _, _, shown = await self.shown()
        now = self.portal.clock()
        send_csv(self, "online.csv", csv_text(CSV_HEAD, (csv_line(row, now, stamp) for row in shown)))


class Online(OnlinePage):
    """The page; for htmx the table alone."""

    async def get(self) -> None:
        view, rows, shown, page = await self.shown(PAGE_SIZE)
        runs = [row.run for row in rows]
        all_sums = sums(runs)
        idle = [row.run for row in rows if row.idle_since is not None]
        values = {
            "view": view,
            "address": f"{self.portal.prefix}admin/online",
            "all_sums": all_sums,
            "whole": (await park_of(self.portal)).whole,
            "shown_sums": all_sums if len(shown) == len(rows) else sums([row.run for row in shown]),
            "waiting": [run for run in runs if run.word == "waiting"],
            "idle_sums": sums(idle),
            "measured": any(row.cpu_now is not None for row in rows),
            "gpu_measured": any(row.gpu_now is not None for row in rows),
            "rows": page,
            "page_size": PAGE_SIZE,
            "pools": sorted({run.pool for run in runs}),
            "pool_titles": {name: pool.title or name for name, pool in self.portal.settings.pools.items()},
            "several_pools": len({run.pool for run in runs} | self.portal.settings.pools.keys()) > 1,
            "policies": sorted({run.release_policy for run in runs}),
            "held_choices": list(HELD),
            "words": WORDS,
            "may_release": self.person.may("clusters:release-all"),
            "grace_seconds": self.grace_seconds,
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
        # Of a few it is told what they would lose; a whole centre is not looked at for one press.
        looked = runs if len(runs) <= LOOKED_AT else []
        losses_of = {run.id: losses.address(self.portal, run) for run in looked}
        return {"runs": runs, "together": sums(runs), "losses_of": losses_of}


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/online", Online),
        (r"/admin/online.csv", OnlineFile),
        (r"/admin/online/release", ReleaseMany),
    ]
