"""From a request to a plan: what a run is made of, or why it cannot be (design §4, *resolve*).

The hub calls this before anything is started, on every path that leads to a run. The project is looked up
and the person's right to it checked in one read; what the request leaves out comes from the project's own
defaults, then from the site's. What a person may not see answers exactly as what does not exist. The data sets
of the project that the person may read at this moment are mounted, the others are named as missing; no request
can name one. Disks are the person's own, and each request names those that it wants.
Files are touched in a thread with a time limit, so that a network disk that hangs delays one start and
never the hub.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from galilean.amounts import MIB, format_bytes
from galilean.clock import Clock, utcnow
from galilean.db import Database, plain_words
from galilean.errors import UserError, mark
from galilean.names import check_slug
from galilean.settings import RELEASE_POLICIES, Settings
from services.catalog import (
    disk_store,
    disks,
    environments,
    forking,
    links,
    places,
    shares,
    store,
    volume_store,
    volumes,
    workbenches,
)
from services.catalog.access import Access, Viewer, access, may_see, need, work_read_only
from services.catalog.datasets import Dataset
from services.catalog.disks import Disk
from services.catalog.mounts import BELOW
from services.catalog.store import WORKBENCH, Project
from spawner.collaborators import Person
from spawner.plan import ClusterPlan, DiskUsed, Mount
from spawner.request import ClusterRequest

MEMORY_LEAST_BYTES = 64 * MIB
CPU_LEAST_MILLICORES = 10
DISK_SECONDS = 10.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Offered:
    """Release policies: those that a person may choose, in the order they are offered, and which is first.

    ``everybody`` are all that the site offers to anybody.
    """

    policies: tuple[str, ...]
    default: str
    everybody: tuple[str, ...] = ()


class Offers(Protocol):
    """Who knows which release policies somebody may choose; handed in at the top floor."""

    def __call__(self, conn: Connection, person: Person, now: datetime) -> Offered: ...


def as_the_file_says(settings: Settings) -> Offered:
    """What ``galilean.yaml`` offers to everybody."""
    offered = tuple(settings.release.offered)
    return Offered(policies=offered, default=settings.defaults.release, everybody=offered)


class CatalogResolver:
    """Resolves requests from the catalogue; implements :class:`spawner.collaborators.Resolver`.

    Parameters
    ----------
    db
        Our database.
    settings
        The site's settings.
    clock
        The time; kept for what is recorded with a plan.
    disk_seconds
        How long a volume may take to answer.
    offers
        Which release policies somebody may choose; ``None`` = all that the settings name. Whether somebody may
        keep a cluster until it is released by hand, admission asks in any case.
    shelf
        Who knows environments that the settings do not name; ``None`` = nobody.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Clock = utcnow,
        *,
        disk_seconds: float = DISK_SECONDS,
        offers: Offers | None = None,
        shelf: environments.Shelf | None = None,
    ) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._disk_seconds = disk_seconds
        self._offers = offers
        self._shelf = shelf
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="galilean-catalog")

    async def resolve(self, person: Person, server: str, request: ClusterRequest) -> ClusterPlan:
        """Fill a request from the project and the environment, checking that the person may.

        Raises
        ------
        UserError
            400 for values that cannot be, 403 for not allowed, 404 for no such project (or somebody
            else's), 503 when the project's volume is not there.
        """
        check_server(server)

        def look() -> ClusterPlan:
            # In the disk's threads too, for a hop costs more than the question.
            with plain_words(), self._db.read_once() as conn:
                project, level = find(conn, person, server, request.project)
                asked = request
                if project.kind == WORKBENCH:
                    asked = workbenches.request_of(self._settings, project, request)
                data = links.mounts_of_run(conn, self._settings, viewer_of(person), project)
                claims = volume_store.claims(conn) if project.volume_root or data.registered else {}
                offered = self._offers(conn, person, self._clock()) if self._offers else None
                kept = self._kept(conn, person, environment_of(self._settings, project, asked))
                found = disks_of(conn, self._settings, person, asked)
            pinned = disks.pool_of([disk for disk, _ in found], asked.pool)
            if pinned is not None:
                asked = replace(asked, pool=pinned)
            plan = fill(self._settings, person, server, project, asked, offered, kept)
            environment = environments.choose(self._settings, plan.environment.name, kept)
            if project.kind == WORKBENCH:
                environment = workbenches.choice(self._settings, project, environment)
            prepare_directory(self._settings, project)
            work = replace(plan.work, read_only=work_read_only(level))
            there, away = present(data.mounts)
            mounts = tuple(claimed(mount, claims) for mount in (work, *there))
            mounts += tuple(disk_mount(self._settings, disk, mode) for disk, mode in found)
            missing = tuple(sorted((*data.missing, *away)))
            return replace(plan, environment=environment, mounts=mounts, missing=missing)

        return await self._on_disk(look)

    def _kept(self, conn: Connection, person: Person, name: str) -> environments.Kept | None:
        if self._shelf is None or not name or name in self._settings.environments:
            return None
        return self._shelf(conn, person, name)

    async def _on_disk(self, function: Callable[[], T]) -> T:
        work = asyncio.get_running_loop().run_in_executor(self._threads, function)
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._disk_seconds)
        except TimeoutError:
            raise UserError(
                503, mark("The disk with the project's files does not answer. Try again in a few minutes.")
            ) from None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check_server(server: str) -> None:
    """Refuse a server name that no project's alias can be.

    Raises
    ------
    UserError
        400 for the hub's default server, a reserved word, or what is no slug.
    """
    if not server:
        raise UserError(
            400, mark("Say which project to run: the server's name is the project's, and it has none.")
        )
    check_slug(server)


