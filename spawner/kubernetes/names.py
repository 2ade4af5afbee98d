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

RUN = "galilean.io/run"
#: The cluster's base name: what all objects of (user, server) have in common, whichever run made them.
CLUSTER = "galilean.io/cluster"
USER = "galilean.io/user"
SERVER = "galilean.io/server"
RANK = "galilean.io/rank"
COMPONENT = "galilean.io/component"
POOL = "galilean.io/pool"
GPU_MODEL = "galilean.io/gpu-model"

HEAD = "head"
WORKER = "worker"

_READABLE = 40
_RANK = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
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
    return int(rank) if before == base and _RANK.fullmatch(rank) else None


def is_base_name(name: str) -> bool:
    """Whether a name has the form of :func:`base_name`: everything else is not ours to touch."""
    return _BASE.fullmatch(name) is not None


def label(value: str) -> str:
    """A label's value for any text: the text itself where that is allowed, else a slug with a hash."""
    return safe_slug(value, is_valid=is_valid_label, max_length=63)


def component(rank: int) -> str:
    """``head`` or ``worker``."""
    return WORKER if rank else HEAD
