"""Environments that a project can choose: those of the settings, and those that are kept online (CG-8, CG-9).

The catalogue does not know the room that keeps them: whoever puts the rooms together hands a :class:`Shelf` in.
Names of the file come first, so nothing that is kept online can stand in the place of one of them. A picker shows title, description and a GPU badge; a run keeps the name *and* a digest of what was really
started, so that a report of last year can say what the numbers were computed with.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from glob import escape, glob
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection

from galilean.amounts import format_bytes
from galilean.errors import UserError, mark
from galilean.settings import EnvironmentSettings, Settings
from spawner.collaborators import Person
from spawner.doors import start_variables
from spawner.licences import LicenceServer
from spawner.plan import EnvironmentChoice


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An environment that is kept online, as a start needs it.

    Attributes
    ----------
    settings
        What it is; its image is by digest.
    digest
        Of the image; the run keeps it.
    key
        Under which id the registry's name and password are kept; empty = none is needed.
    lock, base
        Of a saved Python environment: its lock file, and the environment of the settings that it stands on.
    """

    name: str
    settings: EnvironmentSettings
    digest: str
    key: str = ""
    lock: str = ""
    base: str = ""


class Shelf(Protocol):
    """Who knows the environments that are kept online; handed in at the top floor."""

    def __call__(self, conn: Connection, person: Person, name: str) -> Kept | None:
        """The one of this name that the person may start; ``None`` when there is none for them.

        Raises
        ------
        UserError
            409 when it is retired.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One line of a picker."""

    name: str
    title: str
    description: str
    gpu: bool
    default: bool


class Offered(Protocol):
    """What a picker asks of an environment that is kept online."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def gpu(self) -> bool: ...


def environments(settings: Settings, others: Iterable[Offered] = ()) -> list[Environment]:
    """Everything that can be chosen: the site's default, the others of the settings, then those kept online."""
    items = [
        Environment(
            name=name,
            title=entry.title,
            description=entry.description,
            gpu=entry.gpu or entry.needs_gpu,
            default=name == settings.defaults.environment,
        )
        for name, entry in settings.environments.items()
    ]
    items.sort(key=lambda item: not item.default)
    return items + [
        Environment(name=one.name, title=one.title, description=one.description, gpu=one.gpu, default=False)
        for one in others
    ]


def check_environment(settings: Settings, name: str, others: Mapping[str, object] | None = None) -> str:
    """``name`` when there is such an environment; empty stays empty (= the site's default).

    ``others`` are names besides those of the file.

    Raises
    ------
    UserError
        400, naming those there are.
    """
    if name and name not in settings.environments and name not in (others or {}):
        raise UserError(
            400,
            mark("There is no environment “{name}”. Choose one of: {known}."),
            name=name[:60],
            known=", ".join([*settings.environments, *list(others or {})[:20]]),
        )
    return name


def choose(settings: Settings, name: str, kept: Kept | None = None) -> EnvironmentChoice:
    """What a run in this environment is started from, with its digest. Touches the disk.

    Raises
    ------
    UserError
        400 when there is no such environment.
    """
    choice = unlooked(settings, name, kept)
    if kept is not None:
        return choice
    entry = settings.environments[choice.name]
    return replace(choice, digest=choice.image[:128] or digest_of(entry))


def unlooked(settings: Settings, name: str, kept: Kept | None = None) -> EnvironmentChoice:
    """The same without its digest, and without touching the disk; ``kept`` is the one of this name, if it is one."""
    if kept is None:
        name = check_environment(settings, name) or settings.defaults.environment
    entry = settings.environments[name] if kept is None else kept.settings
    image = entry.image
    if not image and settings.backend in ("kubernetes", "docker"):
        image = settings.kubernetes.image if settings.backend == "kubernetes" else settings.docker.image
    python = entry.python
    if kept is not None and kept.lock:
        if kept.base not in settings.environments:
            raise UserError(
                409,
                mark(
                    "“{environment}” was saved from “{base}”, which is no longer among the environments of "
                    "galilean.yaml. Choose another environment."
                ),
                environment=entry.title,
                base=kept.base,
                reason="no-base",
            )
        python = settings.environments[kept.base].python
    said = start_variables(
        interfaces=entry.interfaces,
        ports=entry.ports,
        command=entry.command,
        geometry=entry.display.geometry if "desktop" in entry.interfaces else "",
        dpi=entry.display.dpi if "desktop" in entry.interfaces else 0,
        applications={name: one.model_dump() for name, one in entry.applications.items()},
        vnc_port=entry.vnc.port if entry.vnc else 0,
        vnc_password=entry.vnc.password if entry.vnc else "",
        vnc_web_path=entry.vnc.web_path if entry.vnc else "",
    )
    return EnvironmentChoice(
        name=name,
        digest=kept.digest if kept else "",
        key=kept.key if kept else "",
        python=python,
        image="" if kept is not None and kept.lock else image,
        lock=kept.lock if kept else "",
        variables={**entry.variables, **said},
        interfaces=entry.interfaces,
        ports=entry.ports,
        hostname=entry.hostname,
        sudo=entry.sudo,
        containers=entry.containers,
        licences=tuple(
            LicenceServer(host=one.host, ports=one.ports, protocol=one.protocol) for one in entry.licences
        ),
        as_is=entry.as_is,
    )


def check_fits(entry: EnvironmentSettings, *, gpu: int, memory_bytes: int, nodes: int = 1) -> None:
    """Refuse amounts with which the environment cannot be (CG-39).

    Raises
    ------
    UserError
        400 when it needs a card and none is asked for, more memory than is asked for, or cannot be on several nodes.
    """
    if entry.as_is and nodes > 1:
        raise UserError(
            400,
            mark(
                "The image of “{environment}” is not made for several nodes: it lacks what joins them. Take one node, or "
                "have the image adapted on the environment's page."
            ),
            environment=entry.title,
        )
    if entry.needs_gpu and not gpu:
        raise UserError(
            400,
            mark(
                "“{environment}” needs a GPU, and none is asked for. Ask for one, or choose another environment."
            ),
            environment=entry.title,
        )
    if memory_bytes < entry.least_memory:
        raise UserError(
            400,
            mark("“{environment}” needs at least {least} of memory on each node; {asked} is asked for."),
            environment=entry.title,
            least=format_bytes(entry.least_memory),
            asked=format_bytes(memory_bytes),
        )


def digest_of(entry: EnvironmentSettings) -> str:
    """``image@…`` as written for a container; a hash of the installed packages for a Python environment.

    Empty when the interpreter's packages cannot be found.
    """
    if entry.image:
        return entry.image[:128]
    prefix = Path(entry.python).parent.parent if entry.python else Path(sys.prefix)
    folders = sorted(glob(f"{escape(str(prefix))}/lib/python3*/site-packages"))
    try:
        return _digest_of_packages(tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders))
    except OSError:
        return ""


@lru_cache(maxsize=64)
def _digest_of_packages(folders: tuple[tuple[str, int], ...]) -> str:
    """Of what is installed in these folders; read again when a package came, went or was replaced.

    Each of that changes the folder's own time, and a look at hundreds of packages at every start does not.
    """
    names = sorted(
        name for folder, _ in folders for name in os.listdir(folder) if name.endswith(".dist-info")
    )
    if not names:
        return ""
    return "py:" + hashlib.blake2s("\n".join(names).encode(), digest_size=16).hexdigest()
