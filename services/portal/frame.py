"""What stands around every page: navigation with its badges, and the meter.

The meter is the heart of the top bar: what I hold, since when, until when; its menu has every door of
every node and the way to release, from any page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler
from services.machines.store import Notice, open_orders
from services.metering.work import differing
from services.people.waiting import count_waiting
from services.portal import losses
from services.portal.admin import entries_for, is_current
from services.portal.api.clusters import cluster_for, release_cluster
from services.portal.api.usage import limits_of
from services.portal.held import Mine, mine_of, read_mine, read_runs, view_of
from services.portal.longer import extend_cluster, go_on_without
from services.portal.machines import park_of, read_notices, wrong_now
from services.portal.shelf import titles
from spawner import records

COUNT_SECONDS = 20.0
LEAVING_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class NavItem:
    """One entry of the navigation; a badge that merely ``counts`` is plain, any other waits for somebody."""

    label: str
    url: str
    icon: str
    current: bool = False
    admin: bool = False
    section: str = ""
    badge: int = 0
    badge_title: str = ""
    counts: bool = False


class Frame:
    """Navigation and meter of a portal.

    Parameters
    ----------
    portal
        Its collaborators.
    monotonic
        Seconds that never go back.
    """

    def __init__(self, portal: Portal, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.portal = portal
        self._monotonic = monotonic
        self._waiting: tuple[float, int] | None = None
        self._wrong: tuple[float, int] | None = None
        self._differs: tuple[float, int] | None = None
        self._leaving: tuple[float, bool] | None = None

    async def waiting_people(self) -> int:
        """How many accounts wait for a role, at most some seconds ago; 0 while the hub is away."""
        now = self._monotonic()
        if self._waiting is None or now - self._waiting[0] > COUNT_SECONDS:
            try:
                count = await count_waiting(self.portal.hub, await self.portal.rights.get())
            except UserError:
                return self._waiting[1] if self._waiting else 0
            self._waiting = (now, count)
        return self._waiting[1]

    async def wrong_machines(self) -> int:
        """How many machines need somebody, some seconds ago."""
        now = self._monotonic()
        if self._wrong is None or now - self._wrong[0] > COUNT_SECONDS:
            self._wrong = (now, wrong_now((await park_of(self.portal)).views))
        return self._wrong[1]

    async def wrong_now(self, rights: Collection[str]) -> int:
        """How much of the overview is wrong, for whoever has these rights, some seconds ago."""
        count = await self.wrong_machines() if "machines:manage" in rights else 0
        if "clusters:read-all" in rights:
            now = self._monotonic()
            if self._differs is None or now - self._differs[0] > COUNT_SECONDS:
                self._differs = (now, await self.portal.db.run_read(differing))
            count += self._differs[1]
        return count

    async def notices(self, user: str) -> list[Notice]:
        """What somebody is told of machines that are to be taken out; where none is, nobody is asked."""
        now = self._monotonic()
        if self._leaving is None or now - self._leaving[0] > LEAVING_SECONDS:
            orders = await self.portal.db.run_read(open_orders)
            self._leaving = (now, any(order.leaves for order in orders))
        return await self.portal.db.run_read(read_notices, user) if self._leaving[1] else []

    async def badges(self, rights: Collection[str]) -> dict[str, tuple[int, str, bool]]:
        """Numbers beside entries of the administration: how many, what they are, whether they merely count."""
        found: dict[str, tuple[int, str, bool]] = {}
        if "people:manage" in rights:
            found["people"] = (await self.waiting_people(), mark("wait for a role"), False)
        if "machines:manage" in rights:
            found["machines"] = (await self.wrong_machines(), mark("need a look"), False)
        if wrong := await self.wrong_now(rights):
            found["overview"] = (wrong, mark("wrong now"), False)
        if "clusters:read-all" in rights:
            found["online"] = (await self.portal.db.run_read(records.count_open), mark("clusters"), True)
        return found

    def forget(self) -> None:
        """Look again: a role was just given, something was wanted of a machine."""
        self._waiting = self._wrong = self._differs = self._leaving = None

    async def extras(self, handler: PageHandler) -> dict[str, Any]:
        """Variables of ``page.html`` for somebody who has signed in."""
        person, path = handler.person, handler.request.path
        prefix, translate = self.portal.prefix, handler.translate

        def item(label: str, place: str, icon: str, *below: str) -> NavItem:
            """``below`` are pages that are opened from this one, at addresses of their own."""
            current = any((path + "/").startswith(f"{prefix}{one}/") for one in (place, *below))
            return NavItem(label=translate(label), url=prefix + place, icon=icon, current=current)

        nav = [
            item(mark("Projects"), "projects", "folder"),
            item(mark("Data sets"), "datasets", "database", "disks"),
            item(mark("Explore"), "explore", "compass"),
            item(mark("Environments"), "environments", "box", "workbenches", "images"),
            item(mark("Machine time"), "machine-time", "activity"),
            item(mark("Schedules"), "schedules", "clock"),
        ]
        found = await self.badges(person.rights)
        for entry in entries_for(person.rights):
            badge, title, counts = found.get(entry.badge, (0, "", False))
            nav.append(
                NavItem(
                    label=translate(entry.label),
                    url=prefix + entry.place,
                    icon=entry.icon,
                    current=is_current(entry, path, prefix),
                    admin=True,
                    section=translate(entry.section) if entry.section else "",
                    badge=badge,
                    badge_title=translate(title) if badge and title else "",
                    counts=counts,
                )
            )
        mine = await mine_for(handler)
        return {
            "nav": nav,
            "machine_notices": await self.notices(person.name) if mine.clusters else [],
            "search_url": prefix + "search",
            **await meter_values(handler, mine),
        }


async def meter_values(handler: PageHandler, mine: Mine) -> dict[str, Any]:
    """Variables of ``meter.html``."""
    return {
        "meter": {"shown": handler.person.has_role or bool(mine.clusters)},
        "mine": mine,
        "limits": await limits_of(handler.portal, handler.person),
        "grace_seconds": mine.grace_seconds,
        "environment_titles": await titles(handler.portal),
    }


async def mine_for(handler: PageHandler) -> Mine:
    """What the visitor holds; read once for a request."""
    known = getattr(handler, "_mine", None)
    if known is None:
        portal = handler.portal
        known = mine_of(portal, await portal.db.run_read(read_mine, portal, handler.person.name))
        handler._mine = known  # type: ignore[attr-defined]
    return known


class Meter(PageHandler):
    """The meter again, after something changed."""

    async def get(self) -> None:
        await self.render_fragment("meter.html", **await meter_values(self, await mine_for(self)))


class Release(PageHandler):
    """The second step of a release: what stays, what is lost; then the release itself."""

    async def get(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        if not run.is_open:
            raise UserError(409, mark("This cluster has gone back already."))
        rows = await self.portal.db.run_read(read_runs, self.portal, [run])
        await self.render_fragment(
            "release_dialog.html",
            cluster=view_of(self.portal, run, rows),
            others=run.user != self.person.name,
            losses=losses.address(self.portal, run),
        )

    async def post(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        why = self.get_body_argument("why", "").strip()[:300]
        await release_cluster(
            self.portal,
            self.person,
            self.hub_as_visitor(),
            run,
            why=why,
            address=self.address,
        )
        self.portal.parts["watcher"].tell(run.user, "clusters")
        self.portal.parts["watcher"].tell(self.person.name, "clusters")
        self.released(run.project_name)

    def released(self, name: str) -> None:
        """Tell the browser: one line, the dialog away, the parts that show clusters again."""
        text = self.translate(mark("{name} goes back. Its files stay.")).format(name=name)
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:clusters": {}}
        )


class Extend(PageHandler):
    """More time for a cluster of one's own, by one press; undone by nothing but a release."""

    async def post(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        kept = await extend_cluster(self.portal, self.person, run)
        text = self.translate(mark("{name} is kept until {time}.")).format(
            name=run.project_name, time="{time}"
        )
        until = (kept.extended_until or self.portal.clock()).isoformat()
        self.answer_events({"galilean:toast": {"text": text, "time": until}, "galilean:clusters": {}})


class WhenDone(PageHandler):
    """What *Continue without me* means, and the change itself."""

    async def get(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await self.render_fragment(
            "when_done_dialog.html", run=run, url=f"{self.portal.prefix}clusters/{run.id}"
        )

    async def post(self, run_id: str) -> None:
        run = await cluster_for(self.portal, self.person, run_id)
        await go_on_without(self.portal, self.person, run)
        text = self.translate(mark("{name} goes on and is released when nothing runs any more.")).format(
            name=run.project_name
        )
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:clusters": {}}
        )


class ReleaseAll(PageHandler):
    """Release everything that the visitor holds, from the foot of the meter's menu."""

    async def get(self) -> None:
        mine = await mine_for(self)
        await self.render_fragment(
            "release_all_dialog.html",
            mine=mine,
            losses_of={one.run.id: losses.address(self.portal, one.run) for one in mine.clusters},
        )

    async def post(self) -> None:
        mine = await mine_for(self)
        asked = set(self.get_body_arguments("run"))
        chosen = [cluster for cluster in mine.clusters if cluster.run.id in asked]
        for cluster in chosen:
            await release_cluster(
                self.portal,
                self.person,
                self.hub_as_visitor(),
                cluster.run,
                address=self.address,
            )
        self.portal.parts["watcher"].tell(self.person.name, "clusters")
        text = self.translate(mark("{n} clusters go back. Their files stay.")).format(n=len(chosen))
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:clusters": {}}
        )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/meter", Meter),
        (r"/clusters/release", ReleaseAll),
        (r"/clusters/([0-9A-Z]{26})/release", Release),
        (r"/clusters/([0-9A-Z]{26})/extend", Extend),
        (r"/clusters/([0-9A-Z]{26})/when-done", WhenDone),
    ]
