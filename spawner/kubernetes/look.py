"""A claim, looked at on machine after machine (CG-37).

A claim may stand for a path that each machine has to mount by itself. Where one did not, its kubelet would make an
empty directory and a run's work would lie below the mount point. Nobody but the machine itself can say, so one small
pod on each reads the mark at the claim's top into its own last words, and is removed. Nothing is written.

The pods carry a label of their own and none of a run's: to watch, meter and sweeper they do not exist. They end by
themselves after :data:`SECONDS`, and what a killed hub left of them the next look removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from spawner.kubernetes.api import APIError, KubeAPI
from spawner.kubernetes.manifests import RESTRICTED_CONTAINER, RESTRICTED_POD
from spawner.kubernetes.troubles import moment

LOOK = "galilean.io/look"
SECONDS = 60
PAUSE_SECONDS = 0.5
_WORD_MOST = 64
_PLACE = "/volume"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is looked at, and by which pods.

    Attributes
    ----------
    claim
        The PersistentVolumeClaim.
    mark
        The file at its top, and its first line, which is the volume's name.
    image, pull_policy, pull_secrets, uid, gid
        As nodes have them.
    """

    claim: str
    mark: str
    volume: str
    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: Sequence[str] = ()
    uid: int = 1000
    gid: int = 1000


@dataclass(frozen=True)
class Seen:
    """What one machine said.

    Attributes
    ----------
    problem
        Empty = it is there; ``absent`` (without its mark), ``other`` (another volume's mark), ``silent`` (nothing was
        said in time) or ``refused`` (no pod could be made).
    why
        More of it, in the words of whoever refused; may be empty.
    """

    problem: str = ""
    why: str = ""


async def look(
    api: KubeAPI,
    wanted: Claim,
    machines: Sequence[str],
    *,
    look_id: str,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> dict[str, Seen]:
    """What each machine has of a claim.

    Parameters
    ----------
    api
        The namespace of nodes.
    wanted
        What is looked at.
    machines
        Their names; none = wherever the scheduler puts one pod, told as the machine ``""``.
    look_id
        A label's value that no other look has.
    now, sleep
        The time.

    Raises
    ------
    APIError
        When the API server cannot be asked at all.
    """
    end = now() + timedelta(seconds=SECONDS)
    await _clear(api, before=now() - timedelta(seconds=2 * SECONDS))
    names = {f"galilean-look-{look_id}-{number}": machine for number, machine in enumerate(machines or [""])}
    seen: dict[str, Seen] = {}
    try:
        for name, machine in names.items():
            try:
                await api.create(pod_of(wanted, name, look_id, namespace=api.namespace, machine=machine))
            except APIError as error:
                seen[machine] = Seen("refused", error.message)
        while len(seen) < len(names) and now() < end:
            await sleep(PAUSE_SECONDS)
            for pod in (await api.list("Pod", f"{LOOK}={look_id}"))[0]:
                found = judge(pod, wanted.volume)
                if found is not None:
                    seen[names[pod["metadata"]["name"]]] = found
    finally:
        await asyncio.shield(_remove(api, names))
    return {machine: seen.get(machine, Seen("silent")) for machine in names.values()}


def judge(pod: Mapping[str, Any], volume: str) -> Seen | None:
    """What a pod found; ``None`` while it has not looked."""
    status = pod.get("status") or {}
    if status.get("reason") == "DeadlineExceeded":
        return Seen("silent")
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return Seen("refused", str(status.get("message") or status.get("reason") or ""))
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended is None:
            continue
        if ended.get("exitCode") != 0:
            return Seen("absent")
        found = str(ended.get("message") or "").strip()
        return Seen() if found == volume else Seen("other", found[:_WORD_MOST])
    return None


def pod_of(wanted: Claim, name: str, look_id: str, *, namespace: str, machine: str) -> dict[str, Any]:
    """A pod that looks; on ``machine`` past the scheduler, which would wait for a cordoned one."""
    amounts = {"cpu": "10m", "memory": "32Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {LOOK: look_id}},
        "spec": {
            **({"nodeName": machine} if machine else {}),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": secret} for secret in wanted.pull_secrets],
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {**RESTRICTED_POD, "runAsUser": wanted.uid, "runAsGroup": wanted.gid},
            "containers": [
                {
                    "name": "look",
                    "image": wanted.image,
                    "imagePullPolicy": wanted.pull_policy,
                    # A directory of the mark's name, or nothing, is no mark.
                    "command": ["sh", "-c", f'head -c {_WORD_MOST} "$0" > /dev/termination-log'],
                    "args": [f"{_PLACE}/{wanted.mark}"],
                    "resources": {"requests": amounts, "limits": amounts},
                    "securityContext": dict(RESTRICTED_CONTAINER),
                    "volumeMounts": [{"name": "claim", "mountPath": _PLACE, "readOnly": True}],
                }
            ],
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": wanted.claim, "readOnly": True}}
            ],
        },
    }


async def _clear(api: KubeAPI, *, before: datetime) -> None:
    for pod in (await api.list("Pod", LOOK, only_metadata=True))[0]:
        made = moment(pod["metadata"].get("creationTimestamp"))
        if made is not None and made < before:
            await api.delete("Pod", pod["metadata"]["name"], grace_seconds=0)


async def _remove(api: KubeAPI, names: Mapping[str, str]) -> None:
    for name in names:
        try:
            await api.delete("Pod", name, grace_seconds=0)
        except (APIError, OSError, TimeoutError):  # it ends by itself, and the next look removes it
            continue
