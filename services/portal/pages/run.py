"""The Run drawer: the form, the start as it goes, the running cluster, the start that came to nothing.

One drawer, five faces (form, waiting, starting, running, failed), always made from our rows: closing it,
loading the page again or opening it in a second tab shows the same. While something moves, the portal
pushes the face; the browser polls nothing. Starting and cancelling go by the API with the visitor's own
rights. An address with ``?run=1`` opens the drawer (BX-12); it carries nothing secret and starts nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection
from tornado.iostream import StreamClosedError

from galilean.amounts import GIB
from galilean.errors import UserError, mark
from galilean.settings import EnvironmentSettings
from services.catalog import disk_store
from services.catalog.access import Access, Viewer
from services.catalog.places import check_gpu_count, choose_pool
from services.catalog.search import COUNT_MOST, Wanted, count
from services.catalog.store import WORKBENCH, Project
from services.machines.rules import Free, Size
from services.portal import saving
from services.portal.api.clusters import held_seconds, may_ask, node_state, place_in_line, why_of
from services.portal.api.dataset_models import LinkedDataset
from services.portal.api.datasets import linked
from services.portal.doors import is_as_is, ways
from services.portal.licence_words import licence_words
from services.portal.machines import gpu_choices, pool_choices
from services.portal.machines import never as machines_never
from services.portal.my_limits import limits_and_rest, site_grace_seconds
from services.portal.pages.disks import Offer, check_choice, choice_typed, offers
from services.portal.pages.endings import failure_of
from services.portal.pages.progress import TILES_MOST, progress, typical_seconds
from services.portal.pages.project_frame import ProjectPage
from services.portal.pages.run_bars import bars_of
from services.portal.pages.run_choice import Choice, clamp, last_choice
from services.portal.pages.run_form import ModelOption, PoolOption, RunForm, pool_of, run_form
from services.portal.pages.run_words import (
    gigabytes_text,
    refusal_of,
    release_as_fate,
    release_in_words,
    together,
)
from services.portal.quotas import until_said
from services.portal.release_said import duration, explained
from services.portal.said import Said, cards, cores, counted, memory, say, size_of_cluster
from services.portal.shelf import offered as offered_environments
from services.portal.ssh import host_of
from services.portal.viewers import viewer_of
from spawner import licences, records
from spawner.ports import ports_of
from spawner.records import NodeInterval, Run
from spawner.shared_ports import guards, shared_of

LOOK_SECONDS = 0.25
KEEPALIVE_SECONDS = 5.0
STREAM_MOST_SECONDS = 3600
#: More nodes than this are not listed one by one.
SSH_LISTED_MOST = 8
MOVING = frozenset({"waiting", "starting", "releasing"})


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The rows behind the drawer, in one read."""

    run: Run | None
    nodes: list[NodeInterval]
    place: int | None
    last: Run | None
    recent: list[Run]

    def typical(self, node_count: int) -> float | None:
        """How long the person's starts of this width took lately, in seconds."""
        return typical_seconds(self.recent, node_count)


def scene(conn: Connection, project: Project, person: str, run_id: str | None) -> Scene:
    """What the drawer is about: the run that is named, else the open one, else none.

    Raises
    ------
    UserError
        404 for a run that is not this person's run of this project.
    """
    if run_id:
        run = records.get(conn, run_id)
        if run is None or run.user != person or run.project_id != project.id:
            raise UserError(404, mark("There is no such cluster."))
    else:
        run = records.open_run(conn, person, project.server(person))
    mine = records.list_runs(conn, user=person, open_only=False, limit=30)
    last = next((row for row in mine if row.project_id == project.id), None)
    return Scene(
        run=run,
        nodes=records.intervals(conn, [run.id])[run.id] if run else [],
        place=place_in_line(conn, run) if run else None,
        last=last,
        recent=mine,
    )


def used_by(conn: Connection, viewer: Viewer, environments: Sequence[str]) -> dict[str, int]:
    """How many projects that somebody may see are made for each environment."""
    return {name: count(conn, viewer, Wanted(kind="project", environment=name)) for name in environments}


def face_of(run: Run | None) -> str:
    """Which face of the drawer a run has: form, waiting, starting, running, releasing or failed."""
    if run is None or (run.word == "released" and run.ready_at is not None):
        return "form"
    if run.word == "released":
        return "failed"  # cancelled, or ended before it was ready
    return run.word


