"""Administration → Machines: what carries the nodes, who holds what there, putting machines in and out (CG-33).

The address says what is shown, as everywhere. Whatever changes a machine is an order that the service carries
out; the page shows at once that it is on its way, and how to take it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.machines import store
from services.machines.host import overcommit_of
from services.machines.rules import Amounts, State
from services.portal import image_places, machine_stop, machines
from services.portal.addresses import project_path
from services.portal.api.machine_models import MachineContents
from services.portal.machines import PAGE_SIZE, SORTS, MachineView, Park, arrange, fits, wrong_now
from services.portal.pages.table_view import TableView

#: What the browser is told when an order was placed.
DONE = {
    "cordon": mark("{machine} takes no new nodes. What runs there goes on."),
    "uncordon": mark("{machine} takes nodes again."),
    "compute": mark("{machine} computes, too."),
    "keep": mark("{machine} is kept for the control plane. What runs there goes on."),
    "withdraw": mark("{machine} stays."),
}


#: What a pod of ours is.
WHATS = {
    "node": mark("Node"),
    "part": mark("Part of the platform"),
    "agent": mark("Saves nodes"),
    "image": mark("Fetches an image"),
    "other": mark("Something else"),
}


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """Machines by name, until asked otherwise."""

    state: str = ""
    sort: str = "name"

    sorts = SORTS
    words_in = ("name", "state", "pool")

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        state = query.get("state", "")
        return {"state": state if state in [item.value for item in State] else ""}

    def filters(self) -> dict[str, str]:
        return {"state": self.state}


class MachinePage(PageHandler):
    """What the handlers share."""

    right = "machines:manage"

    @property
    def root(self) -> str:
        return f"{self.portal.prefix}admin/machines"

    def namespace(self, park: Park) -> dict[str, Any]:
        """What all templates of this module use."""
        settings = self.portal.settings
        return {
            "park": park,
            "root": self.root,
            "machine_url": lambda name: f"{self.root}/{quote(name, safe='')}",
            "project_path": project_path,
            "backend": settings.backend,
            "adds": settings.backend == "kubernetes" and settings.machines.add,
            "overcommit": overcommit_of(settings).cpu_overcommit,
            "several_pools": len(park.pools) > 1,
            "front": self._front(park),
            "zone": settings.site.timezone,
            "images_known": settings.backend == "docker" or image_places.known(self.portal),
            "may_stop": self.person.may(machine_stop.RIGHT),
        }

    def _front(self, park: Park) -> list[str]:
        """Where the control plane is: as the settings say, else the addresses of its machines."""
        said = self.portal.settings.machines.api_server
        if said:
            return [said]
        there = [view.machine for view in park.views if view.machine and view.machine.control_plane]
        return [machine.address for machine in there if machine.address]

    async def one(self, name: str) -> tuple[Park, MachineView]:
        """A machine of this name, or 404."""
        park = await machines.park_of(self.portal)
        for view in park.views:
            if view.name == name:
                return park, view
        raise UserError(404, mark("There is no machine “{machine}”."), machine=name[:63])

    def placed(self, sentence: str, name: str, people: tuple[str, ...] = ()) -> None:
        """Tell the browser, and the pages of those whom it concerns."""
        watcher = self.portal.parts["watcher"]
        for user in people:
            watcher.tell(user, "clusters")
        watcher.tell(self.person.name, "machines")
        text = self.translate(sentence).format(machine=name)
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:machines": {}}
        )


class Machines(MachinePage):
    """The page; for htmx the table alone."""

    async def get(self) -> None:
        view = View.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})
        park = await machines.park_of(self.portal)
        shown = arrange(
            (item for item in park.views if fits(item, view.text, view.pool, view.state)),
            view.sort,
            view.descending,
        )
        there = [item for item in park.views if item.machine is not None and not item.machine.reserved]
        values = {
            **self.namespace(park),
            "view": view,
            "all_count": len(park.views),
            "shown_count": len(shown),
            "rows": shown[view.offset : view.offset + PAGE_SIZE],
            "page_size": PAGE_SIZE,
            "whole": park.whole,
            "taken": sum((item.taken for item in there), Amounts()),
            "runs": len({held.run_id for item in there for held in item.holdings}),
            "wrong": wrong_now(park.views),
            "states": [state for state in State if any(item.state is state for item in park.views)],
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_machines_table.html", **values)
        else:
            await self.render_page("admin_machines.html", **values)


class Machine(MachinePage):
    """One machine: all that is known of it, who holds what, and what was done with it."""

    async def get(self, name: str) -> None:
        park, view = await self.one(name)
        history = await self.portal.db.run_read(store.history, name)
        values = {
            **self.namespace(park),
            "view": view,
            "history": history,
            "ends": {
                "done": mark("done"),
                "withdrawn": mark("taken back"),
                "expired": mark("did not come in time"),
                "gone": mark("the machine was gone"),
            },
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_machine_body.html", **values)
        else:
            await self.render_page("admin_machine.html", **values)


@dataclass(frozen=True, kw_only=True)
class PodView(TableView):
    """Pods of one machine: nodes first, by namespace and name."""

    namespace: str = ""

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        return {"namespace": query.get("namespace", "")[:63]}

    def filters(self) -> dict[str, str]:
        return {"namespace": self.namespace}


class Contents(MachinePage):
    """What is on a machine of a Kubernetes, looked at now; a part of its page."""

    async def get(self, name: str) -> None:
        await self.one(name)
        view = PodView.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})
        values: dict[str, Any] = {
            "view": view,
            "here": f"{self.root}/{quote(name, safe='')}/contents",
            "page_size": PAGE_SIZE,
            "whats": WHATS,
        }
        try:
            told = await machines.contents(
                self.portal,
                name,
                text=view.text,
                namespace=view.namespace,
                offset=view.offset,
                limit=PAGE_SIZE,
            )
            values["found"] = MachineContents.model_validate(told)
        except UserError as error:
            values |= {"found": None, "why": error.text(self.translate)}
        await self.render_fragment("admin_machine_contents.html", **values)


class Add(MachinePage):
    """Name and pool, then the one command, shown once."""

    async def get(self) -> None:
        park = await machines.park_of(self.portal)
        await self.render_fragment(
            "admin_machine_add.html", ticket=None, minutes=self._minutes, **self.namespace(park)
        )

    async def post(self) -> None:
        ticket = await machines.add(
            self.portal,
            self.person,
            name=self.get_body_argument("name", ""),
            pool=self.get_body_argument("pool", "default"),
            address=self.address,
        )
        self.portal.parts["watcher"].tell(self.person.name, "machines")
        park = await machines.park_of(self.portal)
        await self.render_fragment(
            "admin_machine_add.html", ticket=ticket, minutes=self._minutes, **self.namespace(park)
        )

    @property
    def _minutes(self) -> int:
        return self.portal.settings.machines.token_minutes


class TakeOut(MachinePage):
    """The second step of taking a machine out: what stays, what is lost, whom it concerns, and when."""

    async def get(self, name: str) -> None:
        park, view = await self.one(name)
        hours = self.portal.settings.machines.notice_hours
        zone = self.portal.settings.site.zone
        proposed = (self.portal.clock() + timedelta(hours=hours)).astimezone(zone)
        if hours:
            proposed = (proposed + timedelta(minutes=59)).replace(minute=0, second=0, microsecond=0)
        await self.render_fragment(
            "admin_machine_out.html",
            view=view,
            proposed=proposed.strftime("%Y-%m-%dT%H:%M"),
            earliest=self.portal.clock().astimezone(zone).strftime("%Y-%m-%dT%H:%M"),
            mails=bool(self.portal.settings.mail.host),
            **self.namespace(park),
        )

    async def post(self, name: str) -> None:
        _, view = await self.one(name)
        due_at = None
        if self.get_body_argument("when", "date") == "date":
            due_at = self._date(self.get_body_argument("date", ""))
        placed = await machines.order(
            self.portal,
            self.person,
            machine=name,
            action="out",
            due_at=due_at,
            remove=self.get_body_argument("after", "keep") == "remove",
            why=self.get_body_argument("why", ""),
            address=self.address,
        )
        at_once = placed.due_at <= placed.asked_at
        sentence = (
            mark("{machine} is being emptied. Its people are told why.")
            if at_once
            else mark("{machine} takes no new nodes. Its people are told the date.")
        )
        self.placed(sentence, name, view.people)

    def _date(self, text: str) -> datetime:
        """A moment as a field for date and time says it, in the site's zone."""
        try:
            found = datetime.strptime(text, "%Y-%m-%dT%H:%M").replace(tzinfo=self.portal.settings.site.zone)
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise UserError(400, mark("Say the date and the time.")) from None


