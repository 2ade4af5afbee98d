"""A machine of the lab: a container runtime and a kubelet with a directory, an address and control groups of its own.

The first one is there with the lab. A second one is switched on by whoever needs it, and joins as a machine of a
centre does: by the command that the administrator was shown, carried out by kubeadm. Its power can be cut, and
come back. Both are this computer: they share its kernel, its network and, for the pods, one bridge, so a path of one
is a path of the other, as with a storage that every machine mounts.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.lab.images import static_image
from tests.lab.parts import Parts, free_port, wait
from tests.lab.places import CGROUP, DNS_ADDRESS, GATEWAY, MACHINES, PAUSE_IMAGE
from tests.lab.remains import end_containers, unmount

#: kubeadm writes to fixed places: these are bound to the machine's own directory, for it alone.
_OWN_PLACES = """
set -eu
for place in /etc /var/lib; do
    mkdir -p "$1/over$place/up" "$1/over$place/work"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=$1/over$place/up,workdir=$1/over$place/work" "$place"
done
mkdir -p /etc/kubernetes /var/lib/kubelet
mount --bind "$1/etc-kubernetes" /etc/kubernetes
mount --bind "$1/var-lib-kubelet" /var/lib/kubelet
shift
exec "$@"
"""
#: A lost machine is told from a slow one by its lease; tests that lose one would wait for half a minute more.
_LEASE_SECONDS = 8


class Machine:
    """One machine.

    Parameters
    ----------
    number
        Its place among :data:`tests.lab.places.MACHINES`.
    directory
        All of its own.
    parts, programs
        Starts its processes; where ours are.
    authority
        Folder of the cluster's certificates.
    network
        The configuration of the network plugins, the same for all machines.
    """

    def __init__(
        self, number: int, directory: Path, *, parts: Parts, programs: Path, authority: Path, network: Path
    ) -> None:
        self.name = MACHINES[number]
        self.directory = directory
        self.address = str(IPv4Address(GATEWAY) + number)
        self.socket = directory / "containerd.sock"
        self._suffix = f"-{number}" if number else ""
        self.cgroup = CGROUP + self._suffix
        self._parts, self._program = parts, programs / "lab"
        self._pause, self._authority, self._network = programs / "pause", authority, network
        self._port, self._health = free_port(), free_port()

    # ----------------------------------------------------------------------------------------------- its life

    def switch_on(self, **images: tuple[Path, str]) -> None:
        """Its container runtime with the image that every pod has, and others: ``name=(program, reference)``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._share(self.directory / "containerd-state")
        path = self.directory / "containerd.toml"
        path.write_text(self._containerd_config())
        self._parts.start(f"containerd{self._suffix}", "containerd", "--config", str(path))
        wait("containerd", lambda: self.socket.exists() and self._containerd_answers())
        for name, (program, reference) in {"pause": (self._pause, PAUSE_IMAGE), **images}.items():
            archive = self.directory / f"{name}.tar"
            static_image(program, reference, archive)
            self.load_image(archive)
            archive.unlink()

    def start_kubelet(self, kubeconfig: Path, *flags: str, config: Path | None = None) -> None:
        """The kubelet, by what it has been given or has got by joining."""
        self._make_groups()
        if config is None:
            config = self.directory / "kubelet.json"
            config.write_text(json.dumps(self.kubelet_config()))
        self._parts.start(
            f"kubelet{self._suffix}",
            str(self._program), "kubelet",
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--cert-dir={self.directory / 'kubelet-pki'}",
            *flags,
        )  # fmt: skip

    def join(self, command: str) -> str:
        """Carry out the command that an administrator was shown; what kubeadm said.

        All but its looks at the machine beforehand, which find no systemd and too many other things here. Nor can
        it start the kubelet: it has been waiting for what kubeadm writes, as a unit of systemd does.
        """
        etc, var = self.directory / "etc-kubernetes", self.directory / "var-lib-kubelet"
        for folder in (etc, var):
            folder.mkdir(parents=True, exist_ok=True)
        program, *words = shlex.split(command)
        assert program == "kubeadm", command
        with (self._parts.logs / "kubeadm.log").open("ab+") as log:
            kubeadm = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_PLACES, "sh", str(self.directory),
                 str(self._program), "kubeadm", *words, "--ignore-preflight-errors=all"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                bootstrap = etc / "bootstrap-kubelet.conf"
                wait(
                    "join",
                    lambda: (
                        kubeadm.poll() is not None or (bootstrap.exists() and (var / "config.yaml").exists())
                    ),
                )
                if kubeadm.poll() is None:
                    self.start_kubelet(etc / "kubelet.conf", f"--bootstrap-kubeconfig={bootstrap}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    kubeadm.wait(240)
            finally:
                kubeadm.kill()
                kubeadm.wait()
            log.seek(0)
            said = log.read().decode(errors="replace")
        assert kubeadm.returncode == 0, said[-3000:] + self._parts.said(f"kubelet{self._suffix}")[-3000:]
        return said

    def come_back(self) -> None:
        """Switched on again, a machine that has joined once is itself."""
        self.switch_on()
        self.start_kubelet(
            self.directory / "etc-kubernetes" / "kubelet.conf",
            config=self.directory / "var-lib-kubelet" / "config.yaml",
        )

    def cut_power(self) -> None:
        """All at once, without a word to anybody."""
        for part in ("kubelet", "containerd"):
            self._parts.kill(f"{part}{self._suffix}")
        end_containers(self.directory, self.cgroup)

    def switch_off(self) -> None:
        """End what runs here; safe at any time."""
        for part in ("kubelet", "containerd"):
            self._parts.end(f"{part}{self._suffix}")
        end_containers(self.directory, self.cgroup)
        unmount(self.directory)

    # ------------------------------------------------------------------------------------------------- tools

    def speak_plain_http(self, registry: str) -> None:
        """Fetch from ``host:port`` without TLS, as from a registry of the machine's own; it is read at each fetch.

        Without a table ``host`` containerd 1.6 takes the file for broken, says so in its log alone, and asks by TLS.
        """
        folder = self.directory / "registries" / registry
        folder.mkdir(parents=True, exist_ok=True)
        address = f"http://{registry}"
        (folder / "hosts.toml").write_text(
            f'server = "{address}"\n[host."{address}"]\n  capabilities = ["pull", "resolve"]\n'
        )

    def load_image(self, archive: Path) -> None:
        """Bring a docker archive into the machine's image store."""
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", "images", "import", str(archive)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{archive} cannot be imported: {done.stderr}")

    def wait_ready(self, kubectl: Callable[..., str]) -> None:
        """Come back when the cluster calls it Ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        said = ("get", "node", self.name, "-o", f"jsonpath={path}")
        try:
            wait(f"machine {self.name}", lambda: kubectl(*said, check=False) == "True", 240)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._parts.said(f'kubelet{self._suffix}')[-3000:]}") from error

    def kubelet_config(self) -> dict[str, Any]:
        """The kubelet's; kubeadm hands it to those who join, too."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "port": self._port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self._health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._authority / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "featureGates": {"KubeletInUserNamespace": True},
            "oomScoreAdj": 0,
            "serializeImagePulls": False,
            "evictionHard": {
                "memory.available": "200Mi",
                "nodefs.available": "2%",
                "imagefs.available": "2%",
            },
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self.directory / "pod-logs"),
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": _LEASE_SECONDS,
            "shutdownGracePeriod": "0s",
            "maxPods": 200,
        }

    def _containerd_config(self) -> str:
        return f"""version = 2
root = "{self.directory}/containerd"
state = "{self.directory}/containerd-state"
oom_score = 0
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self._network}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{self.directory}/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""

    @staticmethod
    def _share(directory: Path) -> None:
        """Let others see what is mounted below a directory later, as a machine with systemd does everywhere."""
        directory.mkdir(mode=0o711, exist_ok=True)
        if not directory.is_mount():
            subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        subprocess.run(["mount", "--make-rshared", str(directory)], check=True)

    def _containerd_answers(self) -> bool:
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), "version"], capture_output=True, timeout=10, check=False
        )
        return done.returncode == 0

    def _make_groups(self) -> None:
        """The control groups that the kubelet does not make itself: the root of its own."""
        for controller in Path("/sys/fs/cgroup").glob("*"):
            if (controller / "tasks").exists() or (controller / "cgroup.procs").exists():
                (controller / self.cgroup).mkdir(exist_ok=True)
        # All pods together would weigh as much as one process beside them.
        for share, most in (("cpu/{}/cpu.shares", "4096"), ("{}/cpu.weight", "400")):
            path = Path("/sys/fs/cgroup") / share.format(self.cgroup)
            if path.exists():
                path.write_text(most)
        cpuset = Path("/sys/fs/cgroup/cpuset")
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts a group without any
            if (cpuset / self.cgroup / name).exists():
                (cpuset / self.cgroup / name).write_text((cpuset / name).read_text())
