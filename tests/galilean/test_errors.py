"""The one exception whose text is for people."""

from __future__ import annotations

import json

from galilean.errors import UserError, render

MESSAGE = "Your role allows {limit} nodes; you asked for {asked}."


def test_the_sentence_is_filled_in_any_language():
    error = UserError(429, MESSAGE, reason="quota", limit=2, asked=4)
    assert str(error) == "Your role allows 2 nodes; you asked for 4."
    assert error.text(lambda _: "要了 {asked} 个节点，上限 {limit} 个。") == "要了 4 个节点，上限 2 个。"
    assert (error.status, error.reason) == (429, "quota")


def test_a_refusal_can_be_stored_and_read_in_another_process():
    stored = json.loads(json.dumps(UserError(429, MESSAGE, limit=2, asked=4).as_dict()))
    assert render(stored["message"], stored["params"]) == "Your role allows 2 nodes; you asked for 4."


def test_a_translation_with_a_wrong_placeholder_falls_back_to_english():
    error = UserError(429, MESSAGE, limit=2, asked=4)
    for wrong in ("{most}", "{0}", "{limit", "{limit:x!}"):
        assert error.text(lambda _, wrong=wrong: wrong) == "Your role allows 2 nodes; you asked for 4."


def test_a_message_that_lacks_its_values_is_shown_as_it_is():
    assert render(MESSAGE, {}) == MESSAGE


def test_what_people_typed_is_a_value_and_never_a_template():
    assert (
        str(UserError(404, "There is no project “{name}”.", name="{limit}"))
        == "There is no project “{limit}”."
    )
