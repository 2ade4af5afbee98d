"""Object stores for people: kept, looked at, and copied from and to at the files of a project or data set.

A copy is a job of the file manager (:mod:`services.portal.file_jobs`), in a lane of its own beside its volume, so that it
keeps nobody from other work there. It asks again every few seconds whether it may go on: the store may have been
deleted, a share withdrawn, an account blocked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from galilean.errors import UserError, mark
from galilean.reachable import Reachable
from galilean.rights import BLOCKED
from galilean.sealed import Sealed
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.files import paths
from services.files.progress import Cancelled
from services.object_stores import kept, rules, transfers
from services.object_stores.bucket import Bucket
from services.object_stores.copies import Course, Ended, Outcome, Taken, bring, send
from services.object_stores.kept import MANAGE, Store, Viewer
from services.object_stores.rules import Key, Place
from services.portal.desks import Desk, desk_of
from services.portal.file_jobs import FileJobs, Job

log = logging.getLogger("galilean.portal.object-stores")

LANE = "object-stores"
ASK_SECONDS = 5.0
ANSWER_SECONDS = 60.0
LOOKS_AT_ONCE = 3


def viewer(person: Visitor, address: str = "") -> Viewer:
    """Who looks. A node's token names its owner and is not its owner."""
    if person.node is not None:
        return Viewer(name="", has_role=False)
    return Viewer(name=person.name, has_role=person.has_role, manages=person.may(MANAGE), address=address)


def check_enabled(portal: Portal) -> None:
    """Refuse where the centre has none.

    Raises
    ------
    UserError
        404.
    """
    if not portal.settings.object_stores.enabled:
        raise UserError(404, mark("This centre copies nothing from or to object stores."))


def may_keep(portal: Portal, person: Visitor) -> bool:
    """Whether somebody may keep stores of their own."""
    return person.has_role and (portal.settings.object_stores.own or person.may(MANAGE))


def box(portal: Portal) -> Sealed:
    """What closes secret keys: portal and hub both know the portal's token, the database does not."""
    known = portal.parts.get("object_store_box")
    if known is None:
        known = portal.parts["object_store_box"] = Sealed(portal.parts["machines_token"], kept.PURPOSE)
    return known


def reachable(portal: Portal) -> Reachable:
    """Where stores may be."""
    return Reachable.parse(portal.settings.object_stores.reachable)


def open_bucket(portal: Portal, place: Place, key: Key) -> Bucket:
    """A bucket to be asked; blocks, and is to be closed."""
    return Bucket(place, key, reachable=reachable(portal), ca_file=portal.settings.object_stores.ca_file)


async def stores(portal: Portal, person: Visitor) -> list[Store]:
    """Those that somebody may copy from."""
    check_enabled(portal)
    return await portal.db.run_read(kept.all_for, viewer(person))


async def keep(
    portal: Portal,
    person: Visitor,
    *,
    store_id: str = "",
    centre: bool = False,
    name: str,
    place: dict[str, Any],
    access_key_id: str,
    secret: str,
    writable: bool,
    address: str = "",
) -> Store:
    """Keep a store, or change one (``store_id``; an empty secret = the key that it has), once its bucket answers.

    A secret is only ever sent to where its owner typed it for: another endpoint wants it again.

    Raises
    ------
    UserError
        400, 403, 404, 409 as :mod:`services.object_stores`; what the store says when it is asked.
    """
    check_enabled(portal)
    who = viewer(person, address)
    if not who.has_role or (centre and not who.manages):
        raise UserError(403, mark("Only administrators keep object stores for the whole centre."))
    if not store_id and not centre and not may_keep(portal, person):
        raise UserError(
            403, mark("This centre keeps the object stores itself; ask an administrator for another.")
        )
    name = rules.check_name(name)
    where = rules.check_place(**place, reachable=reachable(portal))
    typed = rules.check_key(access_key_id, secret) if secret or not store_id else None
    key = typed
    if key is None:
        before, key = await portal.db.run_read(kept.opened, box(portal), store_id, who)
        await portal.db.run_read(partial(kept.get, store_id=store_id, viewer=who, change=True))
        if (before.place.endpoint, before.access_key_id) != (where.endpoint, access_key_id.strip()):
            raise UserError(
                400, mark("Enter the secret key, too: address or access key id are others."), reason="secret"
            )
    await ask(portal, person, where, key)
    values: dict[str, Any] = {"name": name, "place": where, "writable": writable, "now": portal.clock()}
    if store_id:
        return await portal.db.run(kept.change, box(portal), who, store_id, key=typed, **values)
    return await portal.db.run(kept.add, box(portal), who, centre=centre, key=key, **values)