def viewer_of(person: Person) -> Viewer:
    """Who runs. Whether they have a role at all, admission asks: it knows the roles that groups give."""
    return Viewer.of(person.name, person.groups, has_role=True)


def find(conn: Connection, person: Person, server: str, named: str | None) -> tuple[Project, Access]:
    """The project to run, and what the person may do with it.

    It is the one that the request names, else the one whose alias the server's name is.

    Raises
    ------
    UserError
        404 when there is none that the person may see, 403 when they may see it but not run it, 409 while its
        files are copied or moved; 400 when server and project do not agree.
    """
    if named is None:
        project = store.by_alias(conn, person.name, server)
    else:
        owner, slash, slug = named.rpartition("/")
        project = store.get(conn, owner if slash else person.name, slug)
    if project is None or (project.kind == WORKBENCH and project.owner != person.name):
        raise store.no_such_project()
    viewer = viewer_of(person)
    given = () if project.owner == person.name else shares.of(conn, "project", project.id)
    level = access(viewer, project, given)
    if not may_see(level):
        raise store.no_such_project()
    need(viewer, level, Access.RUN)
    if project.busy:
        raise forking.busy(project)
    alias = project.server(person.name)
    if alias != server:
        raise UserError(
            400,
            mark("“{project}” runs on your server “{alias}”, not on “{server}”."),
            project=f"{project.owner}/{project.slug}",
            alias=alias,
            server=server,
        )
    return project, level


def disks_of(
    conn: Connection, settings: Settings, person: Person, request: ClusterRequest
) -> list[tuple[Disk, str]]:
    """The disks that a request names, each with ``read`` or ``write``, in the order of their names.

    Raises
    ------
    UserError
        404 for one that the person does not have.
    """
    if not request.disks:
        return []
    if not settings.disks_offered:
        raise disks.not_offered()
    mine = disk_store.named(conn, person.name, [name for name, _ in request.disks])
    for name, _ in request.disks:
        if name not in mine:
            raise disks.no_such_disk(name)
    return [(mine[name], mode) for name, mode in sorted(request.disks)]


def disk_mount(settings: Settings, disk: Disk, mode: str) -> Mount:
    """The mount of a disk. Touches the disk.

    Raises
    ------
    UserError
        503 when its directory is not there: made anew it would lie below a mount point.
    """
    source = settings.disks_directory / disk.id
    if settings.backend != "kubernetes" and not source.is_dir():
        raise UserError(
            503,
            mark(
                "The disk “{disk}” is not there just now. Leave it out, or ask an administrator to look at it."
            ),
            disk=disk.name,
        )
    return Mount(
        source=str(source),
        target=f"{disks.BELOW}/{disk.name}",
        read_only=mode == "read",
        disk=DiskUsed(id=disk.id, name=disk.name, size_bytes=disk.size_bytes),
    )


def present(mounts: Iterable[Mount]) -> tuple[list[Mount], list[str]]:
    """Mounts of data sets whose directory is there, and the mount directories of the others. Touches the disk.

    A volume that is away costs a run its data, not its start: what is missing is told.
    """
    there: list[Mount] = []
    away: list[str] = []
    for mount in mounts:
        if os.path.isdir(mount.source):
            there.append(mount)
        else:
            away.append(mount.target.removeprefix(f"{BELOW}/"))
    return there, away


def claimed(mount: Mount, claims: Mapping[str, str]) -> Mount:
    """The mount with the claim of the volume registered online that it lies on (path → claim), if any."""
    root = next((root for root in claims if mount.source.startswith(root.rstrip("/") + "/")), "")
    return replace(mount, claim=claims[root], root=root) if root else mount


