"""``python -m tests.lab build`` makes the programs; ``up`` keeps a lab with our images until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.lab.build import build
from tests.lab.images import built, load
from tests.lab.lab import Lab


def up() -> None:
    """Keep a lab with the images of this clone until Ctrl-C; it leaves nothing behind."""
    archives = [built(name)[1] for name in ("control", "proxy", "jupyter")]
    lab = Lab(Path(tempfile.mkdtemp(prefix="galilean-lab-")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        lab.up()
        for archive in archives:
            print(f"image: {load(lab.directory, archive)}")
        print(f"export KUBECONFIG={lab.kubeconfig}  # kubectl is: {lab.programs / 'lab'} kubectl")
        print(f"export GALILEAN_LAB_DIRECTORY={lab.directory}  # lets the tests use this lab")
        print("Ctrl-C takes it away.", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print()
    finally:
        lab.down()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("what", choices=["build", "up"])
    what = parser.parse_args().what
    if os.geteuid() != 0:
        sys.exit("The lab starts a container runtime and writes network rules: it needs root.")
    if what == "up":
        up()
        return
    print(f"lab: programs in {build()}")


if __name__ == "__main__":
    main()
