"""Kueue in the lab: its manager as a pod, its own manifests, its webhooks for one namespace only.

A module of its own beside the lab's programs, for not everybody who tests needs it and it takes minutes to
build. Made against the lab's version of the Kubernetes libraries, so that what is compiled for the lab is
not compiled again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.lab.build import cache_base
from tests.lab.images import load, static_image

SOURCES = Path(__file__).parent / "kueue_go"
MODULE = "sigs.k8s.io/kueue"
NAMESPACE = "kueue-system"
_WEBHOOKS = {"pod.kb.io", "clusterqueue.kb.io", "cohort.kb.io", "resourceflavor.kb.io", "workload.kb.io"}
_CHANGES = (
    (
        "pkg/visibility/server.go",
        ("k8s.io/component-base/version", "k8s.io/component-base/compatibility"),
        ("NewEffectiveVersion(version)", 'NewEffectiveVersionFromString(version, "", "")'),
    ),
    ("pkg/features/kube_features.go", ("featuregate.Deprecated", "featuregate.Beta")),
)
_LET_GO = '{"metadata": {"finalizers": null}}'
_CONFIG = """
apiVersion: config.kueue.x-k8s.io/v1beta1
kind: Configuration
health: {healthProbeBindAddress: ":8081"}
metrics: {bindAddress: ":8443"}
webhook: {port: 9443}
leaderElection: {leaderElect: false}
clientConnection: {qps: 200, burst: 400}
integrations: {frameworks: [pod]}
"""


def build_kueue() -> Path:
    """The manager, built if it is not there (minutes, once)."""
    digest = hashlib.sha256()
    digest.update(subprocess.run(["go", "version"], capture_output=True, check=True).stdout)
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    digest.update(repr(_CHANGES).encode())
    folder = cache_base() / "kueue" / digest.hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "manager"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            began = time.monotonic()
            print("lab: building kueue …", flush=True)
            part = folder / "manager.part"
            # Static by the linker alone: without cgo, all that the lab compiled would be compiled again.
            link = "-s -w -linkmode external -extldflags -static"
            where = _newer(folder)
            command = ["go", "build", "-trimpath", "-ldflags", link, "-o", str(part), f"{MODULE}/cmd/kueue"]
            subprocess.run(command, cwd=where, check=True)
            shutil.rmtree(where)
            part.rename(target)
            print(f"lab: built kueue in {time.monotonic() - began:.0f} s", flush=True)
    return target


def _newer(folder: Path) -> Path:
    """A copy of everything, the files put right that the lab's Kubernetes libraries are too new for."""
    copy = folder / "sources"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(SOURCES, copy)
    shutil.copytree(_module(), copy / "module")
    for path, *changes in _CHANGES:
        file = copy / "module" / path
        for there in (file, file.parent):
            there.chmod(there.stat().st_mode | 0o200)
        text = file.read_text(encoding="utf-8")
        for old, new in changes:
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    subprocess.run(["go", "mod", "edit", f"-replace={MODULE}=./module"], cwd=copy, check=True)
    return copy


def _module() -> Path:
    subprocess.run(["go", "mod", "download", MODULE], cwd=SOURCES, check=True)
    found = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", MODULE],
        cwd=SOURCES, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Path(found.stdout.strip())


def manifests(kubectl: Callable[..., str], image: str, namespace: str) -> list[dict[str, Any]]:
    """Kueue's own manifests; its pod webhook looks at one namespace alone."""
    found = [
        item
        for item in yaml.safe_load_all(kubectl("kustomize", str(_module() / "config" / "default")))
        if item
    ]
    return [_adapted(item, image, namespace) for item in found if item["kind"] != "APIService"]


def _adapted(item: dict[str, Any], image: str, namespace: str) -> dict[str, Any]:
    kind = item["kind"]
    if kind == "ConfigMap":
        item["data"] = {"controller_manager_config.yaml": _CONFIG}
    elif kind == "Deployment":
        spec = item["spec"]["template"]["spec"]
        spec["securityContext"]["runAsUser"] = 1000
        container = spec["containers"][0]
        container |= {"image": image, "imagePullPolicy": "Never"}
        container["env"] = [{"name": "GODEBUG", "value": "netdns=go"}]
        container["args"].append("--feature-gates=VisibilityOnDemand=false")
        container["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
        container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
    elif kind.endswith("WebhookConfiguration"):
        item["webhooks"] = [hook for hook in item["webhooks"] if hook["name"][1:] in _WEBHOOKS]
        for hook in item["webhooks"]:
            if hook["name"][1:] == "pod.kb.io":
                hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return item


def queue(namespace: str, name: str, amounts: dict[str, str]) -> list[dict[str, Any]]:
    """A queue of this name in the namespace, from which no more than these amounts are lent at a time."""
    api = "kueue.x-k8s.io/v1beta1"
    return [
        {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {
            "apiVersion": api,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [
                    {
                        "coveredResources": list(amounts),
                        "flavors": [
                            {
                                "name": name,
                                "resources": [
                                    {"name": resource, "nominalQuota": amount}
                                    for resource, amount in amounts.items()
                                ],
                            }
                        ],
                    }
                ],
            },
        },
        {
            "apiVersion": api,
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterQueue": name},
        },
    ]


@contextmanager
def kueue(
    kubectl: Callable[..., str], directory: Path, namespace: str, name: str, amounts: dict[str, str]
) -> Iterator[None]:
    """Kueue and one queue, in the lab at ``directory``; everything of it is gone at the end."""
    program = build_kueue()
    archive = directory / "kueue.tar"
    image = f"galilean.lab/kueue:{program.parent.name}"
    static_image(program, image, archive)
    load(directory, archive)
    archive.unlink()
    everything = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": manifests(kubectl, image, namespace)}
    )
    queues = json.dumps({"apiVersion": "v1", "kind": "List", "items": queue(namespace, name, amounts)})
    try:
        kubectl("apply", "--server-side", "-f", "-", stdin=everything)
        kubectl("rollout", "status", "-n", NAMESPACE, "deployment/kueue-controller-manager", "--timeout=100s")
        deadline = time.monotonic() + 60
        while True:  # its webhooks answer a moment after it says that it is ready
            try:
                kubectl("apply", "-f", "-", stdin=queues)
                break
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield
    finally:
        for pod in kubectl("get", "pods", "-n", namespace, "-o", "name", check=False).split():
            # What Kueue holds on to, nobody could delete without it.
            kubectl("patch", "-n", namespace, pod, "--type=merge", "-p", _LET_GO, check=False)
        kubectl(
            "delete",
            "-f",
            "-",
            "--ignore-not-found",
            "--wait=true",
            "--timeout=30s",
            stdin=queues,
            check=False,
        )
        kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=everything, check=False)
