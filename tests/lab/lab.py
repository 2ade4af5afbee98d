"""A real Kubernetes on this machine, for tests: one machine, up in seconds once built, gone without a trace.

etcd, API server, controller manager, scheduler, kubelet and kube-proxy are one program of ours made from
the public modules (``go/``); containerd, runc and the network plugins are Debian's, in an instance with a
root, state and socket of its own; CoreDNS runs as a pod. Works as root without CAP_SYS_RESOURCE and on
cgroup v1, which is what the odd settings of :mod:`tests.lab.machine` are for. A second machine can join.

kube-proxy writes the machine's iptables, so one lab runs on a machine at a time (a lock holds that).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.lab import policies, remains
from tests.lab.build import VERSION, build
from tests.lab.certificates import Authority
from tests.lab.machine import Machine
from tests.lab.parts import Parts, free_port, wait
from tests.lab.places import (
    BRIDGE,
    DNS_ADDRESS,
    DNS_IMAGE,
    FIRST_POD,
    GATEWAY,
    LOCK,
    MACHINE,
    MACHINES,
    NETWORK,
    POD_SUBNET,
    SERVICE_GATEWAY,
    SERVICE_SUBNET,
)

#: How many watchers of files (inotify instances) one account may have; the kubelet and containerd have dozens.
_WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS_LEAST = 1024


def let_watch(limit: Path = _WATCHERS) -> None:
    """Raise the bound on watchers: many machines have 128 for all that root runs, and other runs hold theirs.

    It stays raised, as forwarding does. Where it may not be raised, that is said: a part that meets the bound
    says only "too many open files".
    """
    now = int(limit.read_text())
    if now >= WATCHERS_LEAST:
        return
    try:
        limit.write_text(f"{WATCHERS_LEAST}\n")
    except OSError as error:
        print(
            f"lab: fs.inotify.max_user_instances is {now} and cannot be raised here ({error.strerror}). "
            f"If a part ends with “too many open files”, set it to {WATCHERS_LEAST} on the machine.",
            flush=True,
        )


class Lab:
    """``up()`` and ``down()``; between them ``kubectl()``, ``helm()``, ``kubeconfig`` and ``load_image()``.

    Parameters
    ----------
    directory
        Everything of this lab, logs too; removed by ``down()``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.programs = build()
        self.parts = Parts(self.logs)
        self._lock: IO[str] | None = None
        self.api_port, self.etcd_port = free_port(), free_port()
        self.server = f"https://{GATEWAY}:{self.api_port}"
        self.machine = self._machine_of(0, directory)
        self.second = self._machine_of(1, directory / MACHINES[1])

    def _machine_of(self, number: int, directory: Path) -> Machine:
        return Machine(
            number,
            directory,
            parts=self.parts,
            programs=self.programs,
            authority=self.directory / "pki",
            network=self.directory / "cni",
        )

    # ------------------------------------------------------------------------------------------ up and down

    def up(self) -> Lab:
        """Start everything and come back when the machine is Ready and DNS answers."""
        self._take_lock()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            let_watch()
            self._network()
            self._certificates()
            self.machine.switch_on(coredns=(self.programs / "coredns", DNS_IMAGE))
            self._control_plane()
            self.machine.start_kubelet(self.directory / "pki" / "kubelet.kubeconfig")
            self._proxy()
            self.machine.wait_ready(self.kubectl)
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
        self.second.switch_off()
        for name in ("kubelet", "kube-proxy", "policies", "kube-controller-manager", "kube-scheduler"):
            self.parts.end(name)
        for name in ("containerd", "kube-apiserver", "etcd"):
            self.parts.end(name)
        remains.clear(self.directory)
        self._lock.truncate(0)
        self._lock.close()
        self._lock = None

    def _take_lock(self) -> None:
        lock = LOCK.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("lab: another one runs on this machine; waiting for its end …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        _, _, before = lock.read().strip().partition("\n")
        if before:
            print("lab: clearing up after one that was killed", flush=True)
            remains.clear(Path(before))
        remains.take_networks_away()
        lock.truncate(0)
        print(os.getpid(), self.directory, sep="\n", file=lock, flush=True)
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
            timeout=300,
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
        self.machine.load_image(archive)

    # ------------------------------------------------------------------------------------------------ parts

    def _start_part(self, name: str, *flags: str) -> None:
        self.parts.start(name, str(self.programs / "lab"), name, *flags)

    def _network(self) -> None:
        for command in (
            ["ip", "link", "add", BRIDGE, "type", "bridge"],
            *(
                ["ip", "addr", "add", f"{address}/16", "dev", BRIDGE]
                for address in (self.machine.address, self.second.address)
            ),
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
            "name": NETWORK,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.directory / "ipam"),
                        "ranges": [[{"subnet": POD_SUBNET, "rangeStart": FIRST_POD, "gateway": GATEWAY}]],
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
        wait("API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        self._start_part(
            "kube-controller-manager",
            f"--kubeconfig={self._pki('controller-manager.kubeconfig')}",
            f"--service-account-private-key-file={self._pki('service-accounts.key')}",
            f"--root-ca-file={self._pki('ca.crt')}",
            f"--cluster-signing-cert-file={self._pki('ca.crt')}",
            f"--cluster-signing-key-file={self._pki('ca.key')}",
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrapsigner,tokencleaner",  # as kubeadm has it, too
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
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
            f"--secure-port={free_port()}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def _proxy(self) -> None:
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self._pki("kube-proxy.kubeconfig")},
            "clusterCIDR": POD_SUBNET,
            "mode": "iptables",
            "oomScoreAdj": 0,
            "hostnameOverride": MACHINE,
            "bindAddress": "127.0.0.1",
            "healthzBindAddress": f"127.0.0.1:{free_port()}",
            "metricsBindAddress": f"127.0.0.1:{free_port()}",
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
        proxy_path = self.directory / "kube-proxy.json"
        proxy_path.write_text(json.dumps(proxy))
        self._start_part("kube-proxy", f"--config={proxy_path}")

    def _policies(self) -> None:
        ready = self.directory / "policies.ready"
        enforcer = str(Path(policies.__file__))
        self.parts.start("policies", sys.executable, enforcer, str(self.kubeconfig), str(ready), *MACHINES)
        wait("enforcer of network policies", ready.exists)

    def _cluster_dns(self) -> None:
        manifest = (Path(__file__).parent / "dns.yaml").read_text()
        self.kubectl(
            "apply", "-f", "-", stdin=manifest.replace("$IMAGE", DNS_IMAGE).replace("$ADDRESS", DNS_ADDRESS)
        )
        self.kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=240s")

    def let_join(self) -> None:
        """Leave what kubeadm leaves for those who join; the second machine's kubelet is what they are told to be."""
        manifest = (Path(__file__).parent / "kubeadm.yaml").read_text()
        authority = (self.directory / "pki" / "ca.crt").read_bytes()
        for word, said in {
            "$SERVER": self.server,
            "$ENDPOINT": self.server.removeprefix("https://"),
            "$CA": base64.b64encode(authority).decode(),
            "$KUBELET": json.dumps(self.second.kubelet_config()),
            "$VERSION": VERSION,
            "$PODS": POD_SUBNET,
            "$SERVICES": SERVICE_SUBNET,
        }.items():
            manifest = manifest.replace(word, said)
        self.kubectl("apply", "-f", "-", stdin=manifest)
