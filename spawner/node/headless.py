"""Cells go on without a page, and their outputs go into the notebook (BX-15).

JupyterLab's page puts what a kernel says into the notebook; Jupyter's server only hands it on. So when the page
is closed, what running and queued cells print is lost. Libraries that move this to the server
(jupyter-collaboration, jupyter-server-documents) make every notebook a shared document and replace JupyterLab's
model of it in the page; jupyter-server-nbmodel executes on the server, with a front end of its own. All change
what people see while they *are* there. This module does not: pages work as ever, and only what nobody receives
any more is written.

It hears everything every kernel says from its start, and sees every execute request of a page with the cell that
it is of. Per execution it keeps the outputs, bounded (:mod:`spawner.node.outputs`). When a page has *left*
(its websocket closed, and the same page did not come back), its executions are written into the file
(:mod:`spawner.node.notebook`): each as it ends and every ten seconds, and also those that had ended but were not
saved. A page that comes back with its connection gets what was said meanwhile from Jupyter's buffer and takes over
again; a page that is opened anew reads the file. ``input()`` finds nobody: it is answered with end of file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spawner.node import notebook
from spawner.node.outputs import Outputs, Room

#: A page that closed its connection itself has left; one whose connection broke may come back.
LEFT_SECONDS = 2.0
LOST_SECONDS = 60.0
WRITE_SECONDS = 10.0
BREATH_SECONDS = 1.0
FAILURES_MOST = 30
#: Executions that ended are kept as long as their page may not have saved them.
KEPT_MOST = 500
END_OF_FILE = "\x04"
#: The page or the browser closed it; anything else is a connection that broke.
CLEAN_CLOSES = (1000, 1001, 1005)

ASKED_FOR_INPUT = "This cell asked for input after its page was closed; it was told that there is none."
KERNEL_ENDED = "The kernel ended before this cell was done."


@dataclass
class Execution:
    """One execute request of a page."""

    key: str
    session: str
    cell_id: str
    code: str
    asked: int  #: in which turn
    outputs: Outputs = field(default_factory=Outputs)
    ran: bool = False
    done_at: float | None = None
    ours: bool = False
    written: int = -1
    settled: bool = False
    failures: int = 0

    @property
    def unwritten(self) -> bool:
        return self.ours and self.ran and not self.settled


@dataclass
class Kernel:
    """What is known of one kernel."""

    stream: Any
    room: Room = field(default_factory=Room)
    executions: dict[str, Execution] = field(default_factory=dict)
    open: dict[str, Any] = field(default_factory=dict)
    leaving: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    stdin: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def running(self, session: str | None = None) -> list[Execution]:
        """Executions that have not ended, of one page or all."""
        return [
            item
            for item in self.executions.values()
            if item.done_at is None and (session is None or item.session == session)
        ]


class Headless:
    """Keeps what kernels say, and writes what no page receives.

    Parameters
    ----------
    clock
        Seconds since 1970.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kernels: dict[str, Kernel] = {}
        self._asked = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sessions: Any = None
        self._contents: Any = None
        self._log: logging.Logger = logging.getLogger(__name__)
        self._ours: dict[str, tuple[int, ...]] = {}
        self._saved_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._paths: dict[str, str] = {}  # by notebook: its kernel, as of the last write
        self._writing = asyncio.Lock()

    def begin(self, sessions: Any, contents: Any, log: logging.Logger) -> None:
        """Take up work: ``sessions`` and ``contents`` are Jupyter's managers."""
        self._sessions, self._contents, self._log = sessions, contents, log
        self._task = asyncio.create_task(self._run())

    # ------------------------------------------------------------------------------------------- kernels

    def watch(self, kernel_id: str, stream: Any) -> None:
        """A kernel has begun; ``stream`` hears what it publishes."""
        kernel = self._kernels.setdefault(kernel_id, Kernel(stream))
        kernel.stream = stream

    def heard(self, kernel_id: str, kind: str, parent: str, content: Callable[[], Mapping[str, Any]]) -> None:
        """A kernel published something."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        if kind == "update_display_data":
            said = content()
            display_id = (said.get("transient") or {}).get("display_id")
            for item in kernel.executions.values() if display_id else ():
                if item.outputs.update(str(display_id), said):
                    item.settled = False
            return
        item = kernel.executions.get(parent)
        if item is None:
            return
        if kind == "status":
            if content().get("execution_state") == "idle":
                self._end(kernel, item)
            return
        item.ran = True
        item.outputs.take(kind, content())

    def ended(self, kernel_id: str, *, restarts: bool) -> None:
        """A kernel died, was restarted or shut down: nothing that it was asked for will end by itself."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        for item in kernel.running():
            if item.ran:
                item.outputs.told(self._say(KERNEL_ENDED))
            self._end(kernel, item)
        if not restarts:
            for handle in kernel.leaving.values():
                handle.cancel()

    async def forget(self, kernel_id: str) -> None:
        """A kernel is shut down: write what is to be written, then know nothing of it any more."""
        self.ended(kernel_id, restarts=False)
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        for session in list(kernel.leaving):
            self._gone(kernel_id, session)
        try:
            await asyncio.wait_for(self._write(kernel_id), 3)
        except Exception as error:  # the kernel's end must not hang on a file
            self._log.warning("Outputs could not be written before the kernel ended: %s", error)
        self._kernels.pop(kernel_id, None)

    def _end(self, kernel: Kernel, item: Execution) -> None:
        if item.done_at is not None:
            return
        item.done_at = self._clock()
        item.outputs.changed += 1
        if not item.ran:  # refused after an error in a cell before it: as if it had never been asked for
            kernel.executions.pop(item.key, None)
        for other in kernel.running(item.session):
            # A kernel answers in turn: what was asked before and has not begun never reached it.
            if not other.ran and other.asked < item.asked:
                del kernel.executions[other.key]
        if not kernel.running(item.session):
            self._close_channels(kernel, item.session)
        if item.ours:
            self._wake.set()

    # --------------------------------------------------------------------------------------------- pages

    def joined(self, kernel_id: str, session: str, connection: Any, *, missed: bool) -> None:
        """A page has a connection to a kernel; ``missed`` = not all was kept that was said while it was away."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        kernel.open[session] = connection
        if (handle := kernel.leaving.pop(session, None)) is not None:
            handle.cancel()
        kernel.left.discard(session)
        kernel.stdin.pop(session, None)
        if not missed:
            for item in kernel.running(session):
                item.ours = False

    def left(self, kernel_id: str, session: str, connection: Any, *, clean: bool) -> None:
        """A page's connection closed; ``clean`` = by the page itself."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None or kernel.open.get(session) is not connection:
            return
        del kernel.open[session]
        loop = asyncio.get_running_loop()
        kernel.leaving[session] = loop.call_later(
            LEFT_SECONDS if clean else LOST_SECONDS, self._gone, kernel_id, session
        )

    def _gone(self, kernel_id: str, session: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        if (handle := kernel.leaving.pop(session, None)) is not None:
            handle.cancel()
        kernel.left.add(session)
        for item in kernel.executions.values():
            if item.session == session and not item.settled:
                item.ours = True
        if (parent := kernel.asked.pop(session, None)) is not None:
            self._refuse_input(kernel, session, parent)
        self._wake.set()

    def sent(self, kernel_id: str, header: Mapping[str, Any], metadata: Mapping[str, Any], code: str) -> None:
        """A page asked a kernel to execute a cell."""
        kernel = self._kernels.get(kernel_id)
        key, cell_id = str(header.get("msg_id", "")), metadata.get("cellId")
        if kernel is None or not key or not isinstance(cell_id, str):
            return
        for other in list(kernel.executions.values()):
            if other.cell_id == cell_id and other.done_at is not None:
                del kernel.executions[other.key]
        self._asked += 1
        session = str(header.get("session", ""))
        kernel.executions[key] = Execution(key, session, cell_id, code, self._asked, Outputs(kernel.room))
        ended = [
            item for item in kernel.executions.values() if item.done_at is not None and not item.unwritten
        ]
        for item in ended[: max(0, len(ended) - KEPT_MOST)]:
            del kernel.executions[item.key]

    def has_running(self, kernel_id: str, session: str) -> bool:
        """Whether a page's executions have not all ended."""
        kernel = self._kernels.get(kernel_id)
        return kernel is not None and bool(kernel.running(session))

    # --------------------------------------------------------------------------------------------- input

    def asked_page(self, kernel_id: str, session: str, parent: Any) -> None:
        """The kernel asks an open page for input: ``parent`` is the request's header; ``None`` = answered."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None:
            if parent is None:
                kernel.asked.pop(session, None)
            else:
                kernel.asked[session] = parent

    def keep_stdin(self, kernel_id: str, session: str, stream: Any, protocol: Any) -> None:
        """The channel on which a page that is away would be asked for input."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None:
            kernel.stdin[session] = (stream, protocol)

    def asked_nobody(self, kernel_id: str, session: str, parent: Any) -> None:
        """The kernel asks a page for input that is away."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        if session in kernel.left:
            self._refuse_input(kernel, session, parent)
        else:
            kernel.asked[session] = parent

    def _refuse_input(self, kernel: Kernel, session: str, parent: Any) -> None:
        held = kernel.stdin.get(session)
        item = kernel.executions.get(str((parent.get("parent_header") or {}).get("msg_id", "")))
        if item is not None and item.done_at is None:
            item.outputs.told(self._say(ASKED_FOR_INPUT))
        if held is not None and not held[0].closed():
            stream, protocol = held
            protocol.send(stream, "input_reply", {"value": END_OF_FILE, "status": "ok"}, parent=parent)

    def keep_channels(self, kernel_id: str, session: str, channels: dict[str, Any]) -> None:
        """Channels of a page that left with executions under way; they stay open until these have ended."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            for stream in channels.values():
                if not stream.closed():
                    stream.close()
            return
        self._close_channels(kernel, session)
        kernel.channels[session] = channels

    def _close_channels(self, kernel: Kernel, session: str) -> None:
        for stream in kernel.channels.pop(session, {}).values():
            if not stream.closed():
                stream.on_recv(None)
                stream.close()

    # ----------------------------------------------------------------------------------------------- told

    def waiting(self) -> int:
        """How many cells a kernel has not begun, or has ended and are not written."""
        return sum(
            not item.ran if item.done_at is None else item.unwritten
            for kernel in self._kernels.values()
            for item in kernel.executions.values()
        )

    def told(self) -> list[dict[str, Any]]:
        """Into which notebooks is being written, by the names that pages use."""
        from datetime import UTC, datetime

        return [
            {
                "path": path,
                "cells": self._cells.get(path, 0),
                "written_at": datetime.fromtimestamp(at, UTC).isoformat(),
            }
            for path, at in sorted(self._written_at.items())
        ]

    @property
    def _cells(self) -> dict[str, int]:
        """Executions of left pages that still run, by notebook."""
        found: dict[str, int] = {}
        for path, kernel_id in self._paths.items():
            kernel = self._kernels.get(kernel_id)
            if kernel is not None:
                found[path] = sum(item.ours for item in kernel.running())
        return found

    # --------------------------------------------------------------------------------------------- writing

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), WRITE_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()
            for kernel_id in list(self._kernels):
                try:
                    await self._write(kernel_id)
                except Exception:  # one notebook's trouble is not the others'
                    self._log.exception("Outputs could not be written")
            await asyncio.sleep(BREATH_SECONDS)

    async def _write(self, kernel_id: str) -> None:
        """Write what a kernel's left pages have not received, where anything of it is new."""
        async with self._writing:
            kernel = self._kernels.get(kernel_id)
            if kernel is None:
                return
            todo = [
                item
                for item in kernel.executions.values()
                if item.unwritten and (item.outputs.changed != item.written or item.done_at is not None)
            ]
            if not todo:
                return
            placed: set[str] = set()
            failed = False
            for path in await self._notebooks(kernel_id):
                try:
                    self._paths[path] = kernel_id
                    placed |= await self._write_into(path, todo)
                except (OSError, ValueError) as error:
                    failed = True
                    self._log.warning("Outputs cannot be written into %s now: %s", path, error)
            for item in todo:
                if item.key in placed:
                    item.failures = 0
                elif item.done_at is not None:
                    item.failures += 1
                    if not failed or item.failures >= FAILURES_MOST:
                        self._log.info("Outputs of cell %s are dropped: it is in no notebook", item.cell_id)
                        item.settled = True

    async def _write_into(self, path: str, todo: Iterable[Execution]) -> set[str]:
        """Put executions into one notebook; keys of those whose cell is in it."""
        file = await asyncio.to_thread(Path(self._contents._get_os_path(path)).resolve)
        results, changes = [], {}
        for item in todo:
            changes[item.key] = (item, item.outputs.changed, item.done_at is not None)
            results.append(
                notebook.Result(
                    key=item.key,
                    cell_id=item.cell_id,
                    code=item.code,
                    count=item.outputs.count,
                    outputs=item.outputs.written(),
                    done_at=item.done_at,
                )
            )
        name = str(file)
        for _ in range(5):
            merged = await asyncio.to_thread(
                notebook.merge, file, results, ours=self._ours.get(name), saved_at=self._saved_at.get(name, 0)
            )
            if merged.stamp != self._ours.get(name):
                self._saved_at[name] = merged.stamp[2] / 1e9
            if merged.text is not None:
                beside = await asyncio.to_thread(notebook.prepare, file, merged.text)
                stamp = notebook.replace(file, beside, merged.stamp)
                if stamp is None:
                    continue
                self._ours[name] = stamp
                self._written_at[path] = self._clock()
                await self._keep_trust(merged.before, merged.text)
            for key in merged.found:
                item, change, done = changes[key]
                item.written, item.settled = change, done and item.outputs.changed == change
            return set(merged.found)
        raise OSError(f"{path} is being saved again and again")

    async def _keep_trust(self, before: str, after: str) -> None:
        """What was trusted stays so: these are outputs of the person's own cells."""
        notary = getattr(self._contents, "notary", None)
        if notary is None:
            return
        import nbformat

        def read(text: str) -> Any:
            return nbformat.reads(text, as_version=4)

        try:
            old, new = await asyncio.to_thread(read, before), await asyncio.to_thread(read, after)
            if notary.check_signature(old):
                notary.sign(new)
        except Exception as error:  # without it, the page asks whether to trust
            self._log.debug("The notebook could not be signed: %s", error)

    async def _notebooks(self, kernel_id: str) -> list[str]:
        sessions = await self._sessions.list_sessions()
        return [
            item["path"]
            for item in sessions
            if item.get("type") == "notebook" and (item.get("kernel") or {}).get("id") == kernel_id
        ]

    @staticmethod
    def _say(message: str) -> str:
        import os

        from spawner.node.place import LANGUAGE
        from spawner.node.standing import language_of, say

        return say(language_of("", "", os.environ.get(LANGUAGE, "")), message)
