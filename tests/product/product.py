"""The whole product, started as people start it, in a state directory and on ports of its own.

It looks from outside only: the pages and the API over HTTP, the ``galilean`` command, the operating
system's list of processes, and, to compare the truth with what is told, the rows of the database and the
backend's inventory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

import services.catalog.tables  # noqa: F401 - registers the tables
from galilean.db import Database
from spawner import records
from spawner.inventory import Sighting
from tests.process.hub import BUSY

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent.parent
GALILEAN = str(Path(sys.executable).parent / "galilean")
PASSWORD = "flow-heat-73-lantern"  # of people that live as long as a test


_handed_out: set[int] = set()


def free_port() -> int:
    """A port that was free a moment ago, below those that outgoing connections take; never the same twice."""
    while True:
        port = random.randrange(30000, 32700)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _handed_out:
                _handed_out.add(port)
                return port


def wait_for(look: Callable[[], T], what: str, *, seconds: float = 30, every: float = 0.1) -> T:
    """What ``look`` answers as soon as that is true; the last exception or answer is told otherwise.

    ``seconds`` is what a quiet machine may take; a busy one is slow, not wrong.
    """
    seconds *= BUSY
    end = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            found = look()
            if found:
                return found
            last = found
        except (AssertionError, httpx.HTTPError, OSError, ValueError, KeyError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not: {what} (last: {last!r})")
        time.sleep(every)


def at_once(*calls: Callable[[], T]) -> list[T]:
    """All calls at the same time, each in a thread; their answers in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def processes_of(state: Path) -> dict[int, str]:
    """Every living process that belongs to a state directory: pid → command line.

    Found by what cannot be missed: the directory in the environment, the arguments or the working directory.
    """
    needle = str(state).encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if b"State:\tZ" in (entry / "status").read_bytes():
                continue  # a machine without init does not reap orphans
            command = (entry / "cmdline").read_bytes()
            if (
                needle in command
                or needle in (entry / "environ").read_bytes()
                or str(state) in os.readlink(entry / "cwd")
            ):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


