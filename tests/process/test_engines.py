"""How ipyparallel finds the nodes of a cluster; that it works on them is in test_cluster.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from spawner.node import engines
from spawner.node.variables import host_file
from tests.process.hub import eventually


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("node-0 slots=1\nnode-1 slots=1\n", ["node-0", "node-1"]),
        ("node-0 slots=2\nnode-1 slots=1\n", ["node-0", "node-1", "node-0"]),
        ("# mine\nnode-0\n", ["node-0"]),
    ],
)
def test_each_slot_is_an_engine_and_few_are_spread_over_all_nodes(text: str, names: list[str]) -> None:
    assert engines.hosts(text) == names
    assert engines.hosts(host_file(3, 2000))[:3] == ["node-0", "node-1", "node-2"]


class Config(SimpleNamespace):
    def __getattr__(self, name: str) -> SimpleNamespace:
        setattr(self, name, SimpleNamespace())
        return self.__dict__[name]


def test_nodes_on_one_machine_meet_at_its_loopback_and_outside_of_a_cluster_nothing_is_said(
    tmp_path: Path,
) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text(host_file(2, 1000))
    c = Config()
    engines.configure(c, {"GALILEAN_HOSTFILE": str(hostfile), "MASTER_ADDR": "127.0.0.1"})
    assert (c.Cluster.n, c.Cluster.controller_ip) == (2, "127.0.0.1")
    none = Config()
    engines.configure(none, {})
    assert not none.__dict__


def test_what_an_engine_needs_to_know_stands_in_no_command_line() -> None:
    words = engines.command("node-1", python="/opt/my python")
    assert words[:4] == ["ssh", "-o", "BatchMode=yes", "node-1"]
    assert "read -r IPP_CONNECTION_INFO" in words[4]
    assert "'/opt/my python' -m ipyparallel.engine" in words[4]


@pytest.mark.process
def test_what_a_killed_kernel_started_ends_by_itself(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "words = [sys.executable, '-m', 'spawner.node.engines', str(os.getpid()), '--', 'sleep', '1000']\n"
        "p = subprocess.Popen(words)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    keeper = int(kernel.stdout.readline())
    kernel.kill()
    kernel.wait()

    def gone() -> bool:
        try:
            return "State:\tZ" in Path(f"/proc/{keeper}/status").read_text()
        except OSError:
            return True

    try:
        eventually(gone, 60, "it ended")
    finally:
        if not gone():
            os.kill(keeper, signal.SIGTERM)
