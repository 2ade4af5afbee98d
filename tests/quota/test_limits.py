"""What several roles and exceptions come to, and that nothing admitted by it exceeds any of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extensions.quota.limits import ABOVE_ALL, Granted, Held, Kind, Limits, combine
from extensions.quota.measures import TOTALS, Measure
from extensions.quota.rules import Spent, decide, decide_together
from galilean.amounts import GIB
from tests.spawner.backends import plan_of


def exception(measure: str, amount: int | None) -> Granted:
    return Granted(id="x", user="lena", measure=Measure.parse(measure), amount=amount)


def role(name: str = "student", **amounts: int | None) -> tuple[str, dict[Measure, int | None]]:
    return name, {Measure(resource): amount for resource, amount in amounts.items()}


STUDENT = role(clusters=1, nodes=2, cpu=4000, memory=8 * GIB, gpu=0, total_cpu=8000, total_memory=16 * GIB)
TEACHER = role("teacher", clusters=6, nodes=1, gpu=2, total_gpu=4, manual_release=1)


def refused(limits: Limits, held: Held | None = None, spent: Any = None, **plan: Any) -> str:
    refusal = decide(plan_of(**plan), held or Held(), limits, spent)
    return "" if refusal is None else str(refusal.params.get("which", refusal.reason))


def test_of_several_roles_the_most_generous_of_each_number_holds() -> None:
    limits = combine([STUDENT, TEACHER])
    assert (limits.clusters, limits.nodes, limits.gpu, limits.manual_release) == (6, 2, 2, True)
    assert limits.entries[Measure("nodes")].role == "student"
    assert limits.entries[Measure("gpu")].role == "teacher"


def test_the_strictest_holds_where_the_centre_says_so() -> None:
    limits = combine([STUDENT, TEACHER], strictest=True)
    assert (limits.clusters, limits.nodes, limits.gpu, limits.manual_release) == (1, 1, 0, False)


def test_no_limit_is_the_most_generous() -> None:
    assert combine([STUDENT, role("x", nodes=None)]).amount("nodes") is None
    assert combine([STUDENT, role("x", nodes=None)], strictest=True).amount("nodes") == 2


def test_a_role_about_which_nothing_is_said_is_small_and_safe() -> None:
    limits = combine([("new", {})])
    assert (limits.clusters, limits.nodes, limits.cpu, limits.total_gpu, limits.gpu) == (1, 2, 2000, 0, 0)
    assert limits.memory == 8 * GIB
    assert limits.manual_release is False


def test_a_budget_of_one_role_does_not_bind_who_has_another_without() -> None:
    budget = Measure("core_hours", period="week")
    thrifty = ("student", {budget: 1000})
    assert combine([thrifty]).budgets == [budget]
    assert combine([thrifty, TEACHER]).budgets == []
    assert combine([thrifty, TEACHER], strictest=True).budgets == [budget]


def test_an_exception_beats_all_roles_upwards_and_downwards() -> None:
    limits = combine([STUDENT, TEACHER], [exception("nodes", 8), exception("clusters", 2)])
    assert (limits.nodes, limits.clusters) == (8, 2)
    assert limits.entries[Measure("nodes")].exception is not None


def test_an_exception_of_one_model_gives_that_model_and_no_other() -> None:
    limits = combine([STUDENT], [exception("gpu(a100)", 1), exception("total_gpu(a100)", 1)])
    assert refused(limits, gpu=1, gpu_model="a100") == ""
    assert refused(limits, gpu=1, gpu_model="h100") == "gpu"
    assert refused(limits, gpu=2, gpu_model="a100") == "gpu(a100)"
    held = Held.of([Kind(gpu_model="a100", clusters=0, gpu=1)])
    assert refused(limits, held, gpu=1, gpu_model="a100") == "total_gpu(a100)"
    assert limits.at_most("gpu", "default", "a100") == 1
    assert limits.at_most("gpu", "default", "h100") == 0


def test_what_an_exception_is_of_does_not_use_up_the_roles_own() -> None:
    limits = combine([role(total_gpu=2, gpu=2, clusters=9)], [exception("total_gpu(a100)", 4)])
    held = Held.of([Kind(gpu_model="a100", gpu=4), Kind(gpu_model="t4", gpu=1)])
    assert refused(limits, held, gpu=1, gpu_model="t4") == ""
    assert refused(limits, held, gpu=2, gpu_model="t4") == "total_gpu"


def test_limits_of_a_pool_hold_besides_those_of_everything() -> None:
    limits = combine([("s", {**STUDENT[1], Measure("total_cpu", "college"): 2000, Measure("clusters"): 9})])
    held = Held.of([Kind(pool="college", clusters=1, cpu_millicores=2000)])
    assert refused(limits, held, pool="college") == "total_cpu@college"
    assert refused(limits, held, pool="default") == ""
    much = Held.of([Kind(pool="default", clusters=1, cpu_millicores=8000)])
    assert refused(limits, much, pool="college") == "total_cpu"


def test_a_budget_that_is_used_up_refuses_and_says_when_it_begins_anew() -> None:
    week, gpus = Measure("core_hours", period="week"), Measure("gpu_hours", period="term")
    limits = combine(
        [("s", {**STUDENT[1], week: 20_000, gpus: 0, Measure("gpu"): 1, Measure("total_gpu"): 1})]
    )
    assert refused(limits, spent={week: Spent(used=19_999)}) == ""
    refusal = decide(plan_of(), Held(), limits, {week: Spent(used=20_000, renews_on="2026-11-30")})
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.params["which"]) == (429, "quota", "core_hours/week")
    assert "2026-11-30" in str(refusal)
    assert refused(limits, gpu=1) == "gpu_hours/term"


def test_no_limit_still_has_a_largest_cluster_so_that_no_sum_leaves_64_bits() -> None:
    limits = combine(
        [role(memory=None, total_memory=None, storage=None, nodes=None, cpu=None, total_cpu=None)]
    )
    refusal = decide(plan_of(nodes=1024, memory_bytes=2**55), Held(), limits)
    assert refusal is not None
    assert refusal.status == 400
    assert refused(limits, nodes=1024) == ""


def test_all_people_of_a_role_together() -> None:
    bounds = {Measure("role_clusters"): 3, Measure("role_cpu", "college"): 4000}
    assert decide_together(plan_of(), Held.of([Kind(clusters=2)]), bounds) is None
    refusal = decide_together(plan_of(), Held.of([Kind(clusters=3)]), bounds)
    assert refusal is not None
    assert refusal.params["which"] == "role_clusters"
    used = Held.of([Kind(pool="college", cpu_millicores=4000)])
    assert decide_together(plan_of(pool="college"), used, bounds) is not None
    assert decide_together(plan_of(), used, bounds) is None


# ---------------------------------------------------------------------------------------------- properties

POOLS, MODELS = ("default", "college"), ("", "a100", "t4")
amounts = st.one_of(st.none(), st.integers(0, 6))
plans = st.builds(
    plan_of,
    nodes=st.integers(1, 3),
    cpu_millicores=st.integers(1, 3),
    memory_bytes=st.integers(1, 3),
    storage_bytes=st.integers(0, 2),
    gpu=st.integers(0, 2),
    gpu_model=st.sampled_from(MODELS),
    pool=st.sampled_from(POOLS),
)


@st.composite
def bounds(draw: st.DrawFn) -> dict[Measure, int | None]:
    found: dict[Measure, int | None] = {}
    for resource in TOTALS:
        for pool in ("", *POOLS):
            models = ("", "a100") if resource == "total_gpu" else ("",)
            for model in models:
                if draw(st.booleans()):
                    found[Measure(resource, pool, model)] = draw(amounts)
    for resource in ("nodes", "cpu", "memory", "gpu", "storage"):
        found[Measure(resource)] = draw(amounts)
    return found


def kind_of(plan: Any) -> Kind:
    return Kind(
        pool=plan.pool,
        gpu_model=plan.gpu_model,
        clusters=1,
        cpu_millicores=plan.nodes * plan.cpu_millicores,
        memory_bytes=plan.nodes * plan.memory_bytes,
        gpu=plan.nodes * plan.gpu,
        storage_bytes=plan.nodes * plan.storage_bytes,
    )


FIELDS = {
    "clusters": "clusters",
    "total_cpu": "cpu_millicores",
    "total_memory": "memory_bytes",
    "total_gpu": "gpu",
    "total_storage": "storage_bytes",
}


@given(bounds(), st.lists(plans, max_size=8))
def test_whatever_is_asked_no_bound_is_ever_exceeded(
    said: dict[Measure, int | None], asked: list[Any]
) -> None:
    limits = combine([("role", said)])
    kinds: list[Kind] = []
    for plan in asked:
        if decide(plan, Held.of(kinds), limits) is None:
            kinds.append(kind_of(plan))
            assert plan.nodes <= (ABOVE_ALL if said[Measure("nodes")] is None else said[Measure("nodes")])  # type: ignore[operator]
    for measure, amount in limits.items():
        if amount is None or measure.resource not in FIELDS:
            continue
        used = sum(
            getattr(kind, FIELDS[measure.resource])
            for kind in kinds
            if measure.pool in ("", kind.pool) and measure.gpu_model in ("", kind.gpu_model)
        )
        assert used <= amount, measure


@given(bounds(), bounds(), plans)
def test_a_second_role_never_takes_anything_away(
    one: dict[Measure, int | None], other: dict[Measure, int | None], plan: Any
) -> None:
    alone = combine([("one", one)])
    both = combine([("one", one), ("other", other)])
    if decide(plan, Held(), alone) is None:
        assert decide(plan, Held(), both) is None
    if decide(plan, Held(), combine([("one", one), ("other", other)], strictest=True)) is None:
        assert decide(plan, Held(), alone) is None


@given(bounds(), plans, st.lists(plans, max_size=4))
def test_less_is_never_refused_where_more_is_admitted(
    said: dict[Measure, int | None], plan: Any, others: list[Any]
) -> None:
    from dataclasses import replace

    limits, held = combine([("role", said)]), Held.of(map(kind_of, others))
    if decide(plan, held, limits) is None:
        less = replace(plan, nodes=1, cpu_millicores=1, memory_bytes=1, gpu=0, storage_bytes=0)
        assert decide(less, held, limits) is None


@given(bounds(), plans, st.sampled_from(sorted(FIELDS)), st.integers(0, 6))
def test_an_exception_of_the_very_kind_decides_for_that_kind(
    said: dict[Measure, int | None], plan: Any, resource: str, amount: int
) -> None:
    """Of the narrowest kind, whatever the wider bounds of the roles are."""
    model = plan.gpu_model if resource == "total_gpu" else ""
    measure = Measure(resource, plan.pool, model)
    limits = combine([("role", said)], [Granted(id="x", user="lena", measure=measure, amount=amount)])
    refusal = decide(plan, Held(), limits)
    fits = getattr(kind_of(plan), FIELDS[resource]) <= amount
    if not fits:
        assert refusal is not None
    elif refusal is not None and resource != "total_gpu":
        assert not str(refusal.params.get("which", "")).startswith(resource)
