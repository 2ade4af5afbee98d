"""Where a cluster of the process backend keeps its things: ``<state>/clusters/<base>/``.

::

    run.json            user, server, run, number of nodes; "removing" while it is being removed
    node-<i>.json       process, start time, address of node i, written right after it was started
    node-<i>.exit.json  when and how it ended, written by whoever collected the process
    node-<i>.log        what the server of node i printed
    secrets/            cookie secret, and what each node is made from (0600)
    ssh/                keys and configuration, per run (0700)
    home/node-<i>/      HOME of node i; ``work`` leads to the project's directory, ``scratch`` is local scratch space
    bin/                ssh, scp, sftp that know the nodes
    hostfile

The name is computed from (user, server) alone: whoever finds a half-made cluster after a crash finds all
of it. Where the centre gives scratch space a disk of its own, ``run.json`` tells the directory there, so that
whoever removes the cluster removes that as well. Files appear whole or not at all. A lock beside the directory keeps making and removing apart, also
between processes (the hub makes, ``galilean sweep`` removes).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.node.marks import wanted_run
from spawner.node.place import node_name, rank_of

#: How long a removal goes on against whoever is still writing how a node ended.
REMOVE_SECONDS = 3.0


def base_name(user: str, server: str) -> str:
    """A directory name for any user and server, readable where they are plain, never the same for two.

    The hash covers both names with a separator that neither can contain in UTF-8 (``al``/``ice-b`` and
    ``alice``/``b`` differ); the readable part alone would not.
    """
    digest = hashlib.sha256(
        user.encode("utf-8", "surrogatepass") + b"\xff" + server.encode("utf-8", "surrogatepass")
    )
    readable = [
        re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:20].strip("-") or "x" for part in (user, server)
    ]
    return f"{'--'.join(readable)}---{digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class ClusterDirectory:
    """The directory of one cluster."""

    path: Path

    @classmethod
    def of(cls, clusters: Path, user: str, server: str) -> ClusterDirectory:
        return cls(clusters / base_name(user, server))

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def cookie_secret(self) -> Path:
        return self.secrets / "cookie_secret"

    def recipe_file(self, rank: int) -> Path:
        return self.secrets / f"{node_name(rank)}.json"

    @property
    def ssh(self) -> Path:
        return self.path / "ssh"

    @property
    def programs(self) -> Path:
        return self.path / "bin"

    @property
    def hostfile(self) -> Path:
        return self.path / "hostfile"

    def home(self, rank: int) -> Path:
        return self.path / "home" / node_name(rank)

    def node_file(self, rank: int) -> Path:
        return self.path / f"{node_name(rank)}.json"

    def exit_file(self, rank: int) -> Path:
        return self.path / f"{node_name(rank)}.exit.json"

    def log_file(self, rank: int) -> Path:
        return self.path / f"{node_name(rank)}.log"

    def run(self) -> dict[str, Any] | None:
        """What ``run.json`` says; ``None`` when there is none."""
        return read_json(self.path / "run.json")

    def write_run(self, said: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", said)

    def wanted_run(self) -> str | None:
        """The run that is to be here, ``None`` once a removal has begun."""
        return wanted_run(self.path)

    def nodes(self) -> dict[int, dict[str, Any]]:
        """What the nodes' files say, by rank."""
        found: dict[int, dict[str, Any]] = {}
        for file in self.path.glob("node-*.json"):
            rank = rank_of(file.name.removesuffix(".json"))
            if rank is not None and (said := read_json(file)) is not None:
                found[rank] = said
        return found

    def exit_of(self, rank: int) -> dict[str, Any] | None:
        return read_json(self.exit_file(rank))

    def log_tail(self, rank: int, *, lines: int = 12, most_bytes: int = 4000) -> str:
        """The end of a node's log; empty when there is none."""
        try:
            with open(self.log_file(rank), "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - most_bytes))
                content = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(content.splitlines()[-lines:])

    def remove(self) -> None:
        """Remove the whole directory, into which the zygote may still be writing how a node ended. Blocks.

        Not left to whoever asks again: by then half of it is gone, and with it when the nodes ended.

        Raises
        ------
        OSError
            When it cannot be removed.
        """
        scratch = (self.run() or {}).get("scratch")
        if scratch:  # first: without this directory nobody knows where it was
            remove_tree(Path(scratch))
        until = time.monotonic() + REMOVE_SECONDS
        while self.path.exists():
            try:
                remove_tree(self.path)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cluster's lock: nobody starts a node of it or begins its removal meanwhile. Blocks."""
        locks = self.path.parent / ".locks"
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(locks / self.path.name, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it; gone is success. Follows no link out of it.

    What its owner made read-only goes, too.

    Raises
    ------
    OSError
        When something of it cannot be removed.
    """

    def again(function: Callable[[str], object], place: str, _: object) -> None:
        for each in (os.path.dirname(place), place):
            if not os.path.islink(each):
                with contextlib.suppress(OSError):
                    os.chmod(each, 0o700)
        function(place)

    if path.exists():
        shutil.rmtree(path, onerror=again)


def read_json(path: Path) -> dict[str, Any] | None:
    """A small file of ours, ``None`` when it is not there or not (yet) ours."""
    try:
        said = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def write_json(path: Path, said: Mapping[str, Any]) -> None:
    """Write a file that appears whole or not at all, readable by its owner only."""
    write_secret(path, json.dumps(said).encode())


def write_secret(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that appears whole or not at all, with this mode from its first moment."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(fd, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    os.replace(beside, path)
