"""How ipyparallel starts the engines of :mod:`spawner.node.engines`; apart, for importing it takes a second."""

from __future__ import annotations

import os
import sys
from typing import Any

from ipyparallel.cluster.launcher import (
    LocalControllerLauncher,
    LocalEngineLauncher,
    LocalEngineSetLauncher,
)

from spawner.node import engines


class NodeController(LocalControllerLauncher):
    """The controller, which goes with whoever started it."""

    def find_args(self) -> list[str]:
        return [sys.executable, "-m", "spawner.node.engines", str(os.getpid()), "--", *super().find_args()]


class NodeEngine(LocalEngineLauncher):
    """One engine, on the node that its number falls to."""

    def find_args(self) -> list[str]:
        slots = engines.own_hosts(os.environ) or ["node-0"]
        host = slots[int(self.identifier) % len(slots)]
        return [sys.executable, "-m", "spawner.node.engines", str(os.getpid()), host]


class NodeEngines(LocalEngineSetLauncher):
    """Engines on all nodes, all started at once."""

    launcher_class: Any = NodeEngine
