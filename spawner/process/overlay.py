"""The Python that people change on a node of processes: a virtual environment in its HOME, over the environment's.

All nodes here run as one account, so what ``pip install`` changed in an interpreter would be changed for everybody.
Kernels, terminals and programs therefore get an interpreter of the node's own: an empty virtual environment whose
search path goes on into a saved environment (its *layer*, :mod:`spawner.process.pythons`) and from there into the
environment's own interpreter (the *base*). What is installed lands in the HOME, goes with the run and with a reset
like everything else there, and is what *Save image* reads. The Jupyter server itself stays the base's: it starts as
fast as before and never loads what somebody installed or saved.

The few files are written here and not by the standard library's ``venv``, which must be run by the interpreter that
it is made for: a process for each node, and one that would execute the ``.pth`` files of what people saved.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Below a node's HOME.
FOLDER = ".python"
BELOW = "galilean-below.pth"
_KERNEL = "share/jupyter/kernels/python3"
_LIBRARY = re.compile(r"python3\.\d+")


@dataclass(frozen=True)
class Base:
    """An interpreter as it is found on disk, without running it.

    Attributes
    ----------
    root
        Its prefix.
    program
        The interpreter itself, behind all links.
    library
        ``python3.11``.
    virtual
        Whether it is a virtual environment.
    """

    root: Path
    program: Path
    library: str
    virtual: bool

    @classmethod
    def of(cls, python: str) -> Base | None:
        """The one of ``<root>/bin/python``; ``None`` when it cannot be told what it is."""
        root = Path(python).absolute().parent.parent
        program = Path(os.path.realpath(python))
        virtual = (root / "pyvenv.cfg").is_file()
        names = [program.name, *sorted(path.name for path in (root / "lib").glob("python3.*"))]
        library = next((name for name in names if _LIBRARY.fullmatch(name)), "")
        return cls(root, program, library, virtual) if library and os.access(program, os.X_OK) else None

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        return self.root / "lib" / self.library / "site-packages"


def packages_of(root: Path) -> Path | None:
    """The folder of packages of a virtual environment."""
    return next(iter(sorted((root / "lib").glob("python3.*/site-packages"))), None)


def make(root: Path, base: Base, layer: Path | None = None) -> None:
    """Make an empty virtual environment over a base, and over what was saved on it; what is there stays.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    programs, packages = root / "bin", root / "lib" / base.library / "site-packages"
    programs.mkdir(parents=True, exist_ok=True)
    packages.mkdir(parents=True, exist_ok=True)
    system = "false" if base.virtual else "true"
    _new(
        root / "pyvenv.cfg",
        f"home = {base.program.parent}\ninclude-system-site-packages = {system}\n"
        f"version = {base.library.removeprefix('python')}\nexecutable = {base.program}\n",
    )
    for name in ("python", "python3", base.library):
        if not (programs / name).is_symlink():
            (programs / name).symlink_to(base.program)
    below = [packages_of(layer)] if layer is not None else []
    if base.virtual:
        below.append(base.packages)
    # Not the bare paths: what lies below has .pth files of its own.
    lines = [f"import site; site.addsitedir({str(path)!r})\n" for path in below if path is not None]
    _new(packages / BELOW, "".join(lines))


def make_for_node(home: Path, base: Base, layer: Path | None) -> None:
    """What a node's kernels and terminals run in; also ``pip``, and a kernel for notebooks.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    root = home / FOLDER
    make(root, base, layer)
    for name in ("pip", "pip3"):
        # A line of #! may not be as long as our paths are.
        _new(root / "bin" / name, f'#!/bin/sh\nexec "{root}/bin/python" -m pip "$@"\n', 0o700)
    try:
        said = json.loads((base.root / _KERNEL / "kernel.json").read_bytes())
        said["argv"][0] = str(root / "bin" / "python")
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return
    kernel = root / _KERNEL
    kernel.mkdir(parents=True, exist_ok=True)
    _new(kernel / "kernel.json", json.dumps(said))
    for picture in (base.root / _KERNEL).glob("*.[ps][nv]g"):
        if not (kernel / picture.name).exists():
            (kernel / picture.name).symlink_to(picture)


def variables(home: Path, environment: Mapping[str, str], layer: Path | None) -> dict[str, str]:
    """What programs find it by."""
    roots = [home / FOLDER, *([layer] if layer is not None else [])]

    def first(name: str, below: str) -> str:
        said = [environment[name]] if environment.get(name) else []
        return os.pathsep.join([*(str(root / below) for root in roots), *said])

    return {
        "VIRTUAL_ENV": str(home / FOLDER),
        "PATH": first("PATH", "bin"),
        "JUPYTER_PATH": first("JUPYTER_PATH", "share/jupyter"),
    }


def _new(path: Path, text: str, mode: int = 0o600) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
