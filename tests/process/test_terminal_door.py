"""The terminal door of a node, without a node."""

from __future__ import annotations

from spawner.node.terminal import WORKSPACE, workspace


def test_the_workspace_names_itself_and_one_terminal() -> None:
    layout = workspace()
    assert layout["metadata"]["id"] == WORKSPACE
    shown = layout["data"]["layout-restorer:data"]["main"]["dock"]["widgets"]
    assert shown == ["terminal:1"]
    assert layout["data"]["terminal:1"]["data"]["name"] == "1"
