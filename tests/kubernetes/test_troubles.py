"""What a pod's status means, as a table; statuses are as real API servers give them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from spawner.kubernetes.troubles import Ended, ended, is_placed, is_ready, shortage, trouble, url

AT = "2026-11-22T10:00:00Z"
THEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


def pod(status: dict[str, Any], *, node: str = "m1", deleting: bool = False) -> dict[str, Any]:
    metadata = {"name": "p"} | ({"deletionTimestamp": AT} if deleting else {})
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return pod({"phase": "Pending", "conditions": [condition]}, node="")


def waiting(reason: str, message: str = "", image: str = "example.edu/j:1") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"name": "notebook", "image": image, "state": state}
    return pod({"phase": "Pending", "containerStatuses": [container]})


def terminated(reason: str, code: int, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"terminated": {"reason": reason, "exitCode": code, "finishedAt": AT, "message": message}}
    return pod({"phase": "Failed", "containerStatuses": [{"name": "notebook", "state": state}]}, **more)


def disrupted(reason: str) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": AT}
    return pod({"phase": "Failed", "conditions": [condition]})


RUNNING = pod({"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]})


@pytest.mark.parametrize(
    ("seen", "said", "final"),
    [
        (
            unscheduled(
                "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes"
            ),
            "no machine has enough CPU, memory free",
            False,
        ),
        (unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "enough GPU free", False),
        (
            unscheduled("0/1 nodes are available: 1 Insufficient ephemeral-storage, 1 Insufficient cpu."),
            "enough local storage, CPU free",
            False,
        ),
        (
            unscheduled(
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: none"
            ),
            "didn't match Pod's node affinity/selector.",
            False,
        ),
        (unscheduled('persistentvolumeclaim "projects" not found'), '"projects" not found', False),
        (unscheduled("", "SchedulingGated"), "waits for its turn in the cluster's queue", False),
        (
            waiting(
                "ErrImagePull", "rpc error: code = NotFound desc = failed to pull: example.edu/j:1: not found"
            ),
            "The image example.edu/j:1 cannot be fetched for node 1: not found",
            False,
        ),
        (waiting("ImagePullBackOff", 'Back-off pulling image "x": unauthorized'), "unauthorized", True),
        (waiting("InvalidImageName", "couldn't parse image name"), "couldn't parse", True),
        (waiting("ErrImageNeverPull"), "ErrImageNeverPull", True),
        (waiting("CreateContainerConfigError", 'secret "s" not found'), 'secret "s" not found', True),
        (waiting("RunContainerError", "no such file"), "no such file", True),
        (terminated("Error", 1, "Traceback\nKeyError: 'X'\n"), "(exited 1). Its log says: Traceback", True),
        (terminated("OOMKilled", 137), "(out of memory)", True),
        (terminated("Error", 143, deleting=True), "removed from outside before it answered (killed by", True),
    ],
)
def test_a_trouble_is_told_in_words(seen: dict[str, Any], said: str, final: bool) -> None:
    found = trouble(seen)
    assert found is not None
    assert said in found.message.format(rank=1, **found.params)
    assert found.final is final


REGISTRY = (
    'failed to pull and unpack image "r.edu/denied/503:1": failed to resolve reference "r.edu/denied/503:1": '
)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            REGISTRY
            + 'failed to do request: Head "https://r.edu/v2/denied/503/manifests/1": dial tcp 192.0.2.1:443: '
            "i/o timeout",
            "timeout",
        ),
        (
            REGISTRY + "unexpected status from HEAD request to https://r.edu/v2/x: 503 Service Unavailable",
            "503 Service",
        ),
        (REGISTRY + "unexpected status code 500 Internal Server Error", "500"),
        (REGISTRY + "dial tcp: lookup r.edu on 10.96.0.10:53: no such host", "no such host"),
        (REGISTRY + "dial tcp: lookup r.edu on 10.96.0.10:53: server misbehaving", "server misbehaving"),
        (
            REGISTRY + "429 Too Many Requests - Server message: toomanyrequests: You have reached your limit",
            "429 Too",
        ),
        (REGISTRY + "dial tcp 192.0.2.1:443: connect: connection refused", "connection refused"),
        (REGISTRY + "net/http: TLS handshake timeout", "TLS handshake timeout"),
        (REGISTRY + "context deadline exceeded", "context deadline exceeded"),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", "Unavailable"),
        (REGISTRY + "something that nobody has seen yet", "nobody has seen yet"),
        ("", "ImagePullBackOff"),
    ],
)
def test_a_registry_that_hiccups_is_waited_for_and_told_of(said: str, why: str) -> None:
    later = []
    for reason, message in (
        ("ErrImagePull", said),
        (
            "ImagePullBackOff",
            f'Back-off pulling image "r.edu/denied/503:1": ErrImagePull: {said}' if said else "",
        ),
    ):
        found = trouble(waiting(reason, message, image="r.edu/denied/503:1"))
        assert found is not None
        assert not found.final
        assert "it is tried again" in found.message
        later.append(found)
    assert why in later[1].params["why"]
    if said:
        assert later[0] == later[1], "told once"


@pytest.mark.parametrize(
    "said",
    [
        REGISTRY + "r.edu/timeout/503:1: not found",
        REGISTRY
        + "pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed",
        REGISTRY
        + "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to "
        "https://r.edu/token?service=timeout: 401 Unauthorized",
        REGISTRY + "unexpected status from HEAD request to https://r.edu/v2/unavailable/x: 403 Forbidden",
        "manifest unknown: manifest unknown",
        REGISTRY + "no match for platform in manifest",
    ],
)
@pytest.mark.parametrize("told_again", [True, False])
def test_what_a_registry_says_of_the_image_itself_is_final_when_it_said_so_twice(
    said: str, told_again: bool
) -> None:
    first = trouble(waiting("ErrImagePull", said, image="r.edu/timeout/503:1"))
    assert first is not None and not first.final
    back_off = 'Back-off pulling image "r.edu/timeout/503:1"' + (
        f": ErrImagePull: {said}" if told_again else ""
    )
    second = trouble(waiting("ImagePullBackOff", back_off, image="r.edu/timeout/503:1"), first)
    assert second is not None and second.final
    assert second.params == first.params


def test_a_kubelet_that_does_not_say_why_it_waits_gives_up_nothing() -> None:
    before = trouble(waiting("ErrImagePull", "dial tcp: i/o timeout"))
    for known in (before, None, trouble(unscheduled("1 Insufficient cpu"))):
        found = trouble(waiting("ImagePullBackOff", 'Back-off pulling image "example.edu/j:1"'), known)
        assert found is not None and not found.final


@pytest.mark.parametrize(
    "seen",
    [
        RUNNING,
        pod({"phase": "Pending"}, node=""),
        pod({}, node=""),
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        pod({"phase": "Pending", "containerStatuses": None, "conditions": None}),
    ],
)
def test_what_is_on_its_way_is_no_trouble(seen: dict[str, Any]) -> None:
    assert trouble(seen) is None
    assert ended(seen) is None


@pytest.mark.parametrize(
    ("seen", "end"),
    [
        (terminated("Completed", 0), Ended("exited 0", THEN)),
        (terminated("Error", 1), Ended("exited 1", THEN)),
        (terminated("Error", 137), Ended("killed by signal 9", THEN)),
        (terminated("OOMKilled", 137), Ended("out of memory", THEN)),
        (terminated("ContainerStatusUnknown", 137), Ended("machine lost", THEN)),
        (disrupted("PreemptionByScheduler"), Ended("preempted", THEN)),
        (disrupted("DeletionByTaintManager"), Ended("machine lost", THEN)),
        (disrupted("EvictionByEvictionAPI"), Ended("drained", THEN)),
        (disrupted("SomethingNew"), Ended("evicted", THEN)),
        (
            pod({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            Ended("evicted: The node was low on resource: memory."),
        ),
        (pod({"phase": "Failed", "reason": "NodeLost"}), Ended("machine lost")),
        (pod({"phase": "Running"}, deleting=True), Ended("deleted")),
        (pod({"phase": "Succeeded"}), Ended("ended")),
    ],
)
def test_an_end_has_its_reason_and_its_moment(seen: dict[str, Any], end: Ended) -> None:
    assert ended(seen) == end


def test_ready_means_answers_and_stays() -> None:
    assert is_ready(RUNNING)
    assert is_placed(RUNNING)
    assert url(RUNNING) == "http://10.0.0.7:8888"
    assert not is_ready({**RUNNING, "metadata": {"deletionTimestamp": AT}})
    assert not is_ready(pod({"phase": "Running", "podIP": "10.0.0.7", "conditions": []}))
    assert not is_ready(pod({"phase": "Pending"}))


def test_an_address_of_the_new_kind_is_bracketed() -> None:
    assert url(pod({"podIP": "fd00::7"})) == "http://[fd00::7]:8888"


def test_a_shortage_is_named_once() -> None:
    assert shortage("1 Insufficient cpu, 3 Insufficient cpu") == ["CPU"]
    assert shortage("1 Insufficient example.edu/licence") == ["example.edu/licence"]
    assert shortage("1 node(s) had untolerated taint") == []
