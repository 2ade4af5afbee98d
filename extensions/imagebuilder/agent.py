"""``python -m extensions.imagebuilder.agent``: on each machine of a Kubernetes, it reads what a node changed of its image.

A process of its own, because reading another container's files needs rights that nothing else of ours has: the
machine's snapshots to read, its control groups to write, and the account root with the one capability to read
everybody's files. It has no account in Kubernetes, no password of a registry, no socket of the runtime, and calls
nobody. The image service alone may call it, by the installation's key; and it believes that service only so far as
the machine itself says the same of the container (:mod:`extensions.imagebuilder.bundle`).

What it does is what Docker's daemon and the image service do together on one machine: hold the container for a moment,
copy its changes, strip them, look for secrets, and pack a layer. A layer with a secret in it never leaves the machine.
The packed one is fetched by the service, which alone knows the registry's password: registries that know one password
for everything cannot hand out a right to one repository.

A save of which nobody asks any more is given up, its files are deleted; a new agent lets go whoever a killed one held.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.web import Application, RequestHandler
from ulid import ULID

from extensions.imagebuilder import bundle, overlay
from extensions.imagebuilder.bundle import Hold, Node, Places
from extensions.imagebuilder.container import (
    FREEZE_SECONDS,
    TRIES,
    Copied,
    GivenUp,
    Wanted,
    written_to,
)
from extensions.imagebuilder.dockerfile import dockerfile
from extensions.imagebuilder.saving import STATUS_MOST_BYTES, Task, answered
from extensions.imagebuilder.secrets_scan import require_clean
from extensions.imagebuilder.space import Space
from extensions.imagebuilder.summary import DELETED, as_record, difference, preview
from extensions.imagebuilder.writing import write_layer
from galilean import disk_reserve
from galilean.amounts import quantity
from galilean.clock import utcnow
from galilean.errors import UserError, mark

log = logging.getLogger("galilean.agent")

PORT = 8090
AT_ONCE = 2
DPKG = "var/lib/dpkg/status"
#: A save of which nobody has asked for so long is nobody's.
FORGOTTEN_SECONDS = 60.0
KEY_LEAST_CHARACTERS = 32
BODY_MOST_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20


@dataclass
class Job:
    """One save on this machine."""

    id: str
    folder: Path
    task: Task
    asked_at: float
    state: str = "going"
    error: UserError | None = None
    result: dict[str, Any] | None = field(default=None)

    @property
    def layer(self) -> Path:
        return self.folder / "layer.tar.gz"

    def as_dict(self) -> dict[str, Any]:
        """As the service reads it."""
        told: dict[str, Any] = {
            "id": self.id,
            "state": self.state,
            "step": self.task.step,
            "done_bytes": self.task.done_bytes,
            "total_bytes": self.task.total_bytes,
            "lines": list(self.task.lines),
            "result": self.result,
        }
        if self.error is not None:
            told["error"] = {
                **self.error.as_dict(),
                "status": self.error.status,
                "reason": self.error.reason,
            }
        return told


class Agent:
    """Reads nodes of one installation on this machine.

    Parameters
    ----------
    places
        Directories of the machine.
    namespace
        The installation's, in Kubernetes.
    directory
        For layers on their way; emptied at the beginning.
    most_bytes
        Of that directory; None: as much as the disk has.
    freeze_seconds
        Longest that somebody is held.
    """

    def __init__(
        self,
        places: Places,
        namespace: str,
        directory: Path,
        *,
        most_bytes: int | None = None,
        freeze_seconds: float = FREEZE_SECONDS,
    ) -> None:
        self.places, self.namespace, self.directory = places, namespace, directory
        self.space = Space(directory, most_bytes)
        self._freeze = freeze_seconds
        self.jobs: dict[str, Job] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="galilean-save")

    def begin(self) -> None:
        """Put right what a killed agent left."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if count := bundle.put_right(self.places, self.namespace):
            log.warning("let go after an agent that was killed: %d containers", count)

    def find(self, container: str, wanted: Wanted) -> Node:
        return bundle.find(self.places, self.namespace, container, wanted)

    # ---------------------------------------------------------------------------------------------- questions

    def look(self, container: str, wanted: Wanted) -> dict[str, Any]:
        """What a save would hold."""
        node = self.find(container, wanted)
        paths, size = overlay.changed(node.overlay)
        told = preview(paths, node.rules(history=True))
        return {
            "image": node.image_name,
            "size_bytes": size,
            "mounted": node.volumes,
            "processes": node.group.processes(),
            **answered(told),
        }

    def save(self, container: str, wanted: Wanted, secrets: Mapping[str, bytes], name: str) -> Job:
        """Begin to save a node; refused at once where it is not that person's."""
        node = self.find(container, wanted)
        made = str(ULID())
        folder = Path(tempfile.mkdtemp(dir=self.directory, prefix="save-"))
        job = Job(made, folder, Task(utcnow), time.monotonic())
        self.jobs[made] = job
        self._threads.submit(self._run, job, node, secrets, name)
        return job

    def drop(self, job: Job) -> None:
        """Give a save up, or forget it; its files go."""
        job.task.stop.set()
        self.jobs.pop(job.id, None)
        if job.state != "going":
            shutil.rmtree(job.folder, ignore_errors=True)

    def sweep(self, now: float) -> None:
        """Drop saves of which nobody asks any more."""
        for job in list(self.jobs.values()):
            if now - job.asked_at > FORGOTTEN_SECONDS:
                log.warning("a save of which nobody asks any more is given up")
                self.drop(job)

    def close(self) -> None:
        """Give everything up, and wait until nobody is held."""
        for job in list(self.jobs.values()):
            self.drop(job)
        self._threads.shutdown(cancel_futures=True)

    # ------------------------------------------------------------------------------------------------- a save

    def _run(self, job: Job, node: Node, secrets: Mapping[str, bytes], name: str) -> None:
        state = "failed"
        try:
            with disk_reserve.in_words(job.folder):
                job.result = self._save(job, node, secrets, name)
            state = "done"
        except GivenUp:
            state = "cancelled"
        except UserError as error:
            job.error = error
        except Exception:
            log.exception("a node could not be saved")
        if state != "done" or job.task.stop.is_set():
            shutil.rmtree(job.folder, ignore_errors=True)
        job.state = state

    def _save(self, job: Job, node: Node, secrets: Mapping[str, bytes], name: str) -> dict[str, Any]:
        task, rules = job.task, node.rules(history=True)
        status = overlay.image_file(node.overlay, DPKG, most=STATUS_MOST_BYTES).decode("utf-8", "replace")
        raw = job.folder / "changes.tar"
        for attempt in range(TRIES):
            paths, size = overlay.changed(node.overlay)
            with self.space.aside(job.folder, size) as enough:

                def at(done_bytes: int, enough: Callable[[int], None] = enough) -> None:
                    enough(done_bytes)
                    task.at(done_bytes)

                try:
                    copied = self._copied(task, node, raw, size, at)
                except overlay.Shorter as shorter:
                    task.say("a file became shorter while it was copied")
                    if attempt + 1 == TRIES:
                        raise written_to(shorter.path) from shorter
                    continue
                task.begin("writing", copied.size_bytes)
                begun = time.monotonic()
                with open(raw, "rb") as upper:
                    changes = difference(upper, paths, status, rules)
                with open(raw, "rb") as upper, open(job.layer, "wb") as out:
                    written = write_layer(
                        upper,
                        out,
                        folder=job.folder,
                        deleted={item.path for item in paths if item.kind == DELETED},
                        rules=rules,
                        secrets={**node.secrets, **secrets},
                        progress=at,
                    )
                raw.unlink()
            break
        else:
            raise AssertionError
        task.say(
            f"written in {time.monotonic() - begun:.2f} s: {written.unpacked_bytes} bytes, {written.size_bytes} "
            f"packed; left out: {dict(written.stripped.entries)}; secrets found: {len(written.findings)}"
        )
        require_clean(written.findings)
        return {
            "diff_id": written.diff_id,
            "digest": written.digest,
            "size_bytes": written.size_bytes,
            "unpacked_bytes": written.unpacked_bytes,
            "image": node.image_name,
            "changes": as_record(changes)
            | {
                "unpacked_bytes": written.unpacked_bytes,
                "packed_bytes": written.size_bytes,
                "frozen_seconds": round(copied.frozen_seconds, 3),
                "one_moment": copied.one_moment,
                "left_out": dict(written.stripped.entries),
                "doubts": [[one.path, one.what] for one in written.findings[:20]],
            },
            "dockerfile": dockerfile(node.image_name, changes, name=name),
        }

    def _copied(
        self, task: Task, node: Node, raw: Path, size_bytes: int, progress: Callable[[int], None]
    ) -> Copied:
        """Copy the changes, holding the container for a moment at the beginning."""
        task.begin("copying", size_bytes)
        held = Hold(node.group, self._freeze)
        begun = time.monotonic()
        held.begin()
        try:
            with open(raw, "wb") as out:
                done = overlay.archive(node.overlay, out, most_bytes=self.space.most_bytes, progress=progress)
            whole = held.holds
        finally:
            held.end()
        copied = Copied(done, time.monotonic() - begun, held.seconds, whole)
        task.say(
            f"copied {copied.size_bytes} bytes in {copied.seconds:.2f} s, held for {copied.frozen_seconds:.2f} s"
            + (", all of one moment" if whole else "")
        )
        return copied


