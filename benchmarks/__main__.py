"""``python -m benchmarks [up|start|hub|proxy|pages|usage|files …] [--pairs N]``: measure all of it, or what is named."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import HEAD, Report

ALL = ("up", "start", "hub", "proxy", "pages", "usage", "files")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*ALL, []], default=list(ALL))
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs of each figure")
    arguments = parser.parse_args()
    # Whoever ends this by SIGTERM finds nothing left of it either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report()
    print(report.machine(), HEAD, sep="\n\n", flush=True)
    for name in arguments.which or ALL:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
            importlib.import_module(f"benchmarks.bench_{name}").run(report, Path(directory), arguments.pairs)
    missed = [figure.name for figure in report.figures if figure.met is False]
    print(f"\n{len(report.figures)} figures, {len(missed)} missed; kept in build/bench.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
