"""What nodes reach besides one another: a table of nftables' own, pure text, and how it gets into the kernel.

Docker keeps its networks apart from one another. It does not keep a container from the machine that it runs
on: every service of the host answers on the address of the network's bridge. So one table, the same for all
clusters because their bridges have names of ours and their addresses are of one pool, drops everything that
comes from a node to the machine, but for the hub and the portal at their ports and the answers of names; and
what leaves the machine, but for the outside. Where an image is built not even the hub is reached. It only
ever drops: Docker's and the site's own rules keep their word. Licence servers of an environment are in a set beside it,
each with the interface of the cluster that may go there. Whoever is root puts it in; whoever is not is told what to type.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from spawner.docker.names import BRIDGE, BUILD_BRIDGE

TABLE = "galilean_docker"
#: Who of the clusters reaches which licence server: interface, address, protocol and port (:mod:`spawner.docker.gate`).
LICENCES = "licences"
_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Whom nodes reach.

    Attributes
    ----------
    pool
        The addresses of all clusters' networks.
    address, ports
        Where hub and portal listen on this machine.
    resolvers
        Who answers names, at port 53.
    outside
        Whether nodes reach addresses outside of ``not_outside``.
    not_outside, reaches
        Networks in CIDR form: what does not count as the outside, and what of it is allowed all the same.
    """

    pool: str
    address: str
    ports: Sequence[int]
    resolvers: Sequence[str] = ()
    outside: bool = True
    not_outside: Sequence[str] = ()
    reaches: Sequence[str] = ()


def rules(reach: Reach) -> str:
    """The table, as ``nft -f`` takes it: replaces what was there, all at once."""
    four = [name for name in reach.resolvers if ip_address(name).version == 4]
    names = f"ip daddr {{ {', '.join(four)} }}" if four else ""
    ports = ", ".join(str(port) for port in sorted(set(reach.ports)))
    here = [
        "ct state established,related accept",
        f'iifname "{BUILD_BRIDGE}*" ip daddr {reach.address} counter drop',
        f"ip daddr {reach.address} tcp dport {{ {ports} }} accept",
        *([f"{names} meta l4proto {{ tcp, udp }} th dport 53 accept"] if names else []),
        "counter drop",
    ]
    beyond = [
        "ct state established,related accept",
        "meta nfproto ipv6 counter drop",  # clusters have none of it; a daemon that gives it all the same is no way out
        f'iifname "{BUILD_BRIDGE}*" ip daddr {reach.pool} counter drop',
        f"ip daddr {reach.pool} accept",  # a neighbour of its own cluster, or Docker drops it
        *([f"{names} meta l4proto {{ tcp, udp }} th dport 53 accept"] if names else []),
        f"iifname . ip daddr . meta l4proto . th dport @{LICENCES} accept",
        *_to(_four(reach.reaches), "accept"),
        *_to(_four(reach.not_outside), "counter drop"),
        *([] if reach.outside else ["counter drop"]),
    ]
    into = [
        "ct state established,related accept",
        f'oifname "{BUILD_BRIDGE}*" counter drop',
        f'iifname "{BRIDGE}*" accept',
        "counter drop",
    ]
    lines = [
        # Emptied and not removed: what is open to licence servers for clusters that run stays.
        f"table inet {TABLE}",
        f"flush table inet {TABLE}",
        f"table inet {TABLE} {{",
        f"    set {LICENCES} {{ type ifname . ipv4_addr . inet_proto . inet_service; }}",
        *_chain("here", here),
        *_chain("beyond", beyond),
        *_chain("into", into),
        *_chain(
            "input",
            [
                "type filter hook input priority filter - 10; policy accept;",
                f'iifname "{BRIDGE}*" jump here',
                f'iifname != "lo" ip daddr {reach.pool} counter drop',  # a neighbour on this machine's wire
            ],
        ),
        *_chain(
            "forward",
            [
                "type filter hook forward priority filter - 10; policy accept;",
                f'iifname "{BRIDGE}*" jump beyond',
                f'oifname "{BRIDGE}*" jump into',
            ],
        ),
        "}",
        "",
    ]
    return "\n".join(lines)


def _chain(name: str, lines: Sequence[str]) -> list[str]:
    return [f"    chain {name} {{", *(f"        {line}" for line in lines), "    }"]


def _four(networks: Iterable[str]) -> list[str]:
    return [text for text in networks if ip_network(text, strict=False).version == 4]


def _to(networks: Sequence[str], verdict: str) -> list[str]:
    return [f"ip daddr {{ {', '.join(networks)} }} {verdict}"] if networks else []


def resolvers(files: Iterable[str] = _RESOLVERS) -> list[str]:
    """Who answers names on this machine, as Docker tells it to containers; none of its own loopback."""
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        words = [line.split() for line in text.splitlines()]
        found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        found = [address for address in found if _outer(address)]
        if found:
            return found
    return []


def _outer(text: str) -> bool:
    try:
        return not ip_address(text).is_loopback
    except ValueError:
        return False


def may_apply() -> bool:
    """Whether this process can put rules into the kernel."""
    return os.geteuid() == 0 and shutil.which("nft") is not None


def apply(text: str) -> None:
    """Put the table in.

    Raises
    ------
    OSError
        With what nft said.
    """
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip() or f"nft ended with {done.returncode}")
