"""Names of objects: valid for Kubernetes whatever people are called, and never the same for two."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from spawner.kubernetes.names import base_name, component, is_base_name, label, pod_name

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", re.ASCII)

texts = st.text(st.characters(codec="utf-8"), max_size=255)


@given(texts, texts)
def test_every_pair_of_names_gives_a_dns_label_with_room_for_the_rank(user: str, server: str) -> None:
    base = base_name(user, server)
    assert is_base_name(base)
    for name in (base, pod_name(base, 0), pod_name(base, 99999)):
        assert DNS_LABEL.fullmatch(name)
        assert len(name) <= 63


@given(st.tuples(texts, texts), st.tuples(texts, texts))
def test_two_pairs_never_have_one_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (base_name(*one) == base_name(*other)) == (one == other)


def test_names_that_look_alike_stay_apart() -> None:
    users = ["al", "alice", "a-b", "a_b", "A-B", "a--b", "a-b-", "王", "王五", "ali ce", "x" * 255, "x" * 254]
    servers = ["b", "ice-b", "heat", "heat-1", "1", "node-1", "", "x" * 63]
    bases = [base_name(user, server) for user, server in itertools.product(users, servers)]
    assert len(set(bases)) == len(bases)
    pods = [pod_name(base, rank) for base in bases for rank in (0, 1, 10, 11)]
    assert len(set(pods)) == len(pods)


def test_a_name_never_changes() -> None:
    """Whoever changes it makes running clusters invisible to the next hub."""
    assert base_name("ada", "heat") == "ada--heat---8640f3d2feb55217"


@given(texts)
def test_every_text_becomes_a_label(text: str) -> None:
    value = label(text)
    assert LABEL_VALUE.fullmatch(value)
    assert len(value) <= 63


def test_a_plain_text_stays_readable_as_a_label() -> None:
    assert label("ada.lovelace@example") != "ada.lovelace@example"
    assert label("ada.lovelace") == "ada.lovelace"


def test_foreign_names_are_not_taken_for_ours() -> None:
    assert not is_base_name("hub")
    assert not is_base_name("jupyter-ada--heat---12345678")
    assert not is_base_name(pod_name(base_name("ada", "heat"), 0))


def test_workers_are_another_component_than_the_head() -> None:
    assert [component(rank) for rank in (0, 1, 2)] == ["head", "worker", "worker"]
