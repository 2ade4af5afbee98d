"""What a pod's own status says, in words: has it its place, does it answer, what keeps it, how did it end.

Pure functions of the pod as the API server gives it. A *trouble* is a sentence for the run's owner and
whether waiting can still help: a machine without room may get room, an image whose name cannot be will
never be pulled. The kubelet says *ImagePullBackOff* of both an image that is nowhere and a registry that
hiccups, and asks again by itself: only what a registry says of this very image is final. The scheduler's own sentence counts machines; people want to know what is short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from galilean.errors import mark
from spawner.image_faults import NO_NODE_SIDE, lacking
from spawner.kubernetes.spec import HTTP_PORT

Pod = Mapping[str, Any]

_SHORT = re.compile(r"Insufficient (\S+?)\.?(?=[,\s]|$)")
#: No registry is asked, or what it gave is not what it has to be: asked again, the answer is the same.
_IMAGE_FINAL = frozenset({"ErrImageNeverPull", "InvalidImageName", "SignatureValidationFailed"})
_IMAGE_LATER = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
#: What a registry, or the way there, says of itself; before everything else, for one sentence may name both.
_PASSING = re.compile(
    r"time(?:d )?out|deadline ?exceeded|connection (?:refused|reset)|broken pipe|no such host|server misbehaving"
    r"|temporary failure|too ?many ?requests|rate limit|\bunavailable\b|\bEOF\b|no route to host"
    r"|network is unreachable|tls handshake|\b5\d\d (?:internal|bad|service|gateway)|status(?: code)?:? 5\d\d",
    re.IGNORECASE,
)
#: What it says of the image.
_REFUSED = re.compile(
    r"not found|manifest unknown|name unknown|unauthorized|authentication required|no basic auth credentials"
    r"|insufficient_scope|\bdenied\b|forbidden|unauthenticated|invalid reference|repository does not exist"
    r"|no match for platform",
    re.IGNORECASE,
)
#: Names of images and addresses, which may be made of any of these words.
_NAMES = re.compile(r'"[^"]*"|\S+/\S+')
_BACK_OFF = re.compile(r'^Back-off pulling image(?: "[^"]*")?:?\s*(?:ErrImagePull:|RegistryUnavailable:)?\s*')
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
_PULL_LATER = mark("The image {image} cannot be fetched for node {rank} yet; it is tried again: {why}")
PULLING = mark(
    "Node {rank} waits for the image {image}, which is being fetched. The first time on a machine that takes minutes."
)
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


def trouble(pod: Pod, before: Trouble | None = None) -> Trouble | None:
    """What keeps the node from answering; ``None`` when nothing is known to.

    ``before`` is what was found the last time: a kubelet that waits before it asks a registry again may not repeat why.
    """
    end = ended(pod)
    if end is not None:
        if "deletionTimestamp" in pod["metadata"]:
            return Trouble(_REMOVED, {"how": end.reason}, final=True)
        log = _terminated(pod).get("message", "") or pod["status"].get("message", "")
        if what := lacking(log):
            return Trouble(NO_NODE_SIDE, {"lacking": what}, final=True)
        return Trouble(_ENDED, {"how": end.reason, "log": log.strip()[-_TEXT:]}, final=True)
    if not is_placed(pod):
        return _unplaced(pod)
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason, why = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_FINAL | _IMAGE_LATER:
            return _no_image(container.get("image", ""), reason, why.strip(), before)
        if reason in _CONTAINER_FINAL:
            if what := lacking(why):
                return Trouble(NO_NODE_SIDE, {"lacking": what}, final=True)
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


def _no_image(image: str, reason: str, said: str, before: Trouble | None) -> Trouble:
    if reason in _IMAGE_FINAL:
        return Trouble(_PULL_FAILED, {"image": image, "why": (said or reason)[:_TEXT]}, final=True)
    text = _BACK_OFF.sub("", said)
    waits = reason == "ImagePullBackOff"
    if waits and not text and before is not None and before.message in (_PULL_FAILED, _PULL_LATER):
        return replace(before, final=before.message == _PULL_FAILED)
    plain = _NAMES.sub(" ", text.replace(image, " ") if image else text)
    passing, refused = _PASSING.search(plain), _REFUSED.search(plain)
    if refused is not None and passing is None:
        # The first time it is only told: the kubelet asks once more before it waits.
        return Trouble(_PULL_FAILED, {"image": image, "why": refused.group().lower()}, final=waits)
    parts = [part.strip() for part in plain.split(": ")]
    short = next((part for part in parts if passing and _PASSING.search(part)), text or reason)
    return Trouble(_PULL_LATER, {"image": image, "why": " ".join(short.split())[:_TEXT]})


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
