"""Applications of a node (SC-3): programs that the centre describes, started with a form, behind the sign-in.

What there is the portal says (:mod:`galilean.settings_applications`); what of it this node has the programs for, the
node finds and tells. A started application is a session of its own in ``~/work``, as the person, without the secrets of
the node's server; what it prints stands in ``~/.galilean-apps/<name>.log``. It ends when somebody ends it, and with the
server. Values of its form are checked here again and reach it as variables, never as a part of a command line.

A *web* application answers at a port of the loopback that is chosen at its start and reached as user ports are
(:mod:`spawner.node.ports`). A *desktop* application opens in a desktop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from galilean.application_rules import BadValue, Refused, said, values_of, variables
from spawner.node.command import ended, environment_of
from spawner.node.listening import Ports, Who
from spawner.node.place import Place
from spawner.node.plain_files import plain

FOLDER = ".galilean-apps"
LOG_TAIL_BYTES = 4000
#: Until the portal answers, in seconds.
PAUSES = (1, 2, 5, 10, 30)

State = Literal["stopped", "starting", "running", "ended"]
Which = Callable[[str], str | None]


def has(needs: tuple[str, ...] | list[str], which: Which) -> bool:
    """Whether all that an application needs is there; ``a|b`` is one of two."""
    return all(any(which(name) for name in one.split("|") if name) for one in needs)


@dataclass
class Running:
    """An application that was started."""

    process: subprocess.Popen[bytes]
    port: int
    values: Mapping[str, str]
    begun: float
    answered: bool = False


@dataclass
class Applications:
    """The applications of this node.

    Parameters
    ----------
    environ
        The node's.
    base
        Path of the node, with slashes.
    ports
        Says whether the program that was started answers at its port.
    which
        Finds programs.
    """

    environ: Mapping[str, str]
    base: str
    ports: Ports
    which: Which = shutil.which
    monotonic: Callable[[], float] = time.monotonic
    #: Offers a desktop of that name with a title and a command; ``None`` = this node has none.
    desktop: Callable[[str, str, str], None] | None = None
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    #: Of two starts at once the second finds what the first has started.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _begun: set[int] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        atexit.register(self._end_all)

    def _end_all(self) -> None:
        for pid in tuple(self._begun):
            ended(pid)

    @property
    def home(self) -> Path:
        return Path(self.environ.get("HOME") or Path.home())

    @property
    def work(self) -> Path:
        work = self.home / "work"
        return work if work.is_dir() else self.home

    def learn(self, told: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Take what the portal says there is; the names of those that this node has, in order."""
        self.known = {
            name: dict(one)
            for name, one in told.items()
            if has(one.get("needs", ()), self.which) and (one.get("kind") != "desktop" or self.desktop)
        }
        return list(self.known)

    def state(self, name: str) -> State:
        """How an application stands."""
        one = self.running.get(name)
        if one is None:
            return "stopped"
        if one.process.poll() is not None:
            return "ended"
        if self.known[name].get("kind") == "desktop":
            return "running"
        return "running" if self.address(name) else "starting"

    def address(self, name: str) -> str:
        """Where a running application answers; empty while it does not."""
        one = self.running.get(name)
        if one is None:
            return ""
        who, address = self.ports.look(one.port)
        if who is not Who.PERSON:
            return ""
        one.answered = True
        return address

    def path(self, name: str) -> str:
        """Where an application begins, below the node's base."""
        if self.known[name].get("kind") == "desktop":
            return f"desktop/?app=app-{name}"
        return f"apps/{name}/{self.known[name].get('start', '')}"

    def start(self, name: str, given: Mapping[str, Any]) -> None:
        """Start an application, or do nothing when it runs. Blocks for a moment.

        Raises
        ------
        Refused
            With what its fields do not take.
        OSError
            When it cannot be started, such as with a full home.
        """
        with self._turn:
            self._start(name, given)

    def _start(self, name: str, given: Mapping[str, Any]) -> None:
        if self.state(name) in ("starting", "running"):
            return
        one = self.known[name]
        values = values_of(one.get("fields", {}), given)
        self._check_paths(one.get("fields", {}), values)
        folder = self.home / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        if one.get("kind") == "desktop":
            self._open(name, one, values, folder)
            return
        port = _free_port()
        environment = {
            **environment_of(self.environ),
            **variables(values),
            "APP_PORT": str(port),
            "APP_BASE": f"{self.base}apps/{name}",
        }
        with open(folder / f"{name}.log", "wb", opener=plain) as output:
            process = subprocess.Popen(
                ["/bin/bash", "-c", str(one["command"])],
                cwd=self.work, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.running[name] = Running(process, port, values, self.monotonic())
        self._begun.add(process.pid)

    def _open(self, name: str, one: Mapping[str, Any], values: Mapping[str, str], folder: Path) -> None:
        """Write down what the desktop is to run; it runs when its page is opened."""
        assert self.desktop is not None
        script = folder / f"{name}.sh"
        lines = [f"export {key}={shlex.quote(value)}" for key, value in sorted(variables(values).items())]
        beside = script.with_name(f".{script.name}.{os.getpid()}")
        beside.write_text("\n".join([*lines, f"cd {shlex.quote(str(self.work))}", str(one["command"]), ""]))
        os.replace(beside, script)
        self.desktop(f"app-{name}", said(one["title"], "en"), f"exec /bin/bash {shlex.quote(str(script))}")

    def _check_paths(self, fields: Mapping[str, Mapping[str, Any]], values: Mapping[str, str]) -> None:
        wrong: dict[str, BadValue] = {}
        for name, value in values.items():
            kind = fields[name].get("type")
            if value and kind in ("directory", "file"):
                path = self.work / value
                if not (path.is_dir() if kind == "directory" else path.is_file()):
                    wrong[name] = BadValue("missing", value)
        if wrong:
            raise Refused(wrong)

    def stop(self, name: str) -> None:
        """End an application with all that it started. Blocks until it has ended."""
        with self._turn:
            one = self.running.pop(name, None)
            if one is not None:
                ended(one.process.pid)
                one.process.poll()
                self._begun.discard(one.process.pid)

    def late(self, name: str) -> bool:
        """Whether it should have answered by now."""
        one = self.running.get(name)
        waits = float(self.known[name].get("ready_seconds", 60))
        return one is not None and not one.answered and self.monotonic() - one.begun > waits

    def log(self, name: str) -> str:
        """The end of what it printed."""
        try:
            with open(self.home / FOLDER / f"{name}.log", "rb", opener=plain) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def told(self, name: str) -> dict[str, Any]:
        """How an application stands, for its page."""
        state, one = self.state(name), self.running.get(name)
        return {
            "name": name,
            "state": state,
            "late": state == "starting" and self.late(name),
            "code": one.process.poll() if one is not None and state == "ended" else None,
            "log": self.log(name) if state == "ended" or (state == "starting" and self.late(name)) else "",
            "url": f"{self.base}{self.path(name)}",
            "values": dict(one.values) if one is not None else {},
        }


async def tell(
    applications: Applications,
    fetch: Callable[..., Awaitable[tuple[int, Any]]],
    place: Place,
    *,
    log: Any,
    pauses: tuple[float, ...] = PAUSES,
    learned: Callable[[list[str]], None] = lambda names: None,
) -> None:
    """Learn from the portal what there is, and tell it what of that this node has. Asks until it answers."""
    asks: dict[str, Any] = {"server": place.server, "run": place.run, "rank": place.rank}
    turn = 0
    while True:
        try:
            status, told = await fetch("POST", "/api/v1/node/applications", asks, "en")
            if status == 200 and "has" in asks:
                return
            if status == 200:
                names = await asyncio.to_thread(applications.learn, told["applications"])
                learned(names)
                if place.rank or not names:  # all nodes are alike: the first speaks for them
                    return
                asks["has"] = names
                continue
            if status in (404, 409):  # an older portal, or a run that has ended
                return
        except Exception as error:
            log.debug("The portal does not say which applications there are: %s", error)
        await asyncio.sleep(pauses[min(turn, len(pauses) - 1)])
        turn += 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
