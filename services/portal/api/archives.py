"""Export and import of projects by the API (CG-41)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from galilean.errors import UserError, mark
from galilean.web.streamed import StreamedHandler, content_length
from services.catalog.access import Access
from services.catalog.archives.planning import Choice
from services.catalog.shares import Actor
from services.portal import archives
from services.portal.api import models, projects
from services.portal.api.base import Handler
from services.portal.api.operation import Operation
from services.portal.archives import RIGHT, Job
from services.portal.viewers import actor_of

ID = r"([0-9A-Z]{26})"


class ExportWish(models.Incoming):
    """Which projects."""

    ids: list[str] = Field(min_length=1, max_length=archives.EXPORT_MOST, description="Ids of projects.")


class ChoiceSaid(models.Incoming):
    """What is done with one project of an archive."""

    number: int = Field(ge=1)
    action: Literal["import", "replace", "skip"] = "import"
    owner: str = Field(min_length=1, max_length=255)


class ImportWish(models.Incoming):
    """What is imported; projects that are not named are left out."""

    choices: list[ChoiceSaid]
    publish: bool = Field(default=False, description="Whether what was public is so here, too.")


class ArchivedProject(models.Outgoing):
    """A project of an archive, as it would be imported, and what became of it."""

    number: int
    name: str
    owner: str = Field(description="As the archive says.")
    slug: str
    files: int
    size_bytes: int
    kernels: list[str]
    new_owner: str
    new_slug: str
    action: str
    conflicts: list[str]
    project_id: str = Field(default="", description="Once it is imported.")
    problem: str = Field(default="", description="Why it was not imported.")
    left_out: list[str] = []


class ArchiveImport(models.Outgoing):
    """An archive that came in."""

    id: str
    name: str
    state: str = Field(description="looking, refused, ready, importing, done.")
    site: str
    size_bytes: int
    done_bytes: int
    problem: str
    projects: list[ArchivedProject]


def import_model(handler: Handler, job: Job) -> ArchiveImport:
    """As the API shows it."""
    outcomes = {one.number: one for one in job.outcomes}
    items: list[ArchivedProject] = []
    for one in job.planned:
        outcome = outcomes.get(one.seen.number)
        items.append(
            ArchivedProject(
                number=one.seen.number,
                name=one.seen.meta.name,
                owner=one.seen.meta.owner,
                slug=one.seen.meta.slug,
                files=one.seen.files,
                size_bytes=one.seen.size_bytes,
                kernels=list(one.seen.kernels),
                new_owner=outcome.owner if outcome else one.choice.owner,
                new_slug=outcome.slug if outcome else one.slug,
                action=one.choice.action,
                conflicts=[handler.translate(c.message).format(**c.params) for c in one.conflicts],
                project_id=outcome.project_id if outcome else "",
                problem=outcome.problem.text(handler.translate) if outcome and outcome.problem else "",
                left_out=outcome.left_out if outcome else [],
            )
        )
    return ArchiveImport(
        id=job.id,
        name=job.name,
        state=job.state,
        site=job.contents.head.site if job.contents else "",
        size_bytes=job.total_bytes or job.size_bytes,
        done_bytes=job.progress.size_bytes,
        problem=job.problem.text(handler.translate) if job.problem else "",
        projects=items,
    )


class ExportOne(Handler):
    """One's own project as an archive."""

    long = True

    async def get(self, *where: str) -> None:
        if len(where) == 2:
            project = await projects.project_for(self.portal, self.person, *where, least=Access.OWN)
            where = (project.id,)
        await archives.export(self, where)


class ExportSome(Handler):
    """Several projects as one archive."""

    long = True

    async def post(self) -> None:
        await archives.export(self, self.body(ExportWish).ids)


class NewImport(StreamedHandler):
    """An archive comes in, as the body of the request."""

    long = True
    right = RIGHT

    async def begin(self) -> None:
        await super().begin()
        if self._finished or self.request.method != "POST":
            return
        length = content_length(self.request)
        if not length:
            raise UserError(411, mark("Say how large the archive is."))
        store = archives.imports(self.portal)
        await self.in_files(store.room, length)
        self.incoming = store.coming(self.person.name, self.get_query_argument("name", "")[:200])
        self.job, self.file = await self.incoming.__aenter__()
        self.job.hang_up = self._hang_up
        self.left = length

    async def body_piece(self, piece: bytes) -> None:
        self.left -= len(piece)
        await self.in_files(self.file.write, piece)

    async def post(self) -> None:
        self.admitted()
        incoming, self.incoming = self.incoming, None
        await incoming.__aexit__(None, None, None)
        self.set_status(202)
        self.write({"id": self.job.id, "state": self.job.state})

    incoming: Any = None

    def _hang_up(self) -> None:
        connection: Any = self.request.connection
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._end_incoming()

    def on_finish(self) -> None:
        super().on_finish()
        self._end_incoming()

    def _end_incoming(self) -> None:
        if self.incoming is not None:
            self.incoming = None
            self.file.close()
            archives.imports(self.portal).forget(self.job)


class OneImport(Handler):
    """An archive that came in: looked at, imported, given up."""

    right = RIGHT

    async def get(self, job_id: str) -> None:
        self.write_json(import_model(self, archives.imports(self.portal).get(job_id)))

    async def post(self, job_id: str) -> None:
        store = archives.imports(self.portal)
        job, wish = store.get(job_id), self.body(ImportWish)
        choices = {one.number: Choice(action=one.action, owner=one.owner) for one in wish.choices}
        actor = Actor(name=self.person.name, address=self.address)
        await store.begin(job, choices, publish=wish.publish, actor=actor)
        self.write_json(import_model(self, job), 202)

    async def delete(self, job_id: str) -> None:
        store = archives.imports(self.portal)
        await store.give_up(store.get(job_id), actor=actor_of(self.person, self.address))
        self.set_status(204)


OPERATIONS = (
    Operation(
        method="get",
        path="/projects/{id}/export",
        summary="Export a project as an archive",
        answers={200: None},
    ),
    Operation(
        method="get",
        path="/projects/{owner}/{slug}/export",
        summary="Export a project as an archive, by its address",
        answers={200: None},
    ),
    Operation(
        method="post",
        path="/projects/export",
        summary="Export several projects as one archive",
        takes=ExportWish,
        answers={200: None},
    ),
    Operation(
        method="post",
        path="/archives",
        summary="Bring in an archive of projects; it is looked at first",
        raw_body=True,
        query={"name": "What the file is called."},
        answers={202: None},
    ),
    Operation(
        method="get",
        path="/archives/{id}",
        summary="What an archive holds, what is in the way, how far its import is",
        answers={200: ArchiveImport},
    ),
    Operation(
        method="post",
        path="/archives/{id}",
        summary="Import what is chosen of an archive",
        takes=ImportWish,
        answers={202: ArchiveImport},
    ),
    Operation(
        method="delete",
        path="/archives/{id}",
        summary="Give up an archive, or end its import",
        answers={204: None},
    ),
)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix; before those of projects."""
    return [
        (rf"/api/v1/projects/{ID}/export", ExportOne),
        (r"/api/v1/projects/([^/]+)/([^/]+)/export", ExportOne),
        (r"/api/v1/projects/export", ExportSome),
        (r"/api/v1/archives", NewImport),
        (rf"/api/v1/archives/{ID}", OneImport),
    ]
