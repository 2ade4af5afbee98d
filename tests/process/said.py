"""A server extension for the tests: writes down what the server it runs in is made of."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

VOLATILE = ("config", "cookie_secret", "port", "started")


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tests.process.said"}]


def plain(value: Any) -> str:
    """Sets have no order, and another one in each process; a secret is another one in each run."""
    if isinstance(value, dict):
        return repr({name: plain(item) for name, item in value.items() if name not in VOLATILE})
    if isinstance(value, set | frozenset | list):  # JupyterLab makes lists of sets
        return repr(sorted(plain(item) for item in value))
    return repr(value)


def _load_jupyter_server_extension(app: Any) -> None:
    pass


async def _start_jupyter_server_extension(app: Any) -> None:
    lab = app.extension_manager.extension_apps["jupyterlab"]
    parts = [app, *lab, app.identity_provider, app.identity_provider.hub_auth, app.kernel_manager]
    said = {
        "config": app.config,
        "traits": {
            type(part).__name__: {
                name: plain(getattr(part, name))
                for name in sorted(part.traits(config=True))
                if name not in VOLATILE
            }
            for part in parts
        },
        "environment": dict(os.environ),
        "modules": sorted(sys.modules),
        "extensions": sorted(app.extension_manager.extensions),
        "directory": os.getcwd(),
        "argv": sys.argv,
    }
    (Path.home() / "said.json").write_text(json.dumps(said, default=repr))