def fill(
    settings: Settings,
    person: Person,
    server: str,
    project: Project,
    request: ClusterRequest,
    offered: Offered | None = None,
    kept: environments.Kept | None = None,
) -> ClusterPlan:
    """The plan of a request, without touching database or disk.

    Raises
    ------
    UserError
        400 for values that cannot be, 403 for a release policy or a pool the person's role may not use.
    """
    own = store.request_of(project.default_request or {})
    site = settings.defaults
    cpu = _first(request.cpu_millicores, own.cpu_millicores, site.cpu)
    memory = _first(request.memory_bytes, own.memory_bytes, site.memory)
    if cpu < CPU_LEAST_MILLICORES:
        raise UserError(
            400, mark("A node needs at least {least} CPU."), least=f"{CPU_LEAST_MILLICORES / 1000:g}"
        )
    if memory < MEMORY_LEAST_BYTES:
        raise UserError(
            400,
            mark("A node needs at least {least} of memory; {asked} were asked for."),
            least=format_bytes(MEMORY_LEAST_BYTES),
            asked=format_bytes(memory),
        )
    pool = places.choose_pool(settings, person.roles, request.pool, own.pool)
    gpu = _first(request.gpu, own.gpu, site.gpu)
    gpu_model = places.choose_gpu_model(settings, gpu, request.gpu_model, own.gpu_model)
    places.check_gpu_count(settings, gpu, gpu_model)
    choice = environments.unlooked(settings, environment_of(settings, project, request), kept)
    entry = kept.settings if kept else settings.environments[choice.name]
    environments.check_fits(
        entry, gpu=gpu, memory_bytes=memory, nodes=_first(request.nodes, own.nodes, site.nodes)
    )
    return ClusterPlan(
        user=person.name,
        server=server,
        project_id=project.id,
        project_owner=project.owner,
        project_slug=project.slug,
        project_name=project.name,
        environment=choice,
        mounts=(Mount(source=str(project.path(settings)), target="work"),),
        nodes=_first(request.nodes, own.nodes, site.nodes),
        cpu_millicores=cpu,
        memory_bytes=memory,
        gpu=gpu,
        gpu_model=gpu_model,
        pool=pool,
        storage_bytes=_first(request.storage_bytes, own.storage_bytes, settings.defaults.storage),
        release_policy=release_policy(offered or as_the_file_says(settings), request.release, own.release),
        on_node_loss=_first(request.on_node_loss, own.on_node_loss, "release"),
        ports=request.ports or own.ports,
    )


def environment_of(settings: Settings, project: Project, request: ClusterRequest) -> str:
    """The environment that a request names, else the project's, else the site's."""
    own = store.request_of(project.default_request or {})
    return _first(request.environment, own.environment, project.environment or settings.defaults.environment)


def _first(asked: T | None, own: T | None, site: T) -> T:
    if asked is not None:
        return asked
    return own if own is not None else site


def release_policy(offered: Offered, asked: str | None, own: str | None) -> str:
    """The release policy of a run: what was asked for, else the project's, else the default.

    A default that the person may not use (a project of a teacher's, run by a student) gives way to the
    first that they may; a wish is refused instead.

    Raises
    ------
    UserError
        400 for a policy that does not exist or is not offered; 403 for one that the role may not use.
    """
    allowed = offered.policies
    if asked is None:
        candidates = [own, offered.default, *allowed]
        return next((policy for policy in candidates if policy in allowed), offered.default)
    if asked in allowed:
        return asked
    if asked not in (offered.everybody or RELEASE_POLICIES):
        raise UserError(
            400,
            mark("There is no release policy “{policy}”. Choose one of: {known}."),
            policy=asked[:60],
            known=", ".join(allowed),
        )
    if asked == "manual":
        raise UserError(
            403,
            mark("Your role may not keep a cluster until you press Release. Choose one of: {known}."),
            known=", ".join(allowed),
        )
    raise UserError(
        403,
        mark("Your role may not choose the release policy “{policy}”. Choose one of: {known}."),
        policy=asked[:60],
        known=", ".join(allowed),
    )


def prepare_directory(settings: Settings, project: Project | Dataset) -> Path:
    """The directory of a project or data set, made when it is missing. Touches the disk.

    Raises
    ------
    UserError
        503 when the volume is not there; 507 when it is full.
    """
    volumes.check_mounted(project.volume(settings), project.volume_id)
    path = project.path(settings)
    volumes.make_directory(path, project.volume_id)
    return path
