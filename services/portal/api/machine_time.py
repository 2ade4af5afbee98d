"""Machine time by the API: the same reports as the pages', as JSON and as a file (CG-25, AP-22, BX-5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from galilean.errors import UserError, mark
from galilean.web.paging import Cursor
from services.metering.report import KINDS, Line
from services.metering.work import difference
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.api.usage import moment, usage_for
from services.portal.usage_csv import stream_usage
from services.portal.usage_view import RIGHT, SORTS, UsageView, arranged, see

USAGE_MOST = 10_000


class UsageItem(models.Outgoing):
    key: str = Field(
        description="Project id, user name, day of the site (2026-11-22), month (2026-11), or a name."
    )
    label: str
    seconds: float = Field(description="Wall time; several nodes count once.")
    cpu_core_minutes: float
    memory_gb_minutes: float
    gpu_card_minutes: float
    deleted: bool = False
    first_start: datetime | None = None
    node_seconds: float = Field(default=0.0, description="Booked: time of all nodes.")
    measured_seconds: float = Field(default=0.0, description="Of that, during which real use was measured.")
    idle_seconds: float = Field(default=0.0, description="Of that, during which nothing was used.")
    idle_percent: float | None = Field(default=None, description="Idle of what was measured.")
    cpu_used_minutes: float = Field(default=0.0, description="Processor time really used.")
    memory_used_gb_minutes: float = 0.0
    gpu_used_minutes: float = 0.0


class MeteredNode(models.Outgoing):
    run: str
    rank: int


class UsageDifference(models.Outgoing):
    """What ledger and backend do not agree on."""

    looked_at: datetime | None
    nodes: int = Field(description="Nodes that are metered.")
    sighted: int = Field(description="Of them, those that the backend has alive.")
    missing: list[MeteredNode]
    strays: list[MeteredNode] = Field(description="Living nodes that are not metered.")


def usage_item(line: Line) -> UsageItem:
    """A line as the API shows it."""
    return UsageItem(
        key=line.key,
        label=line.label,
        seconds=line.seconds,
        cpu_core_minutes=line.cpu_core_minutes,
        memory_gb_minutes=line.memory_gb_minutes,
        gpu_card_minutes=line.gpu_card_minutes,
        deleted=line.deleted,
        first_start=line.first_start,
        node_seconds=line.node_us / 1_000_000,
        measured_seconds=line.measured_us / 1_000_000,
        idle_seconds=line.idle_us / 1_000_000,
        idle_percent=line.idle_percent,
        cpu_used_minutes=line.cpu_used_minutes,
        memory_used_gb_minutes=line.memory_used_gb_minutes,
        gpu_used_minutes=line.gpu_used_minutes,
    )


def view_of(query: Callable[[str], str]) -> UsageView:
    """The view that an address of the API asks for; strict where a page would show more.

    Raises
    ------
    UserError
        400 for an unknown ``by`` or order.
    """
    said = {name: query(name) for name in ("user", "project", "environment", "role", "pool", "q", "sort")}
    by = query("by") or "project"
    if by not in KINDS:
        raise UserError(400, mark("“by” is one of: {known}."), known=", ".join(KINDS))
    if said["sort"].removeprefix("-") not in ("", *SORTS):
        raise UserError(400, mark("“{name}” is one of: {known}."), name="sort", known=", ".join(SORTS))
    days = {name: query(name) if len(query(name)) == 10 else "" for name in ("from", "to")}
    if by in ("day", "month") and not said["sort"]:
        said["sort"] = "key"
    return UsageView.parse({**said, **days, "by": by, "days": "all"})


def page_of(lines: Sequence[Line], limit: int, cursor: str) -> models.ListOf[UsageItem]:
    """Some lines from behind the one that the cursor names; where it is gone, from where it was."""
    begin = 0
    if cursor:
        key, place = Cursor.decode(cursor, 2)
        if not isinstance(place, int) or place < 0:
            raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
        at = next((number for number, line in enumerate(lines) if line.key == key), None)
        begin = place if at is None else at + 1
    shown = lines[begin : begin + limit]
    more = begin + limit < len(lines)
    return models.ListOf[UsageItem](
        items=[usage_item(line) for line in shown],
        next=Cursor.encode(shown[-1].key, begin + limit) if more else None,
    )


class Usage(Handler):
    """Lines of a report; days by the roll-up, times of day by the ledger itself."""

    async def lines(self) -> tuple[str, list[Line]]:
        view, settings = view_of(self.query), self.portal.settings
        start = moment(self.query("from"), settings, key="from")
        end = moment(self.query("to"), settings, key="to", end=True)
        if start and end and start >= end:
            raise UserError(400, mark("“from” must be before “to”."))
        if len(self.query("from")) <= 10 and len(self.query("to")) <= 10:
            everybody = self.person.may(RIGHT)
            seen = await see(self.portal, self.person, view, everybody=everybody, whole=True)
            return view.by, [line for line in seen.lines if line.node_us]
        if view.environment or view.role:
            raise UserError(400, mark("“environment” and “role” go with whole days."))
        found = await usage_for(
            self.portal, self.person, by=view.by, user=view.user or None, project_id=view.project or None,
            pool=view.pool or None, start=start, end=end,
        )  # fmt: skip
        return view.by, arranged(found, view)

    async def get(self) -> None:
        _, lines = await self.lines()
        limit = self.limit() if self.query("limit") else USAGE_MOST
        self.write_json(page_of(lines, limit, self.query("cursor")))


class UsageCSV(Usage):
    """The same as a file."""

    async def get(self) -> None:
        await stream_usage(self, *await self.lines())


class Differences(Handler):
    """How ledger and backend differ, as last compared."""

    async def get(self) -> None:
        if not self.person.may(RIGHT):
            raise UserError(403, mark("This page is for administrators."))
        found = await self.portal.db.run_read(difference)
        nothing: dict[str, Any] = {"looked_at": None, "nodes": 0, "sighted": 0, "missing": [], "strays": []}
        self.write_json(UsageDifference.model_validate(found or nothing))


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/api/v1/usage", Usage),
    (r"/api/v1/usage\.csv", UsageCSV),
    (r"/api/v1/usage/difference", Differences),
]
QUERY = {
    "by": "project (default), user, day, month, environment, role or pool.",
    "from": "A day of the site or a time; empty = from the beginning.",
    "to": "A day of the site (included) or a time; empty = now.",
    "user": "Of this person only.",
    "project": "Of this project (its id) only.",
    "environment": "Of this environment only.",
    "role": "Of what was held by this role only.",
    "pool": "In this pool only.",
    "q": "Words that must all stand in the name.",
    "sort": f"One of {', '.join(SORTS)}; with - in front from large to small.",
}
OPERATIONS = (
    Operation(
        method="get",
        path="/usage",
        summary="Machine time: one's own, everybody's with the right",
        query={
            **QUERY,
            "limit": f"How many at most, up to 200; without it {USAGE_MOST:,}.",
            "cursor": "The value of `next` of the page before.",
        },
        answers={200: models.ListOf[UsageItem]},
    ),
    Operation(
        method="get",
        path="/usage.csv",
        summary="The same as a file, without a limit",
        query=QUERY,
        answers={200: None},
    ),
    Operation(
        method="get",
        path="/usage/difference",
        summary="What the ledger of nodes and the backend do not agree on (right to see all machine time)",
        answers={200: UsageDifference},
    ),
)