# --------------------------------------------------------------------------------------------------- what is asked


class _Handler(RequestHandler):
    def initialize(self, agent: Agent, key: str) -> None:
        self.agent, self.key = agent, key

    def prepare(self) -> None:
        scheme, _, said = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(said.encode(), self.key.encode()):
            self.set_status(401)
            self.finish({"message": "Only the image service may ask for this."})

    def told(self) -> tuple[dict[str, Any], str, Wanted]:
        """The question: whole, the container, and whose it must be."""
        body = json.loads(self.request.body)
        wanted = Wanted(str(body["user"]), str(body["server"]), str(body["run"]), int(body["rank"]))
        return body, str(body["container"]), wanted

    def job(self, made: str) -> Job:
        found = self.agent.jobs.get(made)
        if found is None:
            raise UserError(404, mark("There is no such save."))
        found.asked_at = time.monotonic()
        return found

    def write_error(self, status_code: int, **more: Any) -> None:
        error = more.get("exc_info", (None, None))[1]
        if isinstance(error, UserError):
            self.set_status(error.status)
            self.finish({**error.as_dict(), "reason": error.reason})
        elif isinstance(error, ValueError | KeyError | TypeError):
            self.set_status(400)
            self.finish({"message": "This is not a request of the image service."})
        else:
            self.finish({})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, UserError):
            log.error("a request failed", exc_info=(typ, value, tb))


