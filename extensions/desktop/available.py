"""Whether a desktop can be had here: a look at PATH for the programs that make one, and nothing else.

A desktop is an X server that speaks VNC (TigerVNC's Xvnc), a message bus that ends with it, and something
that manages windows: XFCE where it is installed, else a light one. One named application alone
needs less: any of the window managers. The Debian packages of a full desktop are :data:`PACKAGES`.

Standard library only: the node, the hub's doctor and image builders all ask.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

#: What an image installs for a full desktop, by Debian's names and without recommended packages; the last
#: line is Chinese input and type. Smallest that works: ``tigervnc-standalone-server dbus-daemon openbox``.
PACKAGES: tuple[str, ...] = (
    "tigervnc-standalone-server", "dbus-daemon", "dbus-x11", "x11-xserver-utils", "xclip",
    "xfce4-session", "xfwm4", "xfce4-panel", "xfdesktop4", "xfce4-settings", "xfce4-terminal", "thunar",
    "mousepad", "adwaita-icon-theme", "openbox",
    "fonts-dejavu-core", "fonts-noto-cjk", "fcitx5", "fcitx5-chinese-addons", "fcitx5-frontend-gtk3",
)  # fmt: skip

#: The X server that speaks VNC, under the names that distributions give it.
SERVERS = ("Xtigervnc", "Xvnc")
BUSES = ("dbus-run-session", "dbus-launch")
#: What runs a whole session, the fullest first. XFCE needs a message bus, the others do not.
SESSIONS: tuple[tuple[str, ...], ...] = (
    ("xfce4-session",),
    ("openbox-session",),
    ("openbox",),
    ("icewm-session",),
    ("fluxbox",),
    ("xfwm4",),
)
_NEED_BUS = ("xfce4-session", "xfwm4")

Which = Callable[[str], str | None]


def server(which: Which = shutil.which) -> str | None:
    """Path of the X server that speaks VNC."""
    return next((path for name in SERVERS if (path := which(name))), None)


def bus(which: Which = shutil.which) -> list[str]:
    """How a command is started with a message bus of its own; empty when there is none."""
    for name in BUSES:
        path = which(name)
        if path:
            return [path, "--"] if name == "dbus-run-session" else [path, "--exit-with-session"]
    return []


def session(which: Which = shutil.which) -> list[str] | None:
    """Command of the fullest desktop session that is installed, its bus included."""
    around = bus(which)
    for names in SESSIONS:
        path = which(names[0])
        if path and (around or names[0] not in _NEED_BUS):
            return [*around, path, *names[1:]]
    return None


def missing(which: Which = shutil.which) -> list[str]:
    """What a desktop lacks on this machine, as Debian packages to install; empty = it can be had.

    Parameters
    ----------
    which
        Finds a program by its name.
    """
    lacking: list[str] = []
    if server(which) is None:
        lacking.append("tigervnc-standalone-server")
    if session(which) is None:
        lacking += _lacking_session(which)
    return lacking


def _lacking_session(which: Which) -> Sequence[str]:
    if which("xfce4-session"):
        return ["dbus-daemon"]
    return ["xfce4-session", "xfwm4", "xfce4-panel", "xfdesktop4", "xfce4-settings", "dbus-daemon"]
