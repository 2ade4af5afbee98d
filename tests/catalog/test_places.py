"""Pools by role and GPU models by name."""

from __future__ import annotations

import pytest

from galilean.errors import UserError
from galilean.settings import SettingsError, parse_settings
from services.catalog.environments import choose
from services.catalog.places import check_gpu_count, choose_gpu_model, choose_pool, open_pools

SETTINGS = parse_settings(
    """
roles: {student: {}, teacher: {}, admin: {}}
pools:
  default: {}
  physics: {title: Physics, open_to: [teacher]}
gpu_models: {a100: {title: A100}}
"""
)
CLOSED = parse_settings(
    "roles: {student: {}, teacher: {}, admin: {}}\n"
    "pools: {default: {open_to: [teacher]}, lab: {open_to: [student, admin]}}\n"
)


def refused(status: int, *arguments: object, function: object = choose_pool) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)  # type: ignore[operator]
    assert caught.value.status == status
    return str(caught.value)


def test_a_pool_that_names_no_roles_is_open_to_all() -> None:
    assert open_pools(SETTINGS, ["student"]) == ("default",)
    assert open_pools(SETTINGS, ["student", "teacher"]) == ("default", "physics")
    assert open_pools(SETTINGS, []) == ("default",)


def test_a_pool_that_was_asked_for_is_taken_or_refused_in_words() -> None:
    assert choose_pool(SETTINGS, ["teacher"], "physics", None) == "physics"
    assert "Physics" in refused(403, SETTINGS, ["student"], "physics", None)
    assert "chemistry" in refused(400, SETTINGS, ["teacher"], "chemistry", None)


def test_the_projects_own_pool_counts_unless_it_is_closed_or_gone() -> None:
    assert choose_pool(SETTINGS, ["teacher"], None, "physics") == "physics"
    assert choose_pool(SETTINGS, ["student"], None, "physics") == "default"
    assert choose_pool(SETTINGS, ["teacher"], None, "was-removed") == "default"
    assert choose_pool(SETTINGS, ["teacher"], "default", "physics") == "default"


def test_where_the_default_is_closed_the_first_open_pool_is_taken() -> None:
    assert choose_pool(CLOSED, ["student"], None, None) == "lab"
    assert choose_pool(CLOSED, ["teacher", "admin"], None, None) == "default"
    assert "No pool" in refused(403, CLOSED, ["guest"], None, None)


def test_a_gpu_model_counts_only_with_cards() -> None:
    assert choose_gpu_model(SETTINGS, 2, "a100", None) == "a100"
    assert choose_gpu_model(SETTINGS, 2, None, "a100") == "a100"
    assert choose_gpu_model(SETTINGS, 2, "", "a100") == ""
    assert choose_gpu_model(SETTINGS, 0, None, "a100") == ""
    assert choose_gpu_model(SETTINGS, 2, None, "was-removed") == ""
    assert "V100" in refused(400, SETTINGS, 2, "V100", None, function=choose_gpu_model)


GROUPS = parse_settings(
    "gpu_models: {npu: {title: Ascend 910, counts: [0, 1, 2, 4, 8]}, old: {counts: [1, 3]}, any: {}}"
)


@pytest.mark.parametrize(
    ("gpu", "model", "good"),
    [
        (0, "npu", True),
        (1, "npu", True),
        (8, "npu", True),
        (3, "npu", False),
        (16, "npu", False),
        (3, "old", True),
        (5, "any", True),
        (5, "", True),
        (5, "was-removed", True),
    ],
)
def test_cards_of_a_model_come_in_the_numbers_of_the_settings(gpu: int, model: str, good: bool) -> None:
    if good:
        check_gpu_count(GROUPS, gpu, model)
    else:
        said = refused(400, GROUPS, gpu, model, function=check_gpu_count)
        assert said == f"A node can have 1, 2, 4, 8 cards of Ascend 910; {gpu} were asked for."


def test_where_no_model_is_named_any_of_them_may_serve() -> None:
    both = parse_settings("gpu_models: {npu: {counts: [2, 4]}, old: {counts: [1]}}")
    for gpu in (0, 1, 2, 4):
        check_gpu_count(both, gpu, "")
    assert "1, 2, 4 cards of GPU" in refused(400, both, 3, "", function=check_gpu_count)
    check_gpu_count(parse_settings(""), 3, "")


def test_a_model_that_allows_no_card_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(SettingsError, match="allows no card"):
        parse_settings("gpu_models: {npu: {counts: [0]}}")


def test_on_kubernetes_an_environment_without_an_image_has_the_sites_and_is_known_by_it() -> None:
    pods = parse_settings(
        "backend: kubernetes\n"
        "kubernetes: {image: 'galilean-jupyter:1'}\n"
        "environments: {jupyter: {title: J}, torch: {title: T, image: 'torch@sha256:2'}}\n"
        "volumes: {default: {kind: claim, claim: projects, path: /srv/projects}}\n"
    )
    plain, torch = choose(pods, "jupyter"), choose(pods, "torch")
    assert (plain.image, plain.digest) == ("galilean-jupyter:1", "galilean-jupyter:1")
    assert (torch.image, torch.digest) == ("torch@sha256:2", "torch@sha256:2")
    assert choose(SETTINGS, "jupyter").image == ""
