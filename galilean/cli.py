"""The ``galilean`` command.

Commands come from the entry points of the group ``galilean.commands``: each is a function that is handed
the application and adds its commands. So the ground floor need not know the floors above it, and another
distribution can bring commands of its own. What goes wrong is said in one or two sentences on standard
error, with exit code 1; wrong usage is 2.
"""

from __future__ import annotations

import signal
import sys
from importlib.metadata import entry_points

import typer

from galilean.errors import UserError
from galilean.settings import SettingsError
from galilean.terminal import say_aside

GROUP = "galilean.commands"


def build_app() -> typer.Typer:
    """The application with every command that is installed."""
    app = typer.Typer(
        name="galilean",
        help="Virtual clusters for a campus computing centre.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def main() -> None:
    """Run the command and say in plain words what went wrong."""
    # As the first process of a container it would otherwise not be ended by it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        build_app()()
    except UserError as error:
        say_aside(error.message, **error.params)
        raise SystemExit(1) from None
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
