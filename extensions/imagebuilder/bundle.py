"""One container on this machine as its runtime keeps it: whose it is, where its changes are, and how it is held.

Nothing is asked of containerd: its socket would give whoever holds it the whole machine. What is needed lies in two
directories. The *bundle* of a running container, named by its id, holds what the runtime was told (``config.json``:
name and namespace of the pod, variables, mounts) and the place where its root is mounted; both are written by the
machine alone. And each container has a control group, by which the kernel holds all its processes at once.

Nobody is believed who says whose a container is. It must be of the installation's own namespace, its pod must bear
the name that is computed from person, server and rank (:mod:`spawner.kubernetes.names`), and its variables must name
the run. So neither a pod of the system nor somebody else's node can be asked for.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extensions.imagebuilder.container import OWN, Wanted, secrets_of
from extensions.imagebuilder.overlay import Overlay, defaults, overlay_at, unknown
from extensions.imagebuilder.strip import Rules
from galilean.errors import UserError, mark
from spawner.kubernetes import names
from spawner.node.place import RUN

log = logging.getLogger("galilean.agent")

_ID = re.compile(r"[0-9a-f]{64}")
_SPEC_MOST_BYTES = 4 << 20
_CRI = "io.kubernetes.cri."
#: Mounts that every container has; nobody misses them in an image.
_USUAL = ("/proc", "/sys", "/dev", "/etc/", "/run/")
#: How long the kernel may take until everybody is held.
_HELD_SECONDS = 0.5
_GONE = mark("This node does not run any more, so nothing of it can be saved.")


@dataclass(frozen=True)
class Places:
    """Directories of the machine.

    Attributes
    ----------
    bundles
        Of running containers, by their ids.
    snapshots
        In which all parts of all roots lie.
    groups
        The control groups.
    mounts
        The table of mounts in which the containers' roots stand.
    """

    bundles: Path
    snapshots: Path
    groups: Path
    mounts: Path = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Node:
    """A node's container.

    Attributes
    ----------
    id, image_name
        Of the container, and what its image was called.
    overlay
        Where it is made of.
    home
        HOME inside.
    mounted
        Everything that lies in volumes, as absolute paths.
    secrets
        Name → value of its variables that must never be in an image.
    group
        Its control group.
    """

    id: str
    image_name: str
    overlay: Overlay
    home: str
    mounted: tuple[str, ...]
    secrets: Mapping[str, bytes] = field(repr=False)
    group: Group

    def rules(self, *, history: bool = False) -> Rules:
        """What is left out of its image."""
        return Rules.of(self.mounted, [f"{self.home}/{name}" for name in OWN], history=history)

    @property
    def volumes(self) -> list[str]:
        """What lies in volumes, less what every container has."""
        return [path for path in self.mounted if not path.startswith(_USUAL)]


def find(places: Places, namespace: str, container: str, wanted: Wanted) -> Node:
    """The container of a node, if it is that one.

    Parameters
    ----------
    places
        Of this machine.
    namespace
        Of the installation.
    container
        The id that Kubernetes has for it.
    wanted
        Whose it must be.

    Raises
    ------
    UserError
        409 when it is not, or does not run; 501 when the storage cannot be read.
    """
    gone = UserError(409, _GONE, reason="node-gone")
    if not _ID.fullmatch(container):
        raise gone
    bundle = places.bundles / container
    told = _read(bundle / "config.json")
    if told is None:
        raise gone
    environment = _variables(told)
    if not is_wanted(told.get("annotations") or {}, environment, namespace, wanted):
        raise gone
    if told.get("linux", {}).get("uidMappings"):
        raise unknown("user namespace")
    group = Group.of(places.groups, container)
    if group is None:
        raise gone
    mounts = places.mounts.read_text(encoding="utf-8", errors="surrogateescape")
    return Node(
        id=container,
        image_name=str(told["annotations"].get(f"{_CRI}image-name", "")),
        overlay=overlay_at(mounts, bundle / "rootfs", places.snapshots, defaults()),
        home=environment.get("HOME") or "/home/jovyan",
        mounted=tuple(
            sorted({str(one["destination"]) for one in told.get("mounts") or () if one.get("destination")})
        ),
        secrets=secrets_of(environment, []),
        group=group,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_SPEC_MOST_BYTES))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _variables(told: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in told.get("process", {}).get("env") or ():
        name, _, value = str(item).partition("=")
        found[name] = value
    return found


def is_wanted(
    annotations: Mapping[str, Any], environment: Mapping[str, str], namespace: str, wanted: Wanted
) -> bool:
    """Whether what the runtime was told of a container is that of this very node."""
    pod = names.pod_name(names.base_name(wanted.user, wanted.server), wanted.rank)
    return (
        annotations.get(f"{_CRI}container-type") == "container"
        and annotations.get(f"{_CRI}sandbox-namespace") == namespace
        and annotations.get(f"{_CRI}sandbox-name") == pod
        and bool(wanted.run)
        and environment.get(RUN) == wanted.run
    )


def put_right(places: Places, namespace: str) -> int:
    """After an agent that was killed: let go whoever of the installation is held; how many there were."""
    count = 0
    for bundle in places.bundles.iterdir() if places.bundles.is_dir() else ():
        told = _read(bundle / "config.json") if _ID.fullmatch(bundle.name) else None
        if told is None or (told.get("annotations") or {}).get(f"{_CRI}sandbox-namespace") != namespace:
            continue
        group = Group.of(places.groups, bundle.name)
        if group is not None and group.is_told_to_hold():
            group.release()
            count += 1
    return count


# ------------------------------------------------------------------------------------------------------- holding


class Group:
    """The control group of a container; of version 2, or the freezer of version 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        second = (path / "cgroup.freeze").exists()
        self._switch = path / ("cgroup.freeze" if second else "freezer.state")
        self._hold, self._free = ("1", "0") if second else ("FROZEN", "THAWED")
        self._second = second

    @classmethod
    def of(cls, groups: Path, container: str) -> Group | None:
        """The one of a container, wherever the kubelet put it."""
        known = {container, f"cri-containerd-{container}.scope"}
        root = groups / "freezer" if (groups / "freezer").is_dir() else groups
        for folder, inner, _ in os.walk(root):
            for name in inner:
                if name in known:
                    return cls(Path(folder) / name)
        return None

    def hold(self) -> None:
        """Hold everybody; comes back when all are.

        Raises
        ------
        UserError
            409 when the container ended; 503 when somebody could not be held in time.
        """
        try:
            self._switch.write_text(self._hold)
        except OSError as error:
            raise UserError(409, _GONE, reason="node-gone") from error
        ends = time.monotonic() + _HELD_SECONDS
        while not self._is_held():
            if time.monotonic() > ends:
                self.release()
                raise UserError(
                    503,
                    mark("The node could not be held just now. Try again in a moment."),
                    reason="not-held",
                )
            time.sleep(0.005)

    def _is_held(self) -> bool:
        try:
            if self._second:
                return "frozen 1" in (self.path / "cgroup.events").read_text()
            return self._switch.read_text().strip() == "FROZEN"
        except OSError:
            return True  # it ended, which is noticed elsewhere

    def processes(self) -> int:
        """How many run in it."""
        count = 0
        for folder, _, _ in os.walk(self.path):
            try:
                count += len((Path(folder) / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return count

    def is_told_to_hold(self) -> bool:
        """Whether somebody is held, or is about to be."""
        try:
            return self._switch.read_text().strip() in ("1", "FROZEN", "FREEZING")
        except OSError:
            return False

    def release(self) -> bool:
        """Let everybody go; whether nobody is held now (gone counts)."""
        try:
            self._switch.write_text(self._free)
        except FileNotFoundError:
            return True
        except OSError as error:
            log.error("%s could not be let go: %s", self.path.name, error.strerror)
            return not self.path.exists()
        return True


class Hold:
    """Holds a container for so long and no longer, whatever else happens.

    Attributes
    ----------
    seconds
        How long it was.
    holds
        Whether it still is.
    """

    def __init__(
        self, group: Group, most_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group, self._most, self._clock = group, most_seconds, clock
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._begun = 0.0
        self.seconds = 0.0
        self.holds = False

    def begin(self) -> None:
        """From now on; not at all where no time is given."""
        if self._most <= 0:
            return
        self._begun = self._clock()
        self._group.hold()
        self.holds = True
        self._watch = threading.Thread(target=self._wait, name="galilean-hold", daemon=True)
        self._watch.start()

    def _wait(self) -> None:
        self._over.wait(max(0.0, self._most - (self._clock() - self._begun)))
        self.holds = False
        while not self._group.release():
            time.sleep(0.1)
        self.seconds = self._clock() - self._begun

    def end(self) -> None:
        """Let it go, if it is not already; comes back when it is."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
