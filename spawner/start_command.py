"""What the containers of nodes run, on every backend with images; an image's ENTRYPOINT is never run."""

from __future__ import annotations

#: Of images with the node's own part; the first word is its Python.
COMMAND = ("/opt/galilean/bin/python", "-m", "spawner.node.container")


def as_is(home: str) -> tuple[str, ...]:
    """Of an image that was not made for nodes: its own single-user server, wherever its PATH has it."""
    return ("jupyterhub-singleuser", f"--ServerApp.root_dir={home}/work")
