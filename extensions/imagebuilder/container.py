"""One container of the Docker backend whose changes are to be saved: found, looked at, paused and read.

Only through Docker's own interface, so that the service needs no right of root's besides the daemon's socket. The
changes lie in a directory of the machine (:mod:`extensions.imagebuilder.upper`). A second container of the same image,
which is made and never started, has that directory mounted read-only; Docker hands it out as an archive. The image's
own files (Debian's list of packages) are read from the same container.

What is promised of the moment: everybody in the container is held for at most ``FREEZE_SECONDS``, and what is read in
that time (some hundred megabytes) is one moment's. The rest is read while people go on: each file as it is when its
turn comes. A file that becomes shorter while it is read breaks the archive; then it is read again, and after
``TRIES`` the person is told to stop what writes. What the kernel has in its memory is read as well as what is on
the disk, so nothing needs to be written out first.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import requests

from extensions.imagebuilder.strip import Rules
from extensions.imagebuilder.summary import Path as Changed
from galilean.errors import UserError, mark
from spawner.docker import names
from spawner.docker.api import APIError, Client, ImageNotFound, NotFound, said
from spawner.labels import READER as READER
from spawner.node.place import SECRETS_DIRECTORY
from spawner.node.ssh import SECRET_VARIABLES
from spawner.process.layout import base_name

log = logging.getLogger("galilean.imagebuilder")

#: Longest that a person is held, of the two seconds that are promised: the daemon needs some to begin and to end.
FREEZE_SECONDS = 1.2
#: Between two tries to let go one that could not be.
AGAIN_SECONDS = 10
TRIES = 3
CHUNK_BYTES = 1 << 20
#: A daemon that compares two large trees takes its time.
LOOK_SECONDS = 300
PLACE = "/galilean-changes"
#: Of the node's side, below HOME: made anew for each run.
OWN = (".galilean", ".galilean-command.log")
DPKG = "/var/lib/dpkg/status"
_SECRET_NAME = re.compile(
    r".*(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|_PASS|_PWD|SECRET|(?:API|ACCESS|ACCOUNT|PRIVATE|SECRET|STORAGE)_?KEY)",
    re.IGNORECASE,
)
#: Where a secret is, and no secret. Keys of clouds may begin with a slash; they have capitals before the next one.
_PATH = re.compile(
    r"/(?:data|etc|home|mnt|opt|root|run|srv|tmp|usr|var|workspace)/.*|(?:/[a-z0-9._-]+){2,}/?", re.DOTALL
)
SECRET_LEAST_BYTES = 16

_GONE = mark("This node does not run any more, so nothing of it can be saved.")
_UNKNOWN_DRIVER = mark(
    "Docker keeps changes here in a way that cannot be read ({driver}). Images can be saved with overlay2 as Docker "
    "sets it up by itself."
)
_WRITTEN_TO = mark(
    "{path} was written to while it was copied, each of {tries} times. Stop the program that writes it, then save again."
)
_AWAY = mark("Docker does not answer just now. Try again in a moment.")


class GivenUp(Exception):
    """Somebody asked to cancel."""


@dataclass(frozen=True)
class Wanted:
    """Which node: of whom, of which run."""

    user: str
    server: str
    run: str
    rank: int


@dataclass(frozen=True)
class Found:
    """A node's container, as it is now.

    Attributes
    ----------
    id, name
        Of the container.
    image
        Its image's id.
    image_name
        As the environment names it.
    upper
        Directory of the machine with the changes.
    size_bytes
        Of the changes.
    image_bytes
        Of the image below them.
    mounted
        What lies in volumes, as absolute paths.
    home
        HOME inside.
    secrets
        Name → value of what must never be in an image.
    processes
        How many run.
    """

    id: str
    name: str
    image: str
    image_name: str
    upper: str
    size_bytes: int
    image_bytes: int
    mounted: tuple[str, ...]
    home: str
    secrets: Mapping[str, bytes] = field(repr=False)
    processes: int = 0

    def rules(self, *, history: bool = False) -> Rules:
        """What is left out of its image."""
        return Rules.of(self.mounted, [f"{self.home}/{name}" for name in OWN], history=history)


def find(client: Client, instance: str, wanted: Wanted) -> Found:
    """The container of a node, if it runs and is that run's.

    Raises
    ------
    UserError
        409 when it does not run; 501 when Docker's storage cannot be read in this way.
    """
    name = names.container_name(instance, base_name(wanted.user, wanted.server), wanted.rank)
    try:
        seen: dict[str, Any] = client.inspect_container(name)
    except NotFound:
        raise UserError(409, _GONE, reason="node-gone") from None
    told = names.told(seen["Config"].get("Labels") or {}, instance)
    same = told is not None and (told.user, told.server, told.run, told.rank) == (
        wanted.user,
        wanted.server,
        wanted.run,
        wanted.rank,
    )
    if not same or not seen["State"].get("Running"):
        raise UserError(409, _GONE, reason="node-gone")
    driver = seen.get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    if driver.get("Name") != "overlay2" or not upper or not _plain_overlay(client):
        raise UserError(501, _UNKNOWN_DRIVER, reason="driver", driver=str(driver.get("Name"))[:40])
    environment = dict(item.partition("=")[::2] for item in seen["Config"].get("Env") or ())
    mounts = seen.get("Mounts") or ()
    sources = [Path(one["Source"]) for one in mounts if one.get("Destination") == SECRETS_DIRECTORY]
    return Found(
        id=seen["Id"],
        name=name,
        image=seen["Image"],
        image_name=seen["Config"].get("Image") or seen["Image"],
        upper=upper,
        size_bytes=_size(client, seen["Id"]),
        image_bytes=int(client.inspect_image(seen["Image"]).get("Size") or 0),
        mounted=tuple(sorted(one["Destination"] for one in mounts if one.get("Destination"))),
        home=environment.get("HOME") or seen["Config"].get("WorkingDir") or "/root",
        secrets=secrets_of(environment, sources),
        processes=_processes(client, seen["Id"]),
    )


def _plain_overlay(client: Client) -> bool:
    """Whether *upper* holds everything: no renamed directories by reference, no other owners than inside."""
    info = client.info()
    status = {str(item[0]): str(item[1]) for item in info.get("DriverStatus") or () if len(item) > 1}
    options = " ".join(info.get("SecurityOptions") or ())
    return (
        status.get("Native Overlay Diff") == "true" and "userns" not in options and "rootless" not in options
    )


def _size(client: Client, container: str) -> int:
    listed = client.containers(size=True, filters={"id": container})
    return int(listed[0].get("SizeRw") or 0) if listed else 0


def _processes(client: Client, container: str) -> int:
    try:
        return len(client.top(container).get("Processes") or ())
    except APIError:
        return 0


def secrets_of(environment: Mapping[str, str], files: list[Path]) -> dict[str, bytes]:
    """What of a run is secret: variables that name one, and the keys that were made for it; each value once."""
    found: dict[bytes, str] = {}
    for name, value in environment.items():
        secret = name in SECRET_VARIABLES or (_SECRET_NAME.fullmatch(name) and not _PATH.fullmatch(value))
        if secret and len(value) >= SECRET_LEAST_BYTES:
            found.setdefault(value.encode(), name)
    for folder in files:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name in ("known_hosts", "authorized_keys"):
                continue
            value = path.read_bytes()
            if value.startswith(b"-----BEGIN"):  # as it stands, and however its lines are broken
                value = b"".join(line for line in value.splitlines() if not line.startswith(b"-----"))
            if len(value) >= SECRET_LEAST_BYTES:
                found.setdefault(value, path.name)
    return {name: value for value, name in found.items()}


def changed_paths(client: Client, container: str) -> list[Changed]:
    """Which paths were added, changed and deleted; Docker compares both trees, which takes a second or more."""
    return [Changed.told(item) for item in client.diff(container) or ()]


def reader(client: Client, instance: str, found: Found) -> contextlib.AbstractContextManager[str]:
    """A container that never runs, through which changes and image are read; gone at the end."""
    return reader_of(client, instance, found.image, {PLACE: found.upper})


@contextlib.contextmanager
def reader_of(client: Client, instance: str, image: str, places: Mapping[str, str]) -> Iterator[str]:
    """The same of any image.

    ``places`` are directories of the machine: where they are seen → what they are.
    """
    made = client.create_container_from_config(
        {
            "Image": image,
            "Entrypoint": [],
            "Cmd": ["/nothing"],
            "Labels": {READER: instance},
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [
                    {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
                    for target, source in places.items()
                ],
            },
        }
    )["Id"]
    try:
        yield made
    finally:
        with contextlib.suppress(NotFound):
            client.remove_container(made, force=True, v=True)


def read_file(client: Client, container: str, path: str, *, most: int) -> bytes:
    """A file of a reader's image; empty when it has none."""
    try:
        blocks, stat = client.get_archive(container, path)
    except NotFound:
        return b""
    if int(stat.get("size", 0)) > most:
        return b""
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
        for member in archive:
            if member.isfile() and (content := archive.extractfile(member)) is not None:
                return content.read()
    return b""


