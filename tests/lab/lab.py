"""A real Kubernetes on this machine, for tests: one machine, up in seconds once built, gone without a trace.

etcd, API server, controller manager, scheduler, kubelet and kube-proxy are one program of ours made from
the public modules (``go/``); containerd, runc and the network plugins are Debian's, in an instance with a
root, state and socket of its own; CoreDNS runs as a pod. Works as root without CAP_SYS_RESOURCE and on
cgroup v1, which is what the odd settings below are for.

kube-proxy writes the machine's iptables, so one lab runs on a machine at a time (a lock holds that).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from tests.lab import policies
from tests.lab.build import build
from tests.lab.certificates import Authority
from tests.lab.images import static_image

LOCK = Path("/run/galilean-lab.lock")
BRIDGE = "galilean-lab0"
GATEWAY = "10.222.0.1"
POD_SUBNET = "10.222.0.0/16"
SERVICE_SUBNET = "10.223.0.0/16"
SERVICE_GATEWAY = "10.223.0.1"
DNS_ADDRESS = "10.223.0.10"
MACHINE = "lab-machine-0"
CGROUP = "galilean-lab"
PAUSE_IMAGE = "galilean.lab/pause:1"
DNS_IMAGE = "galilean.lab/coredns:1"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(what: str, ready: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the lab's {what} was not ready after {seconds:.0f} s")
        time.sleep(0.1)


def _end_with_us() -> None:
    """Let the kernel kill a part when whoever started it is killed: the kubelet of a dead lab would kill the
    containers of the next one, which it takes for leftovers of its own."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Lab:
    """``up()`` and ``down()``; between them ``kubectl()``, ``helm()``, ``kubeconfig`` and ``load_image()``.

    Parameters
    ----------
    directory
        Everything of this lab, logs too; removed by ``down()`` unless ``keep_logs``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.programs = build()
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None
        self.api_port, self.etcd_port = _free_port(), _free_port()
        self.kubelet_port, self.kubelet_health = _free_port(), _free_port()
        self.server = f"https://{GATEWAY}:{self.api_port}"
        self.socket = directory / "containerd.sock"

    # ------------------------------------------------------------------------------------------ up and down

    def up(self) -> Lab:
        """Start everything and come back when the machine is Ready and DNS answers."""
        self._take_lock()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self._network()
            self._certificates()
            self._containerd()
            self._control_plane()
            self._machine()
            self._policies()
            self._cluster_dns()
        except BaseException:
            self.down()
            raise
        return self

    def down(self) -> None:
        """End pods, parts and network, in this order; safe to call at any time, and twice.

        Who still waits for another lab to end touches nothing of it.
        """
        if self._lock is None:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        for name in ("kubelet", "kube-proxy", "policies", "kube-controller-manager", "kube-scheduler"):
            self._end(name)
        policies.take_away()
        for name in ("containerd", "kube-apiserver", "etcd"):
            self._end(name)
        self._end_containers()
        self._unmount()
        self._clean_iptables()
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
        self._clean_leftovers()
        # Layers of images are a hundred thousand files.
        subprocess.run(
            ["rm", "-rf", "--one-file-system", str(self.directory)], capture_output=True, check=False
        )
        self._lock.close()
        self._lock = None

    def _take_lock(self) -> None:
        lock = LOCK.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("lab: another one runs on this machine; waiting for its end …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        self._lock = lock

    # ------------------------------------------------------------------------------------------------ tools

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "pki" / "admin.kubeconfig"

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator; returns what it prints."""
        done = subprocess.run(
            [str(self.programs / "lab"), "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def helm(self, *arguments: str) -> str:
        """Run helm as administrator."""
        home = {f"HELM_{kind}_HOME": str(self.directory / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(self.programs / "helm"), "--kubeconfig", str(self.kubeconfig), *arguments],
            env=dict(os.environ) | home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def load_image(self, archive: Path) -> None:
        """Bring a docker archive into the machine's image store."""
        self._ctr("images", "import", str(archive))

    def _ctr(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    # ------------------------------------------------------------------------------------------------ parts

    def _start(self, name: str, *command: str) -> None:
        log = (self.logs / f"{name}.log").open("ab")
        self._parts[name] = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
        log.close()

    def _start_part(self, name: str, *flags: str) -> None:
        self._start(name, str(self.programs / "lab"), name, *flags)

    def _end(self, name: str, seconds: float = 10) -> None:
        part = self._parts.pop(name, None)
        if part is None or part.poll() is not None:
            return
        part.terminate()
        try:
            part.wait(seconds)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()

    def kill(self, name: str) -> None:
        """Kill a part without a word, as a crash would."""
        part = self._parts.pop(name)
        part.send_signal(signal.SIGKILL)
        part.wait()

    def _network(self) -> None:
        for command in (
            ["ip", "link", "add", BRIDGE, "type", "bridge"],
            ["ip", "addr", "add", f"{GATEWAY}/16", "dev", BRIDGE],
            ["ip", "link", "set", BRIDGE, "up"],
        ):
            subprocess.run(command, check=False, capture_output=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        between_pods = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if not between_pods.exists():
            subprocess.run(["modprobe", "br_netfilter"], check=True, capture_output=True)
        between_pods.write_text("1")
        for direction in (["-s", POD_SUBNET], ["-d", POD_SUBNET]):  # a Docker on the machine drops forwarding
            rule = ["FORWARD", *direction, "-m", "comment", "--comment", "galilean-lab", "-j", "ACCEPT"]
            subprocess.run(["iptables", "-w", "-I", *rule], check=True, capture_output=True)
        masquerade = ["-s", POD_SUBNET, "!", "-d", POD_SUBNET, "-m", "comment", "--comment", "galilean-lab"]
        subprocess.run(
            ["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *masquerade, "-j", "MASQUERADE"],
            check=True,
            capture_output=True,
        )
        cni = self.directory / "cni"
        cni.mkdir(parents=True)
        config = {
            "cniVersion": "0.4.0",
            "name": "galilean-lab",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.directory / "ipam"),
                        "ranges": [[{"subnet": POD_SUBNET, "gateway": GATEWAY}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (cni / "10-lab.conflist").write_text(json.dumps(config))

    def _certificates(self) -> None:
        authority = Authority(self.directory / "pki")
        authority.issue(
            "apiserver",
            "kube-apiserver",
            hosts=(
                "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost",
                SERVICE_GATEWAY, GATEWAY, "127.0.0.1",
            ),
        )  # fmt: skip
        for name, common_name, organisation in (
            ("admin", "admin", "system:masters"),
            ("controller-manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("kubelet", f"system:node:{MACHINE}", "system:nodes"),
            ("kube-proxy", "system:kube-proxy", ""),
            ("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        ):
            authority.issue(name, common_name, organisation=organisation)
            authority.kubeconfig(name, self.server)

    def _pki(self, name: str) -> str:
        return str(self.directory / "pki" / name)

    def _containerd(self) -> None:
        config = f"""version = 2
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
    conf_dir = "{self.directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""
        path = self.directory / "containerd.toml"
        path.write_text(config)
        self._start("containerd", "containerd", "--config", str(path))
        _wait("containerd", lambda: self.socket.exists() and "k8s" in self._probe_containerd())
        for program, reference in (("pause", PAUSE_IMAGE), ("coredns", DNS_IMAGE)):
            archive = self.directory / f"{program}.tar"
            static_image(self.programs / program, reference, archive)
            self.load_image(archive)
            archive.unlink()

    def _probe_containerd(self) -> str:
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), "version"], capture_output=True, timeout=10, check=False
        )
        return "k8s" if done.returncode == 0 else ""

    def _control_plane(self) -> None:
        self._start_part("etcd", "--data-dir", str(self.directory / "etcd"), "--port", str(self.etcd_port))
        self._start_part(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--secure-port={self.api_port}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={GATEWAY}",
            f"--tls-cert-file={self._pki('apiserver.crt')}",
            f"--tls-private-key-file={self._pki('apiserver.key')}",
            f"--client-ca-file={self._pki('ca.crt')}",
            f"--kubelet-client-certificate={self._pki('apiserver-kubelet.crt')}",
            f"--kubelet-client-key={self._pki('apiserver-kubelet.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._pki('service-accounts.pub')}",
            f"--service-account-signing-key-file={self._pki('service-accounts.key')}",
            f"--service-cluster-ip-range={SERVICE_SUBNET}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",  # as kubeadm has it: machines join by such tokens
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )
        _wait("API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        self._start_part(
            "kube-controller-manager",
            f"--kubeconfig={self._pki('controller-manager.kubeconfig')}",
            f"--service-account-private-key-file={self._pki('service-accounts.key')}",
            f"--root-ca-file={self._pki('ca.crt')}",
            f"--cluster-signing-cert-file={self._pki('ca.crt')}",
            f"--cluster-signing-key-file={self._pki('ca.key')}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={_free_port()}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            # A machine that is slow because everything is on it is not dead; simulated ones never come back.
            "--node-monitor-grace-period=180s",
        )
        self._start_part(
            "kube-scheduler",
            f"--kubeconfig={self._pki('scheduler.kubeconfig')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={_free_port()}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def _machine(self) -> None:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "port": self.kubelet_port,
            "healthzPort": self.kubelet_health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self._pki("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
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
            "shutdownGracePeriod": "0s",
            "maxPods": 200,
        }
        for controller in Path("/sys/fs/cgroup").glob("*"):  # the kubelet does not make its own root
            if (controller / "tasks").exists() or (controller / "cgroup.procs").exists():
                (controller / CGROUP).mkdir(exist_ok=True)
        # All pods together would weigh as much as one process beside them.
        for share, most in (("cpu/{}/cpu.shares", "4096"), ("{}/cpu.weight", "400")):
            path = Path("/sys/fs/cgroup") / share.format(CGROUP)
            if path.exists():
                path.write_text(most)
        cpuset = Path("/sys/fs/cgroup/cpuset")
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts a group without any
            if (cpuset / CGROUP / name).exists():
                (cpuset / CGROUP / name).write_text((cpuset / name).read_text())
        path = self.directory / "kubelet.json"
        path.write_text(json.dumps(config))
        self._start_part(
            "kubelet",
            f"--config={path}",
            f"--kubeconfig={self._pki('kubelet.kubeconfig')}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--hostname-override={MACHINE}",
            f"--node-ip={GATEWAY}",
            f"--cert-dir={self.directory / 'kubelet-pki'}",
        )
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self._pki("kube-proxy.kubeconfig")},
            "clusterCIDR": POD_SUBNET,
            "mode": "iptables",
            "oomScoreAdj": 0,
            "hostnameOverride": MACHINE,
            "bindAddress": "127.0.0.1",
            "healthzBindAddress": f"127.0.0.1:{_free_port()}",
            "metricsBindAddress": f"127.0.0.1:{_free_port()}",
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
        proxy_path = self.directory / "kube-proxy.json"
        proxy_path.write_text(json.dumps(proxy))
        self._start_part("kube-proxy", f"--config={proxy_path}")
        ready = '{.status.conditions[?(@.type=="Ready")].status}'
        _wait(
            "machine",
            lambda: self.kubectl("get", "node", MACHINE, "-o", f"jsonpath={ready}", check=False) == "True",
        )

    def _policies(self) -> None:
        ready = self.directory / "policies.ready"
        enforcer = str(Path(policies.__file__))
        self._start("policies", sys.executable, enforcer, str(self.kubeconfig), MACHINE, str(ready))
        _wait("enforcer of network policies", ready.exists)

    def _cluster_dns(self) -> None:
        manifest = (Path(__file__).parent / "dns.yaml").read_text()
        self.kubectl(
            "apply", "-f", "-", stdin=manifest.replace("$IMAGE", DNS_IMAGE).replace("$ADDRESS", DNS_ADDRESS)
        )
        self.kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=60s")

    # ---------------------------------------------------------------------------------------------- the end

    def _end_containers(self) -> None:
        """Kill what runs in pods, and the shims that outlive containerd; to ask it for each takes minutes."""
        deadline = time.monotonic() + 10
        while pids := self._pids_of_pods():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def _pids_of_pods(self) -> set[int]:
        pids: set[int] = set()
        for group in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}"):
            for folder, _, files in os.walk(group):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError):  # it has just gone
                        pids.update(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0].endswith(b"containerd-shim-runc-v2") and str(self.socket).encode() in words:
                    pids.add(int(path.parent.name))
        return pids - {0}  # somebody of another namespace

    def _unmount(self) -> None:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        below = [line.split()[1] for line in lines if line.split()[1].startswith(str(self.directory))]
        for mount in sorted(below, key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for line in lines:  # network namespaces that the plugins made for our pods
            mount = line.split()[1]
            if mount.startswith(("/run/netns/cni-", "/var/run/netns/cni-")):
                subprocess.run(["ip", "netns", "del", Path(mount).name], capture_output=True, check=False)

    def _clean_leftovers(self) -> None:
        """Links and control groups that the kubelet leaves outside our directory."""
        for link in Path("/var/log/containers").glob("*"):
            if link.is_symlink() and str(self.directory) in os.readlink(link):
                link.unlink()
        for controller in Path("/sys/fs/cgroup").glob("*"):
            group = controller / CGROUP
            if group.is_dir():
                for folder, _, _ in os.walk(group, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:  # a process is still leaving it
                        continue

    def _clean_iptables(self) -> None:
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
