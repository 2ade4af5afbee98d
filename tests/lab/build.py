"""The programs of the lab, built from public Go modules and kept outside the clone.

The folder of the result is named by a hash of everything that goes in (sources, ``go.mod``, ``go.sum``, the
Go version), so a stale program can never be used and two clones share one build.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "go"
VERSION = "v1.33.13"
_LINK = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=33"
)
#: program → (folder below ``go/``, package)
PROGRAMS = {
    "lab": (".", "."),
    "helm": (".", "helm.sh/helm/v3/cmd/helm"),
    "kwok": (".", "sigs.k8s.io/kwok/cmd/kwok"),
    "coredns": ("coredns", "."),
}
#: What Go needs the first time, for its modules and what it has compiled.
ROOM_GB = 12
#: The Gateway API's definitions, which the chart's route is held against: module, version, checksum, files.
GATEWAY_API = (
    "sigs.k8s.io/gateway-api",
    "v1.3.0",
    "h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M=",
    "config/crd/standard/gateway.networking.k8s.io_{}.yaml",
)


def cache_base() -> Path:
    """Where everything is kept that clones of this project share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galilean"


def cache_folder() -> Path:
    """Where this version of the programs is, or will be."""
    digest = hashlib.sha256()
    digest.update(_go("version").encode())
    for file in sorted(SOURCES.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(SOURCES).as_posix().encode() + b"\0" + file.read_bytes())
    return cache_base() / "lab" / digest.hexdigest()[:20]


def build() -> Path:
    """Build what is missing (minutes the first time); returns the folder with all programs."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("lab: the programs are being built already; waiting for that …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / name).exists() for name in PROGRAMS):
            _look_for_room()
        for name, (below, package) in PROGRAMS.items():
            target = folder / name
            if target.exists():
                continue
            began = time.monotonic()
            print(f"lab: building {name} …", flush=True)
            # The same wherever it is built: with a C compiler about, Go would look at pause.c.
            env = dict(os.environ) | {"CGO_ENABLED": "0"}
            link = _LINK if name == "lab" else "-s -w"
            part = folder / f"{name}.part"
            fetching(
                ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", link, "-o", str(part), package],
                cwd=SOURCES / below,
                env=env,
            )
            part.rename(target)
            print(f"lab: built {name} in {time.monotonic() - began:.0f} s", flush=True)
        pause = folder / "pause"
        if not pause.exists():
            part = folder / "pause.part"
            subprocess.run(
                ["cc", "-Os", "-static", "-s", "-o", str(part), str(SOURCES / "pause.c")], check=True
            )
            part.rename(pause)
    return folder


def fetching(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """Run what fetches modules, and what fails twice more: Go asks a network once and keeps all that it has."""
    for pause_seconds in (5, 20):
        done = subprocess.run(command, check=False, **how)
        if done.returncode == 0:
            return done
        print(f"lab: {' '.join(command[:3])} failed, once more in {pause_seconds} s", flush=True)
        time.sleep(pause_seconds)
    return subprocess.run(command, check=True, **how)


def _look_for_room() -> None:
    """Say that a disk is too full before half an hour of work, and not after it."""
    for place in map(Path, _go("env", "GOCACHE", "GOMODCACHE").split()):
        there = next(path for path in (place, *place.parents) if path.exists())
        used = place.exists() and any(place.iterdir())
        free_gb = shutil.disk_usage(there).free / 1e9
        if not used and free_gb < ROOM_GB:
            sys.exit(f"lab: the build needs {ROOM_GB} GB below {place}; {free_gb:.1f} GB are free.")


def _go(*words: str) -> str:
    return subprocess.run(["go", *words], capture_output=True, text=True, check=True).stdout


def gateway_api(kinds: str = "httproutes") -> Path:
    """The definition of a kind, out of the module that its authors publish (fetched once)."""
    module, version, checksum, file = GATEWAY_API
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    # Not in a module of ours: its go.sum would not name it.
    done = fetching(command, cwd="/", stdout=subprocess.PIPE, text=True, timeout=300)
    told = json.loads(done.stdout)
    if told["Sum"] != checksum:
        raise RuntimeError(f"{module}@{version} is not what it was: {told['Sum']}")
    return Path(told["Dir"]) / file.format(kinds)
