"""What goes wrong around clusters of pods, for real: hubs that die, an API server that is away, somebody's hand.

Nodes are a tenth of a second's program instead of JupyterLab: none of this asks what runs in them. After
each test nothing may be there without a row, and no row be open without pods.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from spawner.kubernetes import names
from tests.kubernetes.hub import LIGHT, KubeHub, Namespace
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
SMALL: dict[str, Any] = {"cpu": 0.1, "memory": "64M"}


late = threading.Event()


class Registry(BaseHTTPRequestHandler):
    """Has no image; of "away" it says that it cannot say now, and what it says of "slow" it says late."""

    def do_GET(self) -> None:
        if "/slow/" in self.path:
            late.wait(100)
        self.send_response(503 if "/away/" in self.path else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def hub(hub_of: Callable[..., KubeHub], registry: str) -> KubeHub:
    return hub_of(
        light=LIGHT,
        gang_timeout=180,
        patience=(4, 8),
        mend_seconds=2,
        images={
            "no-image": f"{registry}/there-is-none:1",
            "no-registry": f"{registry}/away:1",
            "slow": f"{registry}/slow:1",
        },
    )


@pytest.fixture(autouse=True)
def afterwards(hub: KubeHub) -> Iterator[None]:
    """Two sweeps: whatever the first finds it removes, and the second must find nothing."""
    yield
    hub.end_all()
    hub.sweep()
    hub.fits()


def at_once(do: Callable[..., Any], over: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(do, over))


def start(hub: KubeHub, *servers: str, **options: Any) -> None:
    """Start clusters at once, and wait until all are ready."""
    for server in servers:
        hub.post(server, **{**SMALL, **options})
    for server in servers:
        hub.runs(server)


def end(hub: KubeHub, *servers: str) -> None:
    for server in servers:
        hub.ask_stop(server)
    for server in servers:
        hub.closed(server)


# ------------------------------------------------------------------------------------------------ hubs that die

STARTS = {
    "s-admitted": "before create Secret {base}",
    "s-secret": "after create Secret {base}",
    "s-policy": "after create NetworkPolicy {base}",
    "s-some": "before create Pod {base}-1",
    "s-all": "after create Pod {base}-1",
    "s-ready": "before begin_running {server}",
}
STOPS = {
    "e-asked": "before delete Secret {base}",
    "e-deleted": "after delete Secret {base}",
    "e-gone": "before close {server}",
}


def test_a_hub_killed_in_any_phase_of_a_start_or_a_stop_leaves_nothing(
    hub: KubeHub, namespace: Namespace
) -> None:
    """Each cluster is held in a phase of its own when the hub dies."""
    steps = {
        server: step.format(base=hub.base(server), server=server) for server, step in (STARTS | STOPS).items()
    }
    start(hub, *STOPS)
    for step in steps.values():
        hub.faults.set(step)
    for server in STOPS:
        hub.ask_stop(server)
    for server in STARTS:
        hub.post(server, nodes=2, **SMALL)
    for step in steps.values():
        hub.faults.reached(step)
    hub.kill()
    hub.faults.clear()
    hub.start()
    for server in STARTS:
        row = hub.closed(server)
        assert (row["status"], row["reason"]) == ("failed", "hub_lost"), server
        assert all(node["ready_at"] is None for node in hub.nodes(server))
    for server in STOPS:
        row = hub.closed(server)
        assert (row["status"], row["reason"]) == ("released", "asked"), server
        (node,) = hub.nodes(server)
        assert node["ready_at"] <= node["gone_at"] <= row["released_at"]
    namespace.nothing_left()
    assert not hub.routes()
    hub.fits()


def test_a_hub_killed_a_moment_after_it_was_asked_leaves_nothing(hub: KubeHub, namespace: Namespace) -> None:
    """It may have said that the start is on its way before anything was written: then there never was a run."""
    hub.post("moment", nodes=2, **SMALL)
    time.sleep(0.05)
    hub.kill()
    begun = hub.row("moment")["status"] != ""
    hub.start()
    if begun:
        assert hub.closed("moment")["reason"] == "hub_lost"
    eventually(lambda: not hub.model("moment").get("pending"), 20, "the hub waits for nothing")
    namespace.nothing_left(hub.base("moment"))
    assert not hub.routes()
    start(hub, "moment")
    end(hub, "moment")


def test_a_hub_that_was_away_finds_its_clusters_and_when_their_nodes_ended(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes
) -> None:
    start(hub, "stays", "loses", nodes=2)
    base = hub.base("stays")
    before = {name: pod["metadata"]["uid"] for name, pod in namespace.pods(base).items()}
    hub.kill()
    ended_at = datetime.now(UTC)
    kubernetes.kill_container(namespace.name, f"{hub.base('loses')}-1")
    time.sleep(4)
    hub.start()
    lost = hub.closed("loses")
    assert lost["reason"] == "node_lost"
    head, worker = hub.nodes("loses")
    assert worker["exit_reason"] == "killed by signal 9"
    assert abs((moment(worker["gone_at"]) - ended_at).total_seconds()) < 2
    assert moment(head["gone_at"]) > ended_at
    eventually(lambda: hub.ready("stays"), 30, "the next hub knows the cluster")
    assert {name: pod["metadata"]["uid"] for name, pod in namespace.pods(base).items()} == before
    assert hub.routes() == {"/user/ada/stays", "/user/ada/stays/node-1"}
    end(hub, "stays")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_watch_that_died_is_begun_again_and_misses_nothing(hub: KubeHub, namespace: Namespace) -> None:
    start(hub, "watched", nodes=2)
    hub.faults.set("watch", "die")
    namespace.delete("pod", f"{hub.base('watched')}-1")
    assert hub.closed("watched")["reason"] == "node_lost"
    hub.faults.reached("watch")
    start(hub, "watched")
    end(hub, "watched")


# ------------------------------------------------------------------------------------------------ the API server


def test_an_api_server_that_is_away_for_half_a_minute_delays_and_ends_nothing(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes
) -> None:
    """In the middle of a start, before a start, before a stop, and while a cluster runs."""
    start(hub, "survivor", "patient")
    before = {name: pod["metadata"]["uid"] for name, pod in namespace.pods(hub.base("survivor")).items()}
    middle = f"after create Secret {hub.base('flight')}"
    hub.faults.set(middle)
    hub.post("flight", nodes=2, **SMALL)
    hub.faults.reached(middle)
    with kubernetes.without("kube-apiserver"):
        hub.faults.clear()
        hub.post("late", **SMALL)
        hub.ask_stop("patient")
        time.sleep(30)
        assert hub.row("survivor")["status"] == "running"
        assert hub.ready("survivor")
        assert hub.row("patient")["released_at"] is None
    for server in ("flight", "late"):
        hub.runs(server, seconds=120)
    row, (node,) = hub.closed("patient", seconds=60), hub.nodes("patient")
    assert row["reason"] == "asked"
    assert node["exit_reason"] == "released"
    after = {name: pod["metadata"]["uid"] for name, pod in namespace.pods(hub.base("survivor")).items()}
    assert after == before
    namespace.delete("pod", f"{hub.base('survivor')}-0")
    assert hub.closed("survivor")["reason"] == "node_lost"
    end(hub, "flight", "late")
    namespace.nothing_left(seconds=90)  # the collector of garbage comes back late from such an outage


def test_refusals_and_lost_answers_in_the_middle_of_a_start(hub: KubeHub, namespace: Namespace) -> None:
    """What may pass is asked again; what is refused for good ends the whole; nothing is made twice."""
    faults = {
        "refused": ("before create Pod {base}-1", "403"),
        "busy": ("before create NetworkPolicy {base}", "429"),
        "leader": ("before create Pod {base}-1", "503"),
        "lost-secret": ("after create Secret {base}", "lose"),
        "lost-service": ("after create Service {base}", "lose"),
        "lost-pod": ("after create Pod {base}-1", "lose"),
        "lost-stop": ("after delete Secret {base}", "lose"),
    }
    for server, (step, what) in faults.items():
        hub.faults.set(step.format(base=hub.base(server)), what)
        hub.post(server, nodes=2, **SMALL)
    row = hub.closed("refused")
    assert (row["status"], row["reason"]) == ("failed", "start_failed")
    namespace.nothing_left(hub.base("refused"))
    others = [server for server in faults if server != "refused"]
    for server in others:
        hub.runs(server)
        assert len(namespace.pods(hub.base(server))) == 2
    end(hub, *others)
    for server in others:
        assert {node["exit_reason"] for node in hub.nodes(server)} == {"released"}, server
    namespace.nothing_left()


def test_rights_that_are_taken_away_delay_a_stop_until_they_are_back(
    hub: KubeHub, namespace: Namespace
) -> None:
    start(hub, "stuck")
    binding = json.loads(namespace.kubectl("get", "rolebinding", "hub", "-n", namespace.name, "-o", "json"))
    binding["metadata"] = {"name": "hub"}
    namespace.kubectl("delete", "rolebinding", "hub", "-n", namespace.name)
    may = ["auth", "can-i", "create", "secrets", "-n", namespace.name]
    account = f"--as=system:serviceaccount:{namespace.name}:hub"
    eventually(lambda: "no" in namespace.kubectl(*may, account, check=False), 10, "the rights are gone")
    try:
        hub.post("unable", nodes=2, **SMALL)
        hub.ask_stop("stuck")
        eventually(lambda: hub.row("unable")["status"] == "stopping", 30, "the start was refused")
        assert hub.row("unable")["reason"] == "start_failed"
        assert hub.row("stuck")["released_at"] is None
    finally:
        namespace.apply(binding)
    for server in ("stuck", "unable"):
        hub.closed(server)
    namespace.nothing_left()


# --------------------------------------------------------------------------------------------------- somebody's hand


def test_whatever_somebody_deletes_ends_the_whole_or_nothing(hub: KubeHub, namespace: Namespace) -> None:
    servers = ["worker", "head", "service", "policy", "secret", "orphan"]
    start(hub, *servers, nodes=2)
    base = {server: hub.base(server) for server in servers}
    namespace.delete("pod", f"{base['worker']}-1")
    namespace.delete("pod", f"{base['head']}-0")
    namespace.delete("service", base["service"])
    namespace.delete("networkpolicy", base["policy"])
    namespace.delete("secret", base["secret"])
    namespace.delete("secret", base["orphan"], "--cascade=orphan")
    for server, ranks in (("worker", "1"), ("head", "0"), ("secret", "01")):
        row = hub.closed(server)
        assert row["reason"] == "node_lost"
        assert str(json.loads(row["explanation"])["params"]["rank"]) in ranks
        assert all(node["gone_at"] <= row["released_at"] for node in hub.nodes(server))
        namespace.nothing_left(base[server])
    hub.fits()
    for server in ("service", "policy", "orphan"):
        assert hub.row(server)["status"] == "running"
        assert len(namespace.pods(base[server])) == 2
    for server in ("service", "policy"):
        eventually(lambda server=server: len(namespace.objects(base[server])) == 4, 20, "it is put back")
    end(hub, "service", "policy", "orphan")
    namespace.nothing_left()


def test_a_pod_that_is_evicted_is_an_end_with_its_reason(hub: KubeHub, namespace: Namespace) -> None:
    start(hub, "drained", nodes=2)
    pod = f"{hub.base('drained')}-1"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace.name},
    }
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    row = hub.closed("drained")
    assert row["reason"] == "node_lost"
    assert hub.nodes("drained")[1]["exit_reason"] == "drained"
    namespace.nothing_left(hub.base("drained"))


def test_a_machine_that_does_not_answer_keeps_no_run_open(
    hub: KubeHub, namespace: Namespace, kubernetes: Kubernetes
) -> None:
    """Nobody there ends the pods: after a while they are removed by force."""
    start(hub, "silent", nodes=2)
    with kubernetes.without("kubelet"):
        hub.ask_stop("silent")
        row = hub.closed("silent", seconds=60)
        assert row["reason"] == "asked"
        namespace.nothing_left(hub.base("silent"))


def test_leftovers_of_an_older_life_do_not_stop_a_start(hub: KubeHub, namespace: Namespace) -> None:
    base = hub.base("leftovers")
    metadata = {"name": base, "labels": {names.CLUSTER: base}}
    namespace.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"port": 80}], "selector": {"nothing": "at-all"}},
        },
        pod_of(namespace, f"{base}-1", metadata["labels"], {}),
    )
    start(hub, "leftovers", nodes=2)
    end(hub, "leftovers")
    namespace.nothing_left(base)


def pod_of(
    namespace: Namespace, name: str, labels: dict[str, str], annotations: dict[str, str]
) -> dict[str, Any]:
    """Somebody's pod that never finds a place."""
    limits = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace.name,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "nodeSelector": {"galilean.lab/no-such": "machine"},
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "notebook", "image": "galilean.lab/pause:1", **limits}],
        },
    }


