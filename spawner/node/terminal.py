"""The terminal door of a node: JupyterLab with one terminal open and nothing else.

JupyterLab has no address that opens a terminal, but it restores a *workspace* from a file, and starts the
terminals that the workspace names where they do not run. So the door writes that one small file, the same
each time, and leads to it.
"""

from __future__ import annotations

import json
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from spawner.node.place import Place

WORKSPACE = "terminal"


def workspace() -> dict[str, Any]:
    """The layout, as JupyterLab keeps it."""
    empty = {"collapsed": True, "visible": True, "widgets": []}
    return {
        "data": {
            "layout-restorer:data": {
                "main": {
                    "dock": {"type": "tab-area", "currentIndex": 0, "widgets": ["terminal:1"]},
                    "current": "terminal:1",
                },
                "down": {"size": 0, "widgets": []},
                "left": empty,
                "right": empty,
                "relativeSizes": [0, 1, 0],
                "top": {"simpleVisibility": True},
            },
            "terminal:1": {"data": {"name": "1"}},
        },
        "metadata": {"id": WORKSPACE},
    }


class TerminalHandler(JupyterHandler):
    """``galilean/terminal``: leads to JupyterLab with a terminal."""

    def initialize(self, place: Place) -> None:
        self.place = place

    @web.authenticated
    def get(self) -> None:
        from jupyterlab.commands import get_workspaces_dir
        from jupyterlab_server.workspaces_handler import WorkspacesManager

        WorkspacesManager(get_workspaces_dir()).save(WORKSPACE, json.dumps(workspace()))
        self.redirect(f"{self.place.node_prefix}lab/workspaces/{WORKSPACE}")
