"""Where a node stands: what its backend tells it, as environment variables, and nothing else.

Every backend starts a node with these variables; everything the node side does (bounce, presence, ssh,
host file) is computed from them. Two kinds: what people's programs may rely on (``GALILEAN_CLUSTER``, the
run's id, ``GALILEAN_NODES``, ``GALILEAN_RANK``, and what :mod:`spawner.node.variables` adds), and what only
our extension reads. Secrets are never among them, except the hub's API
token, which the hub itself hands over this way.

This module is imported in every node and must stay light: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

RUN = "GALILEAN_CLUSTER"
SERVER = "JUPYTERHUB_SERVER_NAME"
NODES = "GALILEAN_NODES"
RANK = "GALILEAN_RANK"
PREFIX = "GALILEAN_PREFIX"
PORTAL_URL = "GALILEAN_PORTAL_URL"
HOSTFILE = "GALILEAN_HOSTFILE"
LANGUAGE = "GALILEAN_LANGUAGE"
#: Process backend: the cluster's directory; marks every process of the cluster, whoever started it.
DIRECTORY = "GALILEAN_CLUSTER_DIR"
#: Container backends: directory of the cluster's secrets, and how many CPUs a node has.
SECRETS = "GALILEAN_SECRETS"
SECRETS_DIRECTORY = "/run/galilean/secrets"
CPU_MILLICORES = "GALILEAN_CPU_MILLICORES"
#: Container backends: configuration of the node's sshd; elsewhere it is in the cluster's directory.
SSHD_CONFIG = "GALILEAN_SSHD_CONFIG"
#: Inherited descriptors, taken out of the environment before anything else runs.
READY_FD = "GALILEAN_READY_FD"
LISTEN_FD = "GALILEAN_LISTEN_FD"
SSH_FD = "GALILEAN_SSH_FD"

_NODE = re.compile(r"node-(0|[1-9][0-9]{0,4})", re.ASCII)


def node_name(rank: int) -> str:
    """``node-0`` is the head; the same word in addresses, host file and ssh."""
    return f"node-{rank}"


def rank_of(name: str) -> int | None:
    """The rank that ``node-<i>`` names, ``None`` for anything else (``node-01`` is no node)."""
    match = _NODE.fullmatch(name)
    return int(match.group(1)) if match else None


def node_prefix(cluster_prefix: str, rank: int) -> str:
    """The path of a node: the cluster's own for node 0, ``…/node-i/`` for the others (design §10)."""
    return cluster_prefix if rank == 0 else f"{cluster_prefix}{node_name(rank)}/"


class ClusterOfNodes(Protocol):
    """What the places of a cluster's nodes have in common, as every backend's specification says it."""

    @property
    def run(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def nodes(self) -> int: ...
    @property
    def prefix(self) -> str: ...
    @property
    def portal_url(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node's place in its cluster.

    Attributes
    ----------
    run
        Id of the run.
    server
        The hub's named server.
    nodes, rank
        How many nodes there are, and which one this is.
    prefix
        Path of the *cluster*, ``/user/U/S/`` as the hub escapes it, with both slashes.
    portal_url
        Where the portal is reached from a node, without a slash at the end; empty = presence is not told.
    """

    run: str
    server: str
    nodes: int
    rank: int
    prefix: str
    portal_url: str = ""

    @classmethod
    def of(cls, cluster: ClusterOfNodes, rank: int) -> Place:
        """The place of a node of a cluster that a backend is making."""
        return cls(
            run=cluster.run,
            server=cluster.server,
            nodes=cluster.nodes,
            rank=rank,
            prefix=cluster.prefix,
            portal_url=cluster.portal_url,
        )

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Place:
        """The place that the environment tells.

        Raises
        ------
        KeyError, ValueError
            When the process was not started by one of our backends.
        """
        prefix = environ[PREFIX]
        if not (prefix.startswith("/") and prefix.endswith("/")) or prefix.startswith("//"):
            raise ValueError(f"{PREFIX} is no path with slashes at both ends: {prefix!r}")
        return cls(
            run=environ[RUN],
            server=environ[SERVER],
            nodes=int(environ[NODES]),
            rank=int(environ[RANK]),
            prefix=prefix,
            portal_url=environ.get(PORTAL_URL, "").rstrip("/"),
        )

    def variables(self) -> dict[str, str]:
        """The variables that :meth:`read` reads."""
        return {
            RUN: self.run,
            SERVER: self.server,
            NODES: str(self.nodes),
            RANK: str(self.rank),
            PREFIX: self.prefix,
            PORTAL_URL: self.portal_url,
        }

    @property
    def name(self) -> str:
        return node_name(self.rank)

    @property
    def node_prefix(self) -> str:
        return node_prefix(self.prefix, self.rank)