def test_a_forged_pod_is_nobodys_node_and_stays_until_an_administrator_says_otherwise(
    hub: KubeHub, namespace: Namespace
) -> None:
    start(hub, "victim")
    real = namespace.pods(hub.base("victim"))[f"{hub.base('victim')}-0"]["metadata"]
    nobody = names.base_name("bob", "heat")
    extra = f"{hub.base('victim')}-7"
    told = {names.USER: "bob", names.SERVER: "heat"}
    labels = {**real["labels"], names.RUN: "0" * 26, names.CLUSTER: nobody, names.USER: "bob"}
    namespace.apply(
        pod_of(namespace, "mine", real["labels"], real["annotations"]),
        pod_of(namespace, f"{nobody}-0", labels, told),
        pod_of(namespace, extra, {**real["labels"], names.RANK: "7"}, real["annotations"]),
    )
    assert {(item.user, item.run) for item in namespace.inventory()} == {
        ("ada", real["labels"][names.RUN]),
        ("bob", "0" * 26),
    }
    report = hub.sweep()
    assert report.removed == 0
    assert "an administrator" in report.errors[0] or "sweep --remove" in report.errors[0]
    end(hub, "victim")
    assert len(hub.nodes("victim")) == 1

    def left() -> set[str]:
        return set(namespace.kubectl("get", "pods", "-n", namespace.name, "-o", "name").split())

    forged = {f"pod/{nobody}-0", f"pod/{extra}", "pod/mine"}
    eventually(lambda: left() == forged, 20, "only what was forged is left")
    assert hub.sweep(by_hand=True).removed == 2
    assert left() == {"pod/mine"}
    namespace.kubectl("delete", "pod", "mine", "-n", namespace.name, "--grace-period=0", "--force")


