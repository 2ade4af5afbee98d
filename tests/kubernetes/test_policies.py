"""What the lab makes of NetworkPolicies: the isolation tests stand on it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from tests.lab.policies import render, selects

NAMESPACES = [
    {"metadata": {"name": "people", "labels": {"name": "people"}}},
    {"metadata": {"name": "system", "labels": {"name": "system"}}},
]


def pod(name: str, address: str, namespace: str = "people", phase: str = "Running", **labels: str) -> Any:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"ports": [{"name": "dns", "containerPort": 53}]}]},
        "status": {"podIP": address, "phase": phase},
    }


def policy(selector: dict[str, Any], **spec: Any) -> Any:
    return {
        "metadata": {"name": "p", "namespace": "people"},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], **spec},
    }


PODS = [
    pod("a", "10.0.0.1", run="x"),
    pod("b", "10.0.0.2", run="x"),
    pod("c", "10.0.0.3", run="y"),
    pod("over", "10.0.0.1", phase="Succeeded", run="y"),
    pod("dns", "10.0.0.9", "system", app="dns"),
]
OF_X = {"matchLabels": {"run": "x"}}


def chain(table: str, name: str) -> list[str]:
    """The lines of a chain."""
    after = table.partition(f"chain {name} {{")[2].partition("}\n")[0]
    return [line.strip() for line in after.splitlines() if line.strip()]


def lines(**spec: Any) -> list[str]:
    return chain(render(PODS, NAMESPACES, [policy(OF_X, **spec)]), "out_10_0_0_1")


def test_who_is_selected_by_a_policy_may_only_what_one_allows() -> None:
    table = render(PODS, NAMESPACES, [policy(OF_X, egress=[{"to": [{"podSelector": OF_X}]}])])
    assert chain(table, "out_10_0_0_1") == [
        "ip daddr 10.0.0.1 return",
        "ip daddr 10.0.0.2 return",
        "drop",
    ]
    assert chain(table, "in_10_0_0_2") == ["drop"]
    assert "10_0_0_3" not in table
    assert "out_10_0_0_9" not in table


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, ["return", "drop"]),
        ({"ports": [{"port": 80}]}, ["tcp dport 80 return", "drop"]),
        ({"ports": [{"port": 80, "endPort": 90}]}, ["tcp dport 80-90 return", "drop"]),
        (
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "fe80::/10"]}}]},
            ["ip daddr 0.0.0.0/0 ip daddr != { 10.0.0.0/8 } return", "drop"],
        ),
        ({"to": [{"ipBlock": {"cidr": "::/0"}}]}, ["drop"]),
        (
            {
                "to": [
                    {
                        "namespaceSelector": {"matchLabels": {"name": "system"}},
                        "podSelector": {"matchLabels": {"app": "dns"}},
                    }
                ],
                "ports": [{"port": "dns", "protocol": "UDP"}],
            },
            ["ip daddr 10.0.0.9 udp dport 53 return", "drop"],
        ),
    ],
)
def test_a_rule_lets_through_what_it_says(rule: dict[str, Any], expected: list[str]) -> None:
    assert lines(egress=[rule]) == expected


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchExpressions": [{"key": "run", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "run", "operator": "In", "values": ["y"]}]}, False),
        ({"matchExpressions": [{"key": "run", "operator": "NotIn", "values": ["y"]}]}, True),
        ({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"run": "x", "other": "z"}}, False),
    ],
)
def test_selectors_select_as_in_kubernetes(selector: dict[str, Any], selected: bool) -> None:
    assert selects(selector, {"run": "x"}) is selected


@pytest.mark.kubernetes
def test_nftables_takes_the_table() -> None:
    rules = [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]},
        {"to": [{"podSelector": OF_X}], "ports": [{"port": 22}, {"port": 1, "endPort": 9}]},
        {"ports": [{"protocol": "UDP"}]},
    ]
    table = render(
        PODS, NAMESPACES, [policy(OF_X, egress=rules, ingress=[{"from": [{"podSelector": OF_X}]}])]
    )
    nft = shutil.which("nft")
    assert nft
    subprocess.run([nft, "--check", "--file", "-"], input=table, text=True, check=True)
