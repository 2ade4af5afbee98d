"""What Docker says, in words: how a node ended, and why one could not be made. Pure."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from galilean.errors import mark
from spawner.docker import names
from spawner.image_faults import NO_NODE_SIDE, lacking

_TEXT = 300
_FRACTION = re.compile(r"\.\d+")
#: A container that cannot be started at all ends with one of these; the daemon's own sentence says why.
_NOT_STARTED = (125, 126, 127)

NO_IMAGE = mark(
    "The image {image} is not on this machine, and the settings forbid to fetch it. Tell an administrator."
)
PULL_FAILED = mark("The image {image} cannot be fetched: {why}")
PULLING = mark("The image {image} is being fetched.")
AWAY = mark("Docker does not answer on this machine. Try again in a minute, or tell an administrator.")
NO_SPACE = mark("Node {rank} cannot be started: this machine's disk is full. Tell an administrator.")
NO_GPU = mark("Node {rank} cannot be started: Docker has no access to GPU cards on this machine ({why}).")
NO_WORK = mark("Node {rank} cannot be started: a directory of the project is not on this machine.")
NO_NETWORK = mark("There is no free network for another cluster on this machine. Tell an administrator.")
NO_CARDS = mark("There are not enough free GPU cards on this machine.")
NOT_MADE = mark("Node {rank} cannot be started: {why}")
SETUID = mark(
    "This environment gives sudo, and the disk of “{place}” lets what root leaves there run as root of the machine. "
    "An administrator must mount it with nosuid, or let Docker map users."
)
ENDED = mark("Node {rank} ended before it answered ({how}). Its log says: {log}")


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of ours, as far as anybody here asks.

    Attributes
    ----------
    cluster, run, rank
        By its labels, which agree with its name.
    running
        Whether it runs; what was made and not started yet does not.
    begun
        Whether it was ever started.
    ended_at
        When it ended, UTC; ``None`` = it did not, or Docker does not say.
    reason
        How it ended.
    gpus
        The cards that it holds.
    """

    id: str
    name: str
    cluster: str
    run: str
    rank: int
    running: bool
    begun: bool = True
    ended_at: datetime | None = None
    reason: str = ""
    gpus: str = ""

    @property
    def over(self) -> bool:
        """Whether it ran and does no more."""
        return self.begun and not self.running


def moment(text: str | None) -> datetime | None:
    """A time of Docker's, which has nine digits after the point; the year 1 means never."""
    if not text or text.startswith("0001"):
        return None
    found = datetime.fromisoformat(_FRACTION.sub("", text).replace("Z", "+00:00"))
    fraction = _FRACTION.search(text)
    microseconds = int(fraction.group()[1:7].ljust(6, "0")) if fraction else 0
    return found.replace(microsecond=microseconds).astimezone(UTC)


def exit_reason(code: int, *, out_of_memory: bool = False) -> str:
    """How a node ended, in the words of the rows."""
    if out_of_memory:
        return "out of memory"
    return f"killed by signal {code - 128}" if code > 128 else f"exited {code}"


def container(inspected: Mapping[str, Any], instance: str) -> Container | None:
    """What ``inspect`` tells of a container; ``None`` when it is not what it says."""
    labels = inspected.get("Config", {}).get("Labels") or {}
    name = inspected.get("Name", "").lstrip("/")
    told = names.told(labels, instance)
    if told is None or told.rank is None or name != names.container_name(instance, told.base, told.rank):
        return None
    state = inspected.get("State", {})
    running = bool(state.get("Running")) or state.get("Status") in ("running", "paused", "restarting")
    over = not running and state.get("Status") != "created"
    why = str(state.get("Error") or "")
    reason = exit_reason(int(state.get("ExitCode", 0)), out_of_memory=bool(state.get("OOMKilled")))
    return Container(
        id=str(inspected["Id"]),
        name=name,
        cluster=told.base,
        run=told.run,
        rank=told.rank,
        running=running,
        begun=running or over,
        ended_at=moment(state.get("FinishedAt")) if over else None,
        reason=(why[:120] if why and int(state.get("ExitCode", 0)) in _NOT_STARTED else reason)
        if over
        else "",
        gpus=labels.get(names.GPUS, ""),
    )


def ended_by_event(known: Container, event: Mapping[str, Any]) -> Container:
    """A container whose end was told, and which nobody can ask any more."""
    attributes = event.get("Actor", {}).get("Attributes", {})
    at = datetime.fromtimestamp(int(event.get("timeNano", 0)) / 1e9, UTC) if event.get("timeNano") else None
    try:
        reason = exit_reason(int(attributes.get("exitCode", "0")))
    except ValueError:
        reason = "ended"
    return replace(known, running=False, begun=True, ended_at=at, reason=reason)


def why_not_made(said: str) -> tuple[str, dict[str, Any]]:
    """The sentence for the run's owner from the daemon's own: message and its parameters besides the rank."""
    text = said.strip()
    small = text.lower()
    if "no space left on device" in small or "disk quota exceeded" in small:
        return NO_SPACE, {}
    if "could not select device driver" in small or "nvidia-container" in small:
        return NO_GPU, {"why": text[:_TEXT]}
    if "bind source path does not exist" in small:
        return NO_WORK, {}
    if program := lacking(text):
        return NO_NODE_SIDE, {"lacking": program}
    return NOT_MADE, {"why": text[:_TEXT]}


def why_ended(how: str, log: str) -> tuple[str, dict[str, Any]]:
    """The same of a node that ended before it answered, from how it ended and the end of its log."""
    if what := lacking(log):
        return NO_NODE_SIDE, {"lacking": what}
    return ENDED, {"how": how, "log": log}


def why_not_prepared(error: OSError) -> tuple[str, dict[str, Any]]:
    """The same for what is written and looked for on this machine before a container is made."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE, {}
    if isinstance(error, FileNotFoundError):
        return NO_WORK, {}
    return NOT_MADE, {"why": error.strerror or str(error)}


def why_not_pulled(said: str) -> str:
    """A registry's own words without what stands around them."""
    small = said.lower()
    for known in (
        "manifest unknown", "not found", "unauthorized", "denied", "no such host", "connection refused",
        "no space left on device", "timeout",
    ):  # fmt: skip
        if known in small:
            return known
    return said.strip()[:_TEXT] or "error"
