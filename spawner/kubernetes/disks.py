"""Disks on Kubernetes: a claim each, made by the first run that mounts it and gone when the disk is deleted.

Its name follows from the disk's id alone, which is never used twice: there already is success, whoever was killed in the
middle, and what is deleted is named rather than looked for. It belongs to no run: neither the label of runs nor an owner is
on it, so no inventory, sweeper or collector takes it for something of theirs, and it outlives every pod.

How it may be mounted is the class's: ``ReadWriteOnce`` bears pods of one machine, so readers on several machines need
a class that bears them (``ReadWriteMany``). What Kubernetes cannot attach keeps the start from placing its nodes, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galilean.amounts import GIB
from spawner.kubernetes.api import KubeAPI
from spawner.labels import DISK

KIND = "PersistentVolumeClaim"


def claim_name(disk_id: str) -> str:
    """The name of a disk's claim."""
    return f"galilean-disk-{disk_id.lower()}"


def claim(disk_id: str, size_bytes: int, *, storage_class: str, access_mode: str) -> Mapping[str, Any]:
    """The claim of a disk."""
    return {
        "apiVersion": "v1",
        "kind": KIND,
        "metadata": {"name": claim_name(disk_id), "labels": {DISK: disk_id}},
        "spec": {
            "accessModes": [access_mode],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": f"{size_bytes // GIB}Gi"}},
        },
    }


async def remove(api: KubeAPI, disk_id: str) -> None:
    """Delete the claim of a disk, and by its class's policy what is on it; none is success."""
    await api.delete(KIND, claim_name(disk_id))
