"""What runs inside a node besides Jupyter: a Jupyter server extension, loaded as ``spawner.node``.

It tells readiness exactly (one byte through an inherited pipe, written when the server listens), answers
the bounce for cold deep links, counts presence and reports it, opens user ports, and takes ssh connections
from the other nodes. It must be light: nothing here imports our database, our settings, or anything of the
hub that a plain single-user server would not import.
"""

from __future__ import annotations

import os
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "spawner.node"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from spawner.node.handlers import handlers
    from spawner.node.place import Place

    app.web_app.add_handlers(".*$", handlers(Place.read(os.environ)))
    try:
        from spawner.node import ports
    except ImportError as error:  # an interpreter of the centre's own, without jupyter-server-proxy
        app.log.info("User ports are not offered on this node: %s", error)
    else:
        from spawner.node import application_pages
        from spawner.node.applications import Applications
        from spawner.node.listening import Ports

        looks, place = Ports(os.environ), Place.read(os.environ)
        ports.load(app, looks)
        application_pages.load(app, Applications(os.environ, place.node_prefix, looks), place.name)
    if "desktop" in os.environ.get("GALILEAN_INTERFACES", "").split(","):
        _load_desktop(app)


def _load_desktop(app: Any) -> None:
    """The desktop's own extension, which stands above this room."""
    import importlib

    try:
        importlib.import_module("extensions.desktop")._load_jupyter_server_extension(app)
    except ImportError as error:
        app.log.warning("This node offers no desktop: %s", error)


async def _start_jupyter_server_extension(app: Any) -> None:
    """Runs once the socket is bound and the loop turns."""
    from spawner.node.running import start

    await start(app)
