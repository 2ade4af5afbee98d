"""Python on every node at once (CG-6): ``ipyparallel.Cluster()`` in a notebook takes the whole cluster, without options.

As ``mpirun`` and ``torchrun`` find the nodes by themselves, so does ipyparallel: its profile in the node's HOME
(:data:`PROFILE`) asks for an engine on each slot of the host file, started there over the cluster's own ssh. The
controller runs beside whoever starts it, on that node's own address in the cluster. What an engine needs to reach
it, a key among that, goes in through ssh's input and never stands in a command line; an engine ends when that
input does, so that nothing outlives the notebook that started it.

``python -m spawner.node.engines <parent> <host>`` is one such engine, from the side that starts it; with
``<parent> -- <command>`` it keeps the controller. Both end when ``parent``, the notebook's kernel, is gone.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from spawner.node.place import HOSTFILE, RANK, node_name

#: ``ipcluster_config.py`` of a node's HOME.
PROFILE = """# All nodes of this cluster, without options. Your own lines below win.
c = get_config()
try:
    from spawner.node import engines
except ImportError:  # a Python that is not the node's own
    pass
else:
    engines.configure(c)
"""
CONNECTION = "IPP_CONNECTION_INFO"
LOOK_SECONDS = 2.0
#: The engine goes with the input that it was started by, however that ends.
_REMOTE = (
    "read -r {name}; export {name}; {python} -m ipyparallel.engine >&2 & engine=$!; "
    "cat >/dev/null; kill $engine 2>/dev/null; wait $engine"
)


def hosts(text: str) -> list[str]:
    """One name for each slot, first one of every node: few engines are spread over all nodes."""
    slots: dict[str, int] = {}
    for line in text.splitlines():
        name, *words = line.split("#")[0].split() or [""]
        if name:
            said = [word.removeprefix("slots=") for word in words if word.startswith("slots=")]
            slots[name] = int(said[0]) if said else 1
    most = max(slots.values(), default=0)
    return [name for turn in range(most) for name, count in slots.items() if turn < count]


def own_hosts(environ: Mapping[str, str]) -> list[str]:
    """The slots of this cluster; empty outside of one."""
    try:
        with open(environ.get(HOSTFILE, ""), encoding="utf-8") as file:
            return hosts(file.read())
    except OSError:
        return []


def own_address(environ: Mapping[str, str]) -> str:
    """Where engines on all nodes reach a program of this node."""
    master = environ.get("MASTER_ADDR", "127.0.0.1")
    if master.startswith("127."):  # all nodes are on one machine
        return "127.0.0.1"
    return socket.gethostbyname(node_name(int(environ.get(RANK, "0"))))


def configure(c: Any, environ: Mapping[str, str] = os.environ) -> None:
    """Tell ipyparallel of this cluster; outside of one, nothing."""
    slots = own_hosts(environ)
    if not slots:
        return
    try:
        address = own_address(environ)
    except OSError:  # names of nodes are not known (yet): one node is better than none
        address, slots = "127.0.0.1", slots[:1]
    c.Cluster.n = len(slots)
    c.Cluster.controller_ip = address
    c.Cluster.controller_location = address
    c.Cluster.engine_launcher_class = "spawner.node.engine_launcher.NodeEngines"
    c.Cluster.controller_launcher_class = "spawner.node.engine_launcher.NodeController"
    c.Cluster.engine_timeout = 180
    c.NodeEngines.delay = 0.0


def command(host: str, python: str = sys.executable) -> list[str]:
    """What starts an engine on a node."""
    remote = _REMOTE.format(name=CONNECTION, python=shlex.quote(python))
    return ["ssh", "-o", "BatchMode=yes", host, remote]


def main(words: list[str]) -> int:
    """Start an engine on a node, or a command after ``--``, and end it when told to, or when who started it is gone."""
    parent, first, *rest = words
    if first == "--":
        process = subprocess.Popen(rest, stdin=subprocess.DEVNULL)
        end = process.terminate
    else:
        process = subprocess.Popen(command(first), stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(os.environ.get(CONNECTION, "").encode() + b"\n")
        process.stdin.flush()
        end = process.stdin.close
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end())
    while True:
        try:
            return process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if os.getppid() != int(parent):  # a kernel that was killed tells nobody
                end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
