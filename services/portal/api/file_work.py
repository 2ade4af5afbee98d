"""More of files: texts that are edited, previews, archives on their way out, and long work as jobs.

Same addresses for projects and data sets, same questions to :mod:`services.portal.desks`. What takes long is a
job (:mod:`services.portal.file_jobs`): its answer comes at once when it is quick, else it says where to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.csp import mark_untrusted, new_nonce
from services.files import paths
from services.files.copies import copy
from services.files.downloads import send_packed
from services.files.packing import Form, pack_into
from services.files.paths import from_address, shown
from services.files.root import Root
from services.files.texts import checksum, read_text, write_text
from services.files.unpacking import unpack
from services.portal import pdf_view
from services.portal.api import models
from services.portal.api.file_models import (
    FileJob,
    FileList,
    FileProblem,
    LeftOut,
    NewEntry,
    NewFileJob,
    Rename,
    SaveText,
    TextFile,
)
from services.portal.api.files import ITEM, Files, FilesHandler, Upload, Uploads
from services.portal.api.operation import Operation
from services.portal.api.projects import catalogue
from services.portal.desks import Desk
from services.portal.file_jobs import FileJobs, Job

#: What is over so soon is answered at once.
QUICK_SECONDS = 0.4
LEFT_OUT_SHOWN = 100


def file_jobs(portal: Portal) -> FileJobs:
    """The jobs of this portal."""
    found = portal.parts.get("file_jobs")
    if found is None:
        found = portal.parts["file_jobs"] = FileJobs(portal.clock)
    return found


class Texts(FilesHandler):
    """A text that is edited in a page."""

    ending = "texts"

    async def get(self, *_: str) -> None:
        desk = await self.at_desk(write=False)
        text = await self.ask_files(read_text, desk.root, self.path)
        self.set_header("Cache-Control", "private, no-store")
        self._answer(text)

    async def put(self, *_: str) -> None:
        body = self.body(SaveText)
        desk = await self.at_desk(write=True)
        await self.in_files(_check_room, desk, self.path, body)
        text = await self.in_files(
            write_text, desk.root, self.path, body.text, version=body.version, crlf=body.crlf, bom=body.bom
        )
        await desk.changed()
        self._answer(text)

    def _answer(self, text: Any) -> None:
        self.write_json(
            TextFile(
                path=paths.address(self.path),
                text=text.text,
                version=text.version,
                crlf=text.crlf,
                bom=text.bom,
            )
        )


class Preview(FilesHandler):
    """A file, rendered; untrusted, so it has an opaque origin wherever it is opened."""

    ending = "preview"

    async def get(self, *_: str) -> None:
        desk = await self.at_desk(write=False)
        if await self.ask_files(pdf_view.is_pdf, desk.root, self.path):
            self._pages()
            return
        shown_file = await catalogue(self.portal).preview_of(
            desk.root,
            self.path,
            volume_id=desk.item.volume_id,
            language=self.language,
            theme=self.query("theme", "light"),
            link_base=f"{desk.page}?file=",
            as_text=self.word("as", "table", "text") == "text",
        )
        mark_untrusted(self)
        self.set_header("Content-Security-Policy", shown_file.policy)
        self.set_header("Content-Type", shown_file.content_type)
        self.finish(shown_file.body)

    def _pages(self) -> None:
        nonce = new_nonce()
        mark_untrusted(self)
        self.set_header("Content-Security-Policy", pdf_view.policy(nonce))
        self.set_header("Content-Type", "text/html; charset=utf-8")
        script = self.portal.assets.url(f"{self.portal.prefix}static/", f"{pdf_view.PARTS}/view.js")
        self.finish(
            pdf_view.page(
                self.path,
                script=script,
                nonce=nonce,
                language=self.language,
                theme=self.query("theme", "light"),
                translate=self.translate,
            )
        )


class Archive(FilesHandler):
    """Some things of a tree, or all of it, as an archive that is made while it is sent."""

    ending = "archive"
    long = True

    async def get(self, *_: str) -> None:
        desk = await self.at_desk(write=False)
        form: Form = self.word("form", "zip", "tar", "tar.gz")  # type: ignore[assignment]
        chosen = [from_address(path) for path in self.get_query_arguments("path", strip=False)] or [""]
        name = desk.item.slug
        if len(chosen) == 1 and chosen[0]:
            name = shown(chosen[0].rstrip("/").rpartition("/")[2])
        await send_packed(self, desk.root, chosen, form, name)


class Jobs(FilesHandler):
    """One's own jobs at a tree; a new one."""

    ending = "jobs"

    async def get(self, *_: str) -> None:
        desk = await self.at_desk(write=False)
        jobs = file_jobs(self.portal).of(by=self.person.name, place=(desk.kind, desk.item.id))
        self.write_json(models.ListOf[FileJob](items=[job_model(job, self.translate) for job in jobs]))

    async def post(self, *_: str) -> None:
        body = self.body(NewFileJob)
        desk = await self.at_desk(write=body.do != "checksum")
        job = file_jobs(self.portal).begin(
            body.do,
            [from_address(path) for path in body.paths] if body.do != "pack" else [""],
            work_of(body, desk.root),
            by=self.person.name,
            place=(desk.kind, desk.item.id),
            volume=desk.item.volume_id,
            room_bytes=desk.room_bytes if body.do in ("copy", "pack", "unpack") else lambda: None,
            after=desk.changed if body.do != "checksum" else None,
        )
        try:
            await asyncio.wait_for(job.over.wait(), QUICK_SECONDS)
        except TimeoutError:
            pass
        self.set_header("Location", f"{desk.api}/jobs/{job.id}")
        self.write_json(job_model(job, self.translate), 200 if job.is_over else 202)


