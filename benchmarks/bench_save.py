"""Saving a node as an image beside ``docker commit`` and ``docker push`` by hand, on the same daemon and registry.

Two changes, of 150 MB and of 2 GB: half of the bytes are random, as in packages that are packed already, half are text.
Both sides bring the same change to the same registry, in which the image below lies already; in pairs, whoever begins
takes turns. By hand the person is held as long as the commit takes. What making the image ready on the machine takes
besides (Docker fetches what was pushed) is told apart. Needs root, dockerd and docker-registry.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from benchmarks.harness import Figure, Report, at_most, pairs
from extensions.imagebuilder.container import Wanted
from extensions.imagebuilder.names import ImageName
from extensions.imagebuilder.saving import Place, Saver, Task
from galilean.clock import utcnow
from spawner.docker import names
from spawner.docker.api import DockerAPI
from spawner.process.layout import base_name
from tests.docker.daemon import IMAGE, Daemon
from tests.imagebuilder.ground import OpenDaemon, OpenRegistry
from tests.imagebuilder.registry.server import RegistryServer

MOST = 1.05
HELD_MOST_SECONDS = 2.0
SIZES = {"150 MB": 150, "2 GB": 2048}
#: A change of gigabytes takes a minute on either side: fewer pairs.
PAIRS_MOST = {"150 MB": 10, "2 GB": 3}


class Bench:
    """One node with a change, and both ways to save it."""

    def __init__(self, directory: Path, daemon: Daemon, registry: RegistryServer) -> None:
        self.daemon, self.registry = daemon, registry
        self.api = DockerAPI(daemon.url)
        self.client = docker.APIClient(daemon.url, version="auto", timeout=900)
        self.saver = Saver(self.api, "bench", Place(registry.address), directory / "saving")
        self.name = names.container_name("bench", base_name("ada", "x"), 0)
        self.count = 0
        self.held: list[float] = []
        self.ready: list[float] = []
        self.committed: list[float] = []

    def node(self, megabytes: int) -> None:
        """A fresh node with so much changed in files of 1 to 64 MB and some thousand small ones."""
        self.clear()
        labels = {
            names.INSTANCE: "bench", names.RUN: "run", names.CLUSTER: base_name("ada", "x"),
            names.EXACT_USER: "ada", names.EXACT_SERVER: "x", names.RANK: "0",
        }  # fmt: skip
        sleeps = ["/opt/galilean/bin/python", "-IS", "-c", "import time\nwhile True: time.sleep(1)"]
        self.client.create_container_from_config(
            {
                "Image": IMAGE, "Cmd": sleeps, "Labels": labels, "Env": ["JUPYTERHUB_API_TOKEN=" + "0123456789abcdef" * 2],
                "HostConfig": {"NetworkMode": "none"},
            },
            self.name,
        )  # fmt: skip
        self.client.start(self.name)
        code = (
            "import os, random\n"
            "r = random.Random(1); text = b'def answer():\\n    return 42  # the same again and again\\n' * 20000\n"
            "os.makedirs('/home/jovyan/small')\n"
            "for i in range(4000): open(f'/home/jovyan/small/{i}.py', 'wb').write(text[:r.randrange(500, 9000)])\n"
            f"left = {megabytes}; i = 0\n"
            "while left > 0:\n"
            "    size = min(left, r.choice((1, 4, 16, 64))); left -= size; i += 1\n"
            "    with open(f'/home/jovyan/{i}.bin', 'wb') as f:\n"
            "        for m in range(size): f.write(os.urandom(1 << 20) if i % 2 else text[:1 << 20].ljust(1 << 20, b'x'))\n"
        )
        self.daemon.execute(self.name, "/opt/galilean/bin/python", "-IS", "-c", code, user="0")

    def ours(self) -> float:
        """Seconds until it is in the registry."""
        self.count += 1
        task = Task(utcnow)
        begun = time.perf_counter()
        result = asyncio.run(
            self.saver.save(task, Wanted("ada", "x", "run", 0), ImageName("ours", str(self.count)))
        )
        whole = time.perf_counter() - begun
        said = re.search(r"placed in ([0-9.]+) s", task.log)
        placing = float(said[1]) if said else 0.0
        self.held.append(float(result.changes["frozen_seconds"]))
        self.ready.append(whole)
        return whole - placing

    def by_hand(self) -> float:
        """Seconds of commit and push; the change is another each time, as ours is: nothing is sent twice."""
        self.count += 1
        place = f"{self.saver.place.name}/hand/x"
        begun = time.perf_counter()
        self.client.commit(self.name, repository=place, tag=str(self.count))
        self.committed.append(time.perf_counter() - begun)
        for line in self.client.push(place, tag=str(self.count), stream=True, decode=True):
            if "error" in line:
                raise RuntimeError(line["error"])
        return time.perf_counter() - begun

    def touch(self) -> None:
        """A little more, so that the layer is new."""
        self.daemon.execute(
            self.name, "/opt/galilean/bin/python", "-IS", "-c",
            f"open('/home/jovyan/new', 'w').write('{random.random()}')", user="0",
        )  # fmt: skip

    def clear(self) -> None:
        for item in self.client.containers(all=True, quiet=True):
            self.client.remove_container(item["Id"], force=True, v=True)


@contextmanager
def ground(directory: Path) -> Iterator[Bench]:
    """Daemon and registry."""
    os.chmod(directory, 0o755)
    daemon = OpenDaemon(directory / "d")
    registry = OpenRegistry(directory / "registry", daemon.machine.outside)
    try:
        registry.start()
        yield Bench(directory, daemon, registry)
    finally:
        registry.stop()
        daemon.stop()


def run(report: Report, directory: Path, count: int) -> None:
    """Measure both sizes."""
    with ground(directory) as bench:
        for name, megabytes in SIZES.items():
            bench.node(megabytes)
            bench.ours()  # brings the image below into the registry
            bench.held, bench.ready, bench.committed = [], [], []

            def fresh(side: Callable[[], float]) -> float:
                bench.touch()
                return side()

            left, right = pairs(
                lambda: fresh(bench.ours), lambda: fresh(bench.by_hand), min(count, PAIRS_MOST[name])
            )
            report.add(
                at_most(
                    f"Docker: save {name} of change until it is in the registry",
                    left,
                    right,
                    MOST,
                    note="plain: docker commit and docker push",
                ),
                Figure(
                    name=f"Docker: save {name} of change until it can be run on this machine",
                    ours=bench.ready,
                    note="Docker fetches what was pushed",
                ),
                Figure(
                    name=f"Docker: how long a person is held, {name} of change",
                    ours=bench.held,
                    plain=bench.committed,
                    bound=f"≤ {HELD_MOST_SECONDS:g} s each time",
                    met=max(bench.held) <= HELD_MOST_SECONDS,
                    note="plain: the whole docker commit",
                ),
            )