@dataclass
class Copied:
    """How the copying went: bytes, seconds in all, and seconds that the person was held; ``one_moment`` tells whether
    everything was read in them.
    """

    size_bytes: int
    seconds: float
    frozen_seconds: float
    one_moment: bool


def copy_changes(
    client: Client,
    pauser: Client,
    found: Found,
    source: str,
    out: BinaryIO,
    *,
    progress: Callable[[int], None] = lambda _: None,
    freeze_seconds: float = FREEZE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Copied:
    """Copy the changes into a file, holding the container for a moment at the beginning.

    Parameters
    ----------
    client, pauser
        Two connections: one is busy with the archive while the other lets the container go.
    found, source
        The node's container, and the id of its :func:`reader`.
    out
        An empty file.
    progress
        Called with bytes so far; what it raises ends the copying.
    freeze_seconds
        Longest that the container is held; 0 = not at all.
    clock
        Monotonic.

    Raises
    ------
    UserError
        409 when the container ended meanwhile. A full disk is the kernel's own error, for whoever called.
    """
    begun = clock()
    held = _Hold(pauser, found.id, freeze_seconds, clock)
    size = 0
    held.begin()
    try:
        for block in client.get_archive(source, f"{PLACE}/.", chunk_size=CHUNK_BYTES)[0]:
            out.write(block)
            size += len(block)
            progress(size)
        out.flush()
        whole = held.holds
    except OSError as error:
        if isinstance(error, requests.RequestException):
            raise UserError(503, _AWAY, reason="docker-away") from error
        raise
    finally:
        held.end()
    return Copied(size, clock() - begun, held.seconds, whole)


class _Hold:
    """Holds a container for so long and no longer, whatever else happens."""

    def __init__(
        self,
        client: Client,
        container: str,
        most_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client, self._container, self._most, self._clock = client, container, most_seconds, clock
        self._sleep = sleep
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._begun = 0.0
        self.seconds = 0.0
        self.holds = False

    def begin(self) -> None:
        if self._most <= 0:
            return
        self._begun = self._clock()
        try:
            self._client.pause(self._container)
        except (APIError, requests.RequestException) as error:
            # It may be held all the same where only the answer was lost.
            self._let_go()
            if isinstance(error, NotFound) or (
                isinstance(error, APIError) and error.status_code in (404, 409)
            ):
                raise UserError(409, _GONE, reason="node-gone") from error
            raise UserError(503, _AWAY, reason="docker-away") from error
        self.holds = True
        self._watch = threading.Thread(target=self._wait, name="galilean-hold", daemon=True)
        self._watch.start()

    def _wait(self) -> None:
        self._over.wait(self._most - (self._clock() - self._begun))
        self._let_go()
        self.holds = False
        self.seconds = self._clock() - self._begun

    def _let_go(self) -> None:
        for pause in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
            if release(self._client, self._container):
                return
            self._sleep(pause)
        let_go_later(self._client, self._container, self._sleep)

    def end(self) -> None:
        self._over.set()
        if self._watch is not None:
            self._watch.join()


def release(client: Client, container: str) -> bool:
    """Let a held container go; whether it is not held now (gone counts)."""
    try:
        client.unpause(container)
    except NotFound:
        return True
    except APIError as error:
        return "not paused" in said(error) or "not running" in said(error)
    except Exception as error:  # requests' own and whatever else a cut or closed connection raises
        log.warning("container %s could not be asked to be let go: %s", container, error)
        return False
    return True


def let_go_later(client: Client, container: str, sleep: Callable[[float], object] = time.sleep) -> None:
    """Go on beside everything else until a held container is let go: whoever works in it can do nothing meanwhile."""

    def go_on() -> None:
        log.error("container %s could not be let go yet; it is tried until it can be", container)
        while not release(client, container):
            sleep(AGAIN_SECONDS)
        log.warning("container %s is let go", container)

    threading.Thread(target=go_on, name="galilean-let-go", daemon=True).start()


def put_right(client: Client, instance: str) -> int:
    """After a service that was killed: remove readers, let held containers go; how many there were."""
    count = 0
    for item in client.containers(all=True, filters={"label": f"{READER}={instance}"}):
        with contextlib.suppress(NotFound):
            client.remove_container(item["Id"], force=True, v=True)
        count += 1
    for item in client.containers(filters={"label": f"{names.INSTANCE}={instance}", "status": "paused"}):
        if not release(client, item["Id"]):
            let_go_later(client, item["Id"])
        count += 1
    return count


def written_to(path: str) -> UserError:
    """For a file that never stayed the same long enough."""
    return UserError(409, _WRITTEN_TO, reason="written-to", path=f"/{path}", tries=TRIES)


def push_base(
    client: Client,
    image: str,
    repository: str,
    tag: str,
    credentials: Mapping[str, str] | None,
    progress: Callable[[int, int], None],
) -> None:
    """Have the daemon bring an image to a registry: the layers that a saved image stands on.

    Raises
    ------
    UserError
        502 with the registry's words in the log, never for people.
    """
    client.tag(image, repository, tag, force=True)
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for line in client.push(
            repository,
            tag=tag,
            stream=True,
            decode=True,
            auth_config=dict(credentials) if credentials else None,
        ):
            if "error" in line:
                raise _refused_by_registry(str(line["error"]))
            detail = line.get("progressDetail") or {}
            if line.get("id") and "total" in detail:
                sizes[line["id"]] = (int(detail.get("current", 0)), int(detail["total"]))
                progress(sum(one[0] for one in sizes.values()), sum(one[1] for one in sizes.values()))
    except (APIError, requests.RequestException) as error:
        raise _refused_by_registry(said(error)) from error
    finally:
        with contextlib.suppress(APIError, ImageNotFound):
            client.remove_image(f"{repository}:{tag}", noprune=True)


def fetch(
    client: Client, image: str, credentials: Mapping[str, str] | None, progress: Callable[[int, int], None]
) -> None:
    """Have an image on this machine; what is there already is success.

    Raises
    ------
    UserError
        502.
    """
    with contextlib.suppress(ImageNotFound):
        client.inspect_image(image)
        return
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for line in client.pull(
            image, stream=True, decode=True, auth_config=dict(credentials) if credentials else None
        ):
            if "error" in line:
                raise _refused_by_registry(str(line["error"]))
            detail = line.get("progressDetail") or {}
            if line.get("id") and "total" in detail:
                sizes[line["id"]] = (int(detail.get("current", 0)), int(detail["total"]))
                progress(sum(one[0] for one in sizes.values()), sum(one[1] for one in sizes.values()))
    except (APIError, requests.RequestException) as error:
        raise _refused_by_registry(said(error)) from error


def _refused_by_registry(text: str) -> UserError:
    log.warning("docker and the registry: %s", text[:500])
    if "no space left" in text:
        return UserError(
            507,
            mark("The disk of the machine or of the registry is full. Nothing was kept."),
            reason="registry-full",
        )
    return UserError(
        502,
        mark(
            "Docker and the image registry could not agree. Try again; the administrators find more in the log."
        ),
        reason="registry-docker",
    )