class OneJob(FilesHandler):
    """One's own job: how far it is; DELETE asks it to end."""

    ending = "jobs"

    async def _job(self) -> Job:
        desk = await self.at_desk(write=False)
        return file_jobs(self.portal).get(
            self.path_args[2], by=self.person.name, place=(desk.kind, desk.item.id)
        )

    async def get(self, *_: str) -> None:
        job = await self._job()
        self.set_header("Cache-Control", "private, no-store")
        self.write_json(job_model(job, self.translate))

    async def delete(self, *_: str) -> None:
        job = await self._job()
        file_jobs(self.portal).cancel(job)
        try:
            await asyncio.wait_for(job.over.wait(), QUICK_SECONDS)
        except TimeoutError:
            pass
        self.write_json(job_model(job, self.translate), 200 if job.is_over else 202)


def _check_room(desk: Desk, path: str, body: SaveText) -> None:
    size = len(body.text.encode("utf-8", "replace")) + (body.text.count("\n") if body.crlf else 0)
    if body.version is not None:
        with suppress(UserError):  # said by who writes it
            size -= desk.root.stat(path).size_bytes
    if size > 0 or body.version is None:  # who deletes lines makes room
        desk.check_room(path, size)


def work_of(body: NewFileJob, root: Root) -> Callable[[Job, str], str]:
    """What is done to each path.

    Raises
    ------
    UserError
        400 when what is asked for does not go together.
    """
    folder = from_address(body.to).strip("/")
    if body.name:
        paths.check_name(body.name)
        if len(body.paths) > 1 and body.do != "pack":
            raise UserError(400, mark("A name can be given to one thing only."))

    def target(path: str) -> str:
        name = body.name or path.rstrip("/").rpartition("/")[2]
        return f"{folder}/{name}" if folder else name

    def make_copy(job: Job, path: str) -> str:
        made = copy(root, path, root, target(path), taken=body.taken, progress=job.progress)
        job.left_out += [(shown(name), "unreadable") for name in made.left_out]
        return paths.address(made.path)

    def move(job: Job, path: str) -> str:
        job.progress.add(0, 1)
        return root.rename(path, target(path), overwrite=body.taken == "replace").address

    def delete(job: Job, path: str) -> str:
        job.progress.add(0, 1)
        root.delete(path, recursive=True)
        return ""

    def pack(job: Job, _: str) -> str:
        name = body.name or f"archive.{body.form}"
        chosen = [from_address(path) for path in body.paths]
        where = f"{folder}/{name}" if folder else name
        return paths.address(
            pack_into(root, chosen, where, body.form, taken=body.taken, progress=job.progress)
        )

    def unpack_one(job: Job, path: str) -> str:
        name = body.name or stem(path.rpartition("/")[2])
        where = f"{folder}/{name}" if folder else name
        made = unpack(root, path, where, taken=body.taken, progress=job.progress)
        job.left_out += made.left_out
        return paths.address(made.path)

    def check(job: Job, path: str) -> str:
        job.progress.add(0, 1)
        return checksum(root, path, body.algorithm, step=job.progress.add)

    return {
        "copy": make_copy,
        "move": move,
        "delete": delete,
        "pack": pack,
        "unpack": unpack_one,
        "checksum": check,
    }[body.do]


def stem(name: str) -> str:
    """An archive's name without its ending: the folder it is unpacked into."""
    lower = name.lower()
    for ending in (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".zip", ".tar", ".whl", ".jar"):
        if lower.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return f"{name} (unpacked)"


