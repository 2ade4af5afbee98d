"""Cold deep links: how somebody who is not signed in yet gets from a node's address to that address.

Only node 0 can do the OAuth dance (one client, one redirect address). A worker therefore sends the
browser to ``go/node-i/<path>?<query>`` on node 0, which asks for the sign-in and then leads back. The
login address is made from the request itself, so that the deep path and the query survive.

All functions are pure and work on *raw* (still percent-encoded) request targets: nothing is decoded and
encoded again, so nothing can be smuggled through the difference. A target always begins with the
cluster's own prefix, hence it never leaves the site, whatever the path says.
"""

from __future__ import annotations

from spawner.node.place import node_name, node_prefix, rank_of


def _below(prefix: str, target: str, more: int) -> str:
    """What follows in ``target`` after the segments of ``prefix`` and ``more`` others.

    Counted, not compared: a browser may have encoded the user's name otherwise than the hub does.
    """
    parts = target.split("/", prefix.count("/") + more)
    return parts[-1] if len(parts) == prefix.count("/") + more + 1 else ""


def _split(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query


def login_path(prefix: str, rank: int, request_target: str) -> str:
    """Where a worker sends a browser that must sign in first.

    Always carries a ``?``: without one, Tornado would append a ``next=`` of its own to the query.
    """
    path, query = _split(request_target)
    rest = _below(prefix, path, 1) if rank else _below(prefix, path, 0)
    return f"{prefix}go/{node_name(rank)}/{rest}?{query}"


def bounce_target(prefix: str, nodes: int, request_target: str) -> str | None:
    """Where ``go/node-i/<path>?<query>`` leads; ``None`` when the cluster has no such node."""
    path, query = _split(request_target)
    rest = _below(prefix, path, 1)  # behind "go/"
    name, _, deep = rest.partition("/")
    rank = rank_of(name)
    if rank is None or rank >= nodes:
        return None
    return node_prefix(prefix, rank) + _harmless(deep) + (f"?{query}" if query else "")


def head_target(prefix: str, request_target: str) -> str:
    """Where ``node-0/<path>?<query>`` leads: the same below the cluster's own path (design §10)."""
    path, query = _split(request_target)
    return prefix + _harmless(_below(prefix, path, 1)) + (f"?{query}" if query else "")


def _harmless(rest: str) -> str:
    r"""Without what browsers fold away before they resolve an address: ``\\`` and control characters."""
    return "".join(char for char in rest if char.isprintable() and char not in "\\ ")
