"""Backup and restore of an installation on Kubernetes, by the steps of ``docs/how-to/restore.md``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.installed import RELEASE, Installed
from tests.lab.kubernetes import Kubernetes
from tests.postgres import PostgresServer
from tests.product.product import wait_for

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]
PARTS = f"app.kubernetes.io/instance={RELEASE}"
POD = f"{RELEASE}-restore"


@pytest.fixture(params=["postgresql", "sqlite"])
def product(
    request: pytest.FixtureRequest, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    from tests.lab.lab import GATEWAY

    place = tmp_path_factory.mktemp("backup")
    for folder in (place, *place.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    server, values = None, {}
    if request.param == "postgresql":
        (place / "postgres").mkdir()
        server = PostgresServer(place / "postgres", more=(GATEWAY,))
        server.start()
        urls = {"url": server.create_database("galilean"), "hubUrl": server.create_database("hub")}
        values = {"database": {key: url.replace("127.0.0.1", GATEWAY) for key, url in urls.items()}}
    site = Installed(kubernetes, f"t{os.getpid()}-backup-{request.param}", place / "site", values)
    try:
        site.install()
        yield site
    finally:
        site.close()
        if server is not None:
            server.stop()


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
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    if out is not None:
        out.write_bytes(done.stdout)
    return "" if out is not None else done.stdout.decode()


def scale(product: Installed, replicas: int) -> None:
    product.kubectl("scale", "deploy", "-l", PARTS, f"--replicas={replicas}")


def restore_pod(product: Installed) -> dict[str, object]:
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


def test_a_backup_from_the_hubs_pod_is_restored_by_the_steps_of_the_how_to(
    product: Installed, tmp_path: Path
) -> None:
    ada = product.person("ada", "researcher")
    slug = ada.project("Before")
    ada.portal("PUT", f"/projects/ada/{slug}/files/result.txt", content=b"42").raise_for_status()
    file = tmp_path / "backup.tar.gz"
    kubectl(product, "exec", f"deploy/{RELEASE}-hub", "-c", "hub", "--", "galilean", "backup", "-", out=file)
    ada.project("After")
    refused = product.command("restore", "-", "--replace", code=1)
    assert "Restored" not in refused

    scale(product, 0)
    wait_for(lambda: not product.pods(PARTS), "nothing runs", seconds=120)
    product.kubectl("apply", "-f", "-", stdin=json.dumps(restore_pod(product)))
    product.kubectl("wait", "pod", POD, "--for=condition=Ready", "--timeout=120s")
    said = kubectl(product, "exec", "-i", POD, "--", "galilean", "restore", "-", "--replace", file=file)
    assert "all 1 projects are there" in said
    assert "GALILEAN_SECRETS" in said
    product.kubectl("delete", "pod", POD, "--wait=true", "--grace-period=1")
    scale(product, 1)
    wait_for(lambda: all(map(product.ready, ("hub", "portal", "proxy"))), "it runs again", seconds=180)

    def names() -> set[str]:
        items = ada.portal("GET", "/projects").raise_for_status().json()["items"]
        return {item["name"] for item in items}

    assert wait_for(names, "the token of before is good still", seconds=60) == {"Before"}
    assert ada.portal("GET", f"/projects/ada/{slug}/files/result.txt").content == b"42"
