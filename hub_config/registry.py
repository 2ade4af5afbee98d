"""Where saved images are kept: of one machine with Docker our own registry, where the settings name none.

Debian's ``docker-registry`` as one more part of the supervisor, at the loopback address, behind a password that the
image service alone is told. It keeps its data in ``<state>/registry``. Without the program and without an address in
the settings nothing can be saved, and nothing offers it. In Kubernetes a registry that its machines reach must be
named, and agents must run on them (:mod:`extensions.imagebuilder.agent`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bcrypt

from galilean.settings import Settings
from hub_config.addresses import Addresses
from hub_config.secrets import Secrets, write_private

PROGRAM = "docker-registry"
ACCOUNT = "galilean"
NAMES = ("registry", "imagebuilder")


def is_own(settings: Settings) -> bool:
    """Whether we start one ourselves."""
    return (
        settings.backend == "docker" and not settings.images.registry.address and bool(shutil.which(PROGRAM))
    )


def can_save(settings: Settings) -> bool:
    """Whether nodes can be saved."""
    named = bool(settings.images.registry.address)
    if settings.backend == "kubernetes":
        return named and bool(settings.kubernetes.agents_namespace)
    # Processes have no images: a Python environment is saved by its lock file, and needs no registry.
    return settings.backend == "process" or (settings.backend == "docker" and (named or is_own(settings)))


def parts(settings: Settings) -> tuple[str, ...]:
    """The parts that saving takes on one machine."""
    if not can_save(settings):
        return ()
    return tuple(name for name in NAMES if name != "registry" or settings.backend != "process")


def settings_file(settings: Settings) -> Path:
    """Of the registry."""
    return settings.state / "registry" / "config.yml"


def written(settings: Settings, secrets: Secrets, port: int) -> dict[str, Any]:
    """What stands in the registry's file; JSON is YAML."""
    folder = settings.state / "registry"
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
            # What nobody finished goes after a day.
            "maintenance": {
                "uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}
            },
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.registry},
        "auth": {"htpasswd": {"realm": "galilean", "path": str(folder / "htpasswd")}},
    }


def prepare(settings: Settings, secrets: Secrets, addresses: Addresses) -> None:
    """Write the registry's files; nobody else may read them."""
    path = settings_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    (path.parent / "data").mkdir(exist_ok=True, mode=0o700)
    write_private(path, json.dumps(written(settings, secrets, addresses["registry"].port), indent=1) + "\n")
    # 256 random bits need no slow hash.
    hashed = bcrypt.hashpw(secrets.registry.encode(), bcrypt.gensalt(4)).decode("ascii")
    write_private(path.parent / "htpasswd", f"{ACCOUNT}:{hashed}\n")