@dataclass
class Person:
    """Somebody with an account: by API with ``token``, by page with :meth:`sign_in`."""

    product: Product
    name: str
    token: str

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call with the person's token; ``path`` is below the product's address."""
        headers = {"Authorization": f"token {self.token}", **options.pop("headers", {})}
        return self.product.http.request(method, path, headers=headers, **options)

    def portal(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of the portal's API; ``path`` is below ``/services/portal/api/v1``."""
        return self.api(method, f"/services/portal/api/v1{path}", **options)

    def project(self, name: str) -> str:
        """A new project; its slug."""
        answer = self.portal("POST", "/projects", json={"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["slug"]

    def run(self, server: str, **options: Any) -> httpx.Response:
        """Ask for a cluster as the contract says."""
        return self.api(
            "POST", f"/hub/api/users/{self.name}/servers/{server}", json={"user_options": options}
        )

    def stop(self, server: str) -> httpx.Response:
        """Release a cluster by the hub's API."""
        return self.api("DELETE", f"/hub/api/users/{self.name}/servers/{server}")

    def servers(self) -> dict[str, Any]:
        """What the hub says of one's servers."""
        return self.api("GET", f"/hub/api/users/{self.name}").raise_for_status().json()["servers"]

    def is_ready(self, server: str) -> bool:
        return bool(self.servers().get(server, {}).get("ready"))

    def clusters(self, state: str = "open") -> list[dict[str, Any]]:
        """What the portal says of one's clusters, all pages."""
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            query = {"state": state} | ({"cursor": cursor} if cursor else {})
            page = self.portal("GET", "/clusters", params=query).raise_for_status().json()
            items += page["items"]
            cursor = page["next"]
            if not cursor:
                return items

    def running(self, name: str, nodes: int = 1, **options: Any) -> str:
        """A new project with a running cluster; its slug (which is the server's name)."""
        slug = self.project(name)
        answer = self.run(slug, project=slug, nodes=nodes, **options)
        assert answer.status_code in (201, 202), answer.text
        wait_for(lambda: self.is_ready(slug), f"{slug} is ready", seconds=60)
        return slug

    def node(self, server: str, rank: int = 0, path: str = "api/status") -> httpx.Response:
        """A request to a node with the person's token."""
        between = f"node-{rank}/" if rank else ""
        return self.api("GET", f"/user/{self.name}/{server}/{between}{path}")

    def sign_in(self, password: str = PASSWORD) -> httpx.Client:
        """A browser's worth of cookies after signing in by the form."""
        self.product.give_password(self.name)
        browser = httpx.Client(base_url=self.product.url, follow_redirects=True, timeout=120)
        page = browser.get("/hub/login")
        xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
        assert xsrf, page.text[:500]
        answer = browser.post(
            "/hub/login", data={"username": self.name, "password": password, "_xsrf": xsrf[1]}
        )
        assert answer.status_code == 200, answer.text[:500]
        return browser


class Product:
    """One installation; ``start`` and ``stop`` may be called again and again on the same state."""

    def __init__(self, directory: Path, settings: dict[str, Any] | None = None) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.port = free_port()
        self.config = directory / "galilean.yaml"
        self.config.write_text(yaml.safe_dump(settings or {}), encoding="utf-8")
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=120, limits=httpx.Limits(max_connections=64))
        self.output = directory / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._db: Database | None = None
        self._roles: dict[str, str] = {}

    # ---- its life

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "GALILEAN_"))}
        tools = f"{Path(sys.executable).parent}:{ROOT / 'node_modules' / '.bin'}"
        return kept | {
            "GALILEAN_CONFIG": str(self.config),
            "GALILEAN_STATE": str(self.state),
            "PORT": str(self.port),
            "PATH": f"{tools}:{os.environ['PATH']}",
        }

    def launch(self) -> None:
        """Start the supervisor, and come back at once."""
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [GALILEAN, "up"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start everything and wait until people can use it."""
        self.launch()
        try:
            self.wait_ready()
        except AssertionError as error:
            self.end()
            raise AssertionError(f"{error}\n{self.said()}") from error

    def wait_ready(self, seconds: float = 60) -> None:
        """Until hub and portal answer through the proxy."""

        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"galilean up ended with {self.process.returncode}:\n{self.said()}")
            hub = self.http.get("/hub/api/", timeout=20)
            portal = self.http.get("/services/portal/api/v1/openapi.json", timeout=20)
            return hub.status_code == 200 and portal.status_code == 200

        wait_for(answers, "hub and portal answer", seconds=seconds)

    def end(self, how: signal.Signals = signal.SIGINT, seconds: float = 60) -> int:
        """Stop by a signal: SIGINT releases every cluster first, SIGTERM leaves them running."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds * BUSY)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"galilean up did not stop within {seconds} s:\n{self.said()}") from None

    def close(self) -> None:
        """End of the test run: nothing of it may stay, whatever happened."""
        try:
            if self.process is not None:
                self.end()
        finally:
            self.http.close()
            if self._db:
                self._db.close()
            for pid in processes_of(self.state):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def said(self, lines: int = 40) -> str:
        """The last of what the supervisor and the hub said."""
        texts = []
        for path in (self.output, self.state / "logs" / "hub.log", self.state / "logs" / "portal.log"):
            with contextlib.suppress(OSError):
                tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
                texts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(texts)

    def command(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        """What ``galilean …`` prints; ``code`` is what it must end with, ``None`` = any."""
        done = subprocess.run(
            [GALILEAN, *words],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60 * BUSY,
        )
        assert code is None or done.returncode == code, (
            f"galilean {' '.join(words)}: {done.stdout}{done.stderr}"
        )
        return done.stdout

    # ---- its people

    def person(self, name: str, role: str = "researcher") -> Person:
        """A new account with a role and a token, made as an administrator makes one by API."""
        admin = self.admin
        for path, body in (
            (f"/users/{name}", {}),
            (f"/groups/galilean:{role}/users", {"users": [name]}),
        ):
            admin.api("POST", f"/hub/api{path}", json=body).raise_for_status()
        self._roles[name] = role
        return self.person_named(name)

    def person_named(self, name: str) -> Person:
        """Somebody who has an account already, with a token of theirs."""
        answer = self.admin.api("POST", f"/hub/api/users/{name}/tokens", json={}).raise_for_status()
        return Person(self, name, answer.json()["token"])

    @functools.cached_property
    def admin(self) -> Person:
        """The administrator of the first start, by a token from the command line."""
        return Person(self, "admin", self.command("token", "admin").strip().splitlines()[-1])

    def give_password(self, name: str) -> None:
        """Let somebody sign in by the form, as the command does it."""
        if role := self._roles.pop(name, ""):
            self.command(
                "user", "add", name, "--role", role, "--update", "--password-stdin", stdin=PASSWORD + "\n"
            )

    # ---- its parts

    def status(self) -> dict[str, Any]:
        """What the supervisor says of its parts."""
        return json.loads((self.state / "run" / "status.json").read_text(encoding="utf-8"))

    def pid(self, part: str) -> int:
        pid = int(self.status()["parts"][part]["pid"])
        assert pid and alive(pid), f"{part} does not run: {self.status()}"
        return pid

    def kill(self, part: str) -> int:
        """kill −9 of a part; the pid it had."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_back(self, part: str, old_pid: int, seconds: float = 15) -> float:
        """Until a part runs again under another pid; how long that took."""
        begin = time.monotonic()

        def back() -> bool:
            life = self.status()["parts"][part]
            return life["pid"] not in (0, old_pid) and life["state"] == "running" and alive(life["pid"])

        wait_for(back, f"{part} is back", seconds=seconds, every=0.05)
        return time.monotonic() - begin

    def node_pid(self, user: str, server: str, rank: int) -> int:
        """The process of a node, by the files that the backend keeps."""
        from spawner.process.layout import ClusterDirectory

        said = ClusterDirectory.of(self.state / "clusters", user, server).nodes()
        pid = int(said[rank]["pid"])
        assert alive(pid), f"node-{rank} of {user}/{server} does not live: {said}"
        return pid

    # ---- the truth

    @property
    def db(self) -> Database:
        if self._db is None:
            self._db = Database(f"sqlite:///{self.state / 'galilean.sqlite'}", threads=2)
        return self._db

    def open_runs(self) -> list[records.Run]:
        with self.db.read() as conn:
            return records.all_open(conn)

    def runs(self, user: str) -> list[records.Run]:
        """All runs of a person, newest first."""
        with self.db.read() as conn:
            return records.list_runs(conn, user=user, open_only=False, limit=500)

    def intervals(self, run_id: str) -> list[records.NodeInterval]:
        with self.db.read() as conn:
            return records.intervals(conn, [run_id])[run_id]

    def sightings(self) -> list[Sighting]:
        """Every node that really exists, alive or not cleared away."""
        from spawner.process.inventory import ProcessInventory

        return asyncio.run(ProcessInventory(self.state).inventory())

    def disagreement(self) -> list[str]:
        """How what is told differs from what is: nothing when every process has a row and every row its processes."""
        wrong: list[str] = []
        runs = {run.id: run for run in self.open_runs()}
        living: dict[str, set[int]] = {}
        for seen in self.sightings():
            if seen.alive:
                living.setdefault(seen.run, set()).add(seen.rank)
            if seen.run not in runs:
                wrong.append(f"{'a process' if seen.alive else 'a leftover'} without a row: {seen}")
        for run in runs.values():
            here = living.get(run.id, set())
            if run.word != "running":
                wrong.append(f"on its way still: {run.word} {run.user}/{run.server}")
                continue
            due = {node.rank for node in self.intervals(run.id) if node.gone_at is None}
            if here != due or not due:
                wrong.append(f"a row without its processes: {run.user}/{run.server} has {here}, says {due}")
        with self.db.read() as conn:
            closed = {node.run_id for node in records.open_intervals(conn)} - runs.keys()
        wrong += [f"an interval that counts after its run was closed: {run}" for run in closed]
        return wrong

    def wait_truth(self, seconds: float = 15) -> float:
        """Until nothing is told that is not so; how long that took."""
        begin = time.monotonic()

        def agreed() -> bool:
            wrong = self.disagreement()
            assert not wrong, "\n".join(wrong)
            return True

        wait_for(agreed, "rows and processes agree", seconds=seconds, every=0.25)
        return time.monotonic() - begin


@contextlib.contextmanager
def running_product(directory: Path, settings: dict[str, Any] | None = None) -> Iterator[Product]:
    """A product that is there for the time of a ``with``."""
    product = Product(directory, settings)
    try:
        product.start()
        yield product
    finally:
        product.close()
