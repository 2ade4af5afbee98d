"""What the chart renders is what a real API server takes: every field known, every pod admitted by *restricted*."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.conftest import CHART, RELEASE, Chart, Objects
from tests.chart.test_templates import ALL, FULL
from tests.lab.ingress import know_gateways
from tests.lab.kubernetes import Kubernetes

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]


@pytest.fixture(scope="module")
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    name = f"t{os.getpid()}-rendered"
    kubernetes.kubectl("create", "namespace", name)
    kubernetes.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    kubernetes.kubectl("create", "serviceaccount", "anybody", "-n", name)
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def routes(kubernetes: Kubernetes) -> None:
    """The Gateway API, whose routes the chart can make; it stays as long as the lab."""
    know_gateways(kubernetes)


def rehearse(kubernetes: Kubernetes, items: list[dict[str, Any]]) -> str:
    """What the API server says to objects that it does not keep."""
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    return kubernetes.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(listed)
    )


def rendered(chart: Chart, name: str, namespace: str) -> Objects:
    found = Objects()
    for key, item in chart.render(ALL[name]).items():
        if item["metadata"].get("namespace", "centre") == "centre":
            item["metadata"]["namespace"] = namespace
        found[key] = item
    return found


@pytest.mark.parametrize("name", ALL)
def test_the_api_server_knows_every_field(
    kubernetes: Kubernetes, chart: Chart, namespace: str, routes: None, name: str
):
    found = rendered(chart, name, namespace)
    assert name != "full" or {"Ingress", "HTTPRoute"} <= {kind for kind, _ in found}
    for item in found.values():
        if item["kind"] in ("PersistentVolume", "ClusterRole", "ClusterRoleBinding"):
            del item["metadata"]["namespace"]
    assert len(rehearse(kubernetes, list(found.values())).splitlines()) == len(found)


@pytest.mark.parametrize("name", ALL)
def test_pod_security_restricted_admits_every_pod(
    kubernetes: Kubernetes, chart: Chart, namespace: str, name: str
):
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace},
            # An account must be there already, and priorities are the centre's.
            "spec": {
                k: v
                for k, v in (spec | {"serviceAccountName": "anybody"}).items()
                if k != "priorityClassName"
            },
        }
        for pod, spec in rendered(chart, name, namespace).pods().items()
    ]
    assert len(rehearse(kubernetes, pods).splitlines()) == len(pods)


def test_a_pod_with_more_rights_would_be_refused(kubernetes: Kubernetes, chart: Chart, namespace: str):
    spec = rendered(chart, "default", namespace).pods()[f"{RELEASE}-queue"]
    del spec["containers"][0]["securityContext"]["capabilities"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q", "namespace": namespace}, "spec": spec}
    with pytest.raises(RuntimeError, match="restricted"):
        rehearse(kubernetes, [pod])


def test_notes_tell_the_address_the_password_and_what_is_for_trying_out_only(
    kubernetes: Kubernetes, chart: Chart, namespace: str
):
    kubeconfig = str(kubernetes.directory / "pki" / "admin.kubeconfig")

    def notes(values: dict[str, Any]) -> str:
        said = chart.helm(
            *(
                "install",
                RELEASE,
                str(CHART),
                "-n",
                namespace,
                "--dry-run=server",
                "--kubeconfig",
                kubeconfig,
            ),
            values=values,
        )
        return said.partition("NOTES:")[2]

    trial = notes({})
    assert "port-forward service/galilean-proxy" in trial
    assert "get secret galilean-secrets" in trial
    assert "FOR TRYING OUT" in trial
    assert "one origin" in trial
    full = notes({**FULL, "gateway": {}})
    assert "https://hub.example.edu" in full
    assert "Sign in as zhang.wei" in full
    assert "FOR TRYING OUT" not in full
    assert "one origin" not in full
    assert "kube-system" in full
