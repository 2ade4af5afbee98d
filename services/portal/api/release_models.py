"""What goes into and comes out of the addresses about release: extensions, notices, schedules, the calendar."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from services.portal.api.models import Incoming, Outgoing


class ExtendCluster(Incoming):
    """Neither = as much as one press gives."""

    seconds: int | None = Field(default=None, ge=1, le=400 * 86400, description="Longer than now by so much.")
    until: str | None = Field(default=None, max_length=40, description="Until then, ISO 8601 with its zone.")


class ReleaseOutlook(Outgoing):
    """When a cluster goes back, and what may be asked for."""

    id: str
    release: str = Field(description="The release policy.")
    words: str = Field(description="The same in a sentence.")
    release_at: datetime | None = Field(description="As last decided; null = not by itself.")
    release_why: str
    warned_at: datetime | None
    extended_until: datetime | None
    extend_until: datetime | None = Field(
        description="Where one press would bring the end; null = it cannot be."
    )
    extend_most: datetime | None = Field(description="As far as may be asked for now.")
    extend_bound: str = Field(
        description="What bounds it: most, budget, extend; never or ended where it cannot be."
    )
    may_when_done: bool


class Notice(Outgoing):
    id: str
    kind: str
    at: datetime
    text: str
    cluster: str
    address: str = Field(description="Where to go, relative to the portal; may be empty.")
    url: str = Field(description="The same for a browser.")
    params: dict[str, Any]
    read_at: datetime | None
    when_done: bool = Field(default=False, description="The cluster may go on until nothing runs any more.")
    extend: bool = Field(default=False, description="The cluster can be extended.")


class NoticesRead(Incoming):
    ids: list[str] = Field(max_length=200)


class NewSchedule(Incoming):
    project: str = Field(description="owner/slug, or the slug of one of one's own.", max_length=320)
    ready: str = Field(description="Time of day at which the cluster is ready, such as 08:00.", max_length=8)
    release: str | None = Field(
        default=None, description="Time of day at which it goes back; null = by its policy.", max_length=8
    )
    weekdays: list[int] = Field(default=[0, 1, 2, 3, 4], description="0 = Monday.", max_length=7)
    zone: str = Field(default="", description="Time zone; empty = the site's.", max_length=64)
    first_day: str = Field(default="", max_length=10)
    last_day: str = Field(default="", max_length=10)
    holidays: bool = Field(default=True, description="Rests on the site's holidays.")
    enabled: bool = True
    options: dict[str, Any] = Field(
        default={}, description="Of the start, as POST …/clusters takes them; left out = the project's."
    )


class ScheduleChange(Incoming):
    """Only the keys that are sent are changed."""

    ready: str | None = Field(default=None, max_length=8)
    release: str | None = Field(default=None, max_length=8)
    weekdays: list[int] | None = Field(default=None, max_length=7)
    zone: str | None = Field(default=None, max_length=64)
    first_day: str | None = Field(default=None, max_length=10)
    last_day: str | None = Field(default=None, max_length=10)
    holidays: bool | None = None
    enabled: bool | None = None
    options: dict[str, Any] | None = None


class ScheduleWindow(Outgoing):
    ready_at: datetime
    release_at: datetime | None


class Schedule(Outgoing):
    id: str
    project: str
    project_name: str
    ready: str
    release: str | None
    weekdays: list[int]
    zone: str
    first_day: str
    last_day: str
    holidays: bool
    enabled: bool
    options: dict[str, Any]
    next: list[ScheduleWindow] = Field(description="The next three times.")
    problem: str = Field(description="Why it was not kept the last time; empty = it was.")


class CalendarEntry(Outgoing):
    at: datetime
    what: Literal["start", "release"]
    user: str
    project: str
    cluster: str = Field(description="Of a cluster that is held now; else empty.")
    schedule: str
    why: str
