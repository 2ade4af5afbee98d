"""``python -m tests.lab build`` makes the programs; ``up`` keeps a lab with our images until Ctrl-C or ``down``."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.lab.build import build
from tests.lab.images import built, load
from tests.lab.ingress import build_ingress
from tests.lab.lab import Lab
from tests.lab.places import LOCK
from tests.lab.remains import clear


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


def down() -> None:
    """End the lab that ``up`` keeps on this machine, or what is left of one that was killed; nothing of it is left.

    The lab of a test run is that run's own to end.
    """
    if not LOCK.exists():
        return
    with LOCK.open("a+") as lock:
        lock.seek(0)
        holder, _, directory = lock.read().strip().partition("\n")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            command = Path(f"/proc/{holder}/cmdline").read_bytes().split(b"\0")
            if b"tests.lab" not in command or b"up" not in command:
                sys.exit(f"The lab on this machine belongs to the tests of process {holder}.")
            os.kill(int(holder), signal.SIGTERM)
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            if directory:
                clear(Path(directory))
                lock.truncate(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("what", choices=["build", "up", "down"])
    what = parser.parse_args().what
    if os.geteuid() != 0:
        sys.exit("The lab starts a container runtime and writes network rules: it needs root.")
    if what == "build":
        print(f"lab: programs in {build()}")
        print(f"lab: the ingress controller in {build_ingress()}")
    else:
        {"up": up, "down": down}[what]()


if __name__ == "__main__":
    main()
