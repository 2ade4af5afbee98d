"""Machines that are none: Kubernetes takes them for real, kwok says that every pod on them runs at once.

For scale: thousands of pods on one machine, with a real API server, scheduler and controllers. The machines
are tainted and labelled, so that only what asks for them gets there, and real pods never do. Pods get
addresses of a network of their own; :class:`Answering` lets one small server on this machine answer for all
of them, because a hub asks whoever it has started. It is this file, run as a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

LABEL = "galilean.lab/simulated"
SELECTOR = {LABEL: "yes"}
TOLERATIONS = [{"key": LABEL, "operator": "Exists", "effect": "NoSchedule"}]
NETWORK = "10.224.0.0/16"
_FIRST_ADDRESS = "10.224.0.1/16"
_PORT = 8888
_YES = b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def machine(
    number: int,
    *,
    pods: int,
    cpu: int,
    memory_gib: int,
    labels: Mapping[str, str],
    devices: Mapping[str, int],
) -> dict[str, Any]:
    """The Node object of one machine."""
    name = f"simulated-{number}"
    amounts = {
        "cpu": str(cpu),
        "memory": f"{memory_gib}Gi",
        "ephemeral-storage": "4Ti",
        "pods": str(pods),
        **{name: str(amount) for name, amount in devices.items()},
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**labels, **SELECTOR, "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": LABEL, "value": "yes", "effect": "NoSchedule"}]},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


class SimulatedMachines:
    """``with SimulatedMachines(…):`` there are ``count`` more machines; at its end they are gone.

    Parameters
    ----------
    kubectl
        Runs kubectl as administrator.
    program
        kwok.
    kubeconfig
        The administrator's.
    log
        Where kwok tells what it does.
    count, pods, cpu, memory_gib
        How many machines, and what each can carry.
    labels, devices
        Of each machine, besides: further labels, extended resources.
    """

    def __init__(
        self,
        kubectl: Callable[..., str],
        program: Path,
        kubeconfig: Path,
        log: Path,
        *,
        count: int,
        pods: int = 250,
        cpu: int = 256,
        memory_gib: int = 2048,
        labels: Mapping[str, str] = MappingProxyType({}),
        devices: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._kubectl = kubectl
        self._command = [
            str(program),
            "--kubeconfig", str(kubeconfig),
            "--manage-nodes-with-label-selector", f"{LABEL}=yes",
            "--cidr", _FIRST_ADDRESS,
            "--config", str(log.with_suffix(".yaml")),
            "-v", "WARN",
        ]  # fmt: skip
        self._log = log
        self._machines = [
            machine(number, pods=pods, cpu=cpu, memory_gib=memory_gib, labels=labels, devices=devices)
            for number in range(count)
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SimulatedMachines:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.with_suffix(".yaml").write_text("", encoding="utf-8")  # else it reads somebody's home
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self._kubectl("apply", "-f", "-", stdin=json.dumps(_list(self._machines)))
            deadline = time.monotonic() + 120
            while self.ready() < len(self._machines):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"simulated machines are not ready; see {self._log}")
                time.sleep(0.2)
        except BaseException:
            self.close()
            raise
        return self

    def ready(self) -> int:
        """How many machines are ready."""
        said = self._kubectl("get", "nodes", "-l", f"{LABEL}=yes", "-o", "json")
        return sum(
            any(item["type"] == "Ready" and item["status"] == "True" for item in found)
            for found in (node["status"].get("conditions", ()) for node in json.loads(said)["items"])
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the machines away, then what simulates them."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._kubectl("delete", "nodes", "-l", f"{LABEL}=yes", "--wait=false", check=False)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Answering:
    """``with Answering(directory):`` whatever asks a simulated pod on its page is answered 200, as a node does."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "answering.log"
        self._route = ["local", NETWORK, "dev", "lo"]
        self._rule: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Answering:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )  # fmt: skip
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._rule = [
            "OUTPUT", "-d", NETWORK, "-p", "tcp", "--dport", str(_PORT),
            "-m", "comment", "--comment", "galilean-lab simulated",
            "-j", "REDIRECT", "--to-ports", str(port),
        ]  # fmt: skip
        subprocess.run(["ip", "route", "replace", *self._route], check=True, capture_output=True)
        subprocess.run(["iptables", "-w", "-t", "nat", "-I", *self._rule], check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["iptables", "-w", "-t", "nat", "-D", *self._rule], check=False, capture_output=True)
        subprocess.run(["ip", "route", "del", *self._route], check=False, capture_output=True)
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_YES)
            await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}


if __name__ == "__main__":
    asyncio.run(_serve())