# ------------------------------------------------------------------------------------------------------ people


def test_people_of_every_name_have_objects_of_their_own(hub: KubeHub, namespace: Namespace) -> None:
    people = [
        ("al", "ice-b"), ("alice", "b"), ("a-b", "b"), ("a_b", "b"), ("a--b", "b"), ("王五", "b"),
        ("王", "b"), ("ali.ce@example.edu", "b"), ("o'neil $(A)", "b"), ("é", "b"), ("x" * 200, "y" * 30),
    ]  # fmt: skip
    at_once(lambda who: hub.post(who[1], who[0], **SMALL), people)
    for user, server in people:
        hub.runs(server, user)
    bases = {who: names.base_name(*who) for who in people}
    for who, base in bases.items():
        found = namespace.objects(base)
        assert sorted(found) == ["NetworkPolicy", "Pod", "Secret", "Service"]
        assert namespace.execute(f"{base}-0", "printenv", "JUPYTERHUB_USER").rstrip("\n") == who[0]
    seen = {(item.user, item.server) for item in namespace.inventory()}
    assert seen == set(people)
    user, server = people[1]
    hub.delete(server, user)
    hub.closed(server, user)
    left = [
        item for item in namespace.inventory() if item.state != "going"
    ]  # what has ended may be there still
    assert {(item.user, item.server) for item in left} == seen - {people[1]}
    at_once(lambda who: hub.ask_stop(who[1], who[0]), people[:1] + people[2:])
    for user, server in people:
        hub.closed(server, user)
    namespace.nothing_left()