def job_model(job: Job, translate: Callable[[str], str]) -> FileJob:
    """A job as the API shows it."""
    return FileJob(
        id=job.id,
        do=job.do,
        state=job.state if job.is_over or job.state == "waiting" else "working",
        paths=len(job.paths),
        done=job.at,
        entries=job.progress.entries,
        size_bytes=job.progress.size_bytes,
        total_bytes=job.progress.total_bytes,
        made=list(job.made),
        problems=[
            FileProblem(
                path=paths.address(path),
                detail=error.text(translate),
                reason=error.reason,
                status=error.status,
            )
            for path, error in list(job.problems)
        ],
        left_out=[LeftOut(name=name, why=why) for name, why in job.left_out[:LEFT_OUT_SHOWN]],
        began_at=job.began_at,
        ended_at=job.ended_at,
    )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of files, of both kinds."""
    return [
        (ITEM + r"/files(?:/.*)?", Files),
        (ITEM + r"/uploads/?", Uploads),
        (ITEM + r"/uploads/([0-9a-f]{32})", Upload),
        (ITEM + r"/texts/.+", Texts),
        (ITEM + r"/preview/.+", Preview),
        (ITEM + r"/archive", Archive),
        (ITEM + r"/jobs", Jobs),
        (ITEM + r"/jobs/([0-9a-f]{24})", OneJob),
    ]


def _operations(item: str, what: str) -> tuple[Operation, ...]:
    files = item + "/files/{path}"
    listed = {
        "sort": "name, size or changed.",
        "order": "up or down.",
        "hidden": "true = also names that begin with a dot.",
        "q": "Only names that have this in them.",
        "limit": "At most this many, 1 to 1000.",
        "cursor": "“next” of the page before.",
    }
    return (
        Operation(
            method="get",
            path=item + "/files",
            summary=f"List the top folder of a {what}",
            query=listed,
            answers={200: FileList},
        ),
        Operation(
            method="get",
            path=files,
            summary=f"List a folder of a {what}, or download a file (with ranges)",
            query=listed,
            answers={200: FileList},
        ),
        Operation(
            method="put",
            path=files,
            summary="Upload a file in one request: the body is its content; all of it arrives or nothing",
            raw_body=True,
            query={"overwrite": "false = refuse (409) when there is such a file. Default true."},
            answers={201: models.File, 200: models.File},
        ),
        Operation(
            method="post",
            path=files,
            summary="Make a folder or an empty file",
            takes=NewEntry,
            answers={201: models.File},
        ),
        Operation(
            method="patch",
            path=files,
            summary="Rename or move a file or folder",
            takes=Rename,
            answers={200: models.File},
        ),
        Operation(method="delete", path=files, summary="Delete a file or a folder", answers={204: None}),
        Operation(
            method="post",
            path=item + "/uploads",
            summary="Begin a resumable upload (tus 1.0.0: creation, creation-with-upload, checksum, expiration)",
            raw_body=True,
            query={"folder": "The folder it goes to; “relativePath” or “filename” stand in Upload-Metadata."},
            answers={201: None},
        ),
        Operation(
            method="patch",
            path=item + "/uploads/{id}",
            summary="Go on with an upload where it is (tus)",
            raw_body=True,
            answers={204: None},
        ),
        Operation(
            method="delete",
            path=item + "/uploads/{id}",
            summary="End an upload and forget it (tus)",
            answers={204: None},
        ),
        Operation(
            method="get",
            path=item + "/texts/{path}",
            summary="Read a text to edit it",
            answers={200: TextFile},
        ),
        Operation(
            method="put",
            path=item + "/texts/{path}",
            summary="Save a text over the version that was read",
            takes=SaveText,
            answers={200: TextFile},
        ),
        Operation(
            method="get",
            path=item + "/preview/{path}",
            summary="A file as one safe HTML document",
            query={"theme": "light or dark.", "as": "text shows a table as it is written."},
            answers={200: None},
        ),
        Operation(
            method="get",
            path=item + "/archive",
            summary="Download some things, or all, as an archive that is made on the way",
            query={"path": "What; several may be given, none = all.", "form": "zip, tar or tar.gz."},
            answers={200: None},
        ),
        Operation(
            method="get",
            path=item + "/jobs",
            summary="List one's own long work on these files",
            answers={200: models.ListOf[FileJob]},
        ),
        Operation(
            method="post",
            path=item + "/jobs",
            summary="Copy, move, delete, pack, unpack, or take checksums",
            takes=NewFileJob,
            answers={200: FileJob, 202: FileJob},
        ),
        Operation(
            method="get", path=item + "/jobs/{id}", summary="How far long work is", answers={200: FileJob}
        ),
        Operation(
            method="delete",
            path=item + "/jobs/{id}",
            summary="Cancel long work; nothing half-made is left",
            answers={200: FileJob, 202: FileJob},
        ),
    )


OPERATIONS: tuple[Operation, ...] = (
    *_operations("/projects/{owner}/{slug}", "project"),
    *_operations("/datasets/{owner}/{slug}", "data set"),
)
