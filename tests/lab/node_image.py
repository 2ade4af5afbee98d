"""The image of a node for tests, made without a container engine and without a registry.

Three layers, each cached by a hash of what goes into it, from what changes seldom to what changes daily:
``root`` is a small Debian with sshd and MPI (mmdebstrap), ``python`` is ``/opt/galilean`` with the packages of the
``node`` extra at the versions of the lock file (uv), ``code`` is what a node runs of this clone. A change of
our code therefore costs seconds, and an image of yesterday's code can never be tested by mistake: the
image's name holds the hash of all three.

The bytecode is made here, because an account without rights in ``/opt`` would compile all of JupyterLab
again at every start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path

from tests.lab.build import cache_base

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
GLIBC = "2_36"
PACKAGES = (
    "ca-certificates",
    "curl",
    "openmpi-bin",
    "openssh-client",
    "openssh-server",
    "procps",
    "python3",
    "python3-mpi4py",
)
ACCOUNT = "jovyan"
UID = 1000
PREFIX = "opt/galilean"
#: A password that fits nothing, where "!" would be an account that sshd lets in by no way at all.
_HOOKS = (
    f"chroot \"$1\" useradd --create-home --uid {UID} --shell /bin/bash --password '*' {ACCOUNT}",
    f'chroot "$1" install -d -o {ACCOUNT} -g {ACCOUNT} /home/{ACCOUNT}/work',
    'rm -f "$1"/etc/ssh/ssh_host_*_key*',
)
_LEFT_OUT = ("doc", "info", "locale", "man")
_KEEP_SECONDS = 3 * 24 * 3600


def build_node_image() -> Path:
    """The docker archive of this clone's node image; built if it is not there (minutes the first time).

    Returns
    -------
    Path
        ``<cache>/galilean/images/<hash>/node.tar``; what was unused for three days is removed.
    """
    base = cache_base() / "images"
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = {"root": _root_key(), "python": _python_key(), "code": _code_key()}
        layers = {name: base / f"{name}-{key}.tar" for name, key in keys.items()}
        digest = _hash(keys.values())
        archive = base / digest / "node.tar"
        if not archive.exists():
            for name, make in (("root", _root_layer), ("python", _python_layer), ("code", _code_layer)):
                _layer(layers[name], make)
            _write(archive, f"galilean.lab/node:{digest}", list(layers.values()))
        _forget(base, {archive, *layers.values()})
    return archive


# ------------------------------------------------------------------------------------------------- what goes in


def _hash(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:20]


def _root_key() -> str:
    return _hash([platform.machine(), SUITE, *PACKAGES, *_HOOKS, *_LEFT_OUT])


def _requirements() -> list[str]:
    """The ``node`` extra, as ``pyproject.toml`` says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["node"])


def _python_key() -> str:
    lock = (ROOT / "requirements/run.txt").read_bytes()
    return _hash([platform.machine(), PYTHON, GLIBC, PREFIX, *_requirements(), lock])


def _sources() -> Iterator[Path]:
    yield ROOT / "spawner/__init__.py"
    for path in sorted((ROOT / "spawner/node").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _code_key() -> str:
    parts: list[str | bytes] = [PREFIX]
    for path in _sources():
        parts += [path.relative_to(ROOT).as_posix(), path.read_bytes()]
    return _hash(parts)


# ------------------------------------------------------------------------------------------------------- layers


def _layer(target: Path, make: Callable[[Path], None]) -> None:
    if target.exists():
        return
    began = time.monotonic()
    print(f"lab: making {target.stem} of the node image …", flush=True)
    part = target.with_suffix(".part")
    make(part)
    part.rename(target)
    print(f"lab: made it in {time.monotonic() - began:.0f} s", flush=True)


def _root_layer(target: Path) -> None:
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
    ]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    command += [f"--customize-hook={hook}" for hook in _HOOKS]
    command += ["--aptopt=Acquire::Retries 3", "--skip=output/dev", SUITE, str(target)]
    mirror = os.environ.get("GALILEAN_DEBIAN_MIRROR")
    subprocess.run([*command, *([mirror] if mirror else [])], check=True)


def _python_layer(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder)
        site = prefix / "lib" / f"python{PYTHON}" / "site-packages"
        beside = Path(sys.executable).with_name("uv")
        subprocess.run(
            [
                str(beside) if beside.exists() else "uv", "pip", "install", "--quiet", "--target", str(site),
                "--python", sys.executable, "--python-version", PYTHON,
                "--python-platform", f"{platform.machine()}-manylinux_{GLIBC}", "--only-binary", ":all:",
                "--compile-bytecode", "--constraints", "requirements/run.txt", *_requirements(),
            ],
            cwd=ROOT,
            env={"UV_SYSTEM_CERTS": "1", "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1"} | os.environ,
            check=True,
        )  # fmt: skip
        shutil.rmtree(site / "bin")  # their first lines name this machine's interpreter
        for name in ("share", "etc"):
            (site / name).rename(prefix / name)
        (prefix / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        (prefix / "bin").mkdir()
        for name in ("python", "python3"):
            (prefix / "bin" / name).symlink_to("/usr/bin/python3")
        prefix.chmod(0o755)
        with tarfile.open(target, "w") as archive:
            archive.add(prefix, PREFIX, filter=_of_root)


def _code_layer(target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for path in _sources():
            name = f"{PREFIX}/lib/python{PYTHON}/site-packages/{path.relative_to(ROOT).as_posix()}"
            archive.add(path, name, filter=_of_root)


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o555 if entry.isdir() else 0o444  # a narrow umask of the builder must not reach nodes
    return entry


# ------------------------------------------------------------------------------------------------------ archive


def _write(archive: Path, reference: str, layers: list[Path]) -> None:
    """A docker archive: the configuration, the list of layers, the layers."""
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {
                "User": str(UID),
                "WorkingDir": f"/home/{ACCOUNT}",
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}" for layer in layers]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": [layer.name for layer in layers]}]
    archive.parent.mkdir(exist_ok=True)
    part = archive.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for member, data in ((name, config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
        for layer in layers:
            tar.add(layer, layer.name)
    part.rename(archive)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget(base: Path, used: set[Path]) -> None:
    """Remove what nobody has used for days; every change of our code leaves an archive behind."""
    before = time.time() - _KEEP_SECONDS
    for path in [*base.glob("*/node.tar"), *base.glob("*.tar")]:
        if path in used:
            os.utime(path)
        elif path.stat().st_mtime < before:
            path.unlink()
            if path.parent != base:
                shutil.rmtree(path.parent)
