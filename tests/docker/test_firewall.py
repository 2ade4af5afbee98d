"""The firewall as text, and what nft makes of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from spawner.docker.firewall import Reach, resolvers, rules
from spawner.docker.names import BUILD_BRIDGE, bridge_name, build_bridge_name

REACH = Reach(
    pool="10.213.0.0/16",
    address="10.213.0.1",
    ports=[20001, 20002],
    resolvers=["192.0.2.53", "2001:db8::53"],
    not_outside=("10.0.0.0/8", "169.254.0.0/16", "fe80::/10"),
    reaches=("10.1.2.3/32",),
)


def test_nodes_reach_hub_and_portal_names_and_the_outside_and_nothing_else() -> None:
    text = rules(REACH)
    here, beyond = text.split("chain here {")[1].split("}\n")[0], text.split("chain beyond {")[1]
    assert "ip daddr 10.213.0.1 tcp dport { 20001, 20002 } accept" in here
    assert here.rstrip().endswith("counter drop")
    order = [beyond.index(word) for word in ("ip daddr { 10.1.2.3/32 } accept", "169.254.0.0/16 } counter")]
    assert order == sorted(order), "what is allowed comes before what is not the outside"
    assert beyond.index("meta nfproto ipv6 counter drop") < order[0], "IPv6 is nobody's way out"


def test_where_an_image_is_built_neither_hub_nor_clusters_are_reached() -> None:
    text = rules(REACH)
    here, beyond = text.split("chain here {")[1].split("}\n")[0], text.split("chain beyond {")[1]
    build = 'iifname "gal-b-*" ip daddr'
    assert here.index(f"{build} 10.213.0.1 counter drop") < here.index("tcp dport { 20001, 20002 } accept")
    assert beyond.index(f"{build} 10.213.0.0/16 counter drop") < beyond.index("ip daddr 10.213.0.0/16 accept")
    assert text.index('oifname "gal-b-*" counter drop') < text.index('iifname "gal-*" accept')


def test_no_bridge_of_a_cluster_is_taken_for_one_of_a_build() -> None:
    clusters = {bridge_name("galilean", str(number)) for number in range(2000)}
    assert not [name for name in clusters if name.startswith(BUILD_BRIDGE)]
    assert build_bridge_name("galilean", "x").startswith(BUILD_BRIDGE)
    assert len(build_bridge_name("galilean", "x")) == 15


def test_without_the_outside_everything_else_is_dropped() -> None:
    from dataclasses import replace

    sealed = rules(replace(REACH, outside=False)).split("chain beyond {")[1].split("    }")[0]
    assert sealed.rstrip().endswith("counter drop")
    assert "ip daddr { 192.0.2.53 } meta l4proto { tcp, udp } th dport 53 accept" in sealed


@pytest.mark.parametrize("names", [[], ["192.0.2.53"]])
def test_nft_understands_the_rules(names: list[str]) -> None:
    if not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("nft is missing")
    from dataclasses import replace

    text = rules(replace(REACH, resolvers=names))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "-f", "-"],
        input=text, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_who_answers_names_is_never_the_loopback(tmp_path) -> None:
    stub, real = tmp_path / "a", tmp_path / "b"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("# x\nnameserver 192.0.2.1\nnameserver bad\nnameserver 192.0.2.2\n")
    assert resolvers([str(stub), str(real)]) == ["192.0.2.1", "192.0.2.2"]
    assert resolvers([str(tmp_path / "none")]) == []
