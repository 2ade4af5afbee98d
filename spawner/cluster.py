"""``VirtualCluster``: one named server of the hub is N nodes, granted, held and released as a whole.

A spawner class that stands in front of the well-kept spawner of each world. It holds the rules of a run's
life (design §4); a backend adds the few methods of :class:`spawner.backend.Backend` and none of the rules.

* Every path to a start passes :meth:`run_pre_spawn_hook`: parse, resolve, admit, in words when refused.
* :meth:`start` creates all nodes or none, checkpointed in our row. It **never cleans up**: when the hub
  cancels a start it waits one second and then believes whatever it sees.
* :meth:`stop` is the only place that removes nodes and closes the row. It is idempotent, and it does not
  give up while the backend cannot be reached.
* :meth:`poll` says None as long as the row is open and anything of it may exist, so that the hub always
  comes to a stop. A lost node, or a start that a dead hub left: it awaits our own stop, then says gone.
* Cannot look is not gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import maybe_future, url_path_join
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Float, Integer, List, Unicode, default

from galilean.errors import UserError, mark
from galilean.i18n import translations
from galilean.rights import BLOCKED
from spawner import licences, records, steps
from spawner.asking import asked_by, hub_groups, language_of, refusal, sent_options
from spawner.backend import NodeFailed, NodeLook, NodeProgress
from spawner.collaborators import Admitted, Collaborators, Person, PullLogin
from spawner.licences import Way
from spawner.loss import judge
from spawner.plan import ClusterPlan
from spawner.progress import StartProgress
from spawner.records import NodeInterval, Run
from spawner.renewing import Renewals, follow, unroute
from spawner.request import ClusterRequest
from spawner.states import Status
from spawner.steps import NodeEnd

R = TypeVar("R")

QUEUE_SERVICE = "service:queue"
#: How often a start that takes long writes down who answers already.
TELL_SECONDS = 1.0
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Cause:
    """Why a run ends: a machine word, and a sentence for its owner when the word does not say it all."""

    reason: str
    explanation: Mapping[str, Any] | None = None


_ASKED = Cause("asked")
_CANCELLED = Cause("cancelled")


class VirtualCluster(Spawner):
    """The rules; a backend's class derives from this and from its parent's spawner, this one first."""

    collaborators = AnyTrait(
        help="A spawner.collaborators.Collaborators: database, resolver, admission, clock."
    ).tag(config=True)
    gang_timeout = Float(
        120, help="Seconds within which all nodes must have their place; else none stays and the run waits."
    ).tag(config=True)
    admission_timeout = Float(
        20, help="Seconds for parse, resolve and admit, which the hub's own start_timeout does not cover."
    ).tag(config=True)
    stop_patience = Float(
        10, help="Seconds for which poll waits for a removal before it says None and is asked again."
    ).tag(config=True)
    poll_interval = Integer(5, help="Seconds between two looks at the nodes.").tag(config=True)

    not_licences = List(
        Unicode(),
        help="Networks, addresses and names of the platform itself: no environment gets a way there as to a licence server.",
    ).tag(config=True)

    backend_name = "none"

    @default("apply_user_options")
    def _options_are_taken_by_the_request(self) -> Callable[[Any, Any], None]:
        return lambda spawner, options: None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._admission: asyncio.Task[Any] | None = None
        self._start_task: asyncio.Task[str] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self.renewals = Renewals(self)
        self._telling = asyncio.Lock()
        self._progress: StartProgress | None = None
        self._plan: ClusterPlan | None = None
        self._admitted: Admitted | None = None
        self._cancelled = False
        self._translate: Callable[[str], str] = str
        self._forget()

    def _forget(self) -> None:
        self._run: Run | None = None
        self._cause: Cause | None = None
        self._urls: dict[int, str] = {}
        self._gone: set[int] = set()
        self._lost: dict[int, NodeEnd] = {}
        self._seen_at: dict[int, datetime] = {}
        self._absences: Mapping[int, int] = {}
        self._head_away = False

    @property
    def _with(self) -> Collaborators:
        return self.collaborators

    # ------------------------------------------------------------------------ what a backend implements

    def node_name(self, rank: int) -> str:
        """See :meth:`spawner.backend.Backend.node_name`."""
        raise NotImplementedError

    async def create_nodes(self, run: Run, plan: ClusterPlan, progress: NodeProgress) -> None:
        """See :meth:`spawner.backend.Backend.create_nodes`."""
        raise NotImplementedError

    async def look_at_nodes(self, run: Run) -> Mapping[int, NodeLook]:
        """See :meth:`spawner.backend.Backend.look_at_nodes`."""
        raise NotImplementedError

    async def remove_nodes(self, run: Run) -> Mapping[int, NodeEnd]:
        """See :meth:`spawner.backend.Backend.remove_nodes`."""
        raise NotImplementedError

    async def check_node(self, run: Run, rank: int, how: str) -> None:
        """See :meth:`spawner.backend.Backend.check_node`."""
        raise NotImplementedError

    async def end_node(self, run: Run, rank: int) -> NodeEnd | None:
        """See :meth:`spawner.backend.Backend.end_node`."""
        raise NotImplementedError

    async def make_node(self, run: Run, rank: int, how: str, progress: NodeProgress) -> None:
        """See :meth:`spawner.backend.Backend.make_node`."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- what others read

    @property
    def run(self) -> Run | None:
        """The run as this process knows it; the row is the truth."""
        return self._run

    @property
    def node_urls(self) -> dict[int, str]:
        """Where each living node answers, by rank, from our row; empty before all answer."""
        return dict(self._urls)

    @property
    def ready(self) -> bool:
        """As the hub says, and only while our run is running.

        For a second after it cancelled a start the hub would call a server ready that does not exist. While
        the hub is told of an end it is the hub's own word: a start or a stop then comes to where it waits.
        """
        running = self._run is not None and self._run.status == Status.RUNNING
        return super().ready and (running or self._telling.locked())

    # ---------------------------------------------------------------------------------- before a start

    async def run_pre_spawn_hook(self) -> None:
        """Parse, resolve and admit; a refusal leaves nothing behind.

        Raises
        ------
        SpawnException
            400, 403, 404, 409, 429 or 503 with the reason as one word and a sentence in the language of
            whoever asked.
        """
        language = language_of(self.handler, self._with.language)
        self._translate = translations(language).gettext
        self._progress = StartProgress(self._with.clock, self._translate)
        try:
            await maybe_future(super().run_pre_spawn_hook())
            await self._admitted_in_time(language)
        except BaseException:
            self._progress.close()
            raise

    async def _admitted_in_time(self, language: str) -> None:
        self._admission = asyncio.ensure_future(self._admit(language))
        self._admission.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(self.admission_timeout):
                # Shielded: once it is on its way to the database, admission ends in one piece.
                await asyncio.shield(self._admission)
        except asyncio.CancelledError:
            self._cause, self._cancelled = _CANCELLED, True
            raise
        except UserError as error:
            raise refusal(error, self._translate) from error
        except TimeoutError as error:
            busy = UserError(503, mark("The platform is too busy to answer just now. Try again in a minute."))
            raise refusal(busy, self._translate) from error
        except Exception as error:
            raise refusal(self._incident("admission"), self._translate) from error

    async def _admit(self, language: str) -> None:
        if not self.name:
            raise UserError(
                400, mark("Every cluster belongs to a project: open one and press Run, or name its server.")
            )
        if _busy(self._stop_task):
            raise UserError(
                409, mark("“{server}” is still being released. Try again in a moment."), server=self.name
            )
        person = Person(
            name=self.user.name,
            groups=hub_groups(self.user),
            asked_by=asked_by(self.handler, self.user.name),
        )
        if BLOCKED in person.groups:
            raise UserError(
                403, mark("The account “{name}” is blocked: nothing starts for it."), name=person.name
            )
        request = None
        if person.asked_by == QUEUE_SERVICE:  # what waits is started as it was asked for
            waiting = await self._with.database.run_read(records.open_run, person.name, self.name)
            if waiting is not None and waiting.status == Status.QUEUED:
                request = ClusterRequest.from_dict(waiting.request)
        if request is None:
            request = ClusterRequest.parse(sent_options(self.handler, self.user_options))
        plan = await self._with.resolver.resolve(person, self.name, request)
        self._plan = replace(plan, language=language)
        names = [self.node_name(rank) for rank in range(plan.nodes)]
        self._admitted = await self._with.admission.admit(person, plan, request, names)
        if self._progress:
            self._progress.admitted(plan.nodes, plan.missing)

    # ------------------------------------------------------------------------------------------- start

    def start(self) -> asyncio.Task[str]:
        """The task of the whole start, from the reserved row to nodes that all answer."""
        self._start_task = asyncio.ensure_future(self._start_run())
        return self._start_task

    async def _start_run(self) -> str:
        try:
            return await self._create()
        except asyncio.CancelledError:
            self._cause, self._cancelled = _CANCELLED, True
            raise
        except NodeFailed as error:
            raise self._give_up(
                UserError(500, error.message, reason="start_failed", **error.params)
            ) from error
        except UserError as error:
            raise self._give_up(error) from error
        except Exception as error:
            raise self._give_up(self._incident("start")) from error
        finally:
            if self._progress:
                self._progress.close()

    async def login_of(self, plan: ClusterPlan) -> PullLogin | None:
        """What the plan's image is fetched with; ``None`` when anybody may have it.

        Raises
        ------
        UserError
            404, 409 when it is there no more or cannot be read.
        """
        if not plan.environment.key or self._with.logins is None:
            return None
        return await self._with.logins(plan.environment.key)

    async def ways_of(
        self, plan: ClusterPlan, *, ours: Sequence[str] = (), only_four: bool = False
    ) -> tuple[Way, ...]:
        """Which ways to licence servers the plan's nodes get; ``ours`` are addresses of the backend's own.

        Raises
        ------
        UserError
            403 for an address that nobody gets a way to; 503 when none of the servers has one.
        """
        servers = plan.environment.licences
        if not servers:
            return ()
        return await licences.ways(
            servers,
            environment=plan.environment.name,
            ours=await licences.networks((*self.not_licences, *ours)),
            only_four=only_four,
            log=self.log,
        )

    async def _create(self) -> str:
        database, clock = self._with.database, self._with.clock
        plan, progress = self._plan, self._progress
        if plan is None or progress is None or self._admitted is None:
            raise RuntimeError("a start without admission")
        run = self._admitted.run
        if run is None:
            raise UserError(409, mark("The cluster was released before it started."), reason="released")
        self._run = run
        placing: list[asyncio.Task[None]] = []

        async def write_placed() -> None:
            if not progress.all_ready:  # else one write says both
                await database.run(steps.mark_placed, run, progress.starts(), now=clock())

        loop = asyncio.get_running_loop()
        end = loop.time() + max(1.0, self.start_timeout - 2)
        try:
            async with asyncio.timeout_at(min(end, loop.time() + self.gang_timeout)) as limit:

                def all_placed() -> None:
                    placing.append(asyncio.ensure_future(write_placed()))
                    if not limit.expired():
                        limit.reschedule(end)

                progress.on_all_placed = all_placed
                telling = asyncio.ensure_future(self._tell_who_answers(run, progress))
                try:
                    await self.create_nodes(run, plan, progress)
                finally:
                    telling.cancel()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._too_late(progress) from error
        if progress.silent:
            raise RuntimeError(f"run {run.id}: created, but nodes {progress.silent} never reported")
        await asyncio.gather(*placing)
        now = clock()
        starts = progress.starts()
        if not await database.run(steps.begin_running, run, starts, now=now):
            raise UserError(409, mark("The cluster was released before it started."), reason="released")
        self._urls = {start.rank: start.url for start in starts}
        self._run = replace(run, status=Status.RUNNING.value, ready_at=now)
        return self._urls[0]

    async def _tell_who_answers(self, run: Run, progress: StartProgress) -> None:
        """Let the row say which nodes answer while others are slow; a quick start costs no write."""
        told = 0
        while True:
            await self._with.sleep(TELL_SECONDS)
            if told < progress.answering < progress.nodes:
                told = progress.answering
                with contextlib.suppress(UserError):  # the end of the start writes it in any case
                    await self._with.database.run(steps.mark_answering, run, progress.starts())

    def _too_late(self, progress: StartProgress) -> UserError:
        if progress.all_placed and progress.why:
            return UserError(
                500,
                mark(
                    "Node(s) {ranks} did not answer in {seconds} s, so nothing was kept. The last that was heard: {why}. "
                    "Try again, or tell an administrator."
                ),
                reason="start_failed",
                ranks=", ".join(str(rank) for rank in progress.silent),
                seconds=round(self.start_timeout),
                why=progress.why,
            )
        if progress.all_placed:
            return UserError(
                500,
                mark(
                    "Node(s) {ranks} did not answer in {seconds} s, so nothing was kept. Try again, or tell an administrator."
                ),
                reason="start_failed",
                ranks=", ".join(str(rank) for rank in progress.silent),
                seconds=round(self.start_timeout),
            )
        if progress.short:
            return UserError(
                503,
                mark(
                    "{found} of {nodes} nodes found a place within {seconds} s; {missing} short of {short}. "
                    "The cluster waits in line."
                ),
                reason="queued",
                found=progress.found,
                nodes=progress.nodes,
                missing=progress.nodes - progress.found,
                seconds=round(self.gang_timeout),
                short=progress.short,
            )
        return UserError(
            503,
            mark("There was no place for all {nodes} nodes within {seconds} s. The cluster waits in line."),
            reason="queued",
            nodes=progress.nodes,
            seconds=round(self.gang_timeout),
        )

    def _give_up(self, error: UserError) -> SpawnException:
        word = "not_placed" if error.reason == "queued" else "start_failed"
        self._cause = Cause(word, error.as_dict())
        return refusal(error, self._translate)

    def _incident(self, during: str) -> UserError:
        number = uuid.uuid4().hex[:8]
        self.log.exception("%s: %s went wrong (%s)", self._log_name, during, number)
        return UserError(500, mark("Something went wrong ({number})."), reason="error", number=number)

    # ------------------------------------------------------------------------------------- poll and stop

    async def poll(self) -> int | None:
        """None while anything of the run may exist; see the module's promises."""
        if _busy(self._admission) or _busy(self._start_task):
            return None
        if _busy(self._stop_task):
            return await self._released_by_now()
        try:
            run = await self._look_up()
        except Exception as error:
            self.log.warning("%s: cannot look at the run, asking again: %s", self._log_name, error)
            return None
        if run is None or run.status == Status.QUEUED:
            return 0
        if run.status == Status.RUNNING and not self._cancelled:
            cause = await self._head_of_before() or await self._loss(run)
            if cause is None:
                return None
            self._cause = cause
        elif self._cause is None and run.status != Status.STOPPING:
            self._cause = Cause("hub_lost", {"message": _HUB_LOST, "params": {}})
        return await self._released_by_now()

    async def poll_and_notify(self) -> int | None:
        """As the hub's, but one after the other.

        Who is told of an end first takes the routes away and then stops the spawner. A start that came in
        between would find nobody left to tell, begin a new run, and be stopped in place of the old one.
        """
        async with self._telling:
            return await super().poll_and_notify()

    async def stop(self, now: bool = False) -> None:
        """Remove every node, confirm it, close the row; called twice it is one stop."""
        await asyncio.shield(self._stopping())

    async def release_leftover(self) -> None:
        """Stop a run that is open although the hub has nothing active under its name."""
        if self._cause is None and not _busy(self._start_task):
            self._cause = Cause("hub_lost", {"message": _LEFT_OVER, "params": {}})
        await self.stop()

    def _stopping(self) -> asyncio.Task[None]:
        if self._stop_task is None or self._stop_task.done():
            self._stop_task = asyncio.ensure_future(self._stop_run())
        return self._stop_task

    async def _released_by_now(self) -> int | None:
        done, _ = await asyncio.wait({self._stopping()}, timeout=self.stop_patience)
        return 1 if done else None

    async def _stop_run(self) -> None:
        await self._settle()
        database, clock = self._with.database, self._with.clock
        cause = self._cause or _ASKED
        run = await self.insist(
            "note the end",
            lambda: database.run(
                steps.begin_stop,
                self.user.name,
                self.name,
                reason=cause.reason,
                explanation=cause.explanation,
            ),
        )
        if run is not None:
            self._run = run
            found = await self.insist(f"remove the nodes of {run.id}", lambda: self.remove_nodes(run))
            known = {rank: end for rank, end in self._lost.items() if end.at or not _dated(found.get(rank))}
            ends = {**found, **known}
            queued = cause.reason == "not_placed" and await self.insist(
                "wait in line", lambda: database.run(steps.back_to_queue, run, ends=ends, now=clock())
            )
            if not queued:
                await self.insist(
                    "close the row", lambda: database.run(steps.close, run, ends=ends, now=clock())
                )
        self._forget()

    async def _settle(self) -> None:
        """Wait until no start of ours is under way: what it was about to write is then written."""
        await self.renewals.settle()
        start = self._start_task
        if start is not None and not start.done():
            start.cancel()
        under_way = {task for task in (self._admission, start) if task is not None and not task.done()}
        if under_way:
            await asyncio.wait(under_way)

    async def insist(self, what: str, attempt: Callable[[], Awaitable[R]]) -> R:
        """Do it, again and again with growing pauses until it is done."""
        tries = 0
        while True:
            try:
                return await attempt()
            except Exception as error:
                pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
                tries += 1
                self.log.warning(
                    "%s: could not %s (attempt %d, again in %s s): %s",
                    self._log_name, what, tries, pause, error,
                )  # fmt: skip
            await self._with.sleep(pause)

    # --------------------------------------------------------------------------------- looking at things

    async def _look_up(self) -> Run | None:
        """The open run: from memory once it runs, else from our row."""
        if self._run is not None and self._run.status == Status.RUNNING:
            return self._run
        found = await self._with.database.run_read(records.open_cluster, self.user.name, self.name)
        if found is None:
            self._run = None
            return None
        self._run, nodes = found
        if self._run.status == Status.RUNNING:
            self._take_nodes(self._run, nodes)
        return self._run

    def _take_nodes(self, run: Run, nodes: Sequence[NodeInterval]) -> None:
        """What the rows say of the nodes of a run that an earlier hub began; what was asked of them is done."""
        self._urls = {node.rank: node.url for node in nodes if node.gone_at is None and node.url}
        # The metering may have written a node off before any hub looked; that alone releases nothing. One that
        # did not come back is waited for no more; without node 0 no hub takes a cluster over.
        self._gone = {
            node.rank
            for node in nodes
            if node.gone_at and node.rank and (run.on_node_loss == "keep" or node.asked_at)
        }
        self._head_away = any(node.rank == 0 and node.asked_at and not node.ready_at for node in nodes)
        for node in nodes:
            if node.coming_back:
                self.renewals.begin(run, node)

    async def _loss(self, run: Run) -> Cause | None:
        """Why a running cluster must end, if it must; nodes lost on the way are written down."""
        looked_at = self._with.clock()
        try:
            seen = await self.look_at_nodes(run)
        except Exception as error:
            self.log.warning("%s: cannot look at the nodes, asking again: %s", self._log_name, error)
            return None
        under_way = self.renewals.ranks
        living = set(range(run.nodes)) - self._gone - under_way
        loss = judge(seen, living, self._absences, run.on_node_loss, self._seen_at, others=len(under_way))
        self._seen_at |= dict.fromkeys((rank for rank, node in seen.items() if node.alive), looked_at)
        self._absences = loss.absences
        if loss.release:
            self._lost |= loss.lost
            return Cause("node_lost", loss.explanation)
        await self._go_on_without(run, loss.lost)
        return None

    async def _go_on_without(self, run: Run, lost: Mapping[int, NodeEnd]) -> None:
        for rank, end in lost.items():
            try:
                await self._with.database.run(steps.end_node, run, rank, end, now=self._with.clock())
            except UserError as error:  # the next poll writes it
                self.log.warning("%s: node %d is lost, not written yet: %s", self._log_name, rank, error)
                continue
            self.log.warning(
                "%s: node %d is lost (%s); the rest goes on", self._log_name, rank, end.exit_reason
            )
            await self.node_away(rank)

    # ---------------------------------------------------------------------------- nodes that are made anew

    def goes_on(self, run: Run) -> bool:
        """Whether this run is the one that runs, and nothing ends it."""
        mine = self._run
        return (
            mine is not None
            and mine.id == run.id
            and mine.status == Status.RUNNING
            and not self._cancelled
            and not _busy(self._stop_task)
        )

    def seen_at(self, rank: int) -> datetime | None:
        """When a node was last seen alive."""
        return self._seen_at.get(rank)

    async def node_away(self, rank: int) -> None:
        """A node is lost, or being ended on purpose: no look at it means anything, and nobody is led to where it was.

        Its address may be another person's soon. Node 0 keeps the server's own route, which is the hub's.
        """
        self._gone.add(rank)
        if not rank:
            return
        self._urls.pop(rank, None)
        try:
            await unroute(self, rank)
        except Exception as error:  # the next check of routes does it
            self.log.warning(
                "%s: the route of node %d is left to the next check: %s", self._log_name, rank, error
            )

    async def _head_of_before(self) -> Cause | None:
        """Wait for node 0 that was being made anew when the last hub ended; this hub does not know it otherwise.

        It asks for its address right after it has looked. A cluster whose node 0 does not come back goes.
        """
        if not self._head_away:
            return None
        await self.renewals.finished(0)
        self._head_away = False
        if 0 in self._urls:
            return None
        return Cause("node_lost", {"message": _NO_HEAD, "params": {}})

    async def node_back(self, rank: int, url: str) -> None:
        """A node answers again; routes follow."""
        self._gone.discard(rank)
        self._absences = {other: times for other, times in self._absences.items() if other != rank}
        self._urls[rank] = url
        try:
            await follow(self, rank, url)
        except Exception as error:  # the next check of routes does it
            self.log.warning(
                "%s: the route of node %d is left to the next check: %s", self._log_name, rank, error
            )

    # ------------------------------------------------------------------------- the hub's other questions

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Tell how far the start is, in words."""
        if self._progress is not None:
            async for event in self._progress.events():
                yield event

    async def get_url(self) -> str:
        """Where node 0 answers, by our row: a hub that died early never wrote it into its own."""
        server: Any = self.server
        return url_path_join(self._urls[0], server.base_url) if 0 in self._urls else server.url

    def get_state(self) -> dict[str, Any]:
        """The run's id, for people who look at the hub's admin API; no secrets, and nothing we rely on."""
        state = super().get_state()
        if self._run is not None and not self.pending:  # else the hub writes it down, in each start
            state["run"] = self._run.id
        return state

    def clear_state(self) -> None:
        """Called before each start and after each stop."""
        super().clear_state()
        if not _busy(self._stop_task):
            self._forget()
        self._plan = self._admitted = None
        self._cancelled = False

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refused: the name is the project's alias, in addresses, rows and machine time."""
        raise web.HTTPError(400, self._translate(_RENAME))

    async def delete_forever(self) -> None:
        """Before the hub deletes its entry: nothing of ours may stay behind it."""
        await maybe_future(super().delete_forever())
        for _ in range(200):  # another DELETE cancelled the start a moment ago and comes back to stop it
            if not self._cancelled:
                break
            await self._with.sleep(0.05)
        run = await self._look_up()
        if run is not None and run.status != Status.QUEUED:
            await self.stop()


_HUB_LOST = mark("The platform was restarted while the cluster was being started, so nothing of it was kept.")
_NO_HEAD = mark(
    "The platform was restarted while node 0 was being made anew, and it did not come back; the cluster was released."
)
_LEFT_OVER = mark("The hub no longer knew this cluster, so it was released.")
_RENAME = mark("A cluster is named after its project and cannot be renamed. Rename the project instead.")


def _dated(end: NodeEnd | None) -> bool:
    return end is not None and end.at is not None


def _busy(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and not task.done()
