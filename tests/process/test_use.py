"""What nodes that are processes really use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from spawner.node.place import DIRECTORY, RANK, RUN
from spawner.process.handles import Handle
from spawner.process.use import Counter, ProcessUse, ProcessUseMeter
from tests.process.hub import eventually

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def process(pid: int, cpu_us: int, parent: int = 1) -> ProcessUse:
    return ProcessUse(Handle(pid, 1, "boot"), parent, cpu_us, 10)


def test_time_of_an_ended_child_that_its_parent_collected_counts_once() -> None:
    counter = Counter()
    assert counter.add([process(10, 100), process(11, 50, parent=10)]) == 150
    assert counter.add([process(10, 170)]) == 170, "the parent has the child's 60 now"


def test_time_of_a_process_that_nobody_collected_is_not_lost() -> None:
    counter = Counter()
    assert counter.add([process(10, 100), process(12, 70, parent=1)]) == 170
    assert counter.add([process(10, 100)]) == 170
    assert counter.add([replace(process(10, 100), handle=Handle(10, 2, "boot"))]) == 270, "another process"


def test_a_node_is_all_its_processes_and_no_others(tmp_path: Path) -> None:
    meter = ProcessUseMeter(tmp_path)
    assert asyncio.run(meter.measure()) == []
    node = {**os.environ, RUN: "01RUN", RANK: "1", "JUPYTERHUB_USER": "ada", "JUPYTERHUB_SERVER_NAME": "heat"}
    node[DIRECTORY] = str(tmp_path / "clusters" / "ada--heat")
    stranger = {**node, DIRECTORY: "/elsewhere/clusters/ada--heat"}
    code = (
        BURN + "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]])\ntime.sleep(60)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, BURN], env=environment, start_new_session=True)
        for environment in (node, stranger)
    ]
    try:
        found = []
        while not found or (found[0].cpu_us_total or 0) < 600_000:
            found = asyncio.run(meter.measure())
        assert [(use.run, use.rank) for use in found] == [("01RUN", 1)]
        assert found[0].memory_bytes > 2**20
        assert found[0].gpu is None
    finally:
        for item in processes:
            item.kill()
            item.wait()
    # What they had started may still be on its way out.
    eventually(lambda: asyncio.run(meter.measure()) == [], what="nothing of the node is left")
