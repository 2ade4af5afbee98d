"""By which words something is found, in any language."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.catalog.words import fold, holds, terms, words

text = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("热流体 动力学ヒートてがｶﾞheatHÉàïЁ한국어ไทย้ 1２-_\n\u0301\u3099"),
    ),
    max_size=30,
)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("热流", "地幔热流的数值模拟"),
        ("数值", "地幔热流的数值模拟"),
        ("热", "地幔热流"),
        ("流", "地幔热流"),
        ("热流模拟", "热流模拟"),
        ("heat", "Tidal HEATING of Io"),
        ("of io", "Tidal heating of Io"),
        ("novak", "Jana Novák"),
        ("NOVÁK", "jana novak"),
        ("HAUPTSTRASSE", "Hauptstraße"),
        ("ｉｏ", "Io"),
        ("ガス", "ｶﾞｽ"),
        ("국어", "한국어 문서"),
        ("ไทย", "ภาษาไทย"),
        ("io热流", "热流 in Io"),
        ("2d", "heat-2d"),
        ("cifar10", "CIFAR10"),
        ("й", "йод"),
    ],
)
def test_a_thing_is_found_by(query: str, kept: str) -> None:
    folded = fold(kept)
    wanted = terms(query)
    assert wanted
    assert holds(folded, wanted)
    assert_index_finds(kept, query)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("热力", "热流动力"),
        ("流热", "热流"),
        ("eat", "heat"),
        ("и", "йод"),
        ("heat flow", "heat"),
        ("か", "が"),
    ],
)
def test_a_thing_is_not_found_by(query: str, kept: str) -> None:
    assert not holds(fold(kept), terms(query))


def test_a_query_without_letters_has_no_terms_and_a_long_one_few() -> None:
    assert terms(" -- \n\0 …") == []
    assert len(terms(" ".join(f"w{n}" for n in range(100)))) == 8


def assert_index_finds(kept: str, query: str) -> None:
    index = words(fold(kept))
    for term in terms(query):
        for clue in term.clues():
            assert any(word.startswith(clue.word) if clue.begins else word == clue.word for word in index), (
                clue,
                index,
            )


@given(text, text)
@example("热流", "流")
@example("a" * 40, "a" * 36)
def test_whatever_holds_the_terms_is_among_those_that_the_index_offers(kept: str, query: str) -> None:
    if holds(fold(kept), terms(query)):
        assert_index_finds(kept, query)


@given(text)
def test_folding_twice_changes_nothing_and_everything_is_found_by_itself(kept: str) -> None:
    folded = fold(kept)
    assert fold(folded) == folded
    assert "\0" not in folded
    assert holds(folded, terms(kept))
    assert all(len(word) <= 32 and ":" not in word for word in words(folded))


@given(st.text(st.sampled_from("热流体动力学地幔"), min_size=2, max_size=12), st.data())
def test_any_two_neighbouring_characters_of_a_chinese_text_find_it(kept: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(kept) - 2))
    assert holds(fold(kept), terms(kept[at : at + 2]))
