"""Names and labels of a cluster's containers and its network, from (user, server, rank) alone.

A hub that crashed before it saved anything still finds what it made. The instance says whose they are where
several installations share one Docker daemon: it begins every name and is among the labels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from spawner.labels import CLUSTER as CLUSTER
from spawner.labels import COMPONENT as COMPONENT
from spawner.labels import GPU_MODEL as GPU_MODEL
from spawner.labels import POOL as POOL
from spawner.labels import RANK as RANK
from spawner.labels import RUN as RUN
from spawner.labels import SERVER as SERVER
from spawner.labels import USER as USER
from spawner.labels import rank_in
from spawner.process.layout import base_name

#: Whose objects these are among the installations of one daemon.
INSTANCE = "galilean.io/instance"
#: Docker has no annotations: the exact names, and the cards that a node holds, are labels as well.
EXACT_USER = "galilean.io/exact-user"
EXACT_SERVER = "galilean.io/exact-server"
GPUS = "galilean.io/gpus"

_PLAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
#: An interface's name has at most 15 characters; the firewall knows ours by this beginning.
BRIDGE = "gal-"
#: Of a network in which an image is built: no digest has a hyphen, so no cluster's bridge begins like this.
BUILD_BRIDGE = f"{BRIDGE}b-"


def container_name(instance: str, base: str, rank: int) -> str:
    """The container of node ``rank``; unique on the daemon."""
    return f"{instance}-{base}-{rank}"


def network_name(instance: str, base: str) -> str:
    """The cluster's network."""
    return f"{instance}-{base}"


def bridge_name(instance: str, base: str) -> str:
    """The network's interface on the machine, at most 15 characters."""
    digest = hashlib.sha256(f"{instance}\0{base}".encode()).hexdigest()
    return BRIDGE + digest[: 15 - len(BRIDGE)]


def slug(value: str) -> str:
    """A label's value of at most 63 characters for any text; the text itself where that is allowed."""
    if _PLAIN.fullmatch(value):
        return value
    readable = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:40].strip("-") or "x"
    return f"{readable}---{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def build_bridge_name(instance: str, build: str) -> str:
    """The interface of a build's network."""
    digest = hashlib.sha256(f"{instance}\0{build}".encode()).hexdigest()
    return BUILD_BRIDGE + digest[: 15 - len(BUILD_BRIDGE)]


@dataclass(frozen=True)
class Told:
    """What the labels of one of our objects say; ``rank`` is ``None`` for a network."""

    user: str
    server: str
    run: str
    base: str
    rank: int | None


def told(labels: Mapping[str, str], instance: str) -> Told | None:
    """Read labels; ``None`` where they do not agree with one another, or are another instance's."""
    user, server = labels.get(EXACT_USER), labels.get(EXACT_SERVER)
    run, rank = labels.get(RUN, ""), labels.get(RANK)
    if labels.get(INSTANCE) != instance or user is None or server is None or not run:
        return None
    base = base_name(user, server)
    number = None if rank is None else rank_in(rank)
    if labels.get(CLUSTER) != base or (rank is not None and number is None):
        return None
    return Told(user, server, run, base, number)
