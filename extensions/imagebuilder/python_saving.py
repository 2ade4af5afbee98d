"""Saving a node of processes: its Python environment, by its lock file.

There is no image here. What somebody installed into their node's own Python (:mod:`spawner.process.overlay`) is read
from its files, looked up in the centre's package index and written down by version and digest
(:mod:`spawner.process.lock`); then the environment is made from that file on this machine, as everybody's start of it
would, and compared with what the node has. So what is saved is known to work before it is *ready*, and what the
index has only by the same name is refused.

The words and pages are those of images. Nothing of a package is run by this service, neither while it is read nor
while it is installed (:mod:`spawner.process.installer`): what somebody saved is first executed when somebody runs it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extensions.imagebuilder import locks, python_reading
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.names import ImageName, Pinned, python_repository
from extensions.imagebuilder.python_reading import Reading
from extensions.imagebuilder.saving import Needed, Result, Task, by_nobody, until_stopped
from galilean.db import Database
from galilean.errors import UserError, mark
from spawner import records
from spawner.process import overlay, pythons
from spawner.process.family import look as processes
from spawner.process.layout import ClusterDirectory
from spawner.process.lock import Lock, Pin, difference
from spawner.process.overlay import Base
from spawner.process.prepare import read_recipe
from spawner.process.pythons import Pythons

#: What is done, in this order; words of the row's ``step``.
STEPS = ("reading", "locking", "placing")
NAMES_MOST, FILES_MOST = 500, 200

_GONE = mark("The node is not there any more. Nothing was kept.")
_NO_PYTHON = mark(
    "This node was started without a Python of its own, so nothing could be installed on it. Release the cluster and "
    "run it again."
)
_OTHERS = mark(
    "The package index has other files under the same version: {names}. Install them from the index, or uninstall them."
)


@dataclass(frozen=True)
class Node:
    """A node's Python.

    Attributes
    ----------
    environment
        Name of the run's environment, and of the one in the settings that it stands on.
    parent
        The lock of the run's environment, where it was itself saved.
    packages
        Where things are installed.
    """

    environment: str
    base_name: str
    base: Base
    parent: Lock | None
    packages: Path
    directory: ClusterDirectory

    @property
    def below(self) -> dict[str, str]:
        """All packages that the run's environment has."""
        pins = self.parent.pins if self.parent else ()
        return {**pythons.below(self.base), **{pin.name: pin.version for pin in pins}}


