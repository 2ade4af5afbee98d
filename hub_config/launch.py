"""``python -m hub_config.launch``: the hub, started in half of the time.

``rfc3987_syntax`` builds a grammar while it is imported, for two formats that nobody here checks;
``jsonschema`` does without it. It is kept out before anything of Jupyter is imported.
"""

from __future__ import annotations

from spawner.node.launcher import keep_out


def main() -> None:
    """Start the hub and serve until a signal comes."""
    keep_out()
    from hub_config.hub import main as run

    run()


if __name__ == "__main__":
    main()
