"""Which language is spoken, and what is spoken where a translation is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.i18n import LANGUAGES, choose_language, translations


@pytest.mark.parametrize(
    ("chosen", "accept_language", "default", "language"),
    [
        (None, "", "en", "en"),
        (None, "", "zh_CN", "zh_CN"),
        ("zh_CN", "en", "en", "zh_CN"),
        ("en", "zh-CN,zh;q=0.9", "zh_CN", "en"),
        ("klingon", "zh-CN", "en", "zh_CN"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "en", "zh_CN"),
        (None, "zh-TW", "en", "zh_CN"),
        (None, "en-GB,en;q=0.9,zh;q=0.8", "zh_CN", "en"),
        (None, "de,fr;q=0.9", "zh_CN", "zh_CN"),
        (None, "de,zh;q=0.5,en;q=0.7", "zh_CN", "en"),
        (None, "en;q=0,zh;q=0.1", "en", "zh_CN"),
        (None, "en;q=much,zh", "en", "zh_CN"),
        (None, "*", "en", "en"),
    ],
)
def test_the_choice_wins_then_the_browser_then_the_site(
    chosen: str | None, accept_language: str, default: str, language: str
):
    assert choose_language(chosen, accept_language, default) == language


@given(st.none() | st.text(max_size=20), st.text(max_size=200))
def test_any_header_gives_a_language_we_speak(chosen: str | None, accept_language: str):
    assert choose_language(chosen, accept_language) in LANGUAGES


def test_english_is_the_message_itself():
    assert translations("en").gettext("Release") == "Release"
    assert translations("xx").gettext("Release") == "Release"


def test_what_has_no_translation_is_said_in_english():
    assert translations("zh_CN").gettext("never said anywhere") == "never said anywhere"