class RunPage(ProjectPage):
    """What the three handlers share."""

    least = Access.RUN
    most_seconds: int | None = None
    grace_seconds: int = 300
    #: Data sets of the project, as a run that the visitor starts now gets them or does not.
    links: Sequence[LinkedDataset] = ()
    #: The visitor's disks, as a run that starts now may have them.
    disks: Sequence[Offer] = ()
    #: How many projects that the visitor may see are made for each environment; at most one more than are counted.
    used: Mapping[str, int] = {}

    async def begin(self, *where: str) -> dict[str, Any]:
        """What is run, by the parts of the address, and what the frame shows."""
        owner, slug = where
        return await self.enter(owner, slug)

    async def environments(self) -> dict[str, EnvironmentSettings]:
        """What the visitor may run it in."""
        return await offered_environments(self.portal, self.person)

    async def scene(self, run_id: str | None) -> Scene:
        found, self.grace_seconds = await self.portal.db.run_read(
            lambda conn: (
                scene(conn, self.project, self.person.name, run_id),
                site_grace_seconds(conn, self.portal),
            )
        )
        return found

    def html(self, frame: dict[str, Any], found: Scene, form: RunForm | None) -> str:
        """The inside of the drawer."""
        now = self.portal.clock()
        run = found.run
        values: dict[str, Any] = {
            **self.base_namespace(),
            **frame,
            "face": face_of(run),
            "run": run,
            "form": form,
            "workbench": self.kind == WORKBENCH,
            "last": found.last,
            "links": self.links,
            "disks": self.disks,
            "used": self.used,
            "used_most": COUNT_MOST,
            "may_change_links": self.level >= Access.WRITE and self.person.has_role,
            "grace_seconds": self._grace(run),
            "most_seconds": self.most_seconds,
            "duration_words": duration,
            "explained": explained,
            "release_words": release_in_words,
            "fate_words": release_as_fate,
            "gigabytes_text": gigabytes_text,
            "tiles_most": TILES_MOST,
            "has_role": self.person.has_role,
            "ready_in": _ready_in(found.typical(form.choice.nodes)) if form else None,
        }
        if run is not None:
            told = progress(run, found.nodes, now=now, typical=found.typical(run.nodes))
            as_is = is_as_is(self.portal, run)
            values |= {
                "size": size_of_cluster(
                    run.nodes, run.cpu_millicores, run.memory_bytes, run.gpu, run.gpu_model
                ),
                "told": told,
                "failure": failure_of(run) if face_of(run) == "failed" else None,
                "place": found.place,
                "place_words": _place(found.place),
                "wait_words": _why_it_waits(run),
                "held": held_seconds(run, now),
                "again": _again(run),
                "ports": ports_of(run),
                "ports_shared": shared_of(run) if self.portal.settings.ports.share and guards(run) else None,
                "licences": licences.kept(run.state),
                "licences_said": self.translate(licence_words(run.backend)),
                "owns_run": run.user == self.person.name,
                "ssh_hosts": [host_of(run.server, rank) for rank in range(min(run.nodes, SSH_LISTED_MOST))]
                if self.portal.settings.ssh.enabled and not as_is
                else [],
                "as_is": as_is,
                "node_doors": [self._node_row(run, node) for node in records.present(found.nodes)],
            }
        return self.portal.jinja.get_template("run_drawer.html").render(values)

    def _node_row(self, run: Run, node: NodeInterval) -> dict[str, Any]:
        """A node of the running cluster: how it is, the ways into it, and what may be asked of it."""
        return {
            "rank": node.rank,
            "name": f"node-{node.rank}",
            "state": node_state(node),
            "ways": ways(self.portal, run, node.rank),
            "why": why_of(node, self.translate),
            "can": may_ask(run, node) if run.user == self.person.name else (),
            "url": f"{self.portal.prefix}clusters/{run.id}/nodes/{node.rank}",
            "save": saving.address(self.portal, run, node.rank) if run.user == self.person.name else None,
        }

    def _grace(self, run: Run | None) -> int:
        """Of the terms of a run, else of the centre's rules now."""
        frozen = (run.release_terms or {}).get("grace_seconds") if run is not None else None
        return frozen or self.grace_seconds

    async def form(self, found: Scene) -> RunForm | None:
        """The form with the last configuration filled in; only where it is shown."""
        if face_of(found.run) not in ("form", "failed") or not self.person.has_role:
            return None
        mine = await limits_and_rest(self.portal, self.person.name, self.person.roles)
        settings, limits = self.portal.settings, mine.limits
        environments = await self.environments()
        wish = self.wish(found, environments)
        pools = await self.pools()
        asked = replace(clamp(wish, limits, mine.offered, mine.default), pool=pool_of(wish.pool, pools))
        models = [
            ModelOption(name=choice.name, title=choice.title, free=choice.free)
            for choice in (await gpu_choices(self.portal) if settings.gpu_models else ())
        ]
        self.most_seconds = mine.most_seconds
        self.disks = await offers(self.portal, self.person, found.last.request if found.last else None)
        self.links = await linked(self.portal, self.person, self.project)
        viewer = viewer_of(self.person)
        self.used = await self.portal.db.run_read(used_by, viewer, tuple(environments))
        return run_form(
            settings,
            limits,
            mine.held,
            wish,
            pools,
            models,
            await self.never(asked),
            offered=mine.offered,
            default=mine.default,
            spent=mine.spent,
            today=self._today(),
            until=lambda granted: until_said(granted, self.portal.clock(), settings.site.zone),
            environments=environments,
        )

    def _today(self) -> date:
        return self.portal.clock().astimezone(self.portal.settings.site.zone).date()

    async def pools(self) -> list[PoolOption]:
        """The pools that the visitor may choose from; empty where there is only one."""
        if len(self.portal.settings.pools) < 2:
            return []
        return [
            PoolOption(name=choice.name, title=choice.title, free=free_words(choice.free))
            for choice in await pool_choices(self.portal, self.person)
        ]

    async def never(self, choice: Choice) -> Said | None:
        """Why the machines could never hold a choice."""
        try:
            pool = choose_pool(self.portal.settings, self.person.roles, choice.pool or None, None)
            check_gpu_count(self.portal.settings, choice.gpu, choice.gpu_model)
        except UserError as refused:
            return Said(refused.message, refused.params)
        error = await machines_never(
            self.portal,
            pool,
            Size(
                nodes=choice.nodes,
                cpu_millicores=choice.cpu_millicores,
                memory_bytes=choice.memory_bytes,
                gpu=choice.gpu,
                gpu_model=choice.gpu_model,
            ),
        )
        return None if error is None else Said(error.message, error.params)

    def wish(self, found: Scene, environments: Mapping[str, Any]) -> Choice:
        asked = found.last.request if found.last else self.project.default_request
        return last_choice(self.portal.settings, self.project.environment, asked, environments)


