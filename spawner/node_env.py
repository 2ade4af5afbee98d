"""The environment of one node: one identity for the whole cluster, a place of its own for each node.

All nodes carry the same OAuth client, API token, scopes and (a file of the backend) cookie secret: the hub
knows one server. Only prefix, rank and own URL differ. Workers report no activity to the hub. The names
for torchrun are set because everybody who starts a job over several nodes sets them otherwise by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

MASTER_PORT = 29500


def node_prefix(prefix: str, rank: int) -> str:
    """The path under which a node answers: ``/user/U/S/`` for node 0, else ``/user/U/S/node-<rank>/``."""
    prefix = prefix.rstrip("/") + "/"
    return prefix if rank == 0 else f"{prefix}node-{rank}/"


def node_environment(
    shared: Mapping[str, str],
    *,
    run_id: str,
    project: str,
    rank: int,
    nodes: int,
    bind: str,
    master_address: str = "node-0",
    variables: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables of node ``rank``.

    Parameters
    ----------
    shared
        What the hub's ``Spawner.get_env()`` says: token, OAuth client, scopes, hub URLs; its
        ``JUPYTERHUB_SERVICE_PREFIX`` is the prefix of node 0.
    run_id
        Of the cluster.
    project
        ``owner/slug``.
    rank, nodes
        Which node of how many.
    bind
        Scheme, host and port on which the node listens, such as ``http://127.0.0.1:51234``.
    master_address
        Host name of node 0 as the nodes resolve it.
    variables
        Of the chosen environment; they never override what ties the node to the hub.
    """
    prefix = node_prefix(shared["JUPYTERHUB_SERVICE_PREFIX"], rank)
    env = {
        **(variables or {}),
        **shared,
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "JUPYTERHUB_SERVICE_URL": bind.rstrip("/") + prefix,
        "GALILEAN_CLUSTER": run_id,
        "GALILEAN_PROJECT": project,
        "GALILEAN_NODES": str(nodes),
        "GALILEAN_RANK": str(rank),
        "MASTER_ADDR": master_address,
        "MASTER_PORT": str(MASTER_PORT),
        "NNODES": str(nodes),
        "NODE_RANK": str(rank),
    }
    if rank:
        env["JUPYTERHUB_ACTIVITY_INTERVAL"] = "0"
        public = shared.get("JUPYTERHUB_PUBLIC_URL", "")
        if public:
            parts = urlsplit(public)
            env["JUPYTERHUB_PUBLIC_URL"] = urlunsplit(parts._replace(path=node_prefix(parts.path, rank)))
    return env