def test_a_person_deleted_and_made_again_gets_nothing_of_the_old_one(
    hub: KubeHub, namespace: Namespace
) -> None:
    def token(user: str) -> str:
        return namespace.execute(f"{hub.base('heat', user)}-0", "printenv", "JUPYTERHUB_API_TOKEN").strip()

    hub.post("heat", "eve", **SMALL)
    hub.runs("heat", "eve")
    first = hub.row("heat", "eve")["id"], token("eve")
    assert hub.api.delete("/users/eve").status_code >= 400  # not while something of theirs runs
    assert hub.ready("heat", "eve")
    hub.delete("heat", "eve")
    hub.closed("heat", "eve")
    answer = hub.api.delete("/users/eve")
    assert answer.status_code == 204, answer.text
    namespace.nothing_left(hub.base("heat", "eve"))
    hub.post("heat", "eve", **SMALL)
    hub.runs("heat", "eve")
    second = hub.row("heat", "eve")["id"], token("eve")
    assert not set(first) & set(second)
    hub.delete("heat", "eve")
    hub.closed("heat", "eve")


def test_a_start_cancelled_at_any_moment_leaves_nothing(hub: KubeHub, namespace: Namespace) -> None:
    moments = [0.0, 0.05, 0.2, 0.5, 1.0, 2.0]
    servers = {f"cancelled-{number}": seconds for number, seconds in enumerate(moments)}

    def cancel(server: str) -> None:
        hub.post(server, nodes=3, **SMALL)
        time.sleep(servers[server])
        hub.ask_stop(server)

    at_once(cancel, servers)
    for server in servers:
        eventually(lambda server=server: not hub.model(server), 30, "the hub has forgotten it")
        assert hub.row(server)["status"] in ("", "released"), server
    namespace.nothing_left()
    assert not hub.routes()


