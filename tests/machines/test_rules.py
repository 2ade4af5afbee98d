"""Rules about machines: tables of what they decide."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.amounts import GIB
from services.machines.rules import (
    Amounts,
    GpuModel,
    Gpus,
    Machine,
    Order,
    Pool,
    Size,
    State,
    Step,
    free_in,
    in_pool,
    labels_for,
    never_fits,
    next_step,
    places,
    possible,
    state_of,
    tolerated,
)
from tests.machines.machines import GPU, RESERVED, T0, machine

ALL = Pool(name="default")
COLLEGE = Pool(
    name="physics",
    node_selector={"college": "physics"},
    tolerations=({"key": "college", "operator": "Equal", "value": "physics", "effect": "NoSchedule"},),
)
TAINT = {"key": "college", "value": "physics", "effect": "NoSchedule"}


def order(action: str = "out", **more: object) -> Order:
    values = {"id": "o", "machine": "m1", "asked_by": "root", "asked_at": T0, "due_at": T0, **more}
    return Order(action=action, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("toleration", "stands"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "college", "operator": "Exists"}, True),
        ({"key": "college", "value": "physics"}, True),
        ({"key": "college", "value": "physics", "effect": "NoSchedule"}, True),
        ({"key": "college", "value": "chemistry"}, False),
        ({"key": "college"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "physics"}, False),
    ],
)
def test_a_toleration_stands_a_taint_by_the_rules_of_kubernetes(toleration: dict, stands: bool) -> None:
    assert tolerated(TAINT, [toleration]) is stands


def test_a_machine_is_in_the_pools_whose_labels_it_has_and_that_stand_its_taints() -> None:
    plain = machine()
    ours = machine(labels={"college": "physics"})
    tainted = replace(ours, taints=(TAINT,))
    assert [in_pool(item, ALL) for item in (plain, ours, tainted)] == [True, True, False]
    assert [in_pool(item, COLLEGE) for item in (plain, ours, tainted)] == [False, True, True]


def test_a_taint_that_only_tells_of_a_state_takes_no_machine_out_of_its_pool() -> None:
    passing = ({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},)
    preferred = ({"key": "slow", "effect": "PreferNoSchedule"},)
    assert in_pool(machine(taints=passing), ALL)
    assert in_pool(machine(taints=preferred), ALL)
    assert not in_pool(machine(taints=(RESERVED,)), ALL)


def test_what_a_machine_lacks_of_its_pool_s_labels() -> None:
    assert labels_for(COLLEGE, machine(labels={"college": "chemistry"})) == {"college": "physics"}
    assert labels_for(COLLEGE, machine(labels={"college": "physics"})) == {}


def test_free_is_what_working_machines_have_left_and_never_below_zero() -> None:
    machines = [
        machine("m1", cpu=16, other=Amounts(cpu_millicores=1000)),
        machine("m2", cpu=8),
        machine("m3", cordoned=True),
        machine("m4", ready=False),
        machine("m5", taints=(RESERVED,)),
    ]
    taken = {
        "m1": Amounts(cpu_millicores=4000, memory_bytes=GIB),
        "m2": Amounts(cpu_millicores=99_000),
        "m3": Amounts(cpu_millicores=1000),
    }
    found = free_in(ALL, machines, taken)
    assert (found.machines, found.all.cpu_millicores) == (2, 24_000)
    assert found.free == Amounts(cpu_millicores=11_000, memory_bytes=127 * GIB)


# ------------------------------------------------------------------------------------- what can never be

PARK = [machine("small", cpu=16, memory=64), machine("large", cpu=64, memory=256, gpu=4)]


@pytest.mark.parametrize(
    ("size", "largest", "most"),
    [
        (Size(nodes=1, cpu_millicores=64_000, memory_bytes=GIB), None, None),
        (Size(nodes=1, cpu_millicores=65_000, memory_bytes=GIB), "large", 0),
        (Size(nodes=1, cpu_millicores=1000, memory_bytes=257 * GIB), "large", 0),
        (Size(nodes=5, cpu_millicores=16_000, memory_bytes=16 * GIB), None, None),
        (Size(nodes=6, cpu_millicores=16_000, memory_bytes=16 * GIB), "large", 5),
        (Size(nodes=1, cpu_millicores=1000, memory_bytes=GIB, gpu=4), None, None),
        (Size(nodes=1, cpu_millicores=1000, memory_bytes=GIB, gpu=5), "large", 0),
        (Size(nodes=5, cpu_millicores=1000, memory_bytes=GIB, gpu=1), "large", 4),
    ],
)
def test_what_no_machine_could_ever_hold_is_told_with_the_largest(
    size: Size, largest: str | None, most: int | None
) -> None:
    never = never_fits(size, ALL, PARK, Gpus(resource=GPU))
    if largest is None:
        assert never is None
    else:
        assert never is not None
        assert never.largest is not None
        assert (never.largest.name, never.most_nodes) == (largest, most)


def test_a_machine_that_is_out_for_a_while_counts_for_what_can_ever_be() -> None:
    big = machine("big", cpu=128, cordoned=True, ready=False)
    size = Size(nodes=1, cpu_millicores=100_000, memory_bytes=GIB)
    assert never_fits(size, ALL, [big], Gpus()) is None


def test_nothing_is_refused_where_nothing_is_known() -> None:
    size = Size(nodes=1, cpu_millicores=100_000, memory_bytes=GIB)
    assert never_fits(size, ALL, [], Gpus()) is None
    assert never_fits(size, COLLEGE, PARK, Gpus()) is None


def test_cards_of_a_model_are_only_where_its_labels_are() -> None:
    gpus = Gpus(resource=GPU, models={"a100": GpuModel(resource=GPU, node_selector={"card": "a100"})})
    park = [machine("old", gpu=8, labels={"card": "t4"}), machine("new", gpu=2, labels={"card": "a100"})]
    size = Size(nodes=1, cpu_millicores=1000, memory_bytes=GIB, gpu=2, gpu_model="a100")
    assert never_fits(size, ALL, park, gpus) is None
    more = never_fits(replace(size, gpu=3), ALL, park, gpus)
    assert more is not None
    assert more.largest is park[1]
    none = never_fits(replace(size, gpu_model="h100"), ALL, park, gpus)
    assert none is not None
    assert none.largest is None


@given(
    cpu=st.integers(1, 64),
    memory=st.integers(1, 256),
    gpu=st.integers(0, 5),
    nodes=st.integers(1, 12),
)
def test_whatever_is_refused_does_not_fit_and_whatever_fits_is_not_refused(
    cpu: int, memory: int, gpu: int, nodes: int
) -> None:
    size = Size(nodes=nodes, cpu_millicores=cpu * 1000, memory_bytes=memory * GIB, gpu=gpu)
    room = [item for item in PARK if not gpu or item.gpu]
    fits = sum(places(item, size, GPU) for item in room) >= nodes
    assert (never_fits(size, ALL, PARK, Gpus(resource=GPU)) is None) is fits


# ------------------------------------------------------------------------------------- states and steps


@pytest.mark.parametrize(
    ("there", "wanted", "state"),
    [
        (machine(), None, State.READY),
        (machine(ready=False), order(), State.SILENT),
        (machine(cordoned=True), None, State.CLOSED),
        (machine(taints=(RESERVED,)), None, State.RESERVED),
        (machine(cordoned=True), order(due_at=T0 + timedelta(hours=1)), State.LEAVING),
        (machine(cordoned=True), order(due_at=T0), State.EMPTYING),
        (machine(cordoned=True), order(withdrawn_at=T0), State.CLOSED),
        (None, order("add"), State.EXPECTED),
    ],
)
def test_the_state_of_a_machine(there: Machine | None, wanted: Order | None, state: State) -> None:
    assert state_of(there, wanted, T0) is state


LATER = T0 + timedelta(hours=1)


@pytest.mark.parametrize(
    ("wanted", "there", "occupied", "step"),
    [
        # taken out: no new nodes at once, then wait, then empty, then remove or keep
        (order(due_at=LATER), machine(), True, Step.CORDON),
        (order(due_at=LATER), machine(cordoned=True), True, Step.WAIT),
        (order(), machine(cordoned=True), True, Step.EMPTY),
        (order(), machine(cordoned=True), False, Step.DONE),
        (order(remove=True), machine(cordoned=True), False, Step.REMOVE),
        (order(remove=True), None, False, Step.DONE),
        (order(), None, False, Step.GONE),
        # taken back, at any time
        (order(withdrawn_at=T0), machine(cordoned=True), True, Step.UNCORDON),
        (order(withdrawn_at=T0), machine(), True, Step.WITHDRAWN),
        (order(remove=True, withdrawn_at=T0), None, False, Step.GONE),
        # the others
        (order("cordon"), machine(), True, Step.CORDON),
        (order("cordon"), machine(cordoned=True), True, Step.DONE),
        (order("uncordon"), machine(cordoned=True), True, Step.UNCORDON),
        (order("uncordon"), machine(), True, Step.DONE),
        (order("compute"), machine(taints=(RESERVED,)), False, Step.UNRESERVE),
        (order("compute"), machine(), False, Step.DONE),
        (order("keep"), machine(), False, Step.RESERVE),
        (order("keep"), machine(taints=(RESERVED,)), False, Step.DONE),
        (order("keep"), None, False, Step.GONE),
        # added
        (order("add", due_at=LATER), None, False, Step.WAIT),
        (order("add"), None, False, Step.EXPIRED),
        (order("add", due_at=LATER, withdrawn_at=T0), None, False, Step.WITHDRAWN),
        (order("add", due_at=LATER), machine(), False, Step.DONE),
    ],
)
def test_the_next_step_of_an_order(wanted: Order, there: Machine | None, occupied: bool, step: Step) -> None:
    assert next_step(wanted, there, occupied=occupied, now=T0) is step


def test_a_machine_that_came_gets_its_pool_s_labels_before_it_counts_as_added() -> None:
    assert next_step(order("add"), machine(), occupied=False, now=T0, missing_labels=True) is Step.LABEL


def test_an_action_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="explode"):
        next_step(order("explode"), machine(), occupied=False, now=T0)


def test_what_may_be_wanted_of_a_machine() -> None:
    assert possible(machine(), None) == ("cordon", "out")
    assert possible(machine(cordoned=True), None) == ("uncordon", "out")
    assert possible(machine(control_plane=True, taints=(RESERVED,)), None) == ("cordon", "out", "compute")
    assert possible(machine(control_plane=True), None) == ("cordon", "out", "keep")
    assert possible(machine(), order()) == ("withdraw",)
    assert possible(machine(), order(withdrawn_at=T0)) == ()
    assert possible(machine(), order("cordon")) == ()
    assert possible(None, order("add")) == ("withdraw",)
