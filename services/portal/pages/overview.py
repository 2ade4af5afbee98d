"""Administration → Overview: what is wrong now, what is used, what waits, with the way to each (AP-31).

Each part is shown to whoever may open the page behind it, and asks only what that page would ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from galilean.errors import UserError, mark
from galilean.tables import audit_log
from galilean.web.handlers import PageHandler
from services.metering.work import differing
from services.people.waiting import list_accounts
from services.portal.admin import OVERVIEW_RIGHTS
from services.portal.machines import park_of, wrong_now
from spawner import records
from spawner.tables import clusters


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line: what, how many, where."""

    text: str
    value: str
    url: str = ""
    tone: str = ""


class Overview(PageHandler):
    """The page; for htmx its parts alone."""

    right = OVERVIEW_RIGHTS

    async def get(self) -> None:
        values: dict[str, Any] = {
            "address": f"{self.portal.prefix}admin",
            "wrong": await self.wrong(),
            "used": await self.used(),
            "waits": await self.waits(),
            "people": await self.people(),
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_overview_parts.html", **values)
        else:
            await self.render_page("admin_overview.html", **values)

    def item(self, sentence: str, value: Any, place: str = "", tone: str = "") -> Item:
        url = self.portal.prefix + place if place else ""
        return Item(text=self.translate(sentence), value=str(value), url=url, tone=tone)

    async def wrong(self) -> list[Item]:
        """What somebody has to look at; empty = all is well."""
        found = []
        if self.person.may("machines:manage"):
            count = wrong_now((await park_of(self.portal)).views)
            if count:
                found.append(self.item(mark("machines need a look"), count, "admin/machines", "warn"))
        if self.person.may("clusters:read-all"):
            differs, failed = await self.portal.db.run_read(_differences, self.portal.clock())
            if differs:
                found.append(self.item(mark("nodes differ from what is recorded"), differs, "", "bad"))
            if failed:
                found.append(
                    self.item(mark("clusters did not start in the last 24 h"), failed, "admin/online", "warn")
                )
        if self.person.may("audit:read"):
            refused = await self.portal.db.run_read(_refused)
            if refused:
                found.append(
                    self.item(
                        mark("attempts to get more rights, in the last 500 changes"),
                        refused,
                        "admin/audit?q=refused",
                        "warn",
                    )
                )
        return found

    async def used(self) -> list[Item]:
        """What is held now."""
        if not self.person.may("clusters:read-all"):
            return []
        runs = [run for run in await self.portal.db.run_read(records.all_open) if run.word != "waiting"]
        cores = sum(run.together("cpu_millicores") for run in runs) / 1000
        memory = sum(run.together("memory_bytes") for run in runs) / 2**30
        gpu = sum(run.together("gpu") for run in runs)
        found = [
            self.item(mark("clusters"), len(runs), "admin/online"),
            self.item(
                mark("people who hold one"), len({run.user for run in runs}), "admin/people?state=holds"
            ),
            self.item(mark("nodes"), sum(run.nodes for run in runs)),
            self.item(mark("cores"), f"{cores:g}"),
            self.item(mark("GB of memory"), f"{memory:.0f}"),
        ]
        return [*found, self.item(mark("GPUs"), gpu)] if gpu else found

    async def waits(self) -> list[Item]:
        """What waits for somebody or for room."""
        found = []
        if self.person.may("people:manage"):
            count = await self.portal.parts["frame"].waiting_people()
            if count:
                found.append(
                    self.item(mark("people wait for a role"), count, "admin/people?state=waits", "warn")
                )
        if self.person.may("clusters:read-all"):
            waiting = len(await self.portal.db.run_read(records.waiting))
            if waiting:
                found.append(self.item(mark("clusters wait for room"), waiting, "admin/online?state=waiting"))
        return found

    async def people(self) -> list[Item]:
        """Counts of people, roles and groups (AP-31)."""
        if not self.person.may("people:manage"):
            return []
        known = await self.portal.rights.get()
        try:
            accounts = await list_accounts(self.portal.hub, known)
        except UserError:
            return []
        found = [self.item(mark("people"), len(accounts), "admin/people")]
        for name, title in known.titles().items():
            count = sum(name in account.effective for account in accounts)
            found.append(self.item(title, count, f"admin/people?role={name}"))
        may = self.person.may
        found.append(
            self.item(mark("groups"), len(known.groups), "admin/groups" if may("groups:manage") else "")
        )
        blocked = sum(account.blocked for account in accounts)
        if blocked:
            found.append(self.item(mark("blocked"), blocked, "admin/people?state=blocked"))
        return found


def _differences(conn: Connection, now: Any) -> tuple[int, int]:
    failed = conn.execute(
        select(func.count()).where(
            clusters.c.status == "failed", clusters.c.released_at >= now - timedelta(hours=24)
        )
    ).scalar_one()
    return differing(conn), int(failed)


def _refused(conn: Connection) -> int:
    newest = conn.execute(select(func.max(audit_log.c.id))).scalar() or 0
    return int(
        conn.execute(
            select(func.count()).where(audit_log.c.id > newest - 500, audit_log.c.action.like("%.refused"))
        ).scalar_one()
    )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/?", Overview)]
