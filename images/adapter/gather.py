"""Make the node's side of Galilean stand on its own feet: a directory that runs in whatever Linux image it is laid into.

What images of nodes have from Debian (Python, OpenSSH, bash, tmux, the C library and its loader) is copied below the
prefix, and every program is told to take the loader and the libraries from there. So nothing of the image it comes to is
used or changed: it may have an older C library, another one, or none. Libraries that begin with the program (`RPATH`, not
the environment) are found by it alone: what people start from it has the image's own.

Run once, when the image ``adapter`` is built; needs ``patchelf``, and ``ldd`` of the machine it gathers from.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

PREFIX = Path("/opt/galilean")
#: By name as PATH has them, else by path. The first of several that is there.
PROGRAMS = (
    "bash", "ssh", "scp", "sftp", "ssh-keygen", "/usr/sbin/sshd", "/usr/lib/openssh/sftp-server", "tmux",
)  # fmt: skip
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data",
    "dist-packages", "site-packages", "config-*", "_tkinter*", "EXTERNALLY-MANAGED", "*.a",
)  # fmt: skip
#: Compiled modules of packages ask for these, and may come before anybody else who does.
FOR_MODULES = ("libstdc++.so.6", "libgcc_s.so.1")
_RESOLVED = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x", re.MULTILINE)


def gather(python: Path, packages: Path, out: Path) -> None:
    """Fill ``out`` (which becomes the prefix).

    Parameters
    ----------
    python
        The interpreter to take, with its standard library beside it.
    packages
        What is there already and goes along: a virtual environment with the node's packages and code.
    out
        Empty or not there yet.
    """
    out = out.absolute()
    shutil.copytree(packages, out, symlinks=True, dirs_exist_ok=True)
    for left in (*out.glob("bin/python*"), out / "pyvenv.cfg", out / "lib64"):
        left.unlink(missing_ok=True)
    runtime = out / "runtime"
    (runtime / "bin").mkdir(parents=True)
    python = python.resolve()
    library = standard_library(python)
    shutil.copytree(library, runtime / "lib" / library.name, ignore=LEFT_OUT, symlinks=False)
    shutil.copy(python, runtime / "bin" / library.name)
    (out / "bin").mkdir(exist_ok=True)
    for name in ("python", "python3", library.name):
        (out / "bin" / name).symlink_to(f"../runtime/bin/{library.name}")
    (out / "pyvenv.cfg").write_text(
        f"home = {PREFIX}/runtime/bin\ninclude-system-site-packages = false\nversion = {version(python)}\n"
    )
    programs = [runtime / "bin" / library.name]
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            raise SystemExit(f"gather: {name} is not here")
        # bash only where an image has none; the rest is found by PATH behind the image's own.
        place = runtime / "bin" if name == "bash" else out / "bin"
        programs.append(Path(shutil.copy(Path(found).resolve(), place / Path(name).name)))
    loader = libraries(runtime, [*programs, *elves(out)], python)
    for program in programs:
        patch(program, loader, modules=program.parent == runtime / "bin" and program.name != "bash")


def standard_library(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    return Path(asked(str(python), "-IS", "-c", code).strip())


def version(python: Path) -> str:
    return asked(str(python), "-IS", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])").strip()


def elves(folder: Path) -> Iterator[Path]:
    """Compiled modules below a folder; what packages bring for them lies where they find it themselves."""
    for path in folder.rglob("*.so*"):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            yield path


def libraries(runtime: Path, files: Iterable[Path], python: Path) -> str:
    """Copy what files ask for from the machine; the loader's name."""
    wanted: dict[str, Path] = {}
    loader = ""
    known = asked("ldconfig", "-p", path="/usr/sbin:/sbin")
    for name in FOR_MODULES:
        found = re.search(rf"{re.escape(name)} .*=> (\S+)", known)
        if found is None:
            raise SystemExit(f"gather: {name} is not here")
        wanted[name] = Path(found[1])
    paths = [str(path) for path in files] + [str(path) for path in wanted.values()]
    for start in range(0, len(paths), 100):
        done = subprocess.run(
            ["ldd", *paths[start : start + 100]], capture_output=True, text=True, check=False
        )
        for name, place in _RESOLVED.findall(done.stdout):
            if Path(place).is_relative_to(runtime.parent.resolve()):  # a package's own
                continue
            if not name or "/" in name:  # the loader, by its path
                loader = Path(place).name
            wanted.setdefault(Path(name or place).name, Path(place))
    if not loader:
        raise SystemExit("gather: which loader programs ask for is not known")
    for name, place in wanted.items():
        target = runtime / "lib" / name
        if not target.exists():
            shutil.copy(place.resolve(), target)
            target.chmod(target.stat().st_mode | stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    (runtime / "lib" / loader).chmod(0o755)
    return loader


def patch(program: Path, loader: str, *, modules: bool) -> None:
    """Have a program begin with our loader and libraries, whatever LD_LIBRARY_PATH says."""
    place = f"{PREFIX}/runtime/lib"
    program.chmod(0o755)
    # One call each: several changes of the table of names in one spoil it.
    for name in FOR_MODULES if modules else ():
        asked("patchelf", "--add-needed", name, str(program))
    asked("patchelf", "--force-rpath", "--set-rpath", place, str(program))
    asked("patchelf", "--set-interpreter", f"{place}/{loader}", str(program))


def asked(*command: str, path: str = "") -> str:
    environment = {**os.environ, "PATH": f"{path}:{os.environ.get('PATH', os.defpath)}"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"))
    parser.add_argument("--packages", type=Path, default=PREFIX)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    gather(arguments.python, arguments.packages, arguments.out)
