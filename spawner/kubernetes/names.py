"""Names and labels of a cluster's objects, from (user, server, rank) alone.

A hub that crashed before it saved anything still finds what it made, because nothing here depends on it.
The readable part is KubeSpawner's slug; its hash of 32 bits, which somebody could meet on purpose by
choosing names, is replaced by one of 64. Exact names stand in annotations, for labels cannot hold them.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from kubespawner.slugs import is_valid_label, multi_slug, safe_slug

from spawner.labels import CLUSTER as CLUSTER
from spawner.labels import COMPONENT as COMPONENT
from spawner.labels import GPU_MODEL as GPU_MODEL
from spawner.labels import LICENCES as LICENCES
from spawner.labels import POOL as POOL
from spawner.labels import RANK as RANK
from spawner.labels import RUN as RUN
from spawner.labels import SERVER as SERVER
from spawner.labels import USER as USER
from spawner.labels import rank_in

HEAD = "head"
WORKER = "worker"

_READABLE = 40
_BASE = re.compile(r"[a-z][a-z0-9-]*---[0-9a-f]{16}", re.ASCII)


@lru_cache(maxsize=8192)
def base_name(user: str, server: str) -> str:
    """A DNS label of at most 48 characters for any user and server, never the same for two pairs.

    The hash covers both names with a separator that UTF-8 cannot contain, so that ``al``/``ice-b`` and
    ``alice``/``b`` differ.
    """
    readable = multi_slug([user, server], max_length=_READABLE).rpartition("---")[0]
    digest = hashlib.sha256(user.encode() + b"\xff" + server.encode())
    return f"{readable}---{digest.hexdigest()[:16]}"


def pod_name(base: str, rank: int) -> str:
    """The name of the pod of node ``rank``."""
    return f"{base}-{rank}"


def rank_of(base: str, name: str) -> int | None:
    """The rank of the node that a pod of this name is; ``None`` when it is no node of this cluster.

    Labels can be put on any pod by whoever may make pods; a name exists once, and this one is computed.
    """
    before, _, rank = name.rpartition("-")
    return rank_in(rank) if before == base else None


def is_base_name(name: str) -> bool:
    """Whether a name has the form of :func:`base_name`: everything else is not ours to touch."""
    return _BASE.fullmatch(name) is not None


def label(value: str) -> str:
    """A label's value for any text: the text itself where that is allowed, else a slug with a hash."""
    return safe_slug(value, is_valid=is_valid_label, max_length=63)


def component(rank: int) -> str:
    """``head`` or ``worker``."""
    return WORKER if rank else HEAD
