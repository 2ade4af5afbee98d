"""What the daemon's containers do, followed from its stream of events, so that a poll asks nobody.

One thread for the hub: it opens the stream, lists what there is, and then takes event after event; what it
learns it hands to the loop. While the stream is open what is known is true; when it breaks (the daemon was
restarted) nothing that is missing counts as gone until everything was listed anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from spawner.docker import names, troubles
from spawner.docker.api import Client, DockerAPI, NotFound
from spawner.docker.cards import held_by
from spawner.docker.troubles import Container
from spawner.requests import NextLook

LOOK_SECONDS = 10.0
#: Of containers that are no more, so many are remembered: until the next poll has asked.
MOST_GONE = 2000
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_EVENTS = ["create", "start", "die", "oom", "destroy", "rename"]


class ContainerWatch:
    """The containers of one instance.

    Parameters
    ----------
    api
        The daemon.
    instance
        Whose containers.
    """

    def __init__(self, api: DockerAPI, instance: str, *, log: Any = None) -> None:
        self._api, self.instance = api, instance
        self._log = log or logging.getLogger(__name__)
        self._known: dict[str, Container] = {}
        self._gone: dict[tuple[str, str, int], Container] = {}
        self._current = False
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = threading.Event()
        self._next_look = NextLook(self._wake.set)
        self._end = threading.Event()
        self._stream: Any = None

    # ------------------------------------------------------------------------------------ what is asked

    @property
    def current(self) -> bool:
        """Whether what is known can be believed."""
        return self._current

    def containers(self, cluster: str) -> dict[int, Container]:
        """The containers of a cluster by rank; one that was removed a moment ago is among them, ended."""
        found = {item.rank: item for key, item in self._gone.items() if key[0] == cluster}
        return found | {item.rank: item for item in self._known.values() if item.cluster == cluster}

    def cards(self) -> set[str]:
        """The GPU cards that somebody holds."""
        return held_by(item.gpus for item in self._known.values())

    async def look(self) -> None:
        """Come back when what is known can be believed.

        Raises
        ------
        Exception
            When the daemon cannot be asked: nothing that is missing is then gone.
        """
        self.start()
        if self._current:
            return
        await self._next_look.wait(LOOK_SECONDS)

    @contextmanager
    def follow(self, cluster: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a cluster's containers."""
        event = asyncio.Event()
        self._followers.setdefault(cluster, set()).add(event)
        try:
            yield event
        finally:
            self._followers[cluster].discard(event)
            if not self._followers[cluster]:
                del self._followers[cluster]

    def forget(self, cluster: str) -> None:
        """What ended of a cluster has been told."""
        for key in [key for key in self._gone if key[0] == cluster]:
            del self._gone[key]

    # -------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Begin to watch if nobody does; called again it costs nothing."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._loop = asyncio.get_running_loop()
        self._current = False
        self._end.clear()
        self._thread = threading.Thread(target=self._run, name="galilean-docker-watch", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the watch."""
        self._end.set()
        self._wake.set()
        thread, stream = self._thread, self._stream
        if stream is not None:
            try:
                stream.close()
            except Exception as error:  # it may be closing by itself
                self._log.debug("the stream of events: %r", error)
        if thread is not None:
            await asyncio.to_thread(thread.join, 5)

    # ------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        tries = 0
        while not self._end.is_set():
            try:
                self._follow_daemon()
                tries = 0
                self._tell(self._lost, ConnectionError("Docker's stream of events ended"), tries)
            except Exception as error:
                self._tell(self._lost, error, tries)
                tries += 1
            pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
            self._end.wait(min(pause, PAUSES_SECONDS[0]))
            self._wake.wait(pause)
            self._wake.clear()

    def _follow_daemon(self) -> None:
        # The stream may be silent for hours. A question that hangs would leave all that is known as it was: it ends
        # after the usual time, and everything is listed anew.
        with closing(self._api.connect(timeout=None)) as stream, closing(self._api.connect()) as client:
            chosen = {"type": "container", "label": f"{names.INSTANCE}={self.instance}", "event": _EVENTS}
            try:
                # From a moment ago: the daemon answers before it has begun to listen to itself.
                self._stream = stream.events(since=int(time.time()) - 1, decode=True, filters=chosen)
                self._tell(self._load, self._list(client))
                for event in self._stream:
                    if self._end.is_set():
                        return
                    self._take_event(client, event)
            finally:
                self._stream = None

    def _list(self, client: Client) -> list[Container]:
        found: list[Container] = []
        for item in client.containers(all=True, filters={"label": f"{names.INSTANCE}={self.instance}"}):
            inspected = self._inspect(client, item["Id"])
            if inspected is not None:
                found.append(inspected)
        return found

    def _inspect(self, client: Client, container_id: str) -> Container | None:
        try:
            return troubles.container(client.inspect_container(container_id), self.instance)
        except NotFound:
            return None

    def _take_event(self, client: Client, event: Mapping[str, Any]) -> None:
        container_id = str(event.get("Actor", {}).get("ID", ""))
        what = str(event.get("Action", ""))
        if what == "destroy":
            self._tell(self._removed, container_id)
            return
        seen = self._inspect(client, container_id)
        if seen is not None:
            if what == "oom":
                seen = replace(seen, reason="out of memory" if seen.over else "")
            self._tell(self._seen, seen)
        elif what == "die":
            self._tell(self._died, container_id, dict(event))

    def _tell(self, what: Callable[..., None], *about: Any) -> None:
        loop = self._loop
        if loop is None or self._end.is_set():
            return
        try:
            loop.call_soon_threadsafe(what, *about)
        except RuntimeError:  # the loop is closed: the hub ends
            self._end.set()

    # --------------------------------------------------------------------------------------- in the loop

    def _load(self, found: list[Container]) -> None:
        if not self._current and self._known:
            self._log.info("Docker answers again; %d containers of ours", len(found))
        self._known = {item.id: item for item in found}
        self._current = True
        self._next_look.came()
        for events in self._followers.values():
            for event in events:
                event.set()

    def _lost(self, error: Exception, tries: int) -> None:
        self._current = False
        if not tries:
            self._log.warning("Docker's events are interrupted: %r", error)
        self._next_look.came(error)

    def _seen(self, item: Container) -> None:
        self._known[item.id] = item
        self._changed(item.cluster)

    def _died(self, container_id: str, event: Mapping[str, Any]) -> None:
        known = self._known.get(container_id)
        if known is not None:
            self._seen(known if known.over else troubles.ended_by_event(known, event))

    def _removed(self, container_id: str) -> None:
        known = self._known.pop(container_id, None)
        if known is not None:
            ended = known if known.over else replace(known, running=False, begun=True, reason="removed")
            self._gone[known.cluster, known.run, known.rank] = ended
            while len(self._gone) > MOST_GONE:
                del self._gone[next(iter(self._gone))]
            self._changed(known.cluster)

    def _changed(self, cluster: str) -> None:
        for event in self._followers.get(cluster, ()):
            event.set()