class Look(_Handler):
    """``POST /look``"""

    async def post(self) -> None:
        _, container, wanted = self.told()
        self.finish(await asyncio.to_thread(self.agent.look, container, wanted))


class Saves(_Handler):
    """``POST /saves``"""

    async def post(self) -> None:
        body, container, wanted = self.told()
        try:
            secrets = {
                str(name): base64.b64decode(value, validate=True) for name, value in body["secrets"].items()
            }
        except binascii.Error as error:
            raise ValueError("secrets") from error
        job = await asyncio.to_thread(self.agent.save, container, wanted, secrets, str(body["name"]))
        self.set_status(202)
        self.finish(job.as_dict())


class Save(_Handler):
    """``GET``, ``DELETE /saves/ID``"""

    def get(self, made: str) -> None:
        self.finish(self.job(made).as_dict())

    async def delete(self, made: str) -> None:
        await asyncio.to_thread(self.agent.drop, self.job(made))
        self.set_status(204)


class Layer(_Handler):
    """``GET /saves/ID/layer``: the packed layer."""

    async def get(self, made: str) -> None:
        job = self.job(made)
        if job.state != "done":
            raise UserError(409, mark("There is no such save."))
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Length", str(job.layer.stat().st_size))
        with open(job.layer, "rb") as file:  # noqa: ASYNC230 - read in a thread
            while block := await asyncio.to_thread(file.read, CHUNK_BYTES):
                job.asked_at = time.monotonic()
                self.write(block)
                await self.flush()


class Room(_Handler):
    """``GET /room``: how much of the disk that images are on is free, and all of it."""

    def get(self) -> None:
        disk = os.statvfs(self.agent.places.snapshots)
        self.finish(
            {"free_bytes": disk.f_bavail * disk.f_frsize, "disk_bytes": disk.f_blocks * disk.f_frsize}
        )


class Health(RequestHandler):
    """``GET /health``: that it lives; nothing of what it does."""

    def get(self) -> None:
        self.finish({"status": "ok"})


def application(agent: Agent, key: str) -> Application:
    """What it answers.

    Raises
    ------
    ValueError
        For a key that could be guessed.
    """
    if len(key) < KEY_LEAST_CHARACTERS:
        raise ValueError(f"the key has fewer than {KEY_LEAST_CHARACTERS} characters")
    given = {"agent": agent, "key": key}
    return Application(
        [
            (r"/health", Health),
            (r"/look", Look, given),
            (r"/room", Room, given),
            (r"/saves", Saves, given),
            (r"/saves/([0-9A-Z]{26})", Save, given),
            (r"/saves/([0-9A-Z]{26})/layer", Layer, given),
        ],
        log_function=lambda _: None,
    )


def most_bytes(limit: str) -> int | None:
    """What may lie in the directory of which Kubernetes says a limit: less, for at the limit the agent itself is ended.

    Raises
    ------
    ValueError
        For what is no quantity.
    """
    if not limit:
        return None
    return int(quantity(limit)) * 9 // 10


async def serve(environ: Mapping[str, str]) -> None:
    """Be the agent until told to end."""
    places = Places(
        Path(environ["GALILEAN_AGENT_BUNDLES"]),
        Path(environ["GALILEAN_AGENT_SNAPSHOTS"]),
        Path(environ["GALILEAN_AGENT_GROUPS"]),
    )
    key = Path(environ["GALILEAN_AGENT_KEY_FILE"]).read_text(encoding="ascii").strip()  # noqa: ASYNC240 - once
    agent = Agent(
        places,
        environ["GALILEAN_AGENT_NAMESPACE"],
        Path(environ["GALILEAN_AGENT_DIRECTORY"]),
        most_bytes=most_bytes(environ.get("GALILEAN_AGENT_DISK", "")),
    )
    agent.begin()
    server = application(agent, key).listen(
        int(environ.get("GALILEAN_AGENT_PORT", PORT)),
        address=environ.get("GALILEAN_AGENT_HOST", "0.0.0.0"),  # noqa: S104 - a NetworkPolicy bounds its reach
        max_body_size=BODY_MOST_BYTES,
    )
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    while not over.is_set():
        agent.sweep(time.monotonic())
        try:
            await asyncio.wait_for(over.wait(), 5)
        except TimeoutError:
            continue
    server.stop()
    await asyncio.to_thread(agent.close)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.umask(0o077)
    asyncio.run(serve(os.environ))
