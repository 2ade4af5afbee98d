"""A site whose fake hub really resolves, admits and starts: real rules and real rows, nodes of thin air.

The hub's part is played in the portal's own loop with the product's resolver, admission and steps; only
the nodes do not exist. How a start goes is the test's to say.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galilean.clock import utcnow
from galilean.errors import UserError
from hub_config.decisions import collaborators
from spawner import records, steps
from spawner.collaborators import Person
from spawner.records import Run
from spawner.request import ClusterRequest
from spawner.steps import NodeEnd, NodeStart
from tests.web import fake_hub
from tests.web.fake_hub import FakeHub
from tests.web.site import Site


@dataclass
class Course:
    """How a start goes: seconds until admission, placing and ready, and whether a node fails."""

    admit: float = 0.0
    place: float = 0.0
    ready: float = 0.0
    fails: int | None = None
    no_room: bool = False


class LiveHub(FakeHub):
    """A fake hub with lifecycle; ``course`` says how the next starts go."""

    def __init__(self) -> None:
        super().__init__()
        self.course = Course()
        self.site: LiveSite
        self.starts: set[asyncio.Task[Any]] = set()
        self.languages: list[str] = []
        self.bodies: list[Any] = []

    def application(self) -> Any:
        app = super().application()
        target: Any = app.default_router.rules[0].target
        for rule in target.rules:
            if rule.target is fake_hub._Server:
                rule.target = _Server
        return app

    def fits(self, plan: Any, taken: Any) -> bool:
        return not self.course.no_room


class _Server(fake_hub._Base):
    async def post(self, name: str, server: str) -> None:
        hub: LiveHub = self.hub  # type: ignore[assignment]
        who = self.who()
        if who is None or not {"servers", f"servers!user={name}"} & set(who["scopes"]):
            self.refuse(403, "Action is not authorized with current scopes; requires any of [start:servers]")
            return
        body = json.loads(self.request.body or b"{}")
        hub.languages.append(self.request.headers.get("Accept-Language", ""))
        hub.bodies.append(body)
        hub.calls.append(("POST", f"{name}/{server}"))
        portal = hub.site.portal
        person = Person(name=name, groups=hub.people[name]["groups"], asked_by=who["name"])
        given = collaborators(portal.db, portal.settings, hub if hub.course.no_room else None)
        course = hub.course
        try:
            await asyncio.sleep(course.admit)
            request = ClusterRequest.parse(body.get("user_options"))
            plan = await given.resolver.resolve(person, server, request)
            names = [f"n{rank}" for rank in range(plan.nodes)]
            admitted = await given.admission.admit(person, plan, request, names)
        except UserError as error:
            self.set_status(error.status, error.reason or None)
            self.finish({"status": error.status, "message": str(error)})
            return
        task = asyncio.ensure_future(_start(hub, admitted.run, course))
        hub.starts.add(task)
        task.add_done_callback(hub.starts.discard)
        await asyncio.wait({task}, timeout=0.3)
        self.set_status(201 if task.done() else 202)
        self.finish()

    async def delete(self, name: str, server: str) -> None:
        hub: LiveHub = self.hub  # type: ignore[assignment]
        who = self.who()
        if who is None or not {"servers", f"servers!user={name}"} & set(who["scopes"]):
            self.refuse(403, "Action is not authorized with current scopes; requires any of [delete:servers]")
            return
        hub.calls.append(("DELETE", f"{name}/{server}"))
        db = hub.site.portal.db
        run = await db.run(steps.begin_stop, name, server, reason="asked")
        if run is None:
            self.refuse(404, f"{name} has no server {server}")
            return
        ends = dict.fromkeys(range(run.nodes), NodeEnd(at=utcnow(), exit_reason="released"))
        await db.run(steps.close, run, ends=ends, now=utcnow())
        self.set_status(204)
        self.finish()


async def _start(hub: LiveHub, run: Run | None, course: Course) -> None:
    db = hub.site.portal.db
    if run is None:
        return
    await asyncio.sleep(course.place)
    ranks = range(run.nodes)
    starts = [NodeStart(rank=rank, host="this-machine", url="", placed_at=utcnow()) for rank in ranks]
    await db.run(steps.mark_placed, run, starts, now=utcnow())
    await asyncio.sleep(course.ready)
    if course.fails is not None:
        told = {"message": "Node {rank} ended with code {code}.", "params": {"rank": course.fails, "code": 1}}
        stopping = await db.run(
            steps.begin_stop, run.user, run.server, reason="start_failed", explanation=told
        )
        if stopping:
            await db.run(steps.close, stopping, ends={}, now=utcnow())
        return
    ready = [NodeStart(rank=rank, host="this-machine", url=f"http://127.0.0.1:{rank}") for rank in ranks]
    await db.run(steps.begin_running, run, ready, now=utcnow())


class LiveSite(Site):
    """:class:`Site` with a :class:`LiveHub`."""

    hub: LiveHub

    def __init__(self, state: Path, yaml: str = "") -> None:
        super().__init__(state, yaml)
        self.hub = LiveHub()
        self.hub.site = self

    def open_run(self, user: str, server: str) -> records.Run | None:
        with self.portal.db.read() as conn:
            return records.open_run(conn, user, server)
