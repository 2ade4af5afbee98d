"""``python -m tests.lab build`` makes the programs and the node image; ``up`` keeps a lab until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.lab.build import build
from tests.lab.lab import Lab
from tests.lab.node_image import build_node_image


def up() -> None:
    """Keep a lab with the node image until Ctrl-C; it leaves nothing behind."""
    image = build_node_image()
    lab = Lab(Path(tempfile.mkdtemp(prefix="galilean-lab-")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        lab.up()
        lab.load_image(image)
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
    print(f"lab: node image in {build_node_image()}")


if __name__ == "__main__":
    main()
