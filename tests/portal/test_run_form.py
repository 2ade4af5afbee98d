"""What the Run drawer offers: every limit with its reason, before anything is pressed."""

from __future__ import annotations

import pytest

from extensions.quota.limits import Entry, Granted, Held, Limits, combine
from extensions.quota.measures import Measure
from extensions.quota.rules import Spent
from galilean.amounts import GIB, MIB
from galilean.settings import Limits as SettingsLimits
from galilean.settings import Settings
from services.portal.pages.run_bars import bars_of
from services.portal.pages.run_choice import Choice, clamp, last_choice
from services.portal.pages.run_form import CUSTOM, ModelOption, RunForm, run_form
from services.portal.pages.run_words import gigabytes_text, refusal_of, release_in_words, together

SETTINGS = Settings()
OFFERED = ("auto", "2h", "4h")


def limits_with(**amounts: object) -> Limits:
    return Limits.from_settings(SettingsLimits.model_validate(amounts))


def form_of(limits: Limits, held: Held, wanted: Choice, settings: Settings = SETTINGS) -> RunForm:
    return run_form(settings, limits, held, wanted, offered=OFFERED, default="auto")


LIMITS = limits_with(clusters=2, nodes=4, cpu=8, memory="32G", total_cpu=24, total_memory="96G")


def choice(**changes: object) -> Choice:
    values: dict[str, object] = {
        "nodes": 4,
        "cpu_millicores": 2000,
        "memory_bytes": 8 * GIB,
        "gpu": 0,
        "environment": "jupyter",
        "release": "auto",
    }
    return Choice(**{**values, **changes})  # type: ignore[arg-type]


def test_the_sum_is_over_the_nodes_and_the_form_says_so() -> None:
    assert together(choice()).text() == "Together 8\u00a0cores, 32\u00a0GB"
    assert together(choice(nodes=1, cpu_millicores=1000)).text() == "Together 1\u00a0core, 8\u00a0GB"
    assert together(choice(gpu=1)).text().endswith("4\u00a0GPUs")


def test_bars_show_what_is_held_what_is_added_and_the_limit() -> None:
    cpu, memory = bars_of(choice(), LIMITS, Held(clusters=1, cpu_millicores=8000, memory_bytes=32 * GIB))
    assert (cpu.numbers, cpu.limit) == ("8 + 8", 24)
    assert (cpu.held_percent, cpu.adds_percent) == (33.3, 33.3)
    assert (memory.numbers, memory.limit, memory.unit) == ("32 + 32", 96, "GB")
    assert cpu.level == ""


@pytest.mark.parametrize(
    ("held_cores", "level"), [(0, ""), (11, ""), (12, "warn"), (16, "warn"), (17, "bad")]
)
def test_a_bar_turns_amber_from_80_percent_and_red_above_the_limit(held_cores: int, level: str) -> None:
    assert bars_of(choice(), LIMITS, Held(cpu_millicores=held_cores * 1000))[0].level == level


def test_a_bar_never_leaves_its_track() -> None:
    bar = bars_of(choice(nodes=1000), LIMITS, Held(cpu_millicores=8000))[0]
    assert bar.held_percent + bar.adds_percent == 100


@pytest.mark.parametrize(
    ("changes", "held", "sentence"),
    [
        ({}, Held(), None),
        ({"nodes": 5}, Held(), "Your role: at most 4\u00a0nodes."),
        ({"nodes": 1, "cpu_millicores": 8001}, Held(), "Your role: at most 8\u00a0cores per node."),
        ({"nodes": 1, "memory_bytes": 33 * GIB}, Held(), "Your role: at most 32\u00a0GB per node."),
        ({"gpu": 1}, Held(), "Your role: at most 0\u00a0GPUs per node."),
        ({}, Held(clusters=2), "You hold 2 of 2 clusters. Release one to start another."),
        (
            {},
            Held(clusters=1, cpu_millicores=17_000),
            "Together 8\u00a0cores, but 7\u00a0cores of your 24\u00a0cores are free.",
        ),
        (
            {},
            Held(clusters=1, memory_bytes=90 * GIB),
            "Together 32\u00a0GB, but 6\u00a0GB of your 96\u00a0GB are free.",
        ),
    ],
)
def test_what_cannot_be_had_is_said_with_the_numbers(
    changes: dict[str, object], held: Held, sentence: str | None
) -> None:
    refusal = refusal_of(choice(**changes), LIMITS, held)
    assert (refusal.text() if refusal else None) == sentence


