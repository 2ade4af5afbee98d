"""``galilean.yaml`` → the traits of the clusters of pods, as plain data.

Pure, like :mod:`hub_config.build`. Who may reach nodes and whom they reach is said by whoever knows the
hub's and the portal's pods (the chart, by labels). Without a word the numeric addresses of a hub outside of
Kubernetes are taken; where there are none either, nodes would be sealed off from their own hub, so the
product refuses to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from galilean.errors import UserError, mark
from galilean.settings import Settings
from hub_config.addresses import Addresses, numeric

Peer = Mapping[str, Any]


def cluster_traits(settings: Settings, addresses: Addresses, portal_path: str) -> dict[str, Any]:
    """The traits of ``KubeCluster`` that the settings decide.

    Parameters
    ----------
    settings
        The whole file.
    addresses
        Where the parts are.
    portal_path
        Path of the portal's pages, without a slash at its end.

    Raises
    ------
    UserError
        400 when nodes could not reach hub and portal, or the hub them.
    """
    kube = settings.kubernetes
    hub = kube.hub_connect_url.rstrip("/") or addresses.url("hub")
    portal = kube.portal_connect_url.rstrip("/") or addresses.url("portal")
    for name, url in (("hub", hub), ("portal", portal)):
        host = urlsplit(url).hostname or ""
        if numeric(host) and ip_address(host).is_loopback:
            raise UserError(
                400,
                mark(
                    "With backend kubernetes say addresses.{part}: an address of this machine that pods reach, "
                    "such as http://192.0.2.1:8081. They cannot reach {url}."
                ),
                part=name,
                url=url,
            )
    traits = {
        "namespace": kube.namespace,
        "claims": {
            str(settings.volume_path(name)): volume.claim
            for name, volume in settings.volumes.items()
            if volume.kind == "claim"
        },
        "image": kube.image,
        "image_pull_policy": kube.image_pull_policy,
        "image_pull_secrets": list(kube.image_pull_secrets),
        "home_dir": kube.home_dir,
        "cluster_domain": kube.cluster_domain,
        "portal_url": portal + portal_path,
        "pools": {
            name: {
                "node_selector": dict(pool.node_selector),
                "tolerations": [toleration.written() for toleration in pool.tolerations],
            }
            for name, pool in settings.pools.items()
        },
        "gpu_resource": kube.gpu_resource,
        "gpu_models": {
            name: {
                key: value
                for key, value in (("resource", model.resource), ("node_selector", dict(model.node_selector)))
                if value
            }
            for name, model in settings.gpu_models.items()
        },
        "shm_share": kube.shm_share,
        "scratch_class": kube.scratch_class,
        "scratch_size": kube.scratch_size,
        "disk_class": kube.disk_class,
        "disk_access_mode": kube.disk_access_mode,
        "containers_seccomp": kube.containers_seccomp,
        "containers_apparmor": kube.containers_apparmor,
        "kueue_queue": kube.kueue_queue,
        "reached_by": _said_or(kube.network.reached_by, _reached_by(hub), "reached_by"),
        "reaches": _said_or(kube.network.reaches, _reaches(hub, portal), "reaches"),
        "dns_peers": [dict(peer) for peer in kube.network.dns],
        "outside": kube.network.outside,
        "not_outside": list(kube.network.not_outside),
        "not_licences": list(dict.fromkeys((*settings.not_licences, *_hosts(hub, portal)))),
    }
    if kube.hub_connect_url:
        traits["hub_connect_url"] = hub
    return traits


def _hosts(*urls: str) -> Iterator[str]:
    return (host for url in urls if (host := urlsplit(url).hostname))


def _said_or(said: Sequence[Peer], derived: Iterator[Peer], name: str) -> list[dict[str, Any]]:
    found = [dict(peer) for peer in said or derived]
    if not found:
        raise UserError(
            400,
            mark(
                "kubernetes.network.{name} must be said: nothing follows from addresses that are names. The "
                "chart says it by the labels of its pods."
            ),
            name=name,
        )
    return found


def _reached_by(hub: str) -> Iterator[Peer]:
    """The machine that hub and proxy run on."""
    host = urlsplit(hub).hostname or ""
    if numeric(host):
        yield _block(host)


def _reaches(hub: str, portal: str) -> Iterator[Peer]:
    for url in dict.fromkeys((hub, portal)):
        parts = urlsplit(url)
        if parts.hostname and numeric(parts.hostname):
            yield {"to": [_block(parts.hostname)], "ports": [{"protocol": "TCP", "port": parts.port or 80}]}


def _block(host: str) -> Peer:
    return {"ipBlock": {"cidr": f"{host}/{ip_address(host).max_prefixlen}"}}