class PythonSaver:
    """Saves nodes of one state directory.

    Parameters
    ----------
    db
        Our database, asked for the environment of a run.
    pythons
        Saved environments of this machine.
    state
        The state directory.
    """

    backends: Sequence[str] = ("process",)

    def __init__(self, db: Database, pythons: Pythons, state: Path) -> None:
        self._db, self._pythons, self._state = db, pythons, Path(state).absolute()
        self.directory = self._state / "images"
        self.needed: Needed = by_nobody
        self._made: set[str] = set()

    # ------------------------------------------------------------------------------------------ what is asked of it

    async def put_right(self) -> int:
        """Nothing: one that was interrupted is not whole, and made again or removed."""
        return 0

    async def named(self, user: str, name: ImageName) -> Pinned | None:
        """Nothing: it was pushed nowhere."""
        return None

    async def forget(self, image: Pinned) -> None:
        """Nothing: what no row names is collected."""

    async def empty(self, place: str) -> None:
        """Nothing: there are no such places."""

    async def collect(self) -> None:
        """Remove what nobody needs from this machine."""

        async def wanted() -> set[str]:
            return self._made | await self._db.run_read(locks.needed)

        async def held() -> set[str]:
            return await self._db.run_read(locks.held)

        await self._pythons.collect(wanted, held)

    async def look(self, wanted: Wanted) -> Mapping[str, Any]:
        """What a save of a node would hold."""
        node = await self._find(wanted)
        reading = await asyncio.to_thread(python_reading.read, node.packages, contents=False)
        new = difference(node.below, reading.versions)
        running = await asyncio.to_thread(_processes, node.directory, wanted)
        return {
            "image": node.environment,
            "size_bytes": reading.size_bytes,
            "image_bytes": 0,
            "mounted": ["~/work", "~/datasets", "~/disks"],
            "processes": running,
            "apt": [],
            "conda": [],
            "pip": [
                *(f"{name} {version}" for name, version in new.added.items()),
                *(f"{name} {before} → {after}" for name, (before, after) in new.changed.items()),
            ][:NAMES_MOST],
            "added": len(new.added),
            "changed": len(new.changed),
            "deleted": 0,
            "python": {
                "loose": list(reading.loose[:NAMES_MOST]),
                "edited": [one.said for one in reading.edited],
                "refused": [
                    {"message": error.message, "params": dict(error.params)} for error in reading.refusals()
                ],
            },
        }

    async def save(self, task: Task, wanted: Wanted, name: ImageName, *, history: bool = False) -> Result:
        """Save a node.

        Raises
        ------
        UserError
            Why it cannot be.
        GivenUp
            The task was told to stop.
        """
        task.begin("reading")
        node = await self._find(wanted)
        begun = task.monotonic()
        reading = await asyncio.to_thread(python_reading.read, node.packages, contents=True)
        task.say(
            f"{len(reading.packages)} packages of {reading.size_bytes} bytes read in {task.monotonic() - begun:.2f} s, "
            f"above {node.environment}"
        )
        for refusal in reading.refusals():
            raise refusal
        new = difference(node.below, reading.versions)
        task.begin("locking")
        lock = await self._locked(task, node, reading)
        task.say(f"locked: {len(lock.pins)} packages, {lock.digest}")
        task.begin("placing", lock.installed_bytes)
        self._made.add(lock.digest)
        try:
            begun = task.monotonic()
            made = await until_stopped(task, self._pythons.make(lock, node.base, task.at, task.say))
            copy = await asyncio.to_thread(
                python_reading.read, made.root / "lib" / node.base.library / "site-packages", contents=False
            )
            if others := python_reading.others(reading, copy):
                raise UserError(422, _OTHERS, names=", ".join(others[:20]), reason="other-files")
            task.say(f"made from the lock in {task.monotonic() - begun:.2f} s: {made.size_bytes} bytes")
        finally:
            # Its row is written within a moment; what came to nothing is collected after that.
            asyncio.get_running_loop().call_later(60, self._made.discard, lock.digest)
        image = Pinned("", python_repository(wanted.user, name), lock.digest)
        return Result(
            image,
            made.size_bytes,
            1,
            f"{lock.platform}, Python {lock.python}",
            record(reading, new.added, new.changed, made.size_bytes),
            "",
            lock=lock.text,
        )

    # ------------------------------------------------------------------------------------------------ the parts

    async def _find(self, wanted: Wanted) -> Node:
        run = await self._db.run_read(records.get, wanted.run)
        if run is None:
            raise UserError(409, _GONE, reason="node-gone")
        return await asyncio.to_thread(self._node, wanted, run.environment)

    def _node(self, wanted: Wanted, environment: str) -> Node:
        directory = ClusterDirectory.of(self._state / "clusters", wanted.user, wanted.server)
        recipe = read_recipe(directory, wanted.rank)
        if directory.wanted_run() != wanted.run or recipe is None:
            raise UserError(409, _GONE, reason="node-gone")
        base = Base.of(recipe.python or sys.executable)
        root = directory.home(wanted.rank) / overlay.FOLDER
        packages = root / "lib" / base.library / "site-packages" if base else root
        # Its owner may have put a link in its place.
        real = Path(os.path.realpath(directory.home(wanted.rank))) / packages.relative_to(
            directory.home(wanted.rank)
        )
        if base is None or not packages.is_dir() or Path(os.path.realpath(packages)) != real:
            raise UserError(409, _NO_PYTHON, reason="no-python")
        parent = pythons.lock_of(Path(recipe.layer)) if recipe.layer else None
        base_name = parent.environment if parent else environment
        return Node(environment, base_name, base, parent, packages, directory)

    async def _locked(self, task: Task, node: Node, reading: Reading) -> Lock:
        """The whole lock: what the run's environment had on top, and what is new."""
        base = pythons.below(node.base)
        old = {pin.name: pin for pin in node.parent.pins} if node.parent else {}
        kept = {
            name: pin for name, pin in old.items() if reading.versions.get(name, pin.version) == pin.version
        }
        # The same as the one below it has: nothing to install.
        new = [
            Pin(name, version)
            for name, version in reading.versions.items()
            if name not in kept and (base.get(name) != version or name in old)
        ]
        found = await until_stopped(task, self._pythons.installer.pinned(new, node.base, task.say))
        more = node.parent.installed_bytes if node.parent else 0
        fresh = {pin.name for pin in found}
        return Lock(
            environment=node.base_name,
            python=node.base.library.removeprefix("python"),
            platform=pythons.here(),
            below=_named(base),
            pins=tuple(sorted([*kept.values(), *found])),
            installed_bytes=more + sum(one.size_bytes for one in reading.packages if one.name in fresh),
        )


def record(
    reading: Reading, added: Mapping[str, str], changed: Mapping[str, tuple[str, str]], size_bytes: int
) -> dict[str, Any]:
    """What is kept of the difference to the parent, in the words of images."""
    return {
        "packages_added": [
            {"manager": "pip", "name": name, "version": version, "prefix": ""}
            for name, version in added.items()
        ],
        "packages_changed": [
            {"manager": "pip", "name": name, "before": before, "version": after}
            for name, (before, after) in changed.items()
        ],
        "packed_bytes": size_bytes,
        "unpacked_bytes": size_bytes,
        "python": {
            "loose": {"count": len(reading.loose), "names": list(reading.loose[:FILES_MOST])},
            "edited": [one.said for one in reading.edited],
        },
    }


def _named(versions: Mapping[str, str]) -> dict[str, str]:
    """Without folders that only look like packages."""
    found: dict[str, str] = {}
    for name, version in versions.items():
        with suppress(ValueError):
            found[name] = Pin(name, version).version
    return found


def _processes(directory: ClusterDirectory, wanted: Wanted) -> int:
    path = str(directory.path)
    with suppress(OSError):
        return sum(
            1
            for one in processes()
            if one.mark and (one.mark.directory, one.mark.rank) == (path, wanted.rank) and not one.node
        )
    return 0