def test_a_size_above_the_role_is_shown_with_the_reason_beside_it() -> None:
    tight = limits_with(nodes=2, cpu=4, memory="16G")
    form = form_of(tight, Held(), last_choice(SETTINGS, "", None))
    reasons = {size.key: size.reason.text() if size.reason else None for size in form.sizes}
    assert reasons == {"small": None, "medium": None, "large": "Your role: at most 4\u00a0cores per node"}
    assert form.nodes_reason is not None
    assert form.nodes_reason.text() == "Your role: at most 2\u00a0nodes"


@pytest.mark.parametrize("megabytes", [64, 100, 512, 1023, 1024, 4096, 4097])
def test_a_field_of_gigabytes_gives_back_what_it_was_given(megabytes: int) -> None:
    assert round(float(gigabytes_text(megabytes * MIB)) * GIB) == megabytes * MIB
    assert gigabytes_text(8 * GIB) == "8"


def test_the_last_configuration_is_filled_in() -> None:
    last = {
        "nodes": 3,
        "cpu_millicores": 4000,
        "memory_bytes": 16 * GIB,
        "release": "4h",
        "on_node_loss": "keep",
    }
    found = last_choice(SETTINGS, "", last)
    assert (found.nodes, found.cpu_millicores, found.release, found.on_node_loss) == (3, 4000, "4h", "keep")
    assert form_of(LIMITS, Held(), found).size == "medium"


def test_a_last_configuration_in_the_words_of_the_contract_is_understood() -> None:
    found = last_choice(SETTINGS, "", {"cpu": 1.5, "memory": "3G"})
    assert (found.cpu_millicores, found.memory_bytes) == (1500, 3 * GIB)
    assert form_of(LIMITS, Held(), found).size == CUSTOM


def test_an_environment_that_is_gone_gives_way_to_the_projects_default() -> None:
    assert last_choice(SETTINGS, "gone", {"environment": "gone-too"}).environment == "jupyter"


def test_a_wish_from_better_times_is_cut_down_to_what_the_role_may() -> None:
    cut = clamp(
        choice(nodes=64, cpu_millicores=64_000, memory_bytes=512 * GIB, gpu=8), LIMITS, OFFERED, "auto"
    )
    assert (cut.nodes, cut.cpu_millicores, cut.memory_bytes, cut.gpu) == (4, 8000, 32 * GIB, 0)
    assert refusal_of(cut, LIMITS.with_amounts(total_memory=512 * GIB, total_cpu=10**6), Held()) is None


def test_only_offered_policies_are_shown_and_another_gives_way_to_the_default() -> None:
    assert form_of(LIMITS, Held(), choice(release="7d")).releases == OFFERED
    assert clamp(choice(release="7d"), LIMITS, OFFERED, "2h").release == "2h"
    assert clamp(choice(release="4h"), LIMITS, OFFERED, "2h").release == "4h"


@pytest.mark.parametrize("policy", SETTINGS.release.offered)
def test_every_policy_has_words(policy: str) -> None:
    assert policy not in release_in_words(policy, 300).text().split()


def test_gpus_are_asked_for_only_where_the_role_may_have_any() -> None:
    assert form_of(LIMITS, Held(), choice()).gpu_most == 0
    some = LIMITS.with_amounts(gpu=2, total_gpu=4)
    form = form_of(some, Held(), choice(nodes=3, gpu=2))
    assert form.gpu_most == 2
    assert [bar.key for bar in form.bars] == ["cpu", "memory", "gpu"]
    assert form.refusal is not None
    assert form.refusal.text() == "Together 6\u00a0GPUs, but 4\u00a0GPUs of your 4\u00a0GPUs are free."