class Drawer(RunPage):
    """The inside of the drawer, for the script that opens it."""

    async def get(self, *where: str) -> None:
        frame = await self.begin(*where)
        run_id = self.get_query_argument("run", "")
        found = await self.scene(run_id if len(run_id) == 26 else None)
        if self.get_query_argument("change", "") and found.run is not None and not found.run.is_open:
            found = replace(found, run=None)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.html(frame, found, await self.form(found)))


class Sum(RunPage):
    """What a choice comes to: the bars, the sum, and why it cannot be had (TI-15)."""

    async def get(self, *where: str) -> None:
        frame = await self.begin(*where)
        mine = await limits_and_rest(self.portal, self.person.name, self.person.roles)
        choice = replace(self._choice(), release=mine.default)
        refusal = refusal_of(choice, mine.limits, mine.held, mine.spent)
        refusal = refusal or await self._of_disks(choice) or await self.never(choice)
        await self.render_fragment(
            "run_sum.html",
            **frame,
            bars=bars_of(choice, mine.limits, mine.held, mine.spent, self._today()),
            together=together(choice),
            refusal=refusal,
            ready_in=_ready_in((await self.scene(None)).typical(choice.nodes)),
        )

    async def _of_disks(self, choice: Choice) -> Said | None:
        """Why the chosen disks cannot be had, there or now."""
        chosen = choice_typed(self.get_query_arguments("disk"))
        if not chosen:
            return None
        try:
            mine = await self.portal.db.run_read(disk_store.named, self.person.name, list(chosen))
            check_choice(list(mine.values()), chosen, choice.pool)
        except UserError as refused:
            return Said(refused.message, refused.params)
        return None

    def _choice(self) -> Choice:
        settings = self.portal.settings
        size = settings.sizes.get(self.get_query_argument("size", ""))
        cpu = size.cpu if size else self._number("cpu", 1000)
        memory = size.memory if size else self._number("memory_gb", GIB)
        return Choice(
            nodes=self._number("nodes", 1) or 1,
            cpu_millicores=cpu,
            memory_bytes=memory,
            gpu=self._number("gpu", 1),
            environment=settings.defaults.environment,
            release=settings.defaults.release,
            storage_bytes=self._number("storage_gb", GIB),
            pool=self.get_query_argument("pool", "")[:40],
            gpu_model=self.get_query_argument("gpu_model", "")[:40],
        )

    def _number(self, name: str, unit: int) -> int:
        text = self.get_query_argument(name, "0") or "0"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not 0 <= value <= 1e7:
            raise UserError(400, mark("“{key}” takes a number."), key=name)
        return round(value * unit)


