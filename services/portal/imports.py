"""Imports under way: line by line at the hub, how far each is, and undoing the last.

A line is one call with the administrator's own token, so it is allowed and noted like any other. What came
of it stands in the database after every few lines; initial passwords stand only in this process's memory,
for whoever started the import to fetch once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from galilean import audit, notices
from galilean.errors import UserError, mark
from galilean.rights import GROUP_PREFIX, ROLE_PREFIX
from galilean.web.context import Portal
from galilean.web.handlers import BaseHandler
from services.catalog.tables import projects
from services.people import store
from services.people.importing import AT_ONCE, Line, decode, read
from services.people.store import Import
from services.people.waiting import list_accounts
from services.portal import people
from spawner.tables import clusters

log = logging.getLogger("galilean.portal")

NOTE_EVERY = 10
KEPT_MOST = 5  # imports whose passwords wait to be fetched
LEFT = "left"
MADE, ADDED, SAME, LEFT_OUT, FAILED, UNDONE, KEPT = (
    "made", "added", "same", "left out", "failed", "undone", "kept",
)  # fmt: skip


@dataclass
class Job:
    """An import that this process carries out or takes back, and the passwords that it made."""

    by: str
    rows: list[dict[str, Any]]
    passwords: dict[str, str] = field(default_factory=dict)
    task: asyncio.Task[Any] | None = None
    running: bool = True

    async def work(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        finally:
            self.running = False


def jobs(handler: BaseHandler) -> dict[str, Job]:
    """Of this process."""
    return handler.portal.parts.setdefault("imports", {})


def _begin(handler: BaseHandler, job: Job) -> Job:
    """Be the only one at work from now on; passwords that nobody fetched yet are kept.

    Raises
    ------
    UserError
        409 while another one is.
    """
    known = jobs(handler)
    if any(other.running for other in known.values()):
        raise UserError(409, mark("An import runs already. Wait until it is through."))
    kept = [key for key, other in known.items() if other.passwords][-KEPT_MOST:]
    for key in [key for key in known if key not in kept]:
        del known[key]
    known[""] = job  # until it has an id
    return job


async def preview(handler: BaseHandler, raw: bytes, own_role: str = "") -> list[Line]:
    """What a file would do; nothing is made."""
    known = await handler.portal.rights.get()
    accounts = {account.name for account in await list_accounts(handler.hub_as_visitor(), known)}
    return read(decode(raw), known, accounts, own_role)


def plain(line: Line) -> dict[str, Any]:
    """A line as it is kept: without its password."""
    return {
        "line": line.number,
        "name": line.name,
        "full_name": line.full_name,
        "outcome": "" if line.good else LEFT_OUT,
        "problem": "; ".join(text.format(**values) for text, values in line.problems),
        "added": [],
    }


async def begin(handler: BaseHandler, lines: Sequence[Line], file: str) -> str:
    """Start an import; its id. One at a time.

    Raises
    ------
    UserError
        400 when no line is good, 409 while another one runs.
    """
    portal = handler.portal
    if not any(line.good for line in lines):
        raise UserError(400, mark("No line of the file can be imported."))
    job = _begin(handler, Job(by=handler.person.name, rows=[plain(line) for line in lines]))
    try:
        import_id = await portal.db.run(
            lambda conn: store.begin_import(conn, by=job.by, file=file, rows=job.rows, now=portal.clock())
        )
    finally:
        del jobs(handler)[""]
    jobs(handler)[import_id] = job
    job.task = asyncio.create_task(job.work(_work(handler, import_id, job, lines, file)))
    return import_id


async def _work(handler: BaseHandler, import_id: str, job: Job, lines: Sequence[Line], file: str) -> None:
    portal = handler.portal
    done = 0
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(line: Line, row: dict[str, Any]) -> None:
        nonlocal done
        async with turns:
            if line.good:
                await _line(handler, import_id, line, row, job)
            done += 1
            if done % NOTE_EVERY == 0:
                await _note(portal, import_id, job.rows, done)

    # No line's trouble ends the others: what is told as finished is.
    await asyncio.gather(*(one(line, row) for line, row in zip(lines, job.rows, strict=True)))
    try:
        made = await portal.db.run_read(store.made_by, import_id)
        for line, row in zip(lines, job.rows, strict=True):
            if row["outcome"] == FAILED and line.name in made:  # only the answer was lost
                row["outcome"], row["problem"], row["added"] = MADE, "", wanted_by(line)
        there = {row["name"] for row in job.rows if row["outcome"] == MADE}
        for name in [name for name in job.passwords if name not in there]:
            del job.passwords[name]
        await portal.db.run(_finished, import_id, job, done, file, handler.address, portal.clock())
    except Exception:
        log.exception("import %s is through, but that could not be noted", import_id)


async def _note(portal: Portal, import_id: str, rows: Sequence[Any], done: int) -> None:
    try:
        await portal.db.run(store.note_rows, import_id, rows, done)
    except UserError as error:  # the next note says it, too
        log.warning("how far import %s is could not be noted: %s", import_id, error)


def wanted_by(line: Line) -> list[str]:
    """The hub groups that a line asks for."""
    return [*(ROLE_PREFIX + r for r in line.roles), *(GROUP_PREFIX + g for g in line.groups)]


async def _line(handler: BaseHandler, import_id: str, line: Line, row: dict[str, Any], job: Job) -> None:
    try:
        if line.exists:
            moved = await people.move(handler, line.name, add=wanted_by(line))
            row["added"] = moved["added"]
            row["outcome"] = ADDED if moved["added"] else SAME
            return
        password = line.password or people.new_password()
        if not line.password:  # before it is set, so that it cannot be lost with an answer
            job.passwords[line.name] = password
        made = await people.create(
            handler,
            name=line.name,
            given=line.roles,
            groups=line.groups,
            full_name=line.full_name,
            mail=line.mail,
            password=password,
            import_id=import_id,
        )
        row["outcome"], row["added"] = MADE, made["groups"]
        if not made["password"]:
            job.passwords.pop(line.name, None)
    except UserError as error:
        row["outcome"], row["problem"] = FAILED, error.text(handler.translate)
    except Exception:
        log.exception("line %s of import %s", line.number, import_id)
        row["outcome"], row["problem"] = FAILED, handler.translate(mark("Something went wrong."))


def _finished(
    conn: Connection, import_id: str, job: Job, done: int, file: str, address: str, now: Any
) -> None:
    store.note_rows(conn, import_id, job.rows, done)
    store.finish_import(conn, import_id, now)
    counts = count(job.rows)
    audit.write(
        conn,
        at=now,
        actor=job.by,
        action="people.import",
        subject=file or import_id,
        address=address,
        after=counts,
    )
    notices.tell(
        conn,
        job.by,
        now=now,
        kind="import",
        text=mark("The import is through: {made} made, {added} changed, {failed} not done."),
        address=f"admin/people/import/{import_id}",
        made=counts.get(MADE, 0),
        added=counts.get(ADDED, 0),
        failed=counts.get(FAILED, 0) + counts.get(LEFT_OUT, 0),
    )


def count(rows: Sequence[Any]) -> dict[str, int]:
    """How many lines came out how."""
    found: dict[str, int] = {}
    for row in rows:
        if row["outcome"]:
            found[row["outcome"]] = found.get(row["outcome"], 0) + 1
    return found


async def get(handler: BaseHandler, import_id: str) -> Import:
    """An import.

    Raises
    ------
    UserError
        404.
    """
    found = await handler.portal.db.run_read(store.get_import, import_id)
    if found is None:
        raise UserError(404, mark("There is no such import."))
    return found


async def take_passwords(handler: BaseHandler, import_id: str) -> tuple[Import, dict[str, str]]:
    """The passwords that an import made, once, for whoever started it; with the import.

    Raises
    ------
    UserError
        404; 409 while it runs; 410 when they were taken, or are somebody else's.
    """
    found = await get(handler, import_id)
    job = jobs(handler).get(import_id)
    if job is not None and job.running:
        raise UserError(409, mark("An import runs already. Wait until it is through."))
    if job is None or job.by != handler.person.name or not job.passwords:
        raise UserError(
            410, mark("These passwords were given out already. Set a new one on the person's page.")
        )
    taken, job.passwords = job.passwords, {}
    try:
        await handler.portal.db.run(
            _passwords_taken, import_id, len(taken), job.by, handler.address, handler.portal.clock()
        )
    except BaseException:
        job.passwords = {**taken, **job.passwords}  # nothing is handed out of which there is no line
        raise
    return found, taken


def _passwords_taken(conn: Connection, import_id: str, count: int, by: str, address: str, now: Any) -> None:
    audit.write(
        conn,
        at=now,
        actor=by,
        action="people.import.passwords",
        subject=import_id,
        address=address,
        after={"accounts": count},
    )


async def undo(handler: BaseHandler, import_id: str) -> dict[str, int]:
    """Take the last import back: accounts that it made and nobody used, groups that it put people into.

    What could not be taken back stays as it was, with the reason; then it can be tried again.

    Raises
    ------
    UserError
        409 when it is not the last one, runs, or is undone already.
    """
    portal = handler.portal
    found = await get(handler, import_id)
    newest = await portal.db.run_read(store.last_imports, 1)
    if not newest or newest[0].id != import_id:
        raise UserError(409, mark("Only the last import can be undone."))
    if found.undone_at is not None:
        raise UserError(409, mark("This import is undone already."))
    before = jobs(handler).get(import_id)
    job = _begin(handler, Job(by=handler.person.name, rows=[dict(row) for row in found.rows]))
    known = jobs(handler)
    known[import_id] = known.pop("")
    if before is not None and before.by == job.by:
        job.passwords = before.passwords
    # A task of its own: a browser that goes away does not leave it half done.
    job.task = asyncio.create_task(job.work(_undo(handler, import_id, job)))
    return await asyncio.shield(job.task)


async def _undo(handler: BaseHandler, import_id: str, job: Job) -> dict[str, int]:
    portal, rows = handler.portal, job.rows
    noted = await portal.db.run_read(store.made_by, import_id)
    for row in rows:
        if row["outcome"] in ("", FAILED) and row["name"] in noted:
            row["outcome"] = MADE
    made = [row["name"] for row in rows if row["outcome"] == MADE]
    used = await portal.db.run_read(_used, made)
    seen = {model["name"] for model in await portal.hub.users() if model.get("last_activity")}
    for number, row in enumerate(rows, 1):
        try:
            if row["outcome"] == MADE:
                if row["name"] in used or row["name"] in seen:
                    row["outcome"] = KEPT
                    continue
                await _gone(people.delete(handler, row["name"]))
                job.passwords.pop(row["name"], None)
            elif row["outcome"] == ADDED:
                await _gone(people.move(handler, row["name"], remove=row["added"]))
            else:
                continue
            row["outcome"], row["problem"] = UNDONE, ""
        except UserError as error:
            row["problem"] = error.text(handler.translate)
        except Exception:
            log.exception("undoing line %s of import %s", row["line"], import_id)
            row["problem"] = handler.translate(mark("Something went wrong."))
        if number % NOTE_EVERY == 0:
            await _note(portal, import_id, rows, len(rows))
    await portal.db.run(_undone, import_id, rows, job.by, handler.address, portal.clock())
    return {**count(rows), LEFT: sum(row["outcome"] in (MADE, ADDED) for row in rows)}


async def _gone(work: Coroutine[Any, Any, Any]) -> None:
    """Who is gone already needs no more."""
    try:
        await work
    except UserError as error:
        if error.status != 404:
            raise


def _used(conn: Connection, names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for column in (projects.c.owner, clusters.c.user):
        for start in range(0, len(names), 500):
            part = list(names[start : start + 500])
            found.update(conn.execute(select(column).where(column.in_(part)).distinct()).scalars())
    return found


def _undone(conn: Connection, import_id: str, rows: Any, by: str, address: str, now: Any) -> None:
    store.note_rows(conn, import_id, rows, len(rows))
    if not any(row["outcome"] in (MADE, ADDED) for row in rows):
        store.undone(conn, import_id, now)
    audit.write(
        conn,
        at=now,
        actor=by,
        action="people.import.undo",
        subject=import_id,
        address=address,
        after=count(rows),
    )