class StopEverything(MachinePage):
    """The second step of *Stop everything*: what goes back, what is lost, and the machine's name typed again."""

    async def get(self, name: str) -> None:
        machine_stop.need_right(self.person)
        park, view = await self.one(name)
        if not view.holdings:
            raise UserError(409, mark("Nobody holds anything there."), reason="nothing-held")
        await self.render_fragment("admin_machine_stop.html", view=view, **self.namespace(park))

    async def post(self, name: str) -> None:
        _, view = await self.one(name)
        found = await machine_stop.stop_everything(
            self.portal,
            self.person,
            self.hub_as_visitor(),
            view,
            typed=self.get_body_argument("typed", ""),
            why=self.get_body_argument("why", "").strip()[:300],
            address=self.address,
        )
        watcher = self.portal.parts["watcher"]
        for user in view.people:
            watcher.tell(user, "clusters")
        watcher.tell(self.person.name, "machines")
        said = mark("{n} clusters go back. Their people are told why.")
        if found.failed:
            said = mark("{n} clusters go back; {failed} could not be released just now. Try again.")
        text = self.translate(said).format(n=found.released, failed=found.failed)
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:machines": {}}
        )


class Act(MachinePage):
    """What needs no second page: cordon, uncordon, compute, keep, withdraw."""

    async def post(self, name: str) -> None:
        _, view = await self.one(name)
        action = self.get_body_argument("action", "")
        if action == "withdraw":
            if view.order is None:
                raise UserError(409, mark("It is done already, and cannot be taken back."))
            await machines.withdraw(self.portal, self.person, view.order.id, address=self.address)
        elif action in DONE:
            await machines.order(self.portal, self.person, machine=name, action=action, address=self.address)
        else:
            raise UserError(400, mark("There is nothing of this kind to be done with a machine."))
        self.placed(DONE[action], name, view.people)


class Notices(PageHandler):
    """The lines about machines that are to be taken out, again: for whoever holds something there."""

    async def get(self) -> None:
        notices = await self.portal.db.run_read(machines.read_notices, self.person.name)
        await self.render_fragment("machine_notices.html", machine_notices=notices)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/admin/machines/([^/]+)"
    return [
        (r"/admin/machines", Machines),
        (r"/admin/machine-add", Add),
        (one, Machine),
        (one + r"/contents", Contents),
        (one + r"/out", TakeOut),
        (one + r"/stop", StopEverything),
        (one + r"/act", Act),
        (r"/notices", Notices),
    ]