class Events(RunPage):
    """The drawer of a run that moves, pushed whenever it changes (server-sent events)."""

    long = True
    _gone = False

    def on_connection_close(self) -> None:
        self._gone = True
        super().on_connection_close()

    async def get(self, *where: str) -> None:
        frame = await self.begin(*where)
        run_id = self.get_query_argument("run", "")
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        until = self.portal.clock() + timedelta(seconds=STREAM_MOST_SECONDS)
        told, quiet = "", 0.0
        while not self._gone and self.portal.clock() < until:
            found = await self.scene(run_id)
            frame["lab_url"] = await self.lab_url(found.run, worked_before=frame["worked_before"])
            html = self.html(frame, found, await self.form(found))
            face = face_of(found.run)
            if html != told:
                told, quiet = html, 0.0
                data = json.dumps({"face": face, "html": html, "url": frame["lab_url"]}, ensure_ascii=False)
                if not await self._send(f"event: face\ndata: {data}\n\n"):
                    return
            elif quiet > KEEPALIVE_SECONDS:
                quiet = 0.0
                if not await self._send(": still here\n\n"):
                    return
            moving = any(node.coming_back for node in records.present(found.nodes))
            if face not in MOVING and not moving:
                return
            pause = LOOK_SECONDS if face == "starting" or moving else 1.0
            quiet += pause
            await asyncio.sleep(pause)

    async def _send(self, text: str) -> bool:
        try:
            self.write(text)
            await self.flush()
        except StreamClosedError:
            return False
        return True


def _ready_in(typical: float | None) -> Said | None:
    """A promise, made only when it is known."""
    return say(mark("Ready in about {n}\u00a0s"), n=max(1, round(typical))) if typical is not None else None


def free_words(free: Free) -> Said:
    """What is free in a pool, or that nothing takes nodes now."""
    if not free.machines:
        return say(mark("no machine takes nodes just now"))
    amounts = free.free
    parts = {"cores": cores(amounts.cpu_millicores), "memory": memory(amounts.memory_bytes)}
    if free.all.gpu:
        return say(mark("free: {cores}, {memory}, {gpus}"), gpus=cards(amounts.gpu), **parts)
    return say(mark("free: {cores}, {memory}"), **parts)


def _again(run: Run) -> dict[str, Any]:
    """The same request once more, as the API takes it."""
    return {
        "nodes": run.nodes,
        "cpu": run.cpu_millicores / 1000,
        "memory": run.memory_bytes,
        "gpu": run.gpu,
        "environment": run.environment,
        "release": run.release_policy,
        "on_node_loss": run.on_node_loss,
        **({"pool": run.pool} if run.pool != "default" else {}),
        **({"gpu_model": run.gpu_model} if run.gpu_model else {}),
        **({"disks": run.request["disks"]} if run.request.get("disks") else {}),
    }


def _place(place: int | None) -> Said | None:
    if place is None:
        return None
    if place == 1:
        return say(mark("You are next in line"))
    return say(mark("{before} before you"), before=counted(place - 1, mark("{n} start"), mark("{n} starts")))


def _why_it_waits(run: Run) -> Said:
    stored = run.explanation or {}
    if stored.get("message"):
        return Said(str(stored["message"]), dict(stored.get("params") or {}))
    return say(mark("There is no room for this cluster just now."))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    project = r"/projects/([^/]+)/([^/]+)/run"
    return [(project, Drawer), (project + "/sum", Sum), (project + "/events", Events)]


ROUTES = routes()
