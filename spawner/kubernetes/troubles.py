"""What a pod's own status says, in words: has it its place, does it answer, what keeps it, how did it end.

Pure functions of the pod as the API server gives it. A *trouble* is a sentence for the run's owner and
whether waiting can still help: a machine without room may get room, an image whose name cannot be will
never be pulled. The scheduler's own sentence counts machines; people want to know what is short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from galilean.errors import mark
from spawner.kubernetes.spec import HTTP_PORT

Pod = Mapping[str, Any]

_SHORT = re.compile(r"Insufficient (\S+?)\.?(?=[,\s]|$)")
_IMAGE_FINAL = frozenset({"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
_IMAGE_FIRST = frozenset({"ErrImagePull", "RegistryUnavailable"})
_CONTAINER_FINAL = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)
_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted",
    "DeletionByTaintManager": "machine lost",
    "DeletionByPodGC": "machine lost",
    "EvictionByEvictionAPI": "drained",
    "TerminationByKubelet": "evicted",
}
_TEXT = 400

_NO_ROOM = mark("Node {rank} waits for a place: no machine has enough {short} free.")
_NO_MACHINE = mark("Node {rank} waits for a place: {why}")
_IN_QUEUE = mark("Node {rank} waits for its turn in the cluster's queue.")
_PULL_FAILED = mark("The image {image} cannot be fetched for node {rank}: {why}")
_NOT_MADE = mark("Node {rank} cannot be started: {why}")
_ENDED = mark("Node {rank} ended before it answered ({how}). Its log says: {log}")
_REMOVED = mark("Node {rank} was removed from outside before it answered ({how}).")


@dataclass(frozen=True)
class Trouble:
    """Why a node does not answer yet.

    Attributes
    ----------
    message, params
        English sentence over ``params`` and ``rank``, and gettext id.
    final
        Whether no waiting can help.
    """

    message: str
    params: Mapping[str, Any] = field(default_factory=dict)
    final: bool = False


@dataclass(frozen=True)
class Ended:
    """How and when a pod ended; ``at`` is UTC, ``None`` = the pod does not say."""

    reason: str
    at: datetime | None = None


def moment(text: str | None) -> datetime | None:
    """A time of the API server."""
    return datetime.fromisoformat(text) if text else None


def is_placed(pod: Pod) -> bool:
    """Whether the pod has its machine."""
    return bool(machine(pod))


def machine(pod: Pod) -> str:
    """The machine's name; empty before there is one."""
    return pod.get("spec", {}).get("nodeName", "")


def is_up(pod: Pod) -> bool:
    """Whether the node runs and has its address; it may not answer yet."""
    status = pod.get("status", {})
    return (
        status.get("phase") == "Running"
        and bool(status.get("podIP"))
        and "deletionTimestamp" not in pod["metadata"]
    )


def is_ready(pod: Pod) -> bool:
    """Whether the node answers on its own URL, which its startup probe asks."""
    return is_up(pod) and _condition(pod, "Ready").get("status") == "True"


def url(pod: Pod) -> str:
    """Where the node answers: scheme, host and port."""
    address = pod["status"]["podIP"]
    return f"http://[{address}]:{HTTP_PORT}" if ":" in address else f"http://{address}:{HTTP_PORT}"


def is_over(pod: Pod) -> bool:
    """Whether nothing of the pod runs any more."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_put_away(pod: Pod) -> bool:
    """Whether nothing of the pod runs any more and it is on its way out."""
    return is_over(pod) and "deletionTimestamp" in pod["metadata"]


def ended(pod: Pod) -> Ended | None:
    """How the pod ended; ``None`` while it lives.

    A pod that somebody is deleting counts as ended: nothing keeps it from ending.
    """
    status = pod.get("status", {})
    over = is_over(pod)
    going = "deletionTimestamp" in pod["metadata"]
    if not over and not going:
        return None
    last = _terminated(pod)
    disruption = _condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True":
        reason = _DISRUPTIONS.get(disruption.get("reason", ""), "evicted")
        at = moment(last.get("finishedAt")) or moment(disruption.get("lastTransitionTime"))
        return Ended(reason, at)
    if status.get("reason") == "Evicted":
        return Ended(
            f"evicted: {status.get('message', '')}"[:120].rstrip(": "), moment(last.get("finishedAt"))
        )
    if status.get("reason") in ("NodeLost", "NodeShutdown", "Terminated"):
        return Ended("machine lost", moment(last.get("finishedAt")))
    if last:
        return Ended(_exit_reason(last), moment(last.get("finishedAt")))
    return Ended("deleted" if going else "ended")


def trouble(pod: Pod) -> Trouble | None:
    """What keeps the node from answering; ``None`` when nothing is known to."""
    end = ended(pod)
    if end is not None:
        if "deletionTimestamp" in pod["metadata"]:
            return Trouble(_REMOVED, {"how": end.reason}, final=True)
        log = _terminated(pod).get("message", "") or pod["status"].get("message", "")
        return Trouble(_ENDED, {"how": end.reason, "log": log.strip()[-_TEXT:]}, final=True)
    if not is_placed(pod):
        return _unplaced(pod)
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason, why = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_FINAL | _IMAGE_FIRST:
            params = {"image": container.get("image", ""), "why": _why_no_image(reason, why)}
            return Trouble(_PULL_FAILED, params, final=reason in _IMAGE_FINAL)
        if reason in _CONTAINER_FINAL:
            return Trouble(_NOT_MADE, {"why": (why or reason)[:_TEXT]}, final=True)
    return None


def shortage(message: str) -> list[str]:
    """What is short by the scheduler's sentence, in words, without repetition."""
    found: list[str] = []
    for resource in _SHORT.findall(message):
        word = _resource_word(resource)
        if word not in found:
            found.append(word)
    return found


# --------------------------------------------------------------------------------------------------- parts


def _unplaced(pod: Pod) -> Trouble | None:
    condition = _condition(pod, "PodScheduled")
    if condition.get("status") != "False":
        return None
    if condition.get("reason") == "SchedulingGated":
        return Trouble(_IN_QUEUE)
    message = condition.get("message", "")
    short = shortage(message)
    if short:
        return Trouble(_NO_ROOM, {"short": ", ".join(short)})
    return Trouble(_NO_MACHINE, {"why": message.partition(" preemption:")[0][:_TEXT]})


def _resource_word(resource: str) -> str:
    plain = {"cpu": "CPU", "memory": "memory", "ephemeral-storage": "local storage", "pods": "room for pods"}
    if resource in plain:
        return plain[resource]
    return "GPU" if resource.endswith("/gpu") else resource


def _why_no_image(reason: str, why: str) -> str:
    """The registry's own words without the layers around them."""
    text = why.strip()
    for known in (
        "not found",
        "manifest unknown",
        "unauthorized",
        "denied",
        "no such host",
        "connection refused",
    ):
        if known in text:
            return known
    return (text or reason)[:_TEXT]


def _condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((item for item in conditions if item.get("type") == kind), {})


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated(pod: Pod) -> Mapping[str, Any]:
    """How the node's own container ended."""
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container.get("name") == "notebook":
            return container.get("state", {}).get("terminated") or {}
    return {}


def _exit_reason(terminated: Mapping[str, Any]) -> str:
    reason, code = terminated.get("reason", ""), terminated.get("exitCode", 0)
    if reason == "OOMKilled":
        return "out of memory"
    if reason == "ContainerStatusUnknown":
        return "machine lost"
    if code > 128:
        return f"killed by signal {code - 128}"
    return f"exited {code}"
