"""Command lines, environment and key of one desktop; pure.

The X server has two doors. VNC: a unix socket that only this account may open, in a directory that only this
account enters, without a password of its own, and no TCP port. X itself: a socket in ``/tmp/.X11-unix``, which
anybody on the machine may open, hence the key; no TCP either.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from extensions.desktop import available
from extensions.desktop.choices import Application, Choices

#: In the environment of every process of a desktop, so that all of them can be ended.
MARK = "GALILEAN_DESKTOP_SESSION"
SOCKET, KEY_FILE, BUS_FILE = "vnc", "xauthority", "bus.xml"
SERVER_LOG, SESSION_LOG, INPUT_LOG = "server.log", "session.log", "input.log"
#: In the directory of a desktop's sockets: windows are managed from now on.
MANAGED = '"$XDG_RUNTIME_DIR/managed"'
#: Variables of the Jupyter server that programs on a desktop have no use for.
PRIVATE = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "JUPYTERHUB_COOKIE_SECRET")
_FAMILY_WILD = 0xFFFF


def server_command(
    program: str, choices: Choices, *, folder_fd: int, display_fd: int, title: str
) -> list[str]:
    """Command of the X server.

    Parameters
    ----------
    program
        Path of Xvnc.
    choices
        Size and dots per inch.
    folder_fd
        Descriptor of the desktop's own directory: by it, no path is too long for a socket.
    display_fd
        Where it writes the number of the display it found, when it listens.
    title
        Shown by VNC clients.
    """
    folder = f"/proc/self/fd/{folder_fd}"
    width, height = choices.size
    return [
        program,
        "-displayfd", str(display_fd),
        "-rfbunixpath", f"{folder}/{SOCKET}", "-rfbunixmode", "0600", "-rfbport", "-1",
        "-SecurityTypes", "None",
        "-nolisten", "tcp",
        "-auth", f"{folder}/{KEY_FILE}",
        "-geometry", f"{width}x{height}", "-depth", "24", "-dpi", str(choices.dpi),
        "-AlwaysShared", "-noreset", "-SendPrimary=0", "-FrameRate", "60",
        "-desktop", title,
    ]  # fmt: skip


def key_file(key: bytes) -> bytes:
    """Xauthority with one key that is good for whatever display this desktop gets."""

    def counted(value: bytes) -> bytes:
        return struct.pack(">H", len(value)) + value

    parts = (b"", b"", b"MIT-MAGIC-COOKIE-1", key)
    return struct.pack(">H", _FAMILY_WILD) + b"".join(counted(part) for part in parts)


def bus_file(runtime: Path) -> str:
    """A message bus whose socket is in the desktop's own directory; Debian's usual one stays in ``/tmp`` for ever."""
    return f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <keep_umask/>
  <listen>unix:dir={runtime}</listen>
  <auth>EXTERNAL</auth>
  <standard_session_servicedirs/>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">1000000000</limit>
  <limit name="service_start_timeout">120000</limit>
  <limit name="max_completed_connections">100000</limit>
  <limit name="max_connections_per_user">100000</limit>
  <limit name="max_match_rules_per_connection">50000</limit>
  <limit name="max_replies_per_connection">50000</limit>
</busconfig>
"""


def with_own_bus(words: list[str], file: Path) -> list[str]:
    """A command that starts a message bus, told to start ours."""
    if Path(words[0]).name not in available.BUSES:
        return words
    return [words[0], f"--config-file={file}", *words[1:]]


def session_command(
    choices: Choices, application: Application | None, kiosk: Path, which: available.Which
) -> list[str] | None:
    """What runs on the display: a whole desktop, or a window manager and one application.

    ``None`` when there is nothing to run it with.
    """
    if application is None:
        if choices.command:
            return [*available.bus(which), "/bin/bash", "-c", choices.command]
        return available.session(which)
    around = available.bus(which)
    openbox = which("openbox")
    manager: list[str] | None = None
    wait = ""
    if openbox:
        # A window that was there before its manager is not given the keyboard.
        manager = [openbox, "--sm-disable", "--config-file", str(kiosk)]
        manager += ["--startup", f"/bin/sh -c 'touch {MANAGED}'"]
        wait = f"for _ in {{1..100}}; do [ -e {MANAGED} ] && break; sleep 0.05; done; "
    xfwm4 = which("xfwm4")
    if manager is None and xfwm4 and around:
        manager = [xfwm4, "--compositor=off"]
    if manager is None:
        return None
    # The application is the session: when it ends, the desktop does.
    script = f'count=$1; shift; "${{@:1:count}}" & shift "$count"; {wait}exec /bin/bash -c "$1"'
    inner = ["/bin/bash", "-c", script, "bash", str(len(manager)), *manager, application.command]
    return [*around, *inner]


def session_environment(
    environ: Mapping[str, str],
    *,
    display: str,
    key: Path,
    runtime: Path,
    mark: str,
    language: str,
    locales: Collection[str],
    which: Callable[[str], str | None],
) -> dict[str, str]:
    """Environment of the programs on a desktop.

    Parameters
    ----------
    environ
        The Jupyter server's own.
    display, key, runtime, mark
        Of this desktop; in ``runtime`` its programs have their sockets.
    language
        ``en`` or ``zh_CN``, the person's.
    locales
        Names of the locales that are installed.
    which
        Finds a program by its name.
    """
    made = {name: value for name, value in environ.items() if name not in PRIVATE}
    for name in ("WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "SESSION_MANAGER", "XDG_SESSION_ID"):
        made.pop(name, None)
    made |= {
        "DISPLAY": f":{display}",
        "XAUTHORITY": str(key),
        "XDG_RUNTIME_DIR": str(runtime),
        MARK: mark,
        "LANG": locale_for(language, locales, made.get("LANG", "")),
        "XDG_SESSION_TYPE": "x11",
        "NO_AT_BRIDGE": "1",
    }
    made.pop("LC_ALL", None)
    if which("fcitx5"):
        made |= {"GTK_IM_MODULE": "fcitx", "QT_IM_MODULE": "fcitx", "XMODIFIERS": "@im=fcitx"}
    elif which("ibus-daemon"):
        made |= {"GTK_IM_MODULE": "ibus", "QT_IM_MODULE": "ibus", "XMODIFIERS": "@im=ibus"}
    return made


def locale_for(language: str, locales: Collection[str], present: str) -> str:
    """A locale that is installed and writes Chinese: the person's, else what is set, else plain UTF-8."""
    there = {name.lower().replace("-", "") for name in locales}
    if language.startswith("zh") and "zh_cn.utf8" in there:
        return "zh_CN.UTF-8"
    plain = present.lower().replace("-", "")
    return present if plain.endswith("utf8") and plain in there else "C.UTF-8"


def input_method(which: Callable[[str], str | None]) -> list[str]:
    """What starts Chinese input on a display; empty when none is installed."""
    if which("fcitx5"):
        return ["fcitx5"]
    return ["ibus-daemon", "--xim"] if which("ibus-daemon") else []
