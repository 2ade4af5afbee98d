"""The steps of ``docs/how-to/restore.md`` on Kubernetes, as an administrator goes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.chart.installed import RELEASE, Installed
from tests.lab.waiting import wait_for
from tests.product.product import Person

PARTS = f"app.kubernetes.io/instance={RELEASE}"
POD = f"{RELEASE}-restore"


def backed_up_and_restored(product: Installed, person: Person, file: Path) -> None:
    """A backup from the hub's pod brings back what was there when it was made, and nothing of later."""
    slug = person.project("Before")
    person.portal("PUT", f"/projects/{person.name}/{slug}/files/result.txt", content=b"42").raise_for_status()
    kubectl(product, "exec", f"deploy/{RELEASE}-hub", "-c", "hub", "--", "galilean", "backup", "-", out=file)
    person.project("After")
    refused = product.command("restore", "-", "--replace", code=1)
    assert "Restored" not in refused

    scale(product, 0)
    wait_for(lambda: not product.pods(PARTS), "nothing runs", seconds=120)
    product.kubectl("apply", "-f", "-", stdin=json.dumps(restore_pod(product)))
    product.kubectl("wait", "pod", POD, "--for=condition=Ready", "--timeout=480s")
    said = kubectl(product, "exec", "-i", POD, "--", "galilean", "restore", "-", "--replace", file=file)
    assert re.search(r"all \d+ projects are there", said), said
    assert "GALILEAN_SECRETS" in said
    product.kubectl("delete", "pod", POD, "--wait=true", "--grace-period=1")
    scale(product, 1)
    wait_for(lambda: all(map(product.ready, ("hub", "portal", "proxy"))), "it runs again", seconds=180)

    def names() -> set[str]:
        items = person.portal("GET", "/projects").raise_for_status().json()["items"]
        return {item["name"] for item in items}

    assert wait_for(names, "the token of before is good still", seconds=60) == {"Before"}
    kept = person.portal("GET", f"/projects/{person.name}/{slug}/files/result.txt")
    assert kept.content == b"42"


def kubectl(product: Installed, *words: str, file: Path | None = None, out: Path | None = None) -> str:
    """As ``Installed.kubectl``, for bytes that are no text."""
    from tests.lab.build import build

    config = product.kubernetes.directory / "pki" / "admin.kubeconfig"
    with file.open("rb") if file else open(os.devnull, "rb") as source:
        done = subprocess.run(
            [
                *(str(build() / "lab"), "kubectl", "--kubeconfig", str(config)),
                *("--namespace", product.namespace, *words),
            ],
            stdin=source,
            capture_output=True,
            timeout=480,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    if out is not None:
        out.write_bytes(done.stdout)
    return "" if out is not None else done.stdout.decode()


def scale(product: Installed, replicas: int) -> None:
    product.kubectl("scale", "deploy", "-l", PARTS, f"--replicas={replicas}")


def restore_pod(product: Installed) -> dict[str, Any]:
    """What the jq program of the how-to makes of the hub's Deployment."""
    template = product.get("deploy", f"{RELEASE}-hub")["spec"]["template"]
    spec, label = template["spec"], "galilean.io/state"
    spec.pop("initContainers", None)
    kept = ("name", "image", "imagePullPolicy", "env", "securityContext", "volumeMounts")
    container = {key: spec["containers"][0][key] for key in kept if key in spec["containers"][0]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "labels": {label: template["metadata"]["labels"][label]}},
        "spec": {
            **spec,
            "restartPolicy": "Never",
            "containers": [{**container, "command": ["sleep", "86400"]}],
        },
    }
