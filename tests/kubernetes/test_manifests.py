"""The objects of a cluster: the whole of them as golden files, and what must hold for every cluster.

After a wanted change: ``GALILEAN_WRITE_GOLDEN=1 pytest tests/kubernetes/test_manifests.py``, then read the diff.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_asyncio.client import ApiClient
from kubespawner.objects import make_pod

from spawner.collaborators import PullLogin
from spawner.doors import NODE_VNC_PASSWORD
from spawner.keys import ClusterKeys
from spawner.kubernetes import disks, manifests, names
from spawner.kubernetes.spec import ClaimMount, ClusterSpec, Isolation, Placement, recipe_of, spec_from

GOLDEN = Path(__file__).parent / "golden"
KEYS = ClusterKeys(
    cookie_secret=b"c" * 32,
    host=b"host key",
    person=b"person key",
    known_hosts=b"known",
    authorized_keys=b"auth",
)
OWNER = manifests.owner_reference({"metadata": {"name": "ada--heat---8640f3d2feb55217", "uid": "u-1"}})
TOKEN = "the-hubs-token-of-this-server"
VNC_PASSWORD = "pw-of-the-images-vnc"
LOST = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]


def plain(model: Any) -> Any:
    client = ApiClient.__new__(ApiClient)  # only its conversion is needed, no connection
    return ApiClient.sanitize_for_serialization(client, model)


def kubespawners_pod(**more: Any) -> dict[str, Any]:
    """A pod as KubeSpawner makes it from its traits."""
    env = {
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JPY_API_TOKEN": TOKEN,
        "JUPYTERHUB_USER": "ada",
        "JUPYTERHUB_SERVER_NAME": "heat",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/heat/",
        "JUPYTERHUB_PUBLIC_URL": "https://hub.example.edu/user/ada/heat/",
    } | more.pop("env", {})
    defaults: dict[str, Any] = {
        "name": "jupyter-ada",
        "cmd": ["/opt/galilean/bin/python", "-m", "spawner.node.container"],
        "port": 8888,
        "image": "example.edu/jupyter:1",
        "image_pull_policy": "IfNotPresent",
        "uid": 1000,
        "gid": 1000,
        "allow_privilege_escalation": False,
        "labels": {"component": "singleuser-server", "app.kubernetes.io/component": "singleuser-server"},
        "env": env,
    }
    return plain(make_pod(**{**defaults, **more}))


def spec(**more: Any) -> ClusterSpec:
    values: dict[str, Any] = {
        "user": "ada",
        "server": "heat",
        "run": "01K0000000000000000000000A",
        "nodes": 3,
        "project": "ada/heat",
        "namespace": "people",
        "prefix": "/user/ada/heat/",
        "token": TOKEN,
        "pod": kubespawners_pod(),
        "cpu_millicores": 2000,
        "memory_bytes": 4 * 2**30,
        "shm_bytes": 2 * 2**30,
        "storage_bytes": 20 * 2**30,
        "mounts": (ClaimMount(claim="projects", sub_path="projects/01K", target="work"),),
        "portal_url": "http://portal:8000/services/portal",
        "isolation": Isolation(
            reached_by=({"podSelector": {"matchLabels": {"galilean.io/component": "proxy"}}},),
            reaches=(
                {
                    "to": [{"podSelector": {"matchLabels": {"galilean.io/component": "hub"}}}],
                    "ports": [{"protocol": "TCP", "port": 8081}],
                },
            ),
        ),
    }
    return ClusterSpec(**{**values, **more})


GPU = spec(
    nodes=2,
    gpu=2,
    gpu_model="A100",
    pool="physics",
    placement=Placement(
        node_selector={"galilean.io/pool": "physics", "nvidia.com/gpu.product": "A100"},
        tolerations=({"key": "physics", "operator": "Exists"},),
        queue="campus",
    ),
    variables={"OMP_NUM_THREADS": "2"},
    mounts=(
        ClaimMount(claim="projects", sub_path="projects/01K", target="work"),
        ClaimMount(claim="data", sub_path="sets/7", target="data/sky", read_only=True),
    ),
)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("secret", manifests.secret(spec(), KEYS)),
        ("network-policy", manifests.network_policy(spec(), OWNER)),
        ("service", manifests.service(spec(), OWNER)),
        ("head", manifests.pod(spec(), 0, OWNER)),
        ("worker", manifests.pod(spec(), 1, OWNER)),
        ("gpu-worker", manifests.pod(GPU, 1, OWNER)),
    ],
)
def test_an_object_is_exactly_as_written_down(name: str, made: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("GALILEAN_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(made, sort_keys=True, width=110))
    assert made == yaml.safe_load(path.read_text())


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {
        item["name"]: item.get("value", item.get("valueFrom")) for item in pod["spec"]["containers"][0]["env"]
    }


def test_no_secret_stands_in_a_pod_a_service_or_a_policy() -> None:
    one = spec(variables={NODE_VNC_PASSWORD: VNC_PASSWORD})
    made = [manifests.pod(one, rank, OWNER) for rank in range(3)]
    text = yaml.safe_dump([*made, manifests.service(one, OWNER), manifests.network_policy(one, OWNER)])
    hidden = [TOKEN.encode(), KEYS.cookie_secret, KEYS.host, KEYS.person, VNC_PASSWORD.encode()]
    for value in hidden:
        assert value.decode() not in text
        assert base64.b64encode(value).decode() not in text
    assert TOKEN not in repr(one)


def test_the_password_of_an_images_vnc_server_is_the_runs_secrets_and_a_pod_has_it_by_reference() -> None:
    one = spec(variables={NODE_VNC_PASSWORD: VNC_PASSWORD})
    kept = manifests.secret(one, KEYS)["data"]["vnc_password"]
    assert base64.b64decode(kept).decode() == VNC_PASSWORD
    theirs = {"name": NODE_VNC_PASSWORD, "valueFrom": {"secretKeyRef": {"name": "site", "key": "k"}}}
    one.pod["spec"]["containers"][0]["env"].append(theirs)
    env = manifests.pod(one, 1, OWNER)["spec"]["containers"][0]["env"]
    assert [item for item in env if item["name"] == NODE_VNC_PASSWORD] == [
        {
            "name": NODE_VNC_PASSWORD,
            "valueFrom": {"secretKeyRef": {"name": one.base, "key": "vnc_password"}},
        }
    ]
    assert "vnc_password" not in manifests.secret(spec(), KEYS)["data"], "no key without a password"


def test_only_what_a_node_needs_of_the_secret_is_mounted() -> None:
    volumes = manifests.pod(spec(), 0, OWNER)["spec"]["volumes"]
    items = {item["key"] for item in volumes[0]["secret"]["items"]}
    assert items == {"cookie_secret", "host_ed25519", "id_ed25519", "authorized_keys", "known_hosts"}


@pytest.mark.parametrize(
    ("sites", "patience"),
    [
        ([], {LOST[0]: 90, LOST[1]: 90}),
        (
            [{"key": LOST[1], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 600}],
            {LOST[0]: 90, LOST[1]: 600},
        ),
        ([{"operator": "Exists"}], {"": None}),
    ],
)
def test_a_lost_machine_is_waited_for_as_long_as_the_site_says(
    sites: list[dict[str, Any]], patience: dict[str, int | None]
) -> None:
    theirs = kubespawners_pod(tolerations=sites)
    made = manifests.pod(spec(pod=theirs, placement=Placement(patience_seconds=90)), 0, OWNER)
    said = {item.get("key", ""): item.get("tolerationSeconds") for item in made["spec"]["tolerations"]}
    assert said == patience


def test_traits_of_kubespawner_count() -> None:
    theirs = kubespawners_pod(
        node_selector={"disk": "fast"},
        tolerations=[{"key": "people", "operator": "Exists"}],
        extra_container_config={"imagePullPolicy": "Always"},
        extra_pod_config={"dnsConfig": {"searches": ["example.edu"]}},
        priority_class_name="people",
        env={"SITE": "campus", "LICENCE": {"valueFrom": {"secretKeyRef": {"name": "l", "key": "k"}}}},
        extra_resource_limits={"example.edu/licence": "1"},
        annotations={"site": "ours"},
    )
    pod = manifests.pod(replace(GPU, pod=theirs), 1, OWNER)
    container = pod["spec"]["containers"][0]
    assert pod["spec"]["nodeSelector"]["disk"] == "fast"
    assert [item["key"] for item in pod["spec"]["tolerations"]] == ["people", "physics", *LOST]
    assert pod["spec"]["priorityClassName"] == "people"
    assert pod["spec"]["dnsConfig"]["searches"][0] == "example.edu"
    assert pod["metadata"]["annotations"]["site"] == "ours"
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"]["limits"]["example.edu/licence"] == "1"
    assert variables(pod)["SITE"] == "campus"
    assert "secretKeyRef" in variables(pod)["LICENCE"]


def test_nobodys_configuration_names_another_run() -> None:
    forged = {names.RUN: "another", names.RANK: "7", names.USER: "bob", names.CLUSTER: "x"}
    theirs = kubespawners_pod(labels=forged, annotations={names.USER: "bob"})
    metadata = manifests.pod(spec(pod=theirs), 1, OWNER)["metadata"]
    assert metadata["labels"][names.RUN] == spec().run
    assert metadata["labels"][names.RANK] == "1"
    assert metadata["labels"][names.USER] == metadata["annotations"][names.USER] == "ada"


def test_dollars_in_names_are_no_references() -> None:
    theirs = kubespawners_pod(env={"JUPYTERHUB_USER": "$(JUPYTERHUB_API_TOKEN) $$(A)"})
    told = variables(manifests.pod(spec(pod=theirs), 0, OWNER))
    assert told["JUPYTERHUB_USER"] == "$$(JUPYTERHUB_API_TOKEN) $$$$(A)"


def test_without_peers_nobody_but_the_cluster_reaches_a_node() -> None:
    """An empty list of peers would mean everybody."""
    policy = manifests.network_policy(spec(isolation=Isolation(dns=(), outside=False)), OWNER)
    ours = [{"podSelector": {"matchLabels": {names.RUN: spec().run}}}]
    assert policy["spec"]["ingress"] == [{"from": ours}]
    assert policy["spec"]["egress"] == [{"to": ours}]


people = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
@given(
    user=people,
    server=people,
    nodes=st.integers(1, 40),
    cpu=st.integers(10, 512_000),
    memory=st.integers(2**26, 2**42),
    storage=st.integers(0, 2**42),
    gpu=st.integers(0, 16),
    data=st.data(),
)
def test_every_cluster_is_isolated_bounded_and_owned(
    user: str, server: str, nodes: int, cpu: int, memory: int, storage: int, gpu: int, data: st.DataObject
) -> None:
    one = spec(
        user=user,
        server=server,
        nodes=nodes,
        cpu_millicores=cpu,
        memory_bytes=memory,
        storage_bytes=storage,
        gpu=gpu,
    )
    rank = data.draw(st.integers(0, nodes - 1))
    pod = manifests.pod(one, rank, OWNER)
    container = pod["spec"]["containers"][0]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["cpu"] == f"{cpu}m"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == bool(gpu)
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert "hostPath" not in yaml.safe_dump(pod["spec"]["volumes"])
    policy = manifests.network_policy(one, OWNER)["spec"]["podSelector"]["matchLabels"]
    selector = manifests.service(one, OWNER)["spec"]["selector"]
    labels = pod["metadata"]["labels"]
    assert policy.items() <= labels.items()
    assert selector.items() <= labels.items()
    for made in (pod, manifests.service(one, OWNER), manifests.network_policy(one, OWNER)):
        assert made["metadata"]["ownerReferences"] == [OWNER]
        assert made["metadata"]["annotations"] == made["metadata"]["annotations"] | {
            names.USER: user,
            names.SERVER: server,
        }
    path = container["startupProbe"]["httpGet"]["path"]
    assert path == ("/user/ada/heat/api" if rank == 0 else f"/user/ada/heat/node-{rank}/api")


def test_two_nodes_differ_in_nothing_but_their_place() -> None:
    one, other = (yaml.safe_dump(manifests.pod(spec(), rank, OWNER)) for rank in (1, 2))
    assert one.replace("node-1", "node-2").replace("17-1", "17-2").replace("'1'", "'2'") == other


def test_a_private_image_is_fetched_with_the_runs_own_secret_which_nodes_do_not_see() -> None:
    login = PullLogin("registry.example.edu", "ada", "hunter2")
    made = spec(
        login=login,
        pod={**spec().pod, "spec": {**spec().pod["spec"], "imagePullSecrets": [{"name": "site"}]}},
    )
    secret, pod = manifests.secret(made, KEYS), manifests.pod(made, 1, OWNER)
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert config["auths"]["registry.example.edu"]["password"] == "hunter2"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "site"}, {"name": made.base}]
    assert "hunter2" not in json.dumps(pod) + repr(made)
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "galilean-secrets")
    assert ".dockerconfigjson" not in [one["key"] for one in volume["secret"]["items"]]
    hub = manifests.pull_config(PullLogin("docker.io", "ada", "x"))
    assert list(json.loads(hub)["auths"]) == ["https://index.docker.io/v1/"]


def volume(one: ClusterSpec, name: str) -> dict[str, Any]:
    made = manifests.pod(one, 0, OWNER)["spec"]
    (mount,) = (item for item in made["containers"][0]["volumeMounts"] if item["name"] == name)
    assert mount["mountPath"] == "/home/jovyan/scratch" and "readOnly" not in mount
    (found,) = (item for item in made["volumes"] if item["name"] == name)
    return found


def test_scratch_is_the_pods_own_with_the_size_that_was_asked_for() -> None:
    assert volume(spec(), "galilean-scratch")["emptyDir"] == {"sizeLimit": str(20 * 2**30)}
    assert volume(spec(storage_bytes=0), "galilean-scratch")["emptyDir"] == {}


def test_scratch_of_a_storage_class_is_a_claim_that_goes_with_the_pod() -> None:
    one = spec(scratch_class="local-nvme", scratch_bytes=20 * 2**30)
    found = volume(one, "galilean-scratch")["ephemeral"]["volumeClaimTemplate"]
    assert found["spec"]["storageClassName"] == "local-nvme"
    assert found["spec"]["resources"] == {"requests": {"storage": str(20 * 2**30)}}
    assert manifests.pod(one, 0, OWNER)["spec"]["securityContext"]["fsGroup"] == 1000, (
        "else it is root's alone"
    )
    assert "fsGroup" not in manifests.pod(spec(), 0, OWNER)["spec"]["securityContext"]


def test_a_disk_is_mounted_as_a_whole_by_all_readers_or_by_the_head_that_writes() -> None:
    written = ClaimMount(claim="galilean-disk-a", sub_path="", target="disks/a", disk=True)
    read = ClaimMount(claim="galilean-disk-b", sub_path="", target="disks/b", read_only=True, disk=True)
    one = spec(mounts=(*spec().mounts, written, read))

    def disks_of(rank: int) -> list[tuple[str, bool]]:
        found = manifests.pod(one, rank, OWNER)["spec"]
        named = {
            item["name"]: item["persistentVolumeClaim"]["claimName"]
            for item in found["volumes"]
            if "persistentVolumeClaim" in item
        }
        mounts = [item for item in found["containers"][0]["volumeMounts"] if "/disks/" in item["mountPath"]]
        assert all("subPath" not in item for item in mounts)
        assert ("galilean-disk-a" in named.values()) is (rank == 0)
        return [(named[item["name"]], item.get("readOnly", False)) for item in mounts]

    assert disks_of(0) == [("galilean-disk-a", False), ("galilean-disk-b", True)]
    assert disks_of(1) == [("galilean-disk-b", True)]
    assert manifests.pod(one, 0, OWNER)["spec"]["securityContext"]["fsGroup"] == 1000
    assert spec_from(recipe_of(one)).mounts == one.mounts


def test_the_claim_of_a_disk_belongs_to_no_run_and_has_its_size() -> None:
    made = disks.claim(
        "01K0000000000000000000000A", 20 * 2**30, storage_class="fast", access_mode="ReadWriteOnce"
    )
    assert made["metadata"]["name"] == "galilean-disk-01k0000000000000000000000a"
    assert "ownerReferences" not in made["metadata"]
    assert not {names.RUN, names.CLUSTER} & set(made["metadata"]["labels"])
    assert made["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "20Gi"}},
    }


def test_containers_inside_take_profiles_of_the_machine_and_no_right() -> None:
    usual = manifests.pod(spec(), 0, OWNER)
    nested = manifests.pod(spec(seccomp="galilean.json", apparmor="galilean"), 0, OWNER)
    assert nested["spec"]["containers"][0].pop("securityContext") == {
        **usual["spec"]["containers"][0].pop("securityContext"),
        "seccompProfile": {"type": "Localhost", "localhostProfile": "galilean.json"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "galilean"},
    }
    assert nested == usual, "nothing else: neither a capability nor another view of /proc"


def test_who_may_become_root_in_a_pod_gets_no_more_than_sudo_needs() -> None:
    plain = manifests.pod(spec(), 0, OWNER)["spec"]["containers"][0]["securityContext"]
    assert plain["allowPrivilegeEscalation"] is False
    found = manifests.pod(spec(sudo=True), 0, OWNER)["spec"]
    security = found["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is True
    assert security["privileged"] is False
    assert security["runAsNonRoot"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    # What Pod Security "baseline" admits.
    assert set(security["capabilities"]["add"]) <= {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }  # fmt: skip
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec_from(recipe_of(spec(sudo=True))).sudo