async def forget(portal: Portal, person: Visitor, store_id: str, *, address: str = "") -> None:
    """Delete a store; copies under way end within seconds."""
    check_enabled(portal)
    await portal.db.run(kept.remove, viewer(person, address), store_id, now=portal.clock())


async def ask(portal: Portal, person: Visitor, place: Place, key: Key, **page: Any) -> Any:
    """A page of a bucket, within a minute.

    Raises
    ------
    UserError
        What the store says; 429 for too many at once, 503 when it takes too long.
    """
    going: dict[str, int] = portal.parts.setdefault("object_store_looks", {})
    if going.get(person.name, 0) >= LOOKS_AT_ONCE:
        raise UserError(429, mark("You look at object stores several times at once. Wait for one."))

    more: dict[str, Any] = {"limit": 1} | page

    def look() -> Any:
        try:
            with open_bucket(portal, place, key) as bucket:
                return bucket.page(**more)
        finally:
            with _LOCK:
                going[person.name] -= 1

    with _LOCK:
        going[person.name] = going.get(person.name, 0) + 1
    try:
        work = portal.files.run(LANE, look)
        return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(work)), ANSWER_SECONDS)
    except TimeoutError:
        raise UserError(
            503,
            mark("{endpoint} does not answer as an object store ({what}). Try again in a few minutes."),
            endpoint=place.endpoint,
            what="timeout",
            reason="store-away",
        ) from None


_LOCK = threading.Lock()


async def browse(
    portal: Portal,
    person: Visitor,
    store_id: str,
    *,
    prefix: str,
    begins: str,
    limit: int,
    cursor: str | None,
) -> tuple[Store, Any]:
    """A page of a store: what is below ``prefix`` and begins with ``begins``."""
    check_enabled(portal)
    rules.check_below(prefix + begins)
    store, key = await portal.db.run_read(kept.opened, box(portal), store_id, viewer(person))
    page = await ask(
        portal, person, store.place, key, prefix=prefix + begins, limit=limit, cursor=cursor or None
    )
    return store, page


# ------------------------------------------------------------------------------------------------------------ copies


def process_of(portal: Portal) -> str:
    """Which process this is, for what it has under way."""
    return portal.parts.setdefault("object_store_process", secrets.token_hex(16))


