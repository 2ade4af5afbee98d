"""Values → what is rendered, as a table; and what must hold of every pod, right and policy, whatever the values."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from galilean.settings import parse_settings
from tests.chart.conftest import CHART, NAMESPACE, VERSION, Chart, Objects, Refused

pytestmark = pytest.mark.kubernetes

PARTS = ("hub", "portal", "metering", "release", "queue", "machines")
POSTGRES = {"database": {"url": "postgresql://u:p@db/galilean", "hubUrl": "postgresql+psycopg://u:p@db/hub"}}
SPLIT = {"config": {"web": {"subdomain_host": "https://hub.example.edu"}}}
#: Everything that can be switched on.
FULL: dict[str, Any] = {
    **POSTGRES,
    "config": {
        "web": {"subdomain_host": "https://hub.example.edu", "base_url": "/jupyter/"},
        "volumes": {"fast": {"kind": "claim", "path": "/srv/fast", "claim": "fast"}},
        "signup": {"admins": ["zhang.wei"]},
        "kubernetes": {"disk_class": "fast"},
    },
    "storage": {"projects": {"path": "/mnt/projects", "size": "2Ti"}},
    "ingress": {"enabled": True, "tlsSecret": "tls", "className": "nginx", "annotations": {"a/b": "c"}},
    "gateway": {"enabled": True, "parentRefs": [{"name": "front"}]},
    "machines": {"addMachines": True, "replicas": 2},
    "networkPolicy": {
        "proxyFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "images": {"pullSecrets": [{"name": "registry"}], "pullPolicy": "Always"},
    "authority": {"configMap": "authorities"},
    "parts": {
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://out:3128"}],
        "nodeSelector": {"role": "control"},
    },
    "hub": {"tolerations": [{"key": "control", "operator": "Exists"}], "priorityClassName": "high"},
}
TRIAL: dict[str, Any] = {"storage": {"state": {"path": "/mnt/state"}, "projects": {"storageClass": "rwx"}}}
BARE: dict[str, Any] = {
    **POSTGRES,
    "machines": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "uninstall": {"releaseClusters": False},
    "secret": {"existing": "mine"},
    "storage": {"projects": {"existingClaim": "theirs"}},
}
ALL = {"default": {}, "full": FULL, "trial": TRIAL, "bare": BARE}


@pytest.fixture(scope="module")
def rendered(chart: Chart) -> dict[str, Objects]:
    return {name: chart.render(values) for name, values in ALL.items()}


def container(found: Objects, part: str) -> dict[str, Any]:
    (one,) = found["Deployment", f"galilean-{part}"]["spec"]["template"]["spec"]["containers"]
    return one


def environment(found: Objects, part: str) -> dict[str, Any]:
    return {item["name"]: item for item in container(found, part)["env"]}


def mounts(found: Objects, part: str) -> dict[str, str]:
    """Claims of a part's pod by where they are mounted."""
    spec = found["Deployment", f"galilean-{part}"]["spec"]["template"]["spec"]
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        mount["mountPath"]: claims[mount["name"]]
        for mount in container(found, part)["volumeMounts"]
        if mount["name"] in claims
    }


