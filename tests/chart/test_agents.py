"""Saving nodes in Kubernetes: off unless asked for, and what the agents on the machines may is no more than said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.conftest import NAMESPACE, Chart, Objects, Refused

pytestmark = pytest.mark.kubernetes
AGENTS = f"{NAMESPACE}-agents"
NAMED: dict[str, Any] = {"images": {"registry": {"address": "https://registry.example", "username": "robot"}}}
SAVING: dict[str, Any] = {
    "imagebuilder": {"enabled": True, "registrySecret": "registry-password"},
    "config": NAMED,
}


@pytest.fixture(scope="module")
def saving(chart: Chart) -> Objects:
    return chart.render(SAVING)


def agent(found: Objects) -> dict[str, Any]:
    return found["DaemonSet", "galilean-agent"]["spec"]["template"]["spec"]


def test_nothing_of_it_is_there_unless_asked_for(chart: Chart) -> None:
    found = chart.render({"config": NAMED})
    assert not [
        key for key in found if "agent" in key[1] or "imagebuilder" in key[1] or key[0] == "DaemonSet"
    ]
    assert "agents_namespace" not in found.config["kubernetes"]
    assert "agent" not in found["Secret", "galilean-secrets"]["data"]


def test_it_needs_a_registry_and_a_namespace_of_its_own(chart: Chart) -> None:
    with pytest.raises(Refused, match=r"config\.images\.registry\.address"):
        chart.render({"imagebuilder": {"enabled": True}})
    with pytest.raises(Refused, match="restricted pods alone"):
        chart.render({**SAVING, "imagebuilder": {"enabled": True, "agents": {"namespace": NAMESPACE}}})
    with pytest.raises(Refused):
        chart.render({**SAVING, "config": {"kubernetes": {"agents_namespace": "x"}, **NAMED}})


def test_an_agent_is_root_with_one_capability_and_no_account(saving: Objects) -> None:
    spec = agent(saving)
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostPID", "hostNetwork", "hostIPC", "serviceAccountName"} & spec.keys()
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    assert sorted(paths) == ["bundles", "groups", "snapshots"]
    assert not [
        path for path in paths.values() if path.rstrip("/") in ("", "/run", "/run/containerd", "/var/lib")
    ]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["bundles"]["readOnly"] and mounts["snapshots"]["readOnly"] and mounts["key"]["readOnly"]
    # The kernel's table of mounts tells the machine's paths.
    assert all(mounts[name]["mountPath"] == paths[name] for name in ("bundles", "snapshots"))


def test_the_image_service_alone_reaches_an_agent_and_an_agent_reaches_nobody(saving: Objects) -> None:
    policy = saving["NetworkPolicy", "galilean-agent"]
    assert policy["metadata"]["namespace"] == AGENTS
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"] == []
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "imagebuilder"


def test_both_know_one_key_which_stands_in_two_secrets(saving: Objects) -> None:
    theirs = saving["Secret", "galilean-agent"]
    assert theirs["metadata"]["namespace"] == AGENTS
    assert theirs["data"]["agent"] == saving["Secret", "galilean-secrets"]["data"]["agent"]
    service = saving["Deployment", "galilean-imagebuilder"]["spec"]["template"]["spec"]
    (volume,) = [one for one in service["volumes"] if one["name"] == "secrets"]
    keys = {item["key"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    assert keys == {"token-imagebuilder", "agent"}
    (password,) = [one for one in service["volumes"] if one["name"] == "registry"]
    assert password["secret"]["secretName"] == "registry-password"
    assert saving.config["images"]["registry"]["password_file"] == "/etc/galilean/registry/password"
    others = [name for name, spec in saving.pods().items() if name != "galilean-imagebuilder"]
    assert not [
        name
        for name in others
        if any(one["name"] == "registry" for one in saving.pods()[name].get("volumes", ()))
    ]


def test_packed_images_come_in_where_portal_and_image_service_both_have_them(
    chart: Chart, saving: Objects
) -> None:
    folder = saving.config["images"]["registry"]["upload_folder"]
    assert folder == "/srv/galilean/volumes/default/.galilean-images"
    service = saving.pods()["galilean-imagebuilder"]
    (mount,) = [one for one in service["containers"][0]["volumeMounts"] if one["name"] == "uploads"]
    assert mount == {"name": "uploads", "mountPath": folder, "subPath": ".galilean-images"}
    (claim,) = [one["persistentVolumeClaim"] for one in service["volumes"] if one["name"] == "uploads"]
    portal = saving.pods()["galilean-portal"]
    claims = [one["persistentVolumeClaim"] for one in portal["volumes"] if one["name"] == "volume-default"]
    assert claims == [claim]
    first = service["initContainers"][0]
    assert first["command"] == ["mkdir", "-p", "-m", "0700", "/uploads/.galilean-images"], (
        "before it is mounted"
    )
    assert "subPath" not in first["volumeMounts"][0]

    none = chart.render(
        {
            "imagebuilder": {"enabled": True},
            "config": {"images": {"registry": {"address": "https://r.example", "upload": 0}}},
        }
    )
    assert none.config["images"]["registry"]["upload_folder"] == ""
    assert "uploads" not in str(none.pods()["galilean-imagebuilder"])
    moved = chart.render(
        {**SAVING, "config": {**NAMED, "volumes": {"default": {"path": "/srv/other", "claim": "mine"}}}}
    )
    assert moved.config["images"]["registry"]["upload_folder"] == "/srv/other/.galilean-images"
    assert "'claimName': 'mine'" in str(moved.pods()["galilean-imagebuilder"]["volumes"])


def test_the_image_service_lists_pods_and_gets_secrets_by_name_and_no_more(saving: Objects) -> None:
    rules = saving["Role", "galilean-imagebuilder"]["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["pods"], ["list"]),
        (["secrets"], ["get"]),
    ]
    (rule,) = saving["Role", "galilean-agents"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["pods"], ["list"])
    assert (
        saving["Namespace", AGENTS]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "privileged"
    )
    assert saving.config["kubernetes"]["agents_namespace"] == AGENTS


def test_pods_that_fetch_images_are_made_where_nothing_can_be_mounted(saving: Objects) -> None:
    images = f"{NAMESPACE}-images"
    labels = saving["Namespace", images]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert saving.config["kubernetes"]["images_namespace"] == images
    (rule,) = saving["Role", "galilean-images"]["rules"]
    assert saving["Role", "galilean-images"]["metadata"]["namespace"] == images
    assert (rule["resources"], rule["verbs"]) == (["pods", "secrets"], ["list", "create", "delete"])
    (rule,) = saving["ClusterRole", f"{NAMESPACE}-galilean-images"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["nodes"], ["list"])
    policy = saving["NetworkPolicy", "galilean-images"]
    assert policy["metadata"]["namespace"] == images
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_fetching_beforehand_can_be_left_out_and_has_a_namespace_of_its_own(chart: Chart) -> None:
    found = chart.render({**SAVING, "imagebuilder": {"enabled": True, "distribution": {"enabled": False}}})
    assert not [key for key in found if key[1].endswith("-images")]
    assert found.config["kubernetes"]["images_namespace"] == ""
    for taken in (NAMESPACE, AGENTS):
        with pytest.raises(Refused, match="a namespace of its own"):
            chart.render({**SAVING, "imagebuilder": {"enabled": True, "distribution": {"namespace": taken}}})


def test_the_machines_service_lists_our_pods_and_reads_figures_and_no_other_namespace(
    chart: Chart, saving: Objects
) -> None:
    rules = saving["ClusterRole", f"{NAMESPACE}-galilean-machines"]["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["nodes"], ["get", "list", "patch", "delete"]),
        (["nodes/metrics"], ["get"]),
    ]
    unmeasured = chart.render({"config": {"use": {"measured": False}}})
    assert len(unmeasured["ClusterRole", f"{NAMESPACE}-galilean-machines"]["rules"]) == 1
