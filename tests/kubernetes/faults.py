"""Faults inside a hub of its own process, at exactly the step that a test names.

A fault is a file below ``<state>/faults``: its name is the step, its content what happens there.
:class:`Faults` is the tests' side of it; :class:`FaultyAPI` and :class:`FaultyDatabase` are what the hub is
given instead of the real ones, and do all that those do.

Steps are ``before create Pod <name>``, ``after delete Secret <name>``, ``before close <server>`` (a step of
:mod:`spawner.steps`), ``watch``. What happens is ``hold`` (until the file is gone), ``lose`` (done, but the
answer is lost), ``die`` (the watch's task ends), or an HTTP status that is answered instead; all but
``hold`` happen once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from galilean.db import Database
from spawner.kubernetes.api import APIError, KubeAPI
from spawner.records import Run
from tests.lab.waiting import eventually

SAID = {
    403: "forbidden by a policy of the site",
    429: "too many requests, please try again later",
    503: "etcdserver: leader changed",
}


class Faults:
    """The faults of one hub."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def set(self, step: str, what: str = "hold") -> None:
        (self._folder / quote(step, safe=" ")).write_text(what)

    def reached(self, step: str, seconds: float = 30) -> None:
        """Wait until the hub has come to a step."""
        path = self._folder / f"{quote(step, safe=' ')}.reached"
        eventually(path.exists, seconds, f"the hub reaches: {step}")

    def clear(self) -> None:
        """No more faults; what was held goes on."""
        for path in self._folder.iterdir():
            path.unlink()


class _Steps:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def come_to(self, step: str) -> str:
        """What is to happen here, but for holding, which has happened then."""
        path = self._folder / quote(step, safe=" ")
        try:
            what = path.read_text()
        except FileNotFoundError:
            return ""
        path.with_name(f"{path.name}.reached").touch()
        if what == "hold":
            while path.exists():  # noqa: ASYNC110 - another process takes it away
                await asyncio.sleep(0.02)
            return ""
        path.unlink(missing_ok=True)
        return what


class FaultyAPI(KubeAPI):
    """The API server's client, failing where it is told to."""

    def __init__(self, namespace: str, folder: Path) -> None:
        super().__init__(namespace)
        self._steps = _Steps(folder)

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        create = super().create
        return await self._around(f"create {body['kind']} {body['metadata']['name']}", lambda: create(body))

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        delete = super().delete
        return await self._around(
            f"delete {kind} {name}", lambda: delete(kind, name, uid=uid, grace_seconds=grace_seconds)
        )

    async def _around(self, step: str, ask: Callable[[], Any]) -> Any:
        what = await self._steps.come_to(f"before {step}")
        if what:
            raise APIError(int(what), SAID[int(what)])
        made = await ask()
        if await self._steps.come_to(f"after {step}") == "lose":
            raise ConnectionResetError("the answer was lost")
        return made

    async def watch(self, kind: str, *args: Any, **more: Any) -> AsyncIterator[dict[str, Any]]:
        async for event in super().watch(kind, *args, **more):
            if kind == "Pod" and await self._steps.come_to("watch") == "die":
                raise asyncio.CancelledError
            yield event


class FaultyDatabase(Database):
    """Our database, which stops before a step of a run's life where it is told to."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, threads=1)
        self._steps = _Steps(folder)

    async def run(self, function: Callable[..., Any], /, *args: Any, **more: Any) -> Any:
        if args and isinstance(args[0], Run):
            await self._steps.come_to(f"before {function.__name__} {args[0].server}")
        return await super().run(function, *args, **more)