def secret_keys(found: Objects, part: str) -> set[str]:
    spec = found["Deployment", f"galilean-{part}"]["spec"]["template"]["spec"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "secrets"]
    return {item["key"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}


def kinds(found: Objects) -> set[str]:
    return {kind for kind, _ in found}


def allowed(found: Objects, policy: str) -> list[Any]:
    """Who may come in by a policy: components, or "nodes", or "everybody"."""
    said: list[Any] = []
    for rule in found["NetworkPolicy", f"galilean-{policy}"]["spec"]["ingress"]:
        port = rule["ports"][0]["port"]
        for peer in rule.get("from", ["everybody"]):
            labels = peer["podSelector"].get("matchLabels") if "podSelector" in peer else None
            who = (
                labels["app.kubernetes.io/component"]
                if labels
                else "nodes"
                if "podSelector" in peer
                else peer
            )
            said.append((port, who if isinstance(who, str) else json.dumps(who)))
    return sorted(said)


TABLE: list[tuple[str, dict[str, Any], Callable[[Objects], Any], Any]] = [
    # what it is about, values, what is looked at, what must be there
    (
        "without a database: SQLite on a claim, all on one machine",
        {},
        lambda o: (
            mounts(o, "metering")["/var/lib/galilean"],
            "GALILEAN_DATABASE_URL" in environment(o, "hub"),
            "podAffinity" in o.pods()["galilean-queue"]["affinity"],
            "affinity" in o.pods()["galilean-proxy"],
        ),
        ("galilean-state", False, True, False),
    ),
    (
        "with PostgreSQL: no claim for state, no affinity, the addresses from a Secret",
        POSTGRES,
        lambda o: (
            ("PersistentVolumeClaim", "galilean-state") in o,
            "affinity" in o.pods()["galilean-queue"],
            environment(o, "hub")["GALILEAN_HUB_DATABASE_URL"]["valueFrom"]["secretKeyRef"],
            [part for part in PARTS if "GALILEAN_HUB_DATABASE_URL" in environment(o, part)],
            base64.b64decode(o["Secret", "galilean-database"]["data"]["url"]).decode(),
        ),
        (
            False,
            False,
            {"name": "galilean-database", "key": "hub-url"},
            ["hub"],
            "postgresql://u:p@db/galilean",
        ),
    ),
    (
        "an existing Secret with the databases",
        {"database": {"existingSecret": "dbs"}},
        lambda o: (
            ("Secret", "galilean-database") in o,
            environment(o, "portal")["GALILEAN_DATABASE_URL"]["valueFrom"]["secretKeyRef"]["name"],
        ),
        (False, "dbs"),
    ),
    (
        "an existing Secret with the keys",
        {"secret": {"existing": "mine"}},
        lambda o: (
            ("Secret", "galilean-secrets") in o,
            environment(o, "proxy")["CONFIGPROXY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"],
        ),
        (False, "mine"),
    ),
    (
        "projects on a storage class",
        {"storage": {"projects": {"storageClass": "cephfs", "size": "1Ti"}}},
        lambda o: o["PersistentVolumeClaim", "galilean-projects"]["spec"],
        {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "cephfs",
            "resources": {"requests": {"storage": "1Ti"}},
        },
    ),
    (
        "projects on the default class",
        {},
        lambda o: "storageClassName" in o["PersistentVolumeClaim", "galilean-projects"]["spec"],
        False,
    ),
    (
        "projects on a path that every machine has",
        {"storage": {"projects": {"path": "/mnt/projects"}}},
        lambda o: (
            o["PersistentVolume", f"{NAMESPACE}-galilean-projects"]["spec"]["hostPath"],
            o["PersistentVolume", f"{NAMESPACE}-galilean-projects"]["spec"]["claimRef"],
            o["PersistentVolumeClaim", "galilean-projects"]["spec"]["volumeName"],
            o["PersistentVolumeClaim", "galilean-projects"]["spec"]["storageClassName"],
            o["PersistentVolume", f"{NAMESPACE}-galilean-projects"]["spec"]["storageClassName"],
            o["PersistentVolume", f"{NAMESPACE}-galilean-projects"]["spec"]["persistentVolumeReclaimPolicy"],
        ),
        (
            {"path": "/mnt/projects", "type": "Directory"},
            {"namespace": NAMESPACE, "name": "galilean-projects"},
            f"{NAMESPACE}-galilean-projects",
            "",
            "",
            "Retain",
        ),
    ),
    (
        "projects on a claim that is there",
        {"storage": {"projects": {"existingClaim": "theirs"}}},
        lambda o: (
            ("PersistentVolumeClaim", "galilean-projects") in o,
            mounts(o, "hub")["/srv/galilean/volumes/default"],
            o.config["volumes"]["default"]["claim"],
        ),
        (False, "theirs", "theirs"),
    ),
    (
        "a further volume is mounted where files are worked on, and only there",
        {
            **POSTGRES,
            "config": {"volumes": {"fast": {"kind": "claim", "path": "/srv/fast", "claim": "fast"}}},
        },
        lambda o: (sorted(mounts(o, "portal").items()), mounts(o, "hub")["/srv/fast"], mounts(o, "release")),
        ([("/srv/fast", "fast"), ("/srv/galilean/volumes/default", "galilean-projects")], "fast", {}),
    ),
    (
        "each part knows the secrets that it needs",
        {},
        lambda o: (
            secret_keys(o, "portal"),
            secret_keys(o, "queue"),
            "portal-cookie" in secret_keys(o, "hub"),
            "admin-password" in secret_keys(o, "hub"),
        ),
        ({"portal-cookie", "token-portal"}, {"token-queue"}, False, True),
    ),
    (
        "addresses are the Services'",
        {},
        lambda o: {
            name: url
            == f"http://galilean-{name.replace('_', '-')}:{o['Service', 'galilean-' + name.replace('_', '-')]['spec']['ports'][0]['port']}"
            for name, url in o.config["addresses"].items()
        },
        dict.fromkeys(("proxy_api", *PARTS), True),
    ),
    (
        "nodes: their namespace, image and pull Secrets",
        {"images": {"node": {"repository": "r/jupyter", "tag": "7"}, "pullSecrets": [{"name": "registry"}]}},
        lambda o: {key: o.config["kubernetes"][key] for key in ("namespace", "image", "image_pull_secrets")},
        {"namespace": NAMESPACE, "image": "r/jupyter:7", "image_pull_secrets": ["registry"]},
    ),
    (
        "an image by its digest",
        {"images": {"control": {"repository": "r/galilean", "digest": "sha256:" + "0" * 64}}},
        lambda o: container(o, "hub")["image"],
        "r/galilean@sha256:" + "0" * 64,
    ),
    (
        "peers of one's own come beside the chart's",
        {
            "config": {
                "kubernetes": {
                    "network": {"outside": False, "reaches": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]}
                }
            }
        },
        lambda o: (
            o.config["kubernetes"]["network"]["outside"],
            len(o.config["kubernetes"]["network"]["reaches"]),
            [
                peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                for peer in o.config["kubernetes"]["network"]["reached_by"]
            ],
        ),
        (False, 3, ["proxy", "hub"]),
    ),
    (
        "the file's own numbers and words stay as they are",
        {"config": {"defaults": {"cpu": 0.5, "memory": 17179869184}, "site": {"name": "№ 1: “yes”"}}},
        lambda o: (o.config["defaults"], o.config["site"]["name"]),
        ({"cpu": 0.5, "memory": 17179869184}, "№ 1: “yes”"),
    ),
    (
        "a host of one's own for each person: ingress with the wildcard, the proxy told",
        {**SPLIT, "ingress": {"enabled": True, "tlsSecret": "tls"}},
        lambda o: (
            [rule["host"] for rule in o["Ingress", "galilean"]["spec"]["rules"]],
            o["Ingress", "galilean"]["spec"]["tls"],
            "--host-routing" in container(o, "proxy")["args"],
        ),
        (
            ["hub.example.edu", "*.hub.example.edu"],
            [{"secretName": "tls", "hosts": ["hub.example.edu", "*.hub.example.edu"]}],
            True,
        ),
    ),
    (
        "one host: ingress, and the address in browsers",
        {
            "ingress": {"enabled": True, "host": "hub.example.edu", "tlsSecret": "tls"},
            "config": {"web": {"base_url": "/j/"}},
        },
        lambda o: (
            [rule["host"] for rule in o["Ingress", "galilean"]["spec"]["rules"]],
            o["Ingress", "galilean"]["spec"]["rules"][0]["http"]["paths"][0]["path"],
            o.config["web"]["public_url"],
            "--host-routing" in container(o, "proxy")["args"],
        ),
        (["hub.example.edu"], "/j/", "https://hub.example.edu/j/", False),
    ),
    (
        "a route of the Gateway API",
        {**SPLIT, "gateway": {"enabled": True, "parentRefs": [{"name": "front"}]}, "service": {"port": 8080}},
        lambda o: (
            o["HTTPRoute", "galilean"]["spec"]["hostnames"],
            o["HTTPRoute", "galilean"]["spec"]["rules"][0]["backendRefs"],
        ),
        (["hub.example.edu", "*.hub.example.edu"], [{"name": "galilean-proxy", "port": 8080}]),
    ),
    ("no way in is made unasked", {}, lambda o: kinds(o) & {"Ingress", "HTTPRoute"}, set()),
    (
        "the proxy's Service",
        {"service": {"type": "NodePort", "nodePort": 30080, "annotations": {"a": "b"}}},
        lambda o: (
            o["Service", "galilean-proxy"]["spec"]["type"],
            o["Service", "galilean-proxy"]["spec"]["ports"][0]["nodePort"],
            o["Service", "galilean-proxy"]["metadata"]["annotations"],
            {s["spec"].get("type") for n, s in o.kind("Service").items() if n != "galilean-proxy"},
        ),
        ("NodePort", 30080, {"a": "b"}, {None}),
    ),
    (
        "probes and the proxy follow the base URL",
        {"config": {"web": {"base_url": "j"}}},
        lambda o: (
            container(o, "hub")["readinessProbe"]["httpGet"]["path"],
            [a for a in container(o, "proxy")["args"] if "error" in a],
        ),
        ("/j/hub/health", ["--error-target=http://galilean-hub:8081/j/hub/error"]),
    ),
    (
        "figures of use and addresses are the only rights beyond the namespace besides those of the machines service",
        {"machines": {"enabled": False}},
        lambda o: [item["rules"] for (kind, _), item in o.items() if kind == "ClusterRole"],
        [
            [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}],
            [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        ],
    ),
    (
        "without the machines service and the outside: no account, no rights beyond the namespace, no address",
        {
            "machines": {"enabled": False},
            "config": {"use": {"measured": False}, "kubernetes": {"network": {"outside": False}}},
        },
        lambda o: (
            kinds(o) & {"ClusterRole", "ClusterRoleBinding"},
            [name for kind, name in o if "machines" in name],
            "machines" in o.config["addresses"],
        ),
        (set(), [], False),
    ),
    (
        "adding machines is a right of its own",
        {"machines": {"addMachines": True}},
        lambda o: {
            (role["metadata"]["namespace"], json.dumps(role["rules"]))
            for name, role in o.kind("Role").items()
            if "add-machines" in name
        },
        {("kube-system", json.dumps([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]))},
    ),
    (
        "nobody may add machines unasked",
        {},
        lambda o: [name for name in o.kind("Role") if "add-machines" in name],
        [],
    ),
    (
        "who reaches the hub",
        {},
        lambda o: allowed(o, "hub"),
        sorted(
            (8081, who)
            for who in ("hub", "proxy", "portal", "metering", "release", "queue", "machines", "job", "nodes")
        ),
    ),
    ("who reaches metering", {}, lambda o: allowed(o, "metering"), [(8083, "job")]),
    ("who reaches machines", {}, lambda o: allowed(o, "machines"), [(8086, "job"), (8086, "portal")]),
    ("who reaches the proxy", {}, lambda o: allowed(o, "proxy"), [(8000, "everybody"), (8001, "hub")]),
    (
        "who reaches the proxy when peers are named",
        {"networkPolicy": {"proxyFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}},
        lambda o: [who for port, who in allowed(o, "proxy") if port == 8000],
        ["job", '{"ipBlock": {"cidr": "192.0.2.0/24"}}'],
    ),
    ("no policies", {"networkPolicy": {"enabled": False}}, lambda o: o.kind("NetworkPolicy"), {}),
    (
        "a drain takes one pod of a part at a time",
        {},
        lambda o: {
            name: budget["spec"]["maxUnavailable"] for name, budget in o.kind("PodDisruptionBudget").items()
        },
        {f"galilean-{part}": 1 for part in (*PARTS, "proxy")},
    ),
    ("no budgets", {"podDisruptionBudget": {"enabled": False}}, lambda o: o.kind("PodDisruptionBudget"), {}),
    (
        "certificate authorities of one's own",
        {"authority": {"configMap": "ours"}},
        lambda o: (
            environment(o, "release")["SSL_CERT_FILE"]["value"],
            [v for v in o.pods()["galilean-release"]["volumes"] if v["name"] == "authority"],
        ),
        ("/etc/galilean/authority/ca.crt", [{"name": "authority", "configMap": {"name": "ours"}}]),
    ),
    (
        "what is said for all parts and what for one",
        {
            "parts": {
                "extraEnv": [{"name": "A", "value": "1"}],
                "nodeSelector": {"a": "b"},
                "tolerations": [{"key": "t"}],
            },
            "hub": {
                "extraEnv": [{"name": "B", "value": "2"}],
                "nodeSelector": {"c": "d"},
                "tolerations": [{"key": "u"}],
            },
        },
        lambda o: [
            (
                environment(o, part).get("A", {}).get("value"),
                environment(o, part).get("B", {}).get("value"),
                o.pods()[f"galilean-{part}"]["nodeSelector"],
                [toleration["key"] for toleration in o.pods()[f"galilean-{part}"]["tolerations"]],
            )
            for part in ("hub", "proxy")
        ],
        [("1", "2", {"a": "b", "c": "d"}, ["t", "u"]), ("1", None, {"a": "b"}, ["t"])],
    ),
    (
        "replicas of what can have them",
        {"portal": {"replicas": 3}, "queue": {"replicas": 0}},
        lambda o: {
            part: o["Deployment", f"galilean-{part}"]["spec"]["replicas"]
            for part in ("hub", "proxy", "portal", "queue")
        },
        {"hub": 1, "proxy": 1, "portal": 3, "queue": 0},
    ),
    (
        "hub and proxy are never there twice",
        {},
        lambda o: {
            part: o["Deployment", f"galilean-{part}"]["spec"]["strategy"]["type"]
            for part in ("hub", "proxy", "portal")
        },
        {"hub": "Recreate", "proxy": "Recreate", "portal": "RollingUpdate"},
    ),
    (
        "a new proxy is filled before browsers come to it",
        {},
        lambda o: {
            name: item["spec"].get("publishNotReadyAddresses")
            for name, item in o.kind("Service").items()
            if "proxy" in name
        },
        {"galilean-proxy": None, "galilean-proxy-api": True},
    ),
    (
        "the hub upgrades the database, the others wait for it",
        {},
        lambda o: {
            part: o.pods()[f"galilean-{part}"]["initContainers"][0]["command"]
            for part in ("hub", "portal", "release")
        },
        {
            "hub": ["galilean", "db", "upgrade"],
            "portal": ["galilean", "db", "wait"],
            "release": ["galilean", "db", "wait"],
        },
    ),
    (
        "clusters are released before an uninstall",
        {},
        lambda o: (
            o["Job", "galilean-release-clusters"]["metadata"]["annotations"]["helm.sh/hook"],
            o.pods()["galilean-release-clusters"]["containers"][0]["command"],
        ),
        ("pre-delete", ["galilean", "clusters", "release", "--all"]),
    ),
    ("unless they shall go on", {"uninstall": {"releaseClusters": False}}, lambda o: o.kind("Job"), {}),
    (
        "another name at the beginning",
        {"fullnameOverride": "campus"},
        lambda o: [name for kind, name in o if not name.startswith(("campus", f"{NAMESPACE}-campus"))],
        [],
    ),
]


@pytest.mark.parametrize(("about", "values", "look", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_values_say_what_is_rendered(
    chart: Chart, about: str, values: dict[str, Any], look: Callable[[Objects], Any], expected: Any
):
    assert look(chart.render(values)) == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"database": {"url": "postgresql://db/galilean"}}, "database.hubUrl"),
        ({"gateway": {"enabled": True}}, "gateway.parentRefs"),
        ({"config": {"state": "/x"}}, "state"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(chart: Chart, values: dict[str, Any], reason: str):
    with pytest.raises(Refused, match=re.escape(reason)):
        chart.render(values)


# ------------------------------------------------------------------------------------- whatever the values are


@pytest.mark.parametrize("name", ALL)
def test_helm_lint_has_nothing_to_say(chart: Chart, name: str):
    said = chart.helm("lint", "--strict", *VERSION, str(CHART), values=ALL[name])
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


@pytest.mark.parametrize("name", ALL)
def test_galilean_reads_the_file_that_the_chart_writes(rendered: dict[str, Objects], name: str):
    text = rendered[name]["ConfigMap", "galilean-config"]["data"]["galilean.yaml"]
    settings = parse_settings(text)
    assert settings.backend == "kubernetes"
    assert settings.kubernetes.network.reached_by
    assert settings.kubernetes.network.reaches


@pytest.mark.parametrize("name", ALL)
def test_no_pod_has_more_rights_than_it_needs(rendered: dict[str, Objects], name: str):
    found = rendered[name]
    assert found.pods()
    for pod, spec in found.pods().items():
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert spec["enableServiceLinks"] is False, pod
        with_account = "serviceAccountName" in spec
        assert spec["automountServiceAccountToken"] is with_account, pod
        assert with_account == (pod in {"galilean-hub", "galilean-metering", "galilean-machines"}), pod
        for one in [*spec["containers"], *spec.get("initContainers", ())]:
            context = one["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, pod
            assert context["allowPrivilegeEscalation"] is False, pod
            assert context["capabilities"] == {"drop": ["ALL"]}, pod
            assert one["resources"]["limits"]["memory"], pod
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume], pod


def test_the_hub_has_exactly_the_rights_of_the_backend_tests(rendered: dict[str, Objects]):
    text = (CHART.parents[1] / "tests/kubernetes/rights.yaml").read_text(encoding="utf-8")
    given = {
        (item["kind"], item["metadata"].get("namespace", "")): item["rules"]
        for item in yaml.safe_load_all(text)
        if item["kind"] in ("Role", "ClusterRole")
    }

    def flat(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    found = rendered["default"]
    beyond = f"{NAMESPACE}-galilean-hub"
    assert flat(found["Role", "galilean-hub"]["rules"]) == flat(given["Role", "$NAMESPACE"])
    assert flat(found["Role", beyond]["rules"]) == flat(given["Role", "default"])
    assert found["Role", beyond]["metadata"]["namespace"] == "default"
    assert flat(found["ClusterRole", beyond]["rules"]) == flat(given["ClusterRole", ""])


def test_the_hub_may_make_claims_only_where_there_are_disks(rendered: dict[str, Objects]):
    def verbs(name: str) -> list[list[str]]:
        rules = rendered[name]["Role", "galilean-hub"]["rules"]
        return [rule["verbs"] for rule in rules if "persistentvolumeclaims" in rule["resources"]]

    assert verbs("full") == [["create", "delete"]]
    assert verbs("default") == []


@pytest.mark.parametrize("name", ALL)
def test_every_name_that_is_meant_is_there(rendered: dict[str, Objects], name: str):
    """Claims, ConfigMaps, Secrets, accounts and Services that objects speak of are rendered or named in the values."""
    found = rendered[name]
    given = {"theirs", "fast", "mine", "authorities"}
    for pod, spec in found.pods().items():
        for volume in spec.get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in found or claim in given, (pod, claim)
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in found or volume["configMap"][
                    "name"
                ] in given
            for source in volume.get("projected", {}).get("sources", ()):
                secret = source["secret"]["name"]
                if secret in given:
                    continue
                keys = set(found["Secret", secret]["data"])
                assert {item["key"] for item in source["secret"]["items"]} <= keys, (pod, secret)
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in found
    for service in found.kind("Service").values():
        selector = service["spec"]["selector"].items()
        behind = [
            deployment
            for deployment in found.kind("Deployment").values()
            if selector <= deployment["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(behind) == 1, service["metadata"]["name"]
        ports = {
            port["name"]: port["containerPort"]
            for one in behind[0]["spec"]["template"]["spec"]["containers"]
            for port in one["ports"]
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)


def test_keys_are_as_long_as_they_must_be_and_never_the_same(chart: Chart):
    one, two = (chart.render()["Secret", "galilean-secrets"]["data"] for _ in range(2))
    values = {key: base64.b64decode(text).decode() for key, text in one.items()}
    assert all(
        re.fullmatch("[0-9a-f]{64}", value) for key, value in values.items() if key != "admin-password"
    )
    assert re.fullmatch(r"([0-9a-z]{5}-){3}[0-9a-z]{5}", values["admin-password"])
    assert len(set(values.values())) == len(values)
    assert not set(one.values()) & set(two.values())


def test_the_secret_has_every_name_that_the_parts_look_for(rendered: dict[str, Objects]):
    from hub_config.secrets import ADMIN_PASSWORD, NAMES

    assert set(rendered["default"]["Secret", "galilean-secrets"]["data"]) == {*NAMES, ADMIN_PASSWORD}


def test_each_part_is_given_what_it_reads(rendered: dict[str, Objects]):
    from hub_config.secrets import ADMIN_PASSWORD, needed_by

    for part in PARTS:
        assert secret_keys(rendered["default"], part) - {ADMIN_PASSWORD} == set(needed_by(part)), part


@pytest.mark.parametrize("name", ALL)
def test_what_people_made_outlives_the_release(rendered: dict[str, Objects], name: str):
    kept = {
        key for key, item in rendered[name].items()
        if item["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }  # fmt: skip
    meant = {
        key for key in rendered[name] if key[0].startswith("PersistentVolume") or key[1] == "galilean-secrets"
    }
    assert kept == meant


def test_a_change_of_the_settings_starts_the_parts_again_but_not_the_proxy(chart: Chart):
    def templates(values: dict[str, Any]) -> dict[str, str]:
        found = chart.render(values).kind("Deployment")
        return {name: json.dumps(item["spec"]["template"]) for name, item in found.items()}

    before, after = templates({}), templates({"config": {"site": {"name": "Another"}}})
    assert {name for name in before if before[name] != after[name]} == {f"galilean-{part}" for part in PARTS}
