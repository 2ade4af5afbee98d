"""What keeps an image from becoming a node at all, told from what its runtime or its first program says. Pure.

Every node begins with a program of the node's side: our own, or JupyterHub's single-user server where an image runs as it
is. An image that has none ends in the runtime's or Python's own words, which tell people nothing to do.
"""

from __future__ import annotations

import re

from galilean.errors import mark

NO_NODE_SIDE = mark(
    "Node {rank} cannot be started: its image lacks what a node begins with ({lacking}). “Adapt” on the environment's "
    "page adds that; an image with jupyterhub-singleuser can also run as it is."
)
#: runc and crun, of a program that is nowhere, or whose interpreter or loader is nowhere.
_NO_PROGRAM = re.compile(
    r'exec:? "(?P<one>[^"]+)":[^:]*(?:: )?(?:executable file not found|no such file or directory)'
    r"|executable file [`'\"]?(?P<two>[^`'\"\s]+)[`'\"]? not found",
    re.IGNORECASE,
)
_NO_MODULE = re.compile(r"No module named '?(?P<name>spawner|jupyterhub|jupyter_server)\b")


def lacking(said: str) -> str:
    """The program or module that an image should have and has not; empty when that is not what is said."""
    if found := _NO_PROGRAM.search(said):
        return (found["one"] or found["two"] or "").rpartition("/")[2]
    if found := _NO_MODULE.search(said):
        return {"spawner": "galilean"}.get(found["name"], found["name"])
    return ""
