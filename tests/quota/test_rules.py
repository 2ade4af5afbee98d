"""What may be held: a table, and properties over all plans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extensions.quota.limits import Held, Limits, remaining
from extensions.quota.rules import decide
from galilean.amounts import GIB
from galilean.settings import Limits as SettingsLimits
from tests.spawner.backends import plan_of

LIMITS = Limits.from_settings(
    SettingsLimits.model_validate(
        {
            "clusters": 2,
            "nodes": 3,
            "cpu": 4,
            "memory": "8G",
            "gpu": 1,
            "storage": "20G",
            "total_cpu": 6,
            "total_memory": "10G",
            "total_gpu": 2,
        }
    )
)


@pytest.mark.parametrize(
    ("plan", "held", "which"),
    [
        ({}, Held(), None),
        ({"nodes": 3, "cpu_millicores": 2000}, Held(), None),
        ({"nodes": 4}, Held(), "nodes"),
        ({"cpu_millicores": 4001}, Held(), "cpu"),
        ({"memory_bytes": 8 * GIB + 1}, Held(), "memory"),
        ({"gpu": 2}, Held(), "gpu"),
        ({"storage_bytes": 21 * GIB}, Held(), "storage"),
        ({}, Held(clusters=1), None),
        ({}, Held(clusters=2), "clusters"),
        ({"nodes": 3, "cpu_millicores": 2001}, Held(), "total_cpu"),
        ({"cpu_millicores": 1000}, Held(clusters=1, cpu_millicores=5000), None),
        ({"cpu_millicores": 1001}, Held(clusters=1, cpu_millicores=5000), "total_cpu"),
        ({"nodes": 2, "memory_bytes": 5 * GIB + 1}, Held(), "total_memory"),
        ({"nodes": 3, "gpu": 1}, Held(), "total_gpu"),
    ],
)
def test_a_plan_fits_or_is_refused_with_the_number_that_stops_it(plan, held, which):
    refusal = decide(plan_of(**plan), held, LIMITS)
    if which is None:
        assert refusal is None
        return
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.params["which"]) == (429, "quota", which)
    assert {"used", "asked", "limit"} <= refusal.params.keys()
    assert "{" not in str(refusal)


def test_holding_until_released_by_hand_is_a_right():
    refusal = decide(plan_of(release_policy="manual"), Held(), LIMITS)
    assert refusal is not None
    assert refusal.status == 403
    assert decide(plan_of(release_policy="manual"), Held(), LIMITS.with_amounts(manual_release=1)) is None


plans = st.fixed_dictionaries(
    {
        "nodes": st.integers(1, 6),
        "cpu_millicores": st.integers(1, 8000),
        "memory_bytes": st.integers(1, 12 * GIB),
        "gpu": st.integers(0, 3),
    }
)
holdings = st.builds(
    Held,
    clusters=st.integers(0, 4),
    cpu_millicores=st.integers(0, 8000),
    memory_bytes=st.integers(0, 12 * GIB),
    gpu=st.integers(0, 3),
)


@given(plans, holdings)
def test_what_gets_in_never_exceeds_a_limit(fields, held):
    plan = plan_of(**fields)
    if decide(plan, held, LIMITS) is None:
        assert held.clusters + 1 <= LIMITS.clusters
        assert held.cpu_millicores + plan.nodes * plan.cpu_millicores <= LIMITS.total_cpu
        assert held.memory_bytes + plan.nodes * plan.memory_bytes <= LIMITS.total_memory
        assert plan.gpu == 0 or held.gpu + plan.nodes * plan.gpu <= LIMITS.total_gpu
        assert plan.nodes <= LIMITS.nodes


@given(plans, holdings)
def test_what_remains_is_what_gets_in(fields, held):
    left = remaining(LIMITS, held)
    plan = plan_of(**fields)
    fits = (
        left.clusters >= 1
        and plan.nodes <= left.nodes
        and plan.cpu_millicores <= left.node_cpu_millicores
        and plan.memory_bytes <= left.node_memory_bytes
        and plan.gpu <= left.node_gpu
        and plan.nodes * plan.cpu_millicores <= left.cpu_millicores
        and plan.nodes * plan.memory_bytes <= left.memory_bytes
        and plan.nodes * plan.gpu <= left.gpu
    )
    assert fits == (decide(plan, held, LIMITS) is None)
