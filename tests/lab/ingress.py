"""A real ingress controller for the lab: HAProxy Ingress, made from its public Go module, with Debian's haproxy.

It runs on the lab's machine, beside the control plane and not in a pod, watches Ingresses of the class
``haproxy`` and routes of the Gateway API, and carries what comes to a port of the machine to the pods. It and
all that it starts share a process namespace, so nothing of it outlives whoever started it.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.build import cache_base, fetching, gateway_api
from tests.lab.kubernetes import Kubernetes
from tests.lab.parts import Parts, free_port, wait

SOURCES = Path(__file__).parent / "ingress_go"
MODULE = "github.com/jcmoraisjr/haproxy-ingress"
CLASS = "haproxy"
#: The Gateway that routes may name as their parent: anybody's, of any host.
GATEWAY = {"name": "front", "namespace": "default"}
_CONTROLLER = "haproxy-ingress.github.io/controller"
_CONFIG = "ingress-controller"


def build_ingress() -> Path:
    """The folder of the controller and of what it makes haproxy's settings from; built if it is not there."""
    digest = hashlib.sha256()
    digest.update(subprocess.run(["go", "version"], capture_output=True, check=True).stdout)
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = cache_base() / "ingress" / digest.hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "controller").exists():
            began = time.monotonic()
            print("lab: building the ingress controller …", flush=True)
            part = folder / "controller.part"
            command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(part)]
            env = os.environ | {"CGO_ENABLED": "0"}
            fetching([*command, f"{MODULE}/pkg"], cwd=SOURCES, env=env)
            _take_templates(folder / "rootfs")
            part.rename(folder / "controller")
            print(f"lab: built the ingress controller in {time.monotonic() - began:.0f} s", flush=True)
    return folder


def _take_templates(target: Path) -> None:
    """What the module's own image has beside the program; modules do not say what may be executed."""
    found = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", MODULE],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(Path(found.stdout.strip()) / "rootfs", target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)


def _objects(port: int) -> list[dict[str, Any]]:
    front = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS},
            "spec": {"controller": _CONTROLLER},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": _CONTROLLER},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": GATEWAY,
            "spec": {"gatewayClassName": CLASS, "listeners": [front]},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _CONFIG, "namespace": "default"},
            "data": {
                **{f"bind-ip-addr-{what}": "127.0.0.1" for what in ("http", "healthz", "stats")},
                "http-port": str(port),
                **{f"{what}-port": str(free_port()) for what in ("https", "healthz", "stats")},
                "max-connections": "200",
                "ssl-redirect": "false",
                "timeout-tunnel": "1h",
            },
        },
    ]


def know_gateways(kubernetes: Kubernetes) -> None:
    """Teach the API server the kinds of the Gateway API."""
    for name in ("gatewayclasses", "gateways", "httproutes"):
        kubernetes.kubectl("apply", "--server-side", "-f", str(gateway_api(name)))
        crd = f"crd/{name}.gateway.networking.k8s.io"
        kubernetes.kubectl("wait", crd, "--for=condition=Established", "--timeout=240s")


@contextmanager
def front_door(kubernetes: Kubernetes, directory: Path) -> Iterator[int]:
    """A controller for the while; yields the port of this machine to which people come.

    Parameters
    ----------
    kubernetes
        The lab.
    directory
        For what the controller writes; made here.
    """
    folder = build_ingress()
    port = free_port()
    (directory / "etc" / "haproxy").mkdir(parents=True)
    scripts = directory / "etc" / "haproxy" / "lua"
    shutil.copytree(folder / "rootfs" / "etc" / "lua", scripts)
    # Debian has a JSON for older Luas only. What wants one asks for somebody's rights elsewhere: nobody does here.
    (scripts / "json.lua").write_text("return {}\n")
    know_gateways(kubernetes)
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(port)})
    kubernetes.kubectl("apply", "-f", "-", stdin=objects)
    parts = Parts(directory)
    try:
        parts.start(
            "ingress",
            *("unshare", "--fork", "--pid", "--mount-proc", "--kill-child"),
            *("env", f"--chdir={folder}", "POD_NAMESPACE=default", str(folder / "controller")),
            f"--kubeconfig={kubernetes.directory / 'pki' / 'admin.kubeconfig'}",
            f"--configmap=default/{_CONFIG}",
            f"--local-filesystem-prefix={directory}",
            f"--ingress-class={CLASS}",
            f"--healthz-addr=127.0.0.1:{free_port()}",
            "--rate-limit-update=10",
            "--update-status=false",
        )
        try:
            wait("ingress controller", lambda: _answers(port))
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{parts.said('ingress')[-4000:]}") from None
        yield port
    finally:
        parts.end("ingress")
        kubernetes.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=objects)


def _answers(port: int) -> bool:
    try:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        asked.request("GET", "/")
        return asked.getresponse().status == 404
    except OSError:
        return False
