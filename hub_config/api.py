"""Three of the hub's own API calls, made whole: starting and stopping a server, and deleting a person.

The hub answers a DELETE of a server with 500 when another one came a moment before, or when it finds the
server in the middle of a start or a check. Both only mean that the end is on its way, and that is said: 202.
Whoever still waits for a start that somebody cancels would be told 500 as well; they are told that: 409.

Deleting a person releases what they hold first (the hub by itself refuses, halfway through, when a named
server is active), takes what they wait for out of the line, and deletes their projects; whoever gets the
name later begins with nothing. The files go to their volume's bin.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any

from jupyterhub.apihandlers.users import UserAPIHandler, UserServerAPIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import Connection
from tornado import web
from ulid import ULID

from extensions.imagebuilder import store as environments
from galilean.db import plain_words
from galilean.errors import UserError, mark
from galilean.names import departed as nobody_of
from galilean.settings import Settings
from galilean.web.language import translate
from hub_config.claim_looks import LookAPIHandler
from hub_config.mail_addresses import AddressesAPIHandler
from hub_config.told import release_of_another
from services.catalog import departed
from services.catalog.datasets import Dataset
from services.catalog.store import Project
from services.people import store as people
from spawner import records
from spawner.asking import refusal
from spawner.states import Status

PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.05
REASON = "person_deleted"


def _still_busy(name: str) -> web.HTTPError:
    error = UserError(
        503, mark("What “{name}” holds is still being released. Try again in a moment."), name=name[:64]
    )
    return web.HTTPError(503, error.text(translate).replace("%", "%%"))


def _cancelled(server: str) -> UserError:
    return UserError(
        409, mark("The start of “{server}” was cancelled."), server=server[:64], reason="cancelled"
    )


class StopsOnce:
    """How a handler stops a server that may be on its way up or down already."""

    #: The spawner that is to be stopped, where it was seen before the first wait.
    _meant: Any = None

    async def stop_single_user(self, user: Any, server_name: str = "") -> Any:
        """Stop a server, or join whoever stops it now; what is being looked at is waited for.

        The hub drops a spawner when it has ended and makes another for the next start. Whoever waited for the
        one leaves the other alone: it belongs to somebody who asked later.

        Raises
        ------
        tornado.web.HTTPError
            503 when the server stays in the middle of a start or check.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_SECONDS
        meant = self._meant or user.spawners.get(server_name)
        while loop.time() < end:
            spawner = user.spawners.get(server_name)
            if spawner is None or spawner is not meant:
                return None
            stop = getattr(spawner, "_stop_future", None)
            if spawner.pending == "stop" and stop is not None:
                return stop
            if not spawner.pending:
                return await super().stop_single_user(user, server_name)  # type: ignore[misc]
            start = spawner._spawn_future
            # Once: the hub's own clean-up after a cancelled start runs in the same task.
            if spawner.pending == "spawn" and isinstance(start, asyncio.Task) and not start.cancelling():
                start.cancel()
            await asyncio.sleep(LOOK_SECONDS)
        raise _still_busy(user.name)


class ServerAPIHandler(StopsOnce, UserServerAPIHandler):
    """``/users/<name>/servers/<server>``."""

    async def post(self, user_name: str, server_name: str = "") -> None:
        try:
            with plain_words():  # of the hub's own database: full, busy, away
                await super().post(user_name, server_name)
        except UserError as error:
            self.db.rollback()
            raise refusal(error, translate) from error
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():  # not the start: the hub itself ends
                raise
            raise refusal(_cancelled(server_name), translate) from None

    async def delete(self, user_name: str, server_name: str = "") -> None:
        try:
            with plain_words():
                user = self.find_user(user_name)
                self._meant = user.spawners.get(server_name) if user is not None else None
                await self._tell_of_it(user_name=user_name, server_name=server_name)
                await super().delete(user_name, server_name)
        except UserError as error:
            self.db.rollback()
            raise refusal(error, translate) from error
        if self._meant is not None and self._meant.pending:
            self.set_status(202)

    @needs_scope("delete:servers")
    async def _tell_of_it(self, user_name: str, server_name: str) -> None:
        await release_of_another(self, user_name, server_name)


class PersonAPIHandler(StopsOnce, UserAPIHandler):
    """``/users/<name>``."""

    def initialize(self, wiring: Any) -> None:
        self.wiring = wiring

    async def delete_account(self, user_name: str) -> None:
        """Delete an account and all that it held; whoever calls it has asked whether that may be."""
        user: Any = self.find_user(user_name)
        asker: Any = self.current_user
        if user is not None and user.name != asker.name:
            await self._let_go_of_everything(user, asker.name)
        # The hub's own, without its question for a scope: ours has been answered.
        await inspect.unwrap(UserAPIHandler.delete)(self, user_name)
        if user is not None:
            await self.wiring.database.run(people.forget, user_name)

    async def _let_go_of_everything(self, user: Any, asker: str) -> None:
        wiring = self.wiring
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_SECONDS
        while True:
            await wiring.database.run(_ask_all, user.name, asker, wiring.clock())
            for name in [name for name, spawner in user.spawners.items() if name and spawner.active]:
                await self.stop_single_user(user, name)
            gone: list[Project | Dataset] | None = None
            if not any(spawner.active for spawner in user.spawners.values()):
                # In turn with admissions: no run begins between the look and the mark.
                gone = await wiring.database.run_serialised(
                    "admission", _delete_projects, user.name, wiring.clock()
                )
            if gone is not None:
                break
            if loop.time() >= end:
                raise _still_busy(user.name)
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(_move_away, wiring.settings, gone, self.log)


def _ask_all(conn: Connection, person: str, asker: str, now: Any) -> None:
    for run in records.list_runs(conn, user=person, limit=10_000):
        if run.status == Status.QUEUED:
            records.cancel_waiting(conn, run.id, reason=REASON, asked_by=asker, now=now)
        else:
            records.ask_stop(conn, run.id, reason=REASON, asked_by=asker, now=now)


def _delete_projects(conn: Connection, person: str, now: Any) -> list[Project | Dataset] | None:
    """The person's projects and data sets that are deleted now; ``None`` while anything of the person is open.

    Their environments and saved images go as well.
    """
    if records.count_open(conn, user=person):
        return None
    environments.forget_person(conn, person, nobody_of(person, str(ULID.from_datetime(now)).lower()), now=now)
    return departed.delete_owned(conn, person, now=now)


def _move_away(settings: Settings, projects: Iterable[Project | Dataset], log: Any) -> None:
    from services.catalog.projects import to_bin

    for project in projects:
        try:
            to_bin(settings, project)
        except (OSError, UserError) as error:
            log.error("The files of %s stay where they are: %s", project.id, error)


def handlers(wiring: Any) -> list[tuple[Any, ...]]:
    """What stands in the place of the hub's own."""
    return [
        (r"/api/galilean/addresses", AddressesAPIHandler, {"wiring": wiring}),
        (r"/api/galilean/look", LookAPIHandler, {"wiring": wiring}),
        (r"/api/users/([^/]+)/servers/([^/]*)", ServerAPIHandler),
    ]
