"""What an environment says about its desktop, as the node's variables tell it; pure.

Environments are written by administrators, variables may be changed by anybody's image: what cannot be
understood is left out rather than believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: JSON object: name → ``{"title": …, "command": …}``, or name → command.
APPLICATIONS = "GALILEAN_DESKTOP_APPLICATIONS"
GEOMETRY = "GALILEAN_DESKTOP_GEOMETRY"
DPI = "GALILEAN_DESKTOP_DPI"
#: Shell command that runs instead of the desktop session that is installed.
COMMAND = "GALILEAN_DESKTOP_COMMAND"

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_GEOMETRY = re.compile(r"(\d{3,4})x(\d{3,4})", re.ASCII)
SMALLEST, LARGEST = (320, 240), (7680, 4320)
USUAL = (1600, 900)


@dataclass(frozen=True)
class Application:
    """One application that may be opened alone."""

    name: str
    title: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a node's desktops are made.

    Attributes
    ----------
    applications
        By name, as addresses have it.
    size
        Pixels at the start, width and height; a page may ask for others later.
    dpi
        Dots per inch that programs are told.
    command
        Own session command for a shell; empty = what is installed.
    """

    applications: Mapping[str, Application] = field(default_factory=dict)
    size: tuple[int, int] = USUAL
    dpi: int = 96
    command: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Choices:
        """What the node's environment says."""
        dpi = environ.get(DPI, "")
        return cls(
            applications=applications(environ.get(APPLICATIONS, "")),
            size=geometry(environ.get(GEOMETRY, "")) or USUAL,
            dpi=int(dpi) if dpi.isascii() and dpi.isdigit() and 48 <= int(dpi) <= 384 else 96,
            command=environ.get(COMMAND, ""),
        )


def geometry(text: str) -> tuple[int, int] | None:
    """``1600x900`` as numbers; ``None`` for anything that is no size of a screen."""
    match = _GEOMETRY.fullmatch(text)
    if match is None:
        return None
    size = int(match[1]), int(match[2])
    fits = all(low <= value <= high for low, value, high in zip(SMALLEST, size, LARGEST, strict=True))
    return size if fits else None


def applications(text: str) -> dict[str, Application]:
    """The applications in a JSON text; what is none is left out."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    found: dict[str, Application] = {}
    for name, about in said.items() if isinstance(said, dict) else ():
        if isinstance(about, str):
            about = {"command": about}
        if not (NAME.fullmatch(name) and isinstance(about, dict)):
            continue
        command, title = about.get("command"), about.get("title") or name
        if isinstance(command, str) and command.strip() and isinstance(title, str):
            found[name] = Application(name, title[:80], command)
    return found
