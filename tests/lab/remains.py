"""What a lab has outside of its own directory, and taking it away: at its end, and after one that was killed.

The parts of a lab die with whoever started it. What runs in pods does not, nor do mounts, the network
namespaces and interfaces of pods, control groups, rules of iptables and nftables. Each lab writes its directory
into the lock that it holds; whoever takes the lock next and still finds that directory clears up after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.lab import policies
from tests.lab.places import BRIDGE, CGROUP, NETWORK

#: Where network plugins remember what they made.
_RESULTS = Path("/var/lib/cni/results")
_NAMESPACES = Path("/run/netns")


def clear(directory: Path) -> None:
    """Everything of the lab at ``directory``, whose parts have ended; once more is no harm."""
    policies.take_away()
    end_containers(directory)
    unmount(directory)
    take_networks_away()
    _clean_iptables()
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
    _clean_links(directory)
    _clean_groups()
    # Layers of images are a hundred thousand files.
    subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], capture_output=True, check=False)


def end_containers(directory: Path, cgroups: str = f"{CGROUP}*") -> None:
    """Kill what runs in pods, and the shims that outlive containerd; to ask it for each takes minutes.

    Parameters
    ----------
    directory
        Of the lab, or of one machine of it.
    cgroups
        The names of their control groups.
    """
    deadline = time.monotonic() + 10
    while pids := _pids_of_pods(directory, cgroups):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _pids_of_pods(directory: Path, cgroups: str) -> set[int]:
    pids: set[int] = set()
    for group in Path("/sys/fs/cgroup").glob(f"*/{cgroups}"):
        for folder, _, files in os.walk(group):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):  # it has just gone
                    pids.update(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            ours = any(word.startswith(f"{directory}/".encode()) for word in words)
            if ours and words[0].endswith(b"containerd-shim-runc-v2"):
                pids.add(int(path.parent.name))
    return pids - {0}  # somebody of another namespace


def unmount(directory: Path) -> None:
    """Take away every mount below a directory."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    below = [line.split()[1] for line in lines if line.split()[1].startswith(f"{directory}/")]
    for mount in sorted(below, key=len, reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)


def take_networks_away() -> None:
    """Network namespaces of the lab's pods, with their interfaces, and what the plugins remember of them."""
    for result in _RESULTS.glob(f"{NETWORK}-*"):
        for namespace in _namespaces_in(result):
            _forget_namespace(namespace)
        pod = result.name.removeprefix(f"{NETWORK}-").rpartition("-")[0]
        for file in (result, *_RESULTS.glob(f"cni-loopback-{pod}-*")):
            file.unlink(missing_ok=True)
    for namespace in _NAMESPACES.glob(
        "cni-*"
    ):  # half made when somebody was killed: nobody has an interface there
        if not _interfaces_in(namespace):
            _forget_namespace(namespace.name)


def _namespaces_in(result: Path) -> set[str]:
    try:
        told = json.loads(result.read_text())["result"].get("interfaces") or ()
        return {Path(item["sandbox"]).name for item in told if item.get("sandbox")}
    except (OSError, ValueError, KeyError, TypeError):  # cut off while it was written
        return set()


def _interfaces_in(namespace: Path) -> list[str]:
    command = ["nsenter", f"--net={namespace}", "ip", "-j", "link"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return [item["ifname"] for item in found if item.get("ifname", "lo") != "lo"]


def _forget_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    with contextlib.suppress(OSError):  # under a mount of somebody else
        (_NAMESPACES / name).unlink(missing_ok=True)


def _clean_links(directory: Path) -> None:
    """Links that the kubelet leaves outside of our directory."""
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and f"{directory}/" in os.readlink(link):
            link.unlink()


def _clean_groups() -> None:
    for group in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}*"):
        if group.is_dir():
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:  # a process is still leaving it
                    continue


def _clean_iptables() -> None:
    """Take out what kube-proxy, the port mapping and we ourselves wrote; leave everybody else's."""
    ours = ("KUBE-", "CNI-", "galilean-lab")
    for table in ("filter", "nat", "mangle"):
        saved = subprocess.run(
            ["iptables-save", "-t", table], capture_output=True, text=True, check=False
        ).stdout
        if not any(word in saved for word in ours):
            continue
        kept = [line for line in saved.splitlines() if not any(word in line for word in ours)]
        subprocess.run(
            ["iptables-restore", "-w", "-T", table],
            input="\n".join(kept) + "\n",
            text=True,
            capture_output=True,
            check=False,
        )
