"""Machine time against what nodes wrote down themselves, through kills and crashes of nodes, hub and metering.

On each node a process beside Jupyter writes the time into a file of the test's own every few milliseconds for as
long as the node's process lives: a log that knows nothing of the ledger. What is done to the clusters, and in
which order, is drawn from a seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.product.code import in_node
from tests.product.product import Person, Product, wait_for

KINDS = ("release", "kill", "kill", "release without hub", "kill without hub")
#: How much later or earlier than the log an end may be: a line of the log, and the time that a kill takes.
KNOWN_SECONDS = 1.0
#: The same where an end rests on the last sighting, and the process backend is looked at each 5 s.
SEEN_SECONDS = 61.0

WRITER = """
import subprocess, sys
loop = '''
import os, sys, time
pid, path = int(sys.argv[1]), sys.argv[2]
def lives():
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
with open(path, "a", buffering=1) as log:
    while True:
        now = time.time()
        if not lives():
            break
        log.write(f"{now}\\\\n")
        time.sleep(0.02)
'''
subprocess.Popen([sys.executable, "-c", loop, PID, PATH], start_new_session=True,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def written(path: Path) -> tuple[datetime, datetime]:
    """First and last moment of a log."""
    moments = [float(line) for line in path.read_text().splitlines()]
    return datetime.fromtimestamp(moments[0], UTC), datetime.fromtimestamp(moments[-1], UTC)


def pid_of(product: Product, part: str) -> int:
    return int(product.status()["parts"][part]["pid"])


def asked_back(person: Person, run_id: str) -> bool:
    """Whether the portal took a release; without the hub it may not know who asks."""
    with contextlib.suppress(httpx.HTTPError):
        return person.portal("DELETE", f"/clusters/{run_id}").status_code in (202, 204)
    return False


@pytest.mark.parametrize("seed", [7])
def test_usage_is_what_nodes_wrote_down_themselves(product: Product, ada: Person, tmp_path: Path, seed: int):
    rng = random.Random(seed)
    tmp_path.chmod(0o777)
    kinds = list(KINDS)
    rng.shuffle(kinds)
    clusters: list[tuple[str, str, str, int]] = []
    logs: dict[tuple[str, int], Path] = {}
    for number, kind in enumerate(kinds):
        nodes = rng.choice([1, 2])
        slug = ada.running(f"Exact {number}", nodes=nodes, on_node_loss=rng.choice(["keep", "release"]))
        run = product.runs(ada.name)[0]
        clusters.append((kind, slug, run.id, nodes))
        for rank in range(nodes):
            path = logs[run.id, rank] = tmp_path / f"{run.id}-{rank}"
            pid = product.node_pid(ada.name, slug, rank)
            in_node(ada, slug, WRITER.replace("PID", repr(str(pid))).replace("PATH", repr(str(path))), rank)
            wait_for(lambda path=path: path.exists() and path.stat().st_size, f"node-{rank} writes its log")
    for kind, slug, run_id, nodes in clusters:
        doomed = product.node_pid(ada.name, slug, rng.randrange(nodes))
        if rng.random() < 0.5:
            os.kill(pid_of(product, "metering"), signal.SIGKILL)
        if "without hub" in kind:
            os.kill(pid_of(product, "hub"), signal.SIGKILL)
        if "kill" in kind:
            os.kill(doomed, signal.SIGKILL)
        else:
            wait_for(lambda run_id=run_id: asked_back(ada, run_id), "the release is taken", seconds=60)
        product.wait_ready(60)
    for run in product.open_runs():
        if run.user == ada.name and run.target != "released":
            ada.portal("DELETE", f"/clusters/{run.id}")
    wait_for(
        lambda: not [run for run in product.open_runs() if run.user == ada.name], "all is over", seconds=90
    )
    product.wait_truth(60)
    booked = 0.0
    for (run_id, rank), path in logs.items():
        (node,) = [one for one in product.intervals(run_id) if one.rank == rank]
        first, last = written(path)
        assert node.ready_at is not None
        assert node.gone_at is not None
        assert node.ready_at <= first
        off = (node.gone_at - last).total_seconds()
        bound = SEEN_SECONDS if "seen" in node.exit_reason else KNOWN_SECONDS
        assert -bound <= off <= KNOWN_SECONDS, (
            f"node-{rank} counts until {off:+.2f} s from its own last word ({node.exit_reason!r})"
        )
        booked += (node.gone_at - node.ready_at).total_seconds()

    def told() -> bool:  # taken up into the roll-up or live still: it is the same
        items = ada.portal("GET", "/usage?by=day").raise_for_status().json()["items"]
        assert sum(item["node_seconds"] for item in items) == pytest.approx(booked, abs=1e-3)
        return True

    wait_for(told, "machine time is what the ledger says")
