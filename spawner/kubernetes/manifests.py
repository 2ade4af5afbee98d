"""The objects of a cluster as plain data: Secret, NetworkPolicy, headless Service, one pod per node.

Pure functions. The Secret comes first and owns everything else (its uid comes with the API server's
reply), so that deleting it deletes the whole, and a pod that was asked for too late is collected by itself.

A pod begins as KubeSpawner's own, so that its traits (tolerations, selectors, extra configuration) count.
Over it goes what a node of a cluster needs; our labels last, so that nobody's configuration names another
run. Secrets are references only: who may read pods may still not read tokens.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from spawner.collaborators import PullLogin
from spawner.doors import NODE_VNC_PASSWORD
from spawner.keys import ClusterKeys
from spawner.kubernetes import names
from spawner.kubernetes.own_addresses import Network, beyond
from spawner.kubernetes.spec import (
    HTTP_PORT,
    SSH_PORT,
    TOKENS,
    ClaimMount,
    ClusterFrame,
    ClusterSpec,
    Placement,
    recipe_of,
)
from spawner.licences import Way
from spawner.node.home import SCRATCH
from spawner.node.place import (
    CPU_MILLICORES,
    LANGUAGE,
    SECRETS,
    SECRETS_DIRECTORY,
    Place,
    node_name,
    node_prefix,
)
from spawner.node_env import node_environment
from spawner.sudo import ROOT_INSIDE

Manifest = dict[str, Any]

TOKEN_KEY = "token"  # noqa: S105 - the name of a key
COOKIE_KEY = "cookie_secret"
#: From what pods are made, to make one again; no pod sees it.
RECIPE_KEY = "recipe"
#: Of the image's own VNC server, where it has one.
VNC_KEY = "vnc_password"
#: Where the kubelet looks for a name and password.
PULL_KEY = ".dockerconfigjson"
GRACE_SECONDS = 5
_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
}
#: The same account, which may become root by sudo.
WITH_SUDO = {
    "allowPrivilegeEscalation": True,
    "privileged": False,
    "capabilities": {"drop": ["ALL"], "add": list(ROOT_INSIDE)},
}


# ------------------------------------------------------------------------------------------ the four kinds


def secret(spec: ClusterSpec, keys: ClusterKeys) -> Manifest:
    """The run's Secret; immutable, so that no kubelet needs to watch it."""
    content = {
        TOKEN_KEY: spec.token.encode(),
        COOKIE_KEY: keys.cookie_secret,
        RECIPE_KEY: recipe_of(spec).encode(),
        **keys.ssh_files(),
    }
    if spec.variables.get(NODE_VNC_PASSWORD):
        content[VNC_KEY] = spec.variables[NODE_VNC_PASSWORD].encode()
    if spec.login:  # of its own type, so that the same Secret fetches the image and goes with the run
        content[PULL_KEY] = pull_config(spec.login)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(spec, spec.base),
        "immutable": True,
        "type": "kubernetes.io/dockerconfigjson" if spec.login else "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


def pull_config(login: PullLogin) -> bytes:
    """A name and password as the kubelet reads them."""
    registry = "https://index.docker.io/v1/" if login.registry == "docker.io" else login.registry
    auth = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    entry = {"username": login.username, "password": login.password, "auth": auth}
    return json.dumps({"auths": {registry: entry}}).encode()