def test_the_choice_is_a_request_that_the_hub_takes() -> None:
    from spawner.request import ClusterRequest

    request = ClusterRequest.parse({**choice().as_options(), "project": "alice/heat"})
    assert (request.nodes, request.cpu_millicores, request.memory_bytes) == (4, 2000, 8 * GIB)


def test_no_limit_is_no_number() -> None:
    form = form_of(LIMITS.with_amounts(nodes=None, total_cpu=None, cpu=None), Held(), choice(nodes=40))
    assert form.nodes_reason is None and form.cpu_reason is None
    assert form.choice.nodes == 40
    assert [bar.key for bar in form.bars] == ["memory"]


def test_an_exception_for_one_model_gives_that_model_and_says_whose_it_is() -> None:
    given = [
        Granted(id="1", user="jonas", measure=Measure(name, "", "a100"), amount=1, given_by="maria")
        for name in ("gpu", "total_gpu")
    ]
    limits = combine([("student", {})], given)
    models = [ModelOption(name=name, title=name, free=3) for name in ("a100", "h100")]
    form = run_form(
        SETTINGS,
        limits,
        Held(),
        choice(nodes=1, gpu=1, gpu_model="a100"),
        (),
        models,
        offered=OFFERED,
        default="auto",
    )
    assert form.gpu_most == 1
    assert {model.name: bool(model.reason) for model in form.gpu_models} == {"a100": False, "h100": True}
    assert form.gpu_any is not None
    assert form.gpu_reason and "by maria" in form.gpu_reason.text()
    assert form.refusal is None
    assert (
        refusal_of(choice(nodes=1, cpu_millicores=1000, gpu=1, gpu_model="h100"), limits, Held()) is not None
    )


def test_a_narrower_limit_refuses_by_its_name() -> None:
    limits = Limits([*LIMITS.entries.values(), Entry(measure=Measure("total_cpu", "college"), amount=2000)])
    refusal = refusal_of(choice(nodes=2, pool="college"), limits, Held())
    assert refusal is not None
    assert refusal.text() == (
        "Cores at a time, pool college: together 4\u00a0cores, but 2\u00a0cores of your 2\u00a0cores are free."
    )
    assert refusal_of(choice(nodes=2, pool="other"), limits, Held()) is None


def test_a_budget_has_a_bar_with_the_day_on_which_it_begins_anew_and_refuses_when_used_up() -> None:
    week = Measure("core_hours", "", "", "week")
    limits = Limits([*LIMITS.entries.values(), Entry(measure=week, amount=40_000)])
    spent = {week: Spent(used=12_500, renews_on="2026-11-30")}
    (bar,) = bars_of(choice(), limits, Held(), spent)[2:]
    assert (bar.label.text(), bar.numbers, bar.limit_text) == ("Core hours this week", "12.5", "40")
    assert bar.note and bar.note.text() == "begins anew on 2026-11-30"
    assert refusal_of(choice(nodes=1), limits, Held(), spent) is None
    used_up = refusal_of(choice(nodes=1), limits, Held(), {week: Spent(used=40_000, renews_on="2026-11-30")})
    assert used_up is not None and "2026-11-30" in used_up.text()


def test_local_storage_is_asked_where_it_can_be_kept_to() -> None:
    limits = limits_with(storage="20G")
    kube = SETTINGS.model_copy(update={"backend": "kubernetes"})
    assert not form_of(limits, Held(), choice()).storage_asked, "processes cannot be limited"
    asked = form_of(limits, Held(), choice(storage_bytes=50 * GIB), kube)
    assert asked.storage_asked and asked.clamped
    assert asked.choice.storage_bytes == asked.storage_most_bytes == 20 * GIB
    assert asked.storage_reason and asked.storage_reason.text() == "Your role: at most 20\u00a0GB per node"
    assert asked.choice.as_options()["storage"] == 20 * GIB
    assert "storage" not in choice().as_options(), "nothing asked is what the site gives"
    refusal = refusal_of(choice(nodes=1, storage_bytes=21 * GIB), limits, Held())
    assert refusal and "20" in refusal.text()
    assert last_choice(kube, "jupyter", {"storage_bytes": 5 * GIB}).storage_bytes == 5 * GIB
