"""Names: contracts first, for any input."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from galilean.names import RESERVED, SLUG_LENGTH, check_slug, is_slug, numbered, server_alias, slugify

HUB_SERVER_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
slugs = st.text(max_size=40).map(slugify)


@given(st.text(max_size=200))
def test_a_slug_can_be_made_from_any_text(name: str):
    assert is_slug(slugify(name))


@given(st.from_regex(r"\A[a-z0-9-]{0,40}\Z"))
def test_what_is_a_slug_is_a_server_name_of_the_hub(text: str):
    if is_slug(text):
        assert HUB_SERVER_NAME.fullmatch(text) and "--" not in text


@given(slugs)
def test_a_slug_stays_as_it_is(slug: str):
    assert slugify(slug) == slug == check_slug(slug)


@given(slugs, st.integers(1, 10**6))
def test_a_numbered_slug_is_a_slug(slug: str, number: int):
    assert is_slug(numbered(slug, number))


@given(slugs, st.integers(1, 10**6), st.integers(1, 10**6))
def test_numbered_slugs_differ(slug: str, first: int, second: int):
    assert (numbered(slug, first) == numbered(slug, second)) == (first == second)


people = st.text(min_size=1, max_size=20)


@given(people, people, slugs)
def test_an_alias_is_a_server_name_of_the_hub(owner: str, person: str, slug: str):
    assert HUB_SERVER_NAME.fullmatch(server_alias(owner, slug, person))


@given(st.lists(st.tuples(people, slugs), unique=True, min_size=2, max_size=20), people)
def test_no_two_projects_have_one_alias_for_the_same_person(projects: list[tuple[str, str]], person: str):
    aliases = [server_alias(owner, slug, person) for owner, slug in projects]
    assert len(set(aliases)) == len(projects)


def test_ones_own_project_is_called_by_its_slug():
    assert server_alias("ada", "heat-flow", "ada") == "heat-flow"
    assert server_alias("ada", "heat-flow", "grace") != "heat-flow"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Heat flow", "heat-flow"),
        ("热流", "re-liu"),
        ("🚀", "rocket"),
        ("", "project"),
        ("2026 results", "results"),
    ],
)
def test_a_slug_can_be_read(name: str, slug: str):
    assert slugify(name) == slug


@pytest.mark.parametrize("word", [*sorted(RESERVED), "node-0", "node-17", "node0", "node"])
def test_words_with_a_meaning_in_addresses_are_kept(word: str):
    assert not is_slug(word)
    assert is_slug(slugify(word))
    with pytest.raises(UserError) as caught:
        check_slug(word)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text", ["", "A", "1a", "-a", "a-", "a--b", "a_b", "a/b", "..", "a" * (SLUG_LENGTH + 1), "é"]
)
def test_what_is_no_slug_is_refused_in_words(text: str):
    with pytest.raises(UserError) as caught:
        check_slug(text)
    assert caught.value.status == 400 and "address" in str(caught.value)