def test_a_registry_that_is_away_is_waited_for_and_told(hub: KubeHub, namespace: Namespace) -> None:
    """The kubelet asks again by itself; whoever does not want to wait releases."""
    base = hub.base("no-registry")

    def waits() -> bool:
        told = namespace.pods(base).get(f"{base}-0", {}).get("status", {}).get("containerStatuses") or [{}]
        return told[0].get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff"

    hub.post("no-registry", **SMALL)
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(hub.progress, "no-registry", seconds=120)
        eventually(waits, 90, "the kubelet waits before it asks again")
        time.sleep(3)  # in which the hub would have given up
        assert not hub.row("no-registry")["released_at"]
        end(hub, "no-registry")
        assert "tried again" in " ".join(said.result())
    namespace.nothing_left(base)


def test_an_image_that_is_being_fetched_is_told(hub: KubeHub, namespace: Namespace, registry: str) -> None:
    sentence = f"waits for the image {registry}/slow:1"
    hub.post("slow", **SMALL)
    told = hub.progress("slow", seconds=120, heard=lambda said: late.set() if sentence in said else None)
    assert sentence in " ".join(told)
    assert "cannot be fetched" in told[-1]
    hub.closed("slow")
    namespace.nothing_left(hub.base("slow"))


def test_an_image_that_does_not_exist_is_told(hub: KubeHub, namespace: Namespace, registry: str) -> None:
    hub.post("no-image", **SMALL)
    said = " ".join(hub.progress("no-image", seconds=90))
    assert f"{registry}/there-is-none:1" in said
    row = hub.closed("no-image")
    assert (row["status"], row["reason"]) == ("failed", "start_failed")
    namespace.nothing_left(hub.base("no-image"))
