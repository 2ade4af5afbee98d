"""Who reaches a cluster's nodes and whom they reach, with policies enforced, and what holds where none are.

Every refusal is shown beside a pod without any policy that gets through: what nobody can reach proves
nothing. The metadata address and the outside are played by this machine, for the pods alone.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from spawner.kubernetes import names
from tests.kubernetes.hub import KubeHub, Namespace
from tests.lab.kubernetes import Kubernetes
from tests.lab.lab import BRIDGE, GATEWAY
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

METADATA = "169.254.169.254"
OUTSIDE = "198.51.100.7"  # an address for documentation: it is nobody's
TABLE = "4242"
PROXY = {"app": "proxy"}
PROBE = """
import concurrent.futures, json, socket, sys
def reach(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
        return True
    except OSError:
        return False
targets = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(dict(zip(targets, pool.map(reach, targets)))))
"""


@contextmanager
def listening(address: str) -> Iterator[int]:
    """A port of this machine that accepts, also under an address that is not its own."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
        server.bind((address, 0))
        server.listen(64)

        def accept() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def played_here(address: str) -> Iterator[None]:
    """What pods send to an address is for this machine; what the machine itself sends there is not touched."""
    rule = ["iif", BRIDGE, "to", address, "lookup", TABLE]
    subprocess.run(["ip", "route", "replace", "local", address, "dev", "lo", "table", TABLE], check=True)
    subprocess.run(["ip", "rule", "add", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "rule", "del", *rule], check=False)
        subprocess.run(["ip", "route", "flush", "table", TABLE], check=False)


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """Where nodes might want to go, by what it is."""
    with ExitStack() as stack:
        for address in (METADATA, OUTSIDE):
            stack.enter_context(played_here(address))
        ports = {address: stack.enter_context(listening(address)) for address in (METADATA, OUTSIDE, GATEWAY)}
        yield {
            "metadata": f"{METADATA}:{ports[METADATA]}",
            "outside": f"{OUTSIDE}:{ports[OUTSIDE]}",
            "internal port": f"{GATEWAY}:{ports[GATEWAY]}",
        }


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub]) -> KubeHub:
    return hub_of(reached_by=[{"podSelector": {"matchLabels": PROXY}}])


@pytest.fixture(scope="module")
def clusters(hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes) -> Iterator[dict[str, str]]:
    """Two people's clusters, and pods that are none's: one that may be the proxy, one that is nobody."""
    for name, labels in (("proxy", PROXY), ("nobody", {"app": "other"})):
        namespace.apply(bystander(name, labels, kubernetes.image))
    hub.post("heat", "al", nodes=2, cpu=0.5)
    hub.post("heat", "王五", cpu=0.5)
    hub.runs("heat", "al")
    hub.runs("heat", "王五")
    namespace.kubectl("wait", "pod/proxy", "pod/nobody", "-n", namespace.name, "--for=condition=Ready")
    ours, theirs = hub.base("heat", "al"), hub.base("heat", "王五")
    yield {"ours": f"{ours}-0", "beside": f"{ours}-1", "theirs": f"{theirs}-0"}
    for user in ("al", "王五"):
        hub.ask_stop("heat", user)
    for user in ("al", "王五"):
        hub.closed("heat", user)
    namespace.nothing_left()


def bystander(name: str, labels: dict[str, str], image: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def address(namespace: Namespace, pod: str) -> str:
    return namespace.kubectl(
        "get", "pod", pod, "-n", namespace.name, "-o", "jsonpath={.status.podIP}"
    ).strip()


def reaches(namespace: Namespace, pod: str, targets: dict[str, str]) -> set[str]:
    """Which of the targets (by what they are) take a connection from a pod."""
    said = json.loads(namespace.execute(pod, "python3", "-c", PROBE, *targets.values()))
    return {what for what, target in targets.items() if said[target]}


def test_a_clusters_nodes_reach_what_they_need_and_nothing_else(
    hub: KubeHub,
    namespace: Namespace,
    kubernetes: Kubernetes,
    clusters: dict[str, str],
    places: dict[str, str],
) -> None:
    beside, theirs = address(namespace, clusters["beside"]), address(namespace, clusters["theirs"])
    needed = {
        "own pages": f"{beside}:8888",
        "own ssh": f"{beside}:2222",
        "own name": "node-1:2222",
        "hub": f"{GATEWAY}:{hub.ports[1]}",
        "outside": places["outside"],
    }
    forbidden = {
        "other's pages": f"{theirs}:8888",
        "other's ssh": f"{theirs}:2222",
        "API server": kubernetes.server.removeprefix("https://"),
        "API server by name": "kubernetes.default.svc.cluster.local:443",
        "metadata": places["metadata"],
        "internal port": places["internal port"],
    }
    assert reaches(namespace, clusters["ours"], needed | forbidden) == set(needed)
    outsider = {what: target for what, target in forbidden.items() if not what.startswith("other's")}
    assert reaches(namespace, "nobody", outsider) == set(outsider)


def test_a_clusters_pages_are_for_the_proxy_and_its_ssh_for_nobody(
    namespace: Namespace, clusters: dict[str, str]
) -> None:
    ours = address(namespace, clusters["ours"])
    targets = {"pages": f"{ours}:8888", "ssh": f"{ours}:2222"}
    assert reaches(namespace, "proxy", targets) == {"pages"}
    assert reaches(namespace, "nobody", targets) == set()


def test_where_policies_do_not_count_keys_and_tokens_still_do(
    hub: KubeHub, namespace: Namespace, clusters: dict[str, str]
) -> None:
    """As with a network plugin that ignores them: a policy of the site lets everything through."""
    everything: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "everything"},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": names.RUN, "operator": "Exists"}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{}],
            "egress": [{}],
        },
    }
    namespace.apply(everything)
    ours, theirs = clusters["ours"], address(namespace, clusters["theirs"])
    try:
        targets = {"pages": f"{theirs}:8888", "ssh": f"{theirs}:2222"}
        eventually(lambda: reaches(namespace, ours, targets) == set(targets), 20, "nothing is filtered")
        login = (
            f"ssh -i ~/.galilean/id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
            f"-o BatchMode=yes -p 2222 jovyan@{theirs} true 2>&1 || true"
        )
        assert "Permission denied (publickey" in namespace.execute(ours, "bash", "-lc", login)
        assert namespace.execute(ours, "bash", "-lc", "ssh node-1 hostname").strip() == "node-1"
        curl = "curl -s -o /dev/null -w '%{http_code} '"
        token = '-H "Authorization: token $JUPYTERHUB_API_TOKEN"'
        strange = f"http://{theirs}:8888/user/%E7%8E%8B%E4%BA%94/heat/api/contents"
        own = "http://node-1:8888${JUPYTERHUB_SERVICE_PREFIX}node-1/api/contents"
        asked = f"{curl} {token} {strange}; {curl} {strange}; {curl} {token} {own}"
        codes = namespace.execute(ours, "bash", "-c", asked).split()
        assert codes == ["403", "403", "200"]
    finally:
        namespace.delete("networkpolicy", "everything")
