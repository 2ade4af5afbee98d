"""``~/scratch`` of a container: a volume of Docker's own, which goes with the container.

It lies on Docker's own disk, beside the container's layer but outside of it: no copy-on-write, and nothing of it in
an image that is saved of the node. Docker makes such a volume as root's, so it is handed to the node's account before
the container starts. Whoever removes the container removes it as well (``v=True``); what somebody else's hand left of
one is found by its labels.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any

from spawner.docker import names
from spawner.docker.api import APIError, Client, NotFound
from spawner.node.home import SCRATCH

Body = dict[str, Any]


def mount(home: str, labels: Mapping[str, str]) -> Body:
    """The volume, as it stands in a container's ``Mounts``; without a name, so that it goes with the container."""
    return {
        "Type": "volume",
        "Target": f"{home}/{SCRATCH}",
        "VolumeOptions": {"NoCopy": True, "Labels": dict(labels)},
    }


def hand_over(client: Client, container_id: str, body: Mapping[str, Any]) -> None:
    """Give the volume of a container that was not started yet to the container's account.

    Parameters
    ----------
    client, container_id
        The daemon, and the container.
    body
        What it was made from; of an older version, which knew no scratch space, nothing is done.
    """
    home = body["WorkingDir"]
    if not any(item["Target"] == f"{home}/{SCRATCH}" for item in body["HostConfig"]["Mounts"]):
        return
    uid, _, gid = str(body["User"]).partition(":")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        folder = tarfile.TarInfo(SCRATCH)
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o700, int(uid), int(gid or uid)
        archive.addfile(folder)
    client.put_archive(container_id, home, content.getvalue())


def remove_volumes(client: Client, instance: str, base: str) -> None:
    """Remove the volumes of a cluster that has no container any more."""
    for name in volumes(client, instance, base):
        try:
            client.remove_volume(name)
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != 409:  # in use after all: it goes with its container
                raise


def volumes(client: Client, instance: str, base: str) -> list[str]:
    """The volumes of a cluster."""
    chosen = [f"{names.INSTANCE}={instance}", f"{names.CLUSTER}={base}"]
    found = client.volumes(filters={"label": chosen}).get("Volumes") or []
    return [str(item["Name"]) for item in found]
