"""A node's HOME: its own directory, with ``~/work`` leading to the project's files (CG-7).

Only ``~/work`` is kept; everything else of the HOME goes with the run, as it would with a container. ``~/scratch``
is for what a program may lose: a disk of the machine itself. Data sets of the project are links below ``~/datasets``.
Nothing here overwrites what is there already.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spawner.node import engines
from spawner.node.place import node_name

#: Below HOME, on every backend: fast, the node's own, gone at the end.
SCRATCH = "scratch"
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?", re.ASCII)


def prompt_script(rank: int, home: Path, work: Path) -> str:
    """``~/.bashrc``: a plain prompt that names the node, and ``~/work`` instead of the place it leads to."""
    return "\n".join(
        [
            "case $- in *i*) ;; *) return ;; esac",
            f"PS1='{node_name(rank)}:\\w\\$ '",
            f"__work={shlex.quote(os.path.realpath(work))}",
            'case "$PWD/" in "$__work"/*)',
            f'  cd {shlex.quote(str(home / "work"))}"${{PWD#"$__work"}}" ;;',
            "esac",
            "unset __work",
            "",
        ]
    )


def write_home(home: Path, work: Path, rank: int) -> None:
    """Make the HOME of a node.

    Raises
    ------
    OSError
        When it cannot be made; a project's directory that is not there is such a case.
    """
    if not work.is_dir():
        raise FileNotFoundError(2, "The project's directory is not there", str(work))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = home / "work"
    if not link.is_symlink():
        link.symlink_to(work, target_is_directory=True)
    write_shell(home, work, rank)


def write_links(folder: Path, targets: Mapping[str, Path]) -> None:
    """Make a folder with a link for each target; without targets, no folder."""
    if targets:
        folder.mkdir(mode=0o700, exist_ok=True)
    for name, target in targets.items():
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(target, target_is_directory=True)


def write_shell(home: Path, work: Path, rank: int) -> None:
    """Let a shell name the node in its prompt, and ipyparallel find all nodes."""
    _new(home / ".bashrc", prompt_script(rank, home, work))
    _new(home / ".bash_profile", ". ~/.bashrc\n")
    profile = home / ".ipython/profile_default"
    profile.mkdir(mode=0o700, parents=True, exist_ok=True)
    _new(profile / "ipcluster_config.py", engines.PROFILE)


def write_quiet(home: Path) -> None:
    """Let JupyterLab fetch no news, and not ask whether it may: nodes need no outside world.

    That no address of news is configured does not keep it from asking.
    """
    _lab_settings(home, "apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False})


def write_language(home: Path, language: str) -> bool:
    """Let JupyterLab speak ``language`` if its language pack is there; whether it does.

    Runs inside the node: another environment may have other packs than ours. What the person chose in
    JupyterLab's own menu stays.
    """
    if not _LANGUAGE.fullmatch(language) or language.startswith("en"):
        return False
    if importlib.util.find_spec(f"jupyterlab_language_pack_{language}") is None:
        return False
    _lab_settings(home, "translation-extension/plugin", {"locale": language})
    return True


def _lab_settings(home: Path, plugin: str, values: dict[str, Any]) -> None:
    path = home / ".jupyter/lab/user-settings/@jupyterlab" / f"{plugin}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    _new(path, json.dumps(values))


def _new(path: Path, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        pass
