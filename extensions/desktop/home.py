"""What a desktop finds in the node's HOME at its first start; nothing that is there is overwritten.

The folder shown on the desktop is ``~/work/Desktop``: only ``~/work`` is kept when a cluster is released, and
what people put on their desktop they expect to find again. ``~/Desktop`` leads there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

DESKTOP = "Desktop"

#: Everything full window and without a frame, dialogs as they are.
KIOSK = """<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <focus><focusNew>yes</focusNew></focus>
  <desktops><number>1</number></desktops>
  <mouse><context name="Client">
    <mousebind button="Left" action="Press"><action name="Focus"/><action name="Raise"/></mousebind>
  </context></mouse>
  <keyboard>
    <keybind key="A-Tab"><action name="NextWindow"/></keybind>
    <keybind key="A-F4"><action name="Close"/></keybind>
  </keyboard>
  <applications>
    <application type="normal"><decor>no</decor><maximized>yes</maximized></application>
  </applications>
</openbox_config>
"""

_XFWM = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfwm4" version="1.0"><property name="general" type="empty">
  <property name="use_compositing" type="bool" value="false"/>
  <property name="workspace_count" type="int" value="1"/>
</property></channel>
"""

_SESSION = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-session" version="1.0"><property name="general" type="empty">
  <property name="SaveOnExit" type="bool" value="false"/>
  <property name="PromptOnLogout" type="bool" value="false"/>
</property><property name="startup" type="empty">
  <property name="ssh-agent" type="empty"><property name="enabled" type="bool" value="false"/></property>
  <property name="gpg-agent" type="empty"><property name="enabled" type="bool" value="false"/></property>
</property></channel>
"""

# One quiet colour: every picture behind the windows would travel with each of their moves.
_BACKDROP = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-desktop" version="1.0"><property name="backdrop" type="empty">
  <property name="screen0" type="empty"><property name="monitorVNC-0" type="empty">
    <property name="workspace0" type="empty">
      <property name="color-style" type="int" value="0"/>
      <property name="image-style" type="int" value="0"/>
      <property name="rgba1" type="array">
        <value type="double" value="0.19"/><value type="double" value="0.25"/>
        <value type="double" value="0.36"/><value type="double" value="1"/>
      </property>
    </property>
  </property></property>
</property></channel>
"""

# Else a machine's own choice, which may be a program that wants more than a desktop like this has.
_HELPERS = """TerminalEmulator=xfce4-terminal
FileManager=thunar
"""

_FCITX = """[Groups/0]
Name=Default
Default Layout=us
DefaultIM=pinyin

[Groups/0/Items/0]
Name=keyboard-us
Layout=

[Groups/0/Items/1]
Name=pinyin
Layout=

[GroupOrder]
0=Default
"""


def desktop_folder(home: Path) -> Path:
    """Where files on the desktop are: below ``work`` if they lie there already or that may be written."""
    work = home / "work"
    kept = work / DESKTOP
    return kept if kept.is_dir() or (work.is_dir() and os.access(work, os.W_OK)) else home / DESKTOP


def folder_for_files(home: Path, *, ours: bool) -> Path:
    """Where files that are dropped onto the page go: a desktop that the image brings may show any folder, or none."""
    work = home / "work"
    return desktop_folder(home) if ours else work if work.is_dir() else home


def files_of(home: Path, folder: Path) -> Mapping[Path, str]:
    """Files that a desktop is given, with their contents."""
    config = home / ".config"
    xfce = config / "xfce4/xfconf/xfce-perchannel-xml"
    return {
        config / "galilean/kiosk.xml": KIOSK,
        xfce / "xfwm4.xml": _XFWM,
        xfce / "xfce4-session.xml": _SESSION,
        xfce / "xfce4-desktop.xml": _BACKDROP,
        config / "xfce4/helpers.rc": _HELPERS,
        config / "fcitx5/profile": _FCITX,
        config / "user-dirs.dirs": f'XDG_DESKTOP_DIR="{folder}"\n',
        config / "user-dirs.conf": "enabled=False\n",
    }


def write(home: Path) -> Path:
    """Make them; the folder of the desktop.

    Raises
    ------
    OSError
        When HOME cannot be written, a full disk for instance.
    """
    folder = desktop_folder(home)
    folder.mkdir(exist_ok=True)
    link = home / DESKTOP
    if link != folder and not link.exists() and not link.is_symlink():
        link.symlink_to(folder, target_is_directory=True)
    for path, text in files_of(home, folder).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            pass
    return folder