def network_policy(spec: ClusterFrame, owner: Manifest, *, own: Iterable[Network] = ()) -> Manifest:
    """Who reaches the cluster's nodes and whom they reach (:class:`~spawner.kubernetes.spec.Isolation`).

    ``own`` are the addresses of Kubernetes itself, which are never the outside.
    """
    ours = [{"podSelector": {"matchLabels": {names.RUN: spec.run}}}]
    rules = spec.isolation
    ingress: list[Manifest] = [{"from": ours}]
    if rules.reached_by:  # an empty list would mean everybody
        ingress.append({"from": list(rules.reached_by), "ports": [{"protocol": "TCP", "port": HTTP_PORT}]})
    egress: list[Manifest] = [{"to": ours}]
    if rules.dns:
        ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        egress.append({"to": list(rules.dns), "ports": ports})
    egress += [dict(rule) for rule in rules.reaches]
    egress += _to_licences(spec.ways)
    if rules.outside:
        apart = [*rules.not_outside, *beyond(own, rules.not_outside)]
        egress.append({"to": _outside(apart)})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(spec, spec.base, owner),
        "spec": {
            "podSelector": {"matchLabels": {names.RUN: spec.run}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def service(spec: ClusterFrame, owner: Manifest) -> Manifest:
    """The headless Service: gives the nodes their names, also before they answer."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(spec, spec.base, owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.CLUSTER: spec.base, names.RUN: spec.run},
            "ports": [
                {"name": "http", "port": HTTP_PORT},
                {"name": "ssh", "port": SSH_PORT},
            ],
        },
    }


def pod(spec: ClusterSpec, rank: int, owner: Manifest, *, vnc_key: bool = True) -> Manifest:
    """The pod of node ``rank``; ``vnc_key`` is whether the run's Secret has the key :data:`VNC_KEY`.

    A Secret of an older version has not, and cannot be given it. There the password stands in the pod, as it did
    before: a reference to what is missing keeps a pod from starting, and one that may be missing would start it
    without the password, so that nobody came to its desktop.
    """
    base = spec.pod
    metadata = _metadata(spec, names.pod_name(spec.base, rank), owner)
    theirs = base.get("metadata", {})
    metadata["labels"] = {**theirs.get("labels", {}), **metadata["labels"], **_pod_labels(spec, rank)}
    metadata["annotations"] = {**theirs.get("annotations", {}), **metadata["annotations"]}
    if spec.ways:
        metadata["annotations"][names.LICENCES] = written(spec.ways)
    if spec.placement.queue:
        metadata["annotations"] |= {
            "kueue.x-k8s.io/pod-group-total-count": str(spec.nodes),
            # Else Kueue keeps the pods of a released cluster, waiting for others in their place.
            "kueue.x-k8s.io/retriable-in-group": "false",
        }
    main, *others = base["spec"]["containers"]
    pulls = [*base["spec"].get("imagePullSecrets", []), *([{"name": spec.base}] if spec.login else [])]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            **base["spec"],
            **({"imagePullSecrets": pulls} if pulls else {}),
            "containers": [_container(spec, rank, main, vnc_key=vnc_key), *others],
            "hostname": node_name(rank),
            "subdomain": spec.base,
            "dnsConfig": _dns(spec, base["spec"].get("dnsConfig", {})),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _security(spec, base["spec"].get("securityContext", {})),
            "nodeSelector": {**base["spec"].get("nodeSelector", {}), **spec.placement.node_selector},
            "tolerations": _tolerations(base["spec"].get("tolerations", []), spec.placement),
            "volumes": [*base["spec"].get("volumes", []), *_volumes(spec, rank)],
        },
    }


def owner_reference(made: Mapping[str, Any]) -> Manifest:
    """What makes an object the Secret's; ``made`` is the API server's reply.

    Without ``blockOwnerDeletion``: that would need a right on finalizers, and nobody waits in foreground.
    """
    metadata = made["metadata"]
    return {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}


# --------------------------------------------------------------------------------------------------- parts


def _metadata(spec: ClusterFrame, name: str, owner: Manifest | None = None) -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {
            names.RUN: spec.run,
            names.CLUSTER: spec.base,
            names.USER: names.label(spec.user),
            names.SERVER: names.label(spec.server),
        },
        "annotations": {names.USER: spec.user, names.SERVER: spec.server},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return metadata


def _tolerations(theirs: Sequence[Mapping[str, Any]], placement: Placement) -> list[Manifest]:
    """Of the site and the pool; and how long a lost machine is waited for, where they say nothing of that.

    Kubernetes itself would wait for five minutes, in which a cluster that has lost a node is paid for.
    """
    told = [dict(item) for item in (*theirs, *placement.tolerations)]
    named = {item.get("key", "") for item in told}
    if "" in named:  # stands everything, for as long as it says
        return told
    lost = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": placement.patience_seconds,
        }
        for key in _LOST
        if key not in named
    ]
    return [*told, *lost]


def _pod_labels(spec: ClusterSpec, rank: int) -> Manifest:
    labels = {
        names.RANK: str(rank),
        names.COMPONENT: names.component(rank),
        names.POOL: names.label(spec.pool),
    }
    if spec.gpu_model:
        labels[names.GPU_MODEL] = names.label(spec.gpu_model)
    if rank:  # else others that look for KubeSpawner's servers would count a cluster N times
        labels |= {"component": "singleuser-worker", "app.kubernetes.io/component": "singleuser-worker"}
    if spec.placement.queue:
        labels |= {
            "kueue.x-k8s.io/queue-name": spec.placement.queue,
            "kueue.x-k8s.io/pod-group-name": spec.run.lower(),
        }
    return labels


def _container(spec: ClusterSpec, rank: int, theirs: Mapping[str, Any], *, vnc_key: bool) -> Manifest:
    resources = _resources(spec)
    asked = theirs.get("resources", {})
    return {
        **theirs,
        "env": _variables(spec, rank, theirs.get("env", ()), vnc_key=vnc_key),
        "resources": {
            "requests": {**asked.get("requests", {}), **resources},
            "limits": {**asked.get("limits", {}), **resources},
        },
        "securityContext": {
            **RESTRICTED_CONTAINER,
            **theirs.get("securityContext", {}),
            **_inside(spec),
            # Not both: profiles for containers inside let more of the kernel be asked.
            **(WITH_SUDO if spec.sudo and not _inside(spec) else {}),
        },
        # After its first success nothing probes any more; ready then means "answers".
        "startupProbe": {
            "httpGet": {"path": node_prefix(spec.prefix, rank) + "api", "port": HTTP_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": max(1, spec.start_seconds),
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*theirs.get("volumeMounts", ()), *_volume_mounts(spec, rank)],
    }


def _inside(spec: ClusterSpec) -> Manifest:
    """Profiles that let a tool without rights start containers inside; Pod Security *restricted* takes them."""
    named = {"seccompProfile": spec.seccomp, "appArmorProfile": spec.apparmor}
    return {
        key: {"type": "Localhost", "localhostProfile": profile} for key, profile in named.items() if profile
    }


def _resources(spec: ClusterSpec) -> Manifest:
    amounts = {"cpu": f"{spec.cpu_millicores}m", "memory": str(spec.memory_bytes)}
    if spec.storage_bytes:
        amounts["ephemeral-storage"] = str(spec.storage_bytes)
    if spec.gpu:
        amounts[spec.placement.gpu_resource] = str(spec.gpu)
    return amounts


def _variables(
    spec: ClusterSpec, rank: int, theirs: Sequence[Mapping[str, Any]], *, vnc_key: bool
) -> list[Manifest]:
    hidden: dict[str, str] = dict.fromkeys(TOKENS, TOKEN_KEY)
    if vnc_key and spec.variables.get(NODE_VNC_PASSWORD):
        hidden[NODE_VNC_PASSWORD] = VNC_KEY
    plain = {item["name"]: item.get("value", "") for item in theirs if "valueFrom" not in item}
    references = [dict(item) for item in theirs if "valueFrom" in item and item["name"] not in hidden]
    place = Place.of(spec, rank)
    values = {
        **node_environment(
            {**plain, "JUPYTERHUB_SERVICE_PREFIX": spec.prefix},
            run_id=spec.run,
            project=spec.project,
            rank=rank,
            nodes=spec.nodes,
            bind=spec.bind,
            variables=spec.variables,
        ),
        **place.variables(),
        "HOME": spec.home,
        LANGUAGE: spec.language,
        SECRETS: SECRETS_DIRECTORY,
        CPU_MILLICORES: str(spec.cpu_millicores),
        # Where NVIDIA's runtime is a machine's usual one, an image or an entry that says "all" would see every card.
        **({} if spec.gpu else {"NVIDIA_VISIBLE_DEVICES": "void"}),
    }
    ours = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": spec.base, "key": key}}}
        for name, key in hidden.items()
    ]
    told = [
        {"name": name, "value": _literal(name, value)}
        for name, value in sorted(values.items())
        if name not in hidden
    ]
    return [*ours, *references, *told]


def _literal(name: str, value: str) -> str:
    """A value that Kubernetes leaves alone: ``$(NAME)`` in somebody's name is no reference."""
    ours = name.startswith(("JUPYTERHUB_", "GALILEAN_"))
    return value.replace("$", "$$") if ours else value


def _dns(spec: ClusterSpec, theirs: Mapping[str, Any]) -> Manifest:
    """``node-1`` resolves by the domain of the cluster's Service."""
    ours = f"{spec.base}.{spec.namespace}.svc.{spec.cluster_domain}"
    return {**theirs, "searches": [*theirs.get("searches", ()), ours]}


def _claims(mounts: Sequence[ClaimMount], rank: int) -> dict[str, str]:
    claims = sorted({mount.claim for mount in mounts if mount.is_of(rank)})
    return {claim: f"galilean-claim-{number}" for number, claim in enumerate(claims)}


def _volumes(spec: ClusterSpec, rank: int) -> list[Manifest]:
    files = [COOKIE_KEY, "host_ed25519", "id_ed25519", "authorized_keys", "known_hosts"]
    volumes: list[Manifest] = [
        {
            "name": "galilean-secrets",
            "secret": {
                "secretName": spec.base,
                "defaultMode": 0o444,  # a volume of this pod alone, which has one account
                "items": [{"key": name, "path": name} for name in files],
            },
        }
    ]
    if spec.shm_bytes:
        memory = {"medium": "Memory", "sizeLimit": str(spec.shm_bytes)}
        volumes.append({"name": "galilean-shm", "emptyDir": memory})
    volumes.append({"name": "galilean-scratch", **_scratch(spec)})
    for claim, name in _claims(spec.mounts, rank).items():
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    return volumes


def _scratch(spec: ClusterSpec) -> Manifest:
    """The pod's own disk space: whoever removes the pod, by hand even, removes it as well."""
    if not spec.scratch_class:
        return {"emptyDir": {"sizeLimit": str(spec.storage_bytes)} if spec.storage_bytes else {}}
    template: Manifest = {
        "metadata": {"labels": {names.RUN: spec.run, names.CLUSTER: spec.base}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": spec.scratch_class,
            "resources": {"requests": {"storage": str(spec.scratch_bytes)}},
        },
    }
    return {"ephemeral": {"volumeClaimTemplate": template}}


def _security(spec: ClusterSpec, theirs: Mapping[str, Any]) -> Manifest:
    """Of the pod; a claim's file system is root's unless a group is said, an emptyDir is everybody's."""
    ours: Manifest = {}
    if spec.scratch_class or any(mount.disk for mount in spec.mounts):
        ours = {"fsGroup": spec.scratch_group, "fsGroupChangePolicy": "OnRootMismatch"}
    return {**RESTRICTED_POD, **ours, **theirs}


def _volume_mounts(spec: ClusterSpec, rank: int) -> list[Manifest]:
    mounts: list[Manifest] = [{"name": "galilean-secrets", "mountPath": SECRETS_DIRECTORY, "readOnly": True}]
    if spec.shm_bytes:
        mounts.append({"name": "galilean-shm", "mountPath": "/dev/shm"})  # noqa: S108 - that is its name
    mounts.append({"name": "galilean-scratch", "mountPath": f"{spec.home}/{SCRATCH}"})
    volume_of = _claims(spec.mounts, rank)
    for mount in spec.mounts:
        if not mount.is_of(rank):
            continue
        entry: Manifest = {"name": volume_of[mount.claim], "mountPath": f"{spec.home}/{mount.target}"}
        if mount.sub_path:  # a disk is mounted as a whole
            entry["subPath"] = mount.sub_path
        if mount.read_only:
            entry["readOnly"] = True
        mounts.append(entry)
    return mounts


def _to_licences(ways: Iterable[Way]) -> list[Manifest]:
    """A rule for each address: exactly its ports."""
    by_address: dict[str, list[Way]] = {}
    for way in sorted(ways):
        by_address.setdefault(way.address, []).append(way)
    return [
        {
            "to": [{"ipBlock": {"cidr": f"{address}/{128 if ':' in address else 32}"}}],
            "ports": [{"protocol": way.protocol.upper(), "port": way.port} for way in those],
        }
        for address, those in by_address.items()
    ]


def written(ways: Iterable[Way]) -> str:
    """Ways as an annotation of pods says them, from which a policy that was taken away is made anew."""
    return json.dumps([[way.address, way.port, way.protocol] for way in sorted(ways)])


def ways_in(annotations: Mapping[str, str]) -> tuple[Way, ...]:
    """What :func:`written` wrote into a pod; nothing where it is no such thing."""
    try:
        said = json.loads(annotations.get(names.LICENCES, "[]"))
        found = tuple(Way(str(ip_address(address)), int(port), protocol) for address, port, protocol in said)
    except (ValueError, TypeError):
        return ()
    return tuple(way for way in found if way.protocol in ("tcp", "udp") and 0 < way.port < 65536)


def _outside(not_outside: Sequence[str]) -> list[Manifest]:
    four = [net for net in not_outside if ":" not in net]
    six = [net for net in not_outside if ":" in net]
    return [{"ipBlock": {"cidr": "0.0.0.0/0", "except": four}}, {"ipBlock": {"cidr": "::/0", "except": six}}]
