"""One desktop: an X server and what runs on it, from the first visit to the end of either.

A desktop is started by whoever comes first; those who come meanwhile wait for the same start. It is up as soon as
its X server listens, a moment before the first window. When the session ends (somebody logs out,
the application is closed, it crashes) the X server ends too: what is left to show would be an empty screen. Why it
ended is kept, with the last lines of its log, until it is started anew.

All its processes carry a mark in their environment; the end of a desktop is the end of every process with that mark,
those that hang or hid themselves included. The X server is also told to end with the Jupyter server.
Sockets of its programs are in a directory of its own in ``/tmp`` (:mod:`extensions.desktop.short_place`) and go with it.
A desktop removes nothing but its own: the late end of one may come while the next one of the same folder begins.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from extensions.desktop import available, command, home
from extensions.desktop.choices import Application, Choices
from extensions.desktop.short_place import ShortPlace
from spawner.node.plain_files import plain

#: Many may start at once on a machine that has much else to do.
SERVER_SECONDS = 60.0
#: A session that ends within this time did not come up.
EARLY_SECONDS = 8.0
TERM_SECONDS = 3.0
LOG_LINES = 15
LOG_BYTES = 6000
_PR_SET_PDEATHSIG = 1


class NotUp(Exception):
    """A desktop that is not there, with a machine word for why and the last lines of its log.

    Words: ``missing`` (programs to install are in ``log``), ``server`` (the X server did not come up), ``session``
    (what should run on it ended at once), ``ended`` (somebody ended it), ``crashed`` (it ended by an error), ``disk``.
    """

    def __init__(self, reason: str, log: list[str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log or []


class Session:
    """A desktop of this node.

    Parameters
    ----------
    folder
        Of this desktop alone; made with mode 0700.
    choices, application
        What is started; without an application a whole desktop.
    environ
        The Jupyter server's environment; ``HOME`` is taken from it.
    title
        Shown to VNC clients.
    language
        ``en`` or ``zh_CN``.
    which
        Finds a program by its name.
    """

    #: Whether a restart ends what runs on it.
    restarts = True

    def __init__(
        self,
        folder: Path,
        choices: Choices,
        application: Application | None = None,
        *,
        environ: Mapping[str, str],
        title: str = "Galilean",
        language: str = "en",
        which: available.Which = shutil.which,
        log: logging.Logger | None = None,
    ) -> None:
        self.folder = folder
        self.application = application
        self.language = language
        self._choices = choices
        self._environ = environ
        self._title = title
        self._which = which
        self._log = log or logging.getLogger(__name__)
        self._lock = asyncio.Lock()
        self._server: asyncio.subprocess.Process | None = None
        self._session: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._mark = ""
        self._display = ""
        self._folder_fd = -1
        self._runtime: ShortPlace | None = None
        self._began = 0.0
        self.state = "new"
        self.why: NotUp | None = None

    # ---- for handlers

    @property
    def socket(self) -> str:
        """Path of the VNC socket, for this process only; short, whatever the directory's path."""
        return f"/proc/self/fd/{self._folder_fd}/{command.SOCKET}"

    def status(self) -> dict[str, Any]:
        """How it stands: ``new``, ``starting``, ``running``, or ``down`` with the reason."""
        said: dict[str, Any] = {"state": self.state, "reason": None, "log": []}
        if self.state == "down" and self.why is not None:
            said |= {"reason": self.why.reason, "log": self.why.log}
        return said

    async def ensure(self) -> None:
        """Start it if it does not run; come back when it can be connected to.

        Raises
        ------
        NotUp
            When it cannot be had.
        """
        async with self._lock:
            if self.state == "running":
                return
            self.state, self.why = "starting", None
            try:
                await self._start()
            except NotUp as error:
                await self._down(error)
                raise
            except OSError as error:
                down = NotUp("disk", [str(error)])
                await self._down(down)
                raise down from error
            self.state = "running"

    async def restart(self) -> None:
        """End everything on it and start it anew.

        Raises
        ------
        NotUp
            When it does not come up again.
        """
        await self.stop()
        await self.ensure()

    async def stop(self) -> None:
        """End every process of it; come back when none is left."""
        async with self._lock:
            if self.state != "new":
                await self._down(NotUp("ended"))

    def end(self) -> None:
        """End every process of it, at the end of the Jupyter server. Blocks for a moment."""
        if self._mark:
            end_marked(self._mark)
        self._remove_runtime()

    async def run(self, *arguments: str, seconds: float = 10.0) -> tuple[int, str]:
        """Run a small program on the display; its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=self._programs(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            return -1, ""
        return process.returncode or 0, said.decode(errors="replace")

    # ---- start and end

    async def _start(self) -> None:
        server = available.server(self._which)
        place = Path(self._environ.get("HOME") or "/")
        kiosk = place / ".config/galilean/kiosk.xml"
        inside = command.session_command(self._choices, self.application, kiosk, self._which)
        if server is None or inside is None:
            raise NotUp("missing", available.missing(self._which) or ["openbox"])
        home.write(place)
        self._prepare_folder()
        await asyncio.to_thread(installed_locales)
        self._mark = secrets.token_hex(8)
        self._began = time.monotonic()
        await self._start_server(server)
        environment = self._programs()
        log = self._open_log(command.SESSION_LOG)
        try:
            self._session = await asyncio.create_subprocess_exec(
                *command.with_own_bus(inside, self.folder / command.BUS_FILE),
                env=environment,
                cwd=place / "work" if (place / "work").is_dir() else place,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._watch = asyncio.create_task(self._until_end(self._server, self._session))
        self._log.info("Desktop %s on display :%s", self._name, self._display)

    def _prepare_folder(self) -> None:
        self._close_folder()
        self._remove_runtime()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        self.folder.chmod(0o700)
        self._folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        key = os.open(self.folder / command.KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(key, "wb") as file:
            file.write(command.key_file(secrets.token_bytes(16)))
        self._runtime = ShortPlace()
        text = command.bus_file(self._runtime.path)
        (self.folder / command.BUS_FILE).write_text(text, encoding="utf-8")

    def _remove_runtime(self) -> None:
        if self._runtime is not None:
            self._runtime.remove()
            self._runtime = None

    async def _start_server(self, program: str) -> None:
        read, write = os.pipe()
        log = self._open_log(command.SERVER_LOG)
        try:
            self._server = await asyncio.create_subprocess_exec(
                *command.server_command(
                    program, self._choices, folder_fd=self._folder_fd, display_fd=write, title=self._title
                ),
                env={**self._environ, command.MARK: self._mark},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write, self._folder_fd),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        finally:
            os.close(write)
            os.close(log)
        try:
            said = await asyncio.wait_for(_first_line(read), SERVER_SECONDS)
        except TimeoutError:
            said = ""
        if not said.isdigit():
            raise NotUp("server", self.last_lines(command.SERVER_LOG))
        self._display = said

    async def _until_end(
        self, server: asyncio.subprocess.Process | None, session: asyncio.subprocess.Process
    ) -> None:
        """Wait until either ends, and take the other down."""
        waits = {asyncio.create_task(item.wait()): item for item in (server, session) if item is not None}
        helper = asyncio.create_task(self._input_method())
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            helper.cancel()
            for task in waits:
                task.cancel()
        ended = waits[next(iter(done))]
        async with self._lock:
            if session is not self._session or self.state != "running":
                return
            self._watch = None
            early = time.monotonic() - self._began < EARLY_SECONDS
            code = ended.returncode
            if ended is server:
                why = "server" if early else "crashed"
            elif code == 0 and not (early and self.application is None):
                why = "ended"
            else:
                why = "session" if early else "crashed"
            self._log.warning("Desktop %s ended (%s, code %s)", self._name, why, code)
            told = command.SERVER_LOG if ended is server else command.SESSION_LOG
            await self._down(NotUp(why, [] if why == "ended" else self.last_lines(told)))

    async def _input_method(self) -> None:
        """Start Chinese input, and start it again if it goes, at most some times."""
        words = command.input_method(self._which)
        for _ in range(5 if words else 0):
            try:
                log = self._open_log(command.INPUT_LOG)  # chatty; the session's is shown to people
                try:
                    process = await asyncio.create_subprocess_exec(
                        *words, env=self._programs(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
                    )
                finally:
                    os.close(log)
            except OSError:
                return
            await process.wait()
            await asyncio.sleep(2)

    async def _down(self, why: NotUp) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._mark:
            await asyncio.to_thread(end_marked, self._mark)
        for process in (self._session, self._server):
            if process is not None:
                await process.wait()
        self._server = self._session = None
        self._mark = ""
        self._remove_runtime()
        self._close_folder()
        self.state, self.why = "down", why

    def _close_folder(self) -> None:
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1

    # ---- small parts

    @property
    def _name(self) -> str:
        return self.application.name if self.application else "whole"

    def _programs(self) -> dict[str, str]:
        if self._runtime is None:
            raise FileNotFoundError("the desktop has ended")
        return command.session_environment(
            self._environ,
            display=self._display,
            key=self.folder / command.KEY_FILE,
            runtime=self._runtime.path,
            mark=self._mark,
            language=self.language,
            locales=installed_locales(),
            which=self._which,
        )

    def _open_log(self, name: str) -> int:
        return plain(str(self.folder / name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def last_lines(self, name: str) -> list[str]:
        """The last lines of a log, without empty ones."""
        try:
            with open(self.folder / name, "rb", opener=plain) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line.rstrip()[:400] for line in text.splitlines() if line.strip()][-LOG_LINES:]


@cache
def installed_locales() -> tuple[str, ...]:
    """Names of the locales that are installed. Starts a program: belongs into a thread the first time."""
    try:
        said = subprocess.run(["locale", "-a"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(said.stdout.split())


def end_marked(mark: str, *, proc: Path = Path("/proc"), pause: Callable[[float], None] = time.sleep) -> int:
    """End every process with a desktop's mark, by TERM and then by KILL; how many there were. Blocks."""
    wanted = f"{command.MARK}={mark}".encode()
    told: set[int] = set()
    until = time.monotonic() + TERM_SECONDS
    while True:
        found = list(_marked(wanted, proc))
        if not found:
            return len(told)
        late = time.monotonic() >= until
        if time.monotonic() >= until + 2 * TERM_SECONDS:
            return len(told)
        for pid in found:
            if late or pid not in told:
                told.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                except OSError:
                    pass
        pause(0.05)


def _marked(wanted: bytes, proc: Path) -> list[int]:
    found: list[int] = []
    for entry in os.scandir(proc):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (proc / entry.name / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def _first_line(fd: int) -> str:
    """The first line that is written into a pipe; empty when its other end closes."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    text = b""
    try:
        while b"\n" not in text:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, lambda ready=ready: ready.done() or ready.set_result(None))
            try:
                await ready
            finally:
                loop.remove_reader(fd)
            more = os.read(fd, 64)
            if not more:
                return ""
            text += more
    finally:
        os.close(fd)
    return text.decode(errors="replace").strip()


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In the child: be ended when the Jupyter server is, however that happens."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
