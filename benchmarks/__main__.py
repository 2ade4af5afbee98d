"""``python -m benchmarks [PART …] [--pairs N] [--clusters N]``: measure all of it, or the parts that are named.

The parts that need a real Kubernetes or Docker (and root) are measured only when they are named.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import HEAD, Report
from galilean.settled import settle

ALL = (
    "up",
    "start",
    "hub",
    "proxy",
    "pages",
    "online",
    "usage",
    "files",
    "admission",
    "release",
    "lab",
    "gallery",
    "scan",
    "desktop",
    "terminal",
)
KUBERNETES = ("kube-start", "kube-scale", "kube-sweep")
DOCKER = ("docker", "save")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*ALL, *KUBERNETES, *DOCKER, []], default=list(ALL))
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of each figure")
    parser.add_argument(
        "--clusters", type=int, default=100, help="of kube-scale and kube-sweep; full is 1000"
    )
    arguments = parser.parse_args()
    # Whoever ends this by SIGTERM finds nothing left of it either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report()
    print(report.machine(), HEAD, sep="\n\n", flush=True)
    for name in arguments.which or ALL:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
            part = importlib.import_module(f"benchmarks.bench_{name.replace('-', '_')}")
            settle()  # as the processes do that are measured here without being started
            more = {"clusters": arguments.clusters} if name in KUBERNETES else {}
            part.run(report, Path(directory), arguments.pairs, **more)
    missed = [figure.name for figure in report.figures if figure.met is False]
    print(f"\n{len(report.figures)} figures, {len(missed)} missed; kept in build/bench.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
