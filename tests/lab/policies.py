"""Makes NetworkPolicies count in the lab, whose plugins ignore them: all of them as one table of nftables.

For tests only. It watches pods, namespaces and policies, renders the whole anew after each change and
replaces the table in one step, so that no moment is without rules. What comes from the machine itself
always passes, as with real plugins; what pods send to the machine (the API server, a hub outside of the
cluster) is filtered like everything else. Ends of connections that stand are not looked for.

``python policies.py KUBECONFIG READY MACHINE…`` runs until it is told to end, then takes the table
away; ``READY`` is a file that appears with the first rules.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

TABLE = "galilean-lab"
_PODS = "/api/v1/pods"
_PATHS = {
    "namespaces": "/api/v1/namespaces",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}
_SETTLE_SECONDS = 0.02
Item = Mapping[str, Any]


# --------------------------------------------------------------------------------------------------- rendering


def render(pods: Iterable[Item], namespaces: Iterable[Item], policies: Iterable[Item]) -> str:
    """The table, for ``nft -f``: it takes the place of the one before."""
    living = [pod for pod in pods if _has_address(pod)]
    labels_of = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in namespaces}
    chains: list[str] = []
    maps: dict[str, list[str]] = {"out": [], "in": []}
    by_namespace: dict[str, list[Item]] = {}
    for policy in policies:
        by_namespace.setdefault(policy["metadata"]["namespace"], []).append(policy)
    for pod in living:
        ours = [
            policy
            for policy in by_namespace.get(pod["metadata"]["namespace"], ())
            if selects(policy["spec"].get("podSelector") or {}, pod["metadata"].get("labels") or {})
        ]
        for way, kind, key, peers in (
            ("out", "Egress", "egress", "to"),
            ("in", "Ingress", "ingress", "from"),
        ):
            binding = [policy for policy in ours if kind in _types(policy)]
            if not binding:
                continue
            address = pod["status"]["podIP"]
            name = f"{way}_{address.replace('.', '_')}"
            lines = [
                line
                for policy in binding
                for rule in policy["spec"].get(key) or ()
                for line in _allowed(rule, peers, pod, policy, living, labels_of)
            ]
            chains.append(_chain(name, [*dict.fromkeys(lines), "drop"]))
            maps[way].append(f"{address} : jump {name}")
    check = ["ct state established,related accept"]
    for way, side in (("out", "saddr"), ("in", "daddr")):
        if maps[way]:
            check.append(f"ip {side} vmap {{ {', '.join(maps[way])} }}")
    hooks = [
        _chain(hook, [f"type filter hook {hook} priority -10; policy accept;", "jump check"])
        for hook in ("forward", "input")
    ]
    body = "\n".join([*chains, _chain("check", check), *hooks])
    return f"add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}\n}}\n"


def selects(selector: Item, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for wanted in selector.get("matchExpressions") or ():
        has, values = labels.get(wanted["key"]), wanted.get("values") or ()
        fits = {
            "In": has in values,
            "NotIn": has not in values,
            "Exists": has is not None,
            "DoesNotExist": has is None,
        }
        if not fits[wanted["operator"]]:
            return False
    return True


def _has_address(pod: Item) -> bool:
    status = pod.get("status", {})
    return (
        bool(status.get("podIP"))
        and not pod["spec"].get("hostNetwork")
        and status.get("phase") not in ("Succeeded", "Failed")  # its address may be somebody else's by now
    )


def _types(policy: Item) -> list[str]:
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _allowed(
    rule: Item, peers: str, pod: Item, policy: Item, pods: list[Item], labels_of: Mapping[str, Item]
) -> Iterable[str]:
    """Lines that let pass what one rule of a policy allows to a pod that it selects."""
    side = "daddr" if peers == "to" else "saddr"
    named = rule.get(peers)
    if not named:  # everybody
        for port in _ports(rule, [pod] if peers == "from" else pods):
            yield f"{port}return"
        return
    for peer in named:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            if ":" in block["cidr"]:
                continue
            except_ = [net for net in block.get("except") or () if ":" not in net]
            but = f" ip {side} != {{ {', '.join(except_)} }}" if except_ else ""
            for port in _ports(rule, [pod]):
                yield f"ip {side} {block['cidr']}{but} {port}return"
            continue
        for other in pods:
            if _is_peer(peer, other, policy["metadata"]["namespace"], labels_of):
                for port in _ports(rule, [pod if peers == "from" else other]):
                    yield f"ip {side} {other['status']['podIP']} {port}return"


def _is_peer(peer: Item, pod: Item, namespace: str, labels_of: Mapping[str, Item]) -> bool:
    metadata = pod["metadata"]
    if peer.get("namespaceSelector") is None:
        if metadata["namespace"] != namespace:
            return False
    elif not selects(peer["namespaceSelector"], labels_of.get(metadata["namespace"], {})):
        return False
    return selects(peer.get("podSelector") or {}, metadata.get("labels") or {})


def _ports(rule: Item, listeners: list[Item]) -> Iterable[str]:
    """Matches for the ports of a rule; those with a name are looked for at who listens."""
    if not rule.get("ports"):
        yield ""
        return
    for port in rule["ports"]:
        protocol, wanted = port.get("protocol", "TCP").lower(), port.get("port")
        if wanted is None:
            yield f"meta l4proto {protocol} "
        elif isinstance(wanted, int):
            last = f"-{port['endPort']}" if port.get("endPort") else ""
            yield f"{protocol} dport {wanted}{last} "
        else:
            numbers = {
                told["containerPort"]
                for pod in listeners
                for container in pod["spec"].get("containers") or ()
                for told in container.get("ports") or ()
                if told.get("name") == wanted
            }
            yield from (f"{protocol} dport {number} " for number in sorted(numbers))


def _chain(name: str, lines: Iterable[str]) -> str:
    return f"chain {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "}"


# ---------------------------------------------------------------------------------------------------- watching


class Enforcer:
    """Keeps the table as the API server's objects say.

    Parameters
    ----------
    server, client
        The API server's address, and a session that may read everywhere.
    machines
        Only pods of these have addresses that packets come from here: simulated ones are thousands.
    ready
        This file appears with the first rules.
    """

    def __init__(
        self, server: str, client: aiohttp.ClientSession, machines: Iterable[str], ready: Path
    ) -> None:
        self._server, self._client, self._ready = server, client, ready
        self._pods = {f"pods of {name}": {"fieldSelector": f"spec.nodeName={name}"} for name in machines}
        self._items: dict[str, dict[str, Item]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in (*_PATHS, *self._pods):
                group.create_task(self._follow(kind))
            group.create_task(self._enforce())

    async def _follow(self, kind: str) -> None:
        while True:
            try:
                await self._watch(kind, await self._list(kind))
            except (aiohttp.ClientError, TimeoutError, OSError, LookupError, ValueError) as error:
                print(f"{kind}: {error!r}", flush=True)  # what is enforced stays
                await asyncio.sleep(0.3)

    async def _list(self, kind: str) -> str:
        limit = aiohttp.ClientTimeout(total=30)
        async with self._client.get(
            self._server + _PATHS.get(kind, _PODS),
            params=self._pods.get(kind),
            timeout=limit,
            raise_for_status=True,
        ) as answer:
            found = json.loads(await answer.read())
        self._items[kind] = {item["metadata"]["uid"]: item for item in found["items"] or ()}
        self._changed.set()
        return found["metadata"]["resourceVersion"]

    async def _watch(self, kind: str, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "300"}
        query |= self._pods.get(kind, {})
        limit = aiohttp.ClientTimeout(total=None, sock_read=320)
        async with self._client.get(
            self._server + _PATHS.get(kind, _PODS), params=query, timeout=limit, raise_for_status=True
        ) as answer:
            rest = b""
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for event in map(json.loads, filter(None, lines)):
                    if event["type"] == "ERROR":
                        raise LookupError(event["object"].get("message", ""))
                    item = event["object"]
                    uid = item["metadata"]["uid"]
                    if event["type"] == "DELETED":
                        self._items[kind].pop(uid, None)
                    else:
                        self._items[kind][uid] = item
                    self._changed.set()

    async def _enforce(self) -> None:
        enforced = ""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            if len(self._items) < len(_PATHS) + len(self._pods):
                continue
            pods = [pod for kind in self._pods for pod in self._items[kind].values()]
            table = render(pods, *(self._items[kind].values() for kind in ("namespaces", "policies")))
            if table == enforced:
                continue
            process = await asyncio.create_subprocess_exec(
                "nft", "-f", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            said, _ = await process.communicate(table.encode())
            if process.returncode:
                print(f"refused: {said.decode()}\n{table}", flush=True)
                continue
            enforced = table
            self._ready.touch()


def take_away() -> None:
    """Remove the table, if there is one."""
    subprocess.run(["nft", "delete", "table", "ip", TABLE], capture_output=True, check=False)


async def main(config: Item, ready: Path, machines: Iterable[str]) -> None:
    """Enforce until SIGTERM, as the account of a kubeconfig."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    trust.load_cert_chain(user["client-certificate"], user["client-key"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as client:
        task = asyncio.ensure_future(Enforcer(cluster["server"], client, machines, ready).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            pass
        finally:
            take_away()


if __name__ == "__main__":
    asyncio.run(main(yaml.safe_load(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3:]))