async def begin(
    portal: Portal,
    person: Visitor,
    jobs: FileJobs,
    ident: str,
    kind: Any,
    asked: dict[str, Any],
) -> tuple[Desk, Job]:
    """Begin a copy.

    Parameters
    ----------
    portal, person, jobs
        Of the request.
    ident, kind
        The project or data set.
    asked
        ``do`` import or export, ``store``, ``prefix``, ``names``, ``folder`` or ``paths``, ``taken``; plain JSON.

    Raises
    ------
    UserError
        404 for a store or tree that is not theirs to see, 403 without the right, 409 for a store that is read only.
    """
    check_enabled(portal)
    do: Literal["import", "export"] = asked["do"]
    for text in (asked["prefix"], *asked.get("names", ())):
        rules.check_below(text)
    desk = await desk_of(portal, person, kind, ident, write=do == "import")
    store, key = await portal.db.run_read(kept.opened, box(portal), asked["store"], viewer(person))
    if do == "export" and not store.writable:
        raise UserError(
            409,
            mark("“{name}” is read only. Its owner can let files be written to it."),
            name=store.name,
            reason="read-only",
        )
    place = (desk.kind, desk.item.id)
    now = portal.clock()
    transfer_id = await portal.db.run(
        transfers.begin,
        by=person.name,
        place=place,
        store=(store.id, store.name),
        asked=asked,
        process=process_of(portal),
        now=now,
    )
    loop = asyncio.get_running_loop()

    def wait_for(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    def question() -> None:
        with contextlib.suppress(TimeoutError):  # a busy portal is no refusal
            wait_for(_may_go_on(portal, person, desk, store, transfer_id, write=do == "import"))

    still = _Still(question)
    outcome = Outcome()

    def keep_upload(upload: tuple[str, str] | None) -> None:
        wait_for(portal.db.run(transfers.note, transfer_id, upload=list(upload) if upload else None))

    def work(job: Job, _: str) -> str:
        course = Course(progress=job.progress, still=still, pause=still.pause, keep_upload=keep_upload)
        taken: Taken = asked["taken"]
        try:
            with open_bucket(portal, store.place, key) as bucket:
                if do == "import":
                    bring(
                        bucket,
                        desk.root,
                        prefix=asked["prefix"],
                        names=asked["names"],
                        folder=paths.from_address(asked["folder"]).strip("/"),
                        taken=taken,
                        course=course,
                        limit_bytes=desk.limit_bytes,
                        room_bytes=desk.room_bytes,
                        outcome=outcome,
                    )
                else:
                    send(
                        bucket,
                        desk.root,
                        chosen=[paths.from_address(path) for path in asked["paths"]],
                        prefix=asked["prefix"],
                        taken=taken,
                        course=course,
                        outcome=outcome,
                    )
        except (UserError, Cancelled):
            raise
        except Ended as ended:
            raise ended.why from None
        except Exception as error:
            log.exception("copy %s broke off", transfer_id)
            raise UserError(
                500, mark("Something went wrong: {problem}."), problem=type(error).__name__
            ) from None
        finally:
            job.left_out += outcome.left_out
            job.problems += outcome.problems[:100]
        return str(outcome.copied)

    async def after(job: Job) -> None:
        if do == "import" and outcome.copied:
            with contextlib.suppress(UserError):
                await desk.changed()
        problem = job.problems[-1][1] if job.problems else None
        state = "broken" if jobs.closing else "cancelled" if job.state == "cancelled" else "done"
        await portal.db.run(
            transfers.note,
            transfer_id,
            state=state,
            objects=outcome.copied,
            size_bytes=job.progress.size_bytes,
            problem=problem.as_dict() if problem else None,
            ended_at=portal.clock(),
        )

    made: list[Job] = []
    try:
        job = jobs.begin(
            do,
            [""],
            work,
            by=person.name,
            place=place,
            volume=f"{desk.item.volume_id}/{LANE}",
            room_bytes=desk.room_bytes if do == "import" else lambda: None,
            after=lambda: after(made[0]),
        )
    except UserError:
        await portal.db.run(transfers.note, transfer_id, state="cancelled", ended_at=now)
        raise
    made.append(job)
    await portal.db.run(transfers.note, transfer_id, job_id=job.id)
    return desk, job


class _Still:
    """Asks at most every few seconds; waits without sleeping through an end."""

    def __init__(self, question: Callable[[], None]) -> None:
        self._question, self._asked_at = question, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._asked_at >= ASK_SECONDS:
            self._question()
            self._asked_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(min(seconds, 20.0))


async def _may_go_on(
    portal: Portal, person: Visitor, desk: Desk, store: Store, transfer_id: str, *, write: bool
) -> None:
    await portal.db.run(transfers.note, transfer_id, seen_at=portal.clock())
    try:
        groups = await portal.people.groups(person.name)
    except UserError as error:
        if error.status >= 500:
            return
        raise
    rights = await portal.rights.get()
    roles = rights.roles_of(groups)
    now = replace(person, groups=groups, roles=roles, given=rights.rights_of(roles))
    if BLOCKED in groups or not now.has_role:
        raise UserError(
            403, mark("The copy ended, because the account may do nothing any more."), reason="blocked"
        )
    await desk_of(portal, now, desk.kind, desk.item.id, write=write)
    found = await portal.db.run_read(kept.get, store.id, viewer(now))
    if found.place.endpoint != store.place.endpoint or (not write and not found.writable):
        raise kept.gone()


async def sweep(portal: Portal) -> None:
    """Say what was broken off by a process that ended, and take away what it left at stores."""
    left = await portal.db.run(transfers.break_off, process_of(portal), portal.clock())
    for one in left:
        try:
            owner = Viewer(name=one.by, has_role=True)
            store, key = await portal.db.run_read(kept.opened, box(portal), one.store_id, owner)
            upload = one.upload or ["", ""]

            def abort(store: Store = store, key: Key = key, upload: list[str] = upload) -> None:
                with open_bucket(portal, store.place, key) as bucket:
                    bucket.abort(upload[0], upload[1])

            await portal.files.run(LANE, abort)
        except UserError as error:
            log.warning("parts of an upload stay at the store %s: %s", one.store_name, error)
            if error.status >= 500:
                continue  # later
        await portal.db.run(transfers.note, one.id, upload=None)
