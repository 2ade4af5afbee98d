"""Applications as files: one file adds one, and what is wrong in it is told with its line (SC-3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.application_rules import BadValue, Refused, check, said, values_of, variables
from galilean.settings import Settings, SettingsError, load_settings

GOOD = """\
title: {en: Dash board, zh_CN: 仪表板}
needs: [python3]
fields:
  script: {title: Script, type: file, default: app.py, required: true}
  debug: {title: Debug, type: switch}
  level: {title: Level, type: choice, options: [low, high], default: low, when: {debug: true}}
command: exec python3 "$APP_SCRIPT" --port "$APP_PORT"
"""


def load(folder: Path, settings: str = "", **files: str) -> Settings:
    (folder / "galilean.yaml").write_text(settings)
    (folder / "applications").mkdir()
    for name, text in files.items():
        (folder / "applications" / f"{name}.yaml").write_text(text)
    return load_settings(folder / "galilean.yaml", environ={})


def test_one_file_adds_an_application_beside_those_of_the_product(tmp_path: Path) -> None:
    found = load(tmp_path, dash=GOOD).applications
    assert {"dash", "vscode", "rstudio", "tensorboard"} == set(found)
    assert list(found["dash"].fields) == ["script", "debug", "level"]


def test_a_file_of_the_centre_takes_the_place_of_the_products(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'applications: {vscode: {title: None of it, command: "x $APP_PORT", enabled: false}}',
        rstudio=GOOD,
    )
    assert not found.applications["vscode"].enabled and found.applications["rstudio"].needs == ("python3",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("title: {en", "titel: {en"), "dash.yaml:1: titel: no such setting"),
        (GOOD.replace("type: file", "type: fil"), "dash.yaml:4: fields.script.type: "),
        (
            GOOD.replace("default: low", "default: middle"),
            "dash.yaml:6: fields.level: the default 'middle' does not fit",
        ),
        (GOOD.replace("debug: true", "bug: true"), "names 'bug', which is no field before it"),
        (
            GOOD.replace("  script:", "  port:").replace("APP_SCRIPT", "APP_X"),
            "$APP_PORT is the product's own",
        ),
        (GOOD.replace("options: [low, high], ", ""), "dash.yaml:6: fields.level: a choice has options"),
        (GOOD.replace("type: switch", "type: switch, most: 3"), "least and most belong to numbers"),
        (GOOD.replace("$APP_PORT", "8050"), "listens at $APP_PORT"),
        (GOOD + "command: again\n", "dash.yaml:8: command: stands already on line 7"),
        (GOOD.replace("[python3]", "[python3"), "dash.yaml:"),
        (GOOD.replace("  debug:", "  De-bug:"), "dash.yaml:5: fields.De-bug"),
        (GOOD + "start: /etc\n", "is a path below the application's own"),
        (GOOD + "environments: [nowhere]\n", "there is no environment 'nowhere'"),
        (
            GOOD.replace("{en: Dash board, zh_CN: 仪表板}", "{de: Brett}"),
            "dash.yaml:1: title: is a text of at most 300",
        ),
        (GOOD.replace("{en: Dash board, zh_CN: 仪表板}", "off"), "dash.yaml:1: title: is a text"),
        ("- a list", "dash.yaml"),
        ("", "title: Field required"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, dash=text)
    assert told in str(refused.value)


def test_a_name_that_no_address_has_and_one_that_stands_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name of the file"):
        load(tmp_path, **{"My App": GOOD})
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SettingsError, match="stands in galilean"):
        load(other, 'applications: {dash: {title: D, command: "x $APP_PORT"}}', dash=GOOD)


def wrong(field: dict[str, Any], value: object) -> str:
    with pytest.raises(BadValue) as refused:
        check(field, value)
    return refused.value.why


def test_each_kind_of_field_takes_what_fits_and_nothing_else() -> None:
    assert check({"type": "integer", "least": 1, "most": 9}, "7") == "7"
    for value, reason in (("0", "least"), ("10", "most"), ("1.5", "whole"), ("1e3", "whole"), ("٣", "whole")):
        assert wrong({"type": "integer", "least": 1, "most": 9}, value) == reason
    assert check({"type": "number"}, -1.5) == "-1.5"
    for value in ("nan", "inf", "1e9", "0x1", "--1"):
        assert wrong({"type": "number"}, value) == "number"
    assert check({"type": "switch"}, True) == "1" and check({"type": "switch"}, None) == ""
    assert wrong({"type": "choice", "options": ["a"]}, "b") == "options"
    assert (
        check({"type": "directory"}, "~/work/a/b") == "a/b" and check({"type": "directory"}, "~/work") == "."
    )
    for value in ("/etc", "../x", "a/../../b", "~root/x", "~/work/../x", "~/.ssh"):
        assert wrong({"type": "file"}, value) == "path"
    for value in ("a\nb", "a\0b", ["a"], {"a": 1}, True):
        assert wrong({"type": "text"}, value) == "text"
    assert wrong({"pattern": "[a-z]+"}, "abc1") == "pattern" and wrong({"longest": 2}, "abc") == "long"
    assert wrong({"required": True}, "  ") == "required"


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "x"]),
        st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.none()),
    )
)
def test_whatever_is_sent_becomes_texts_of_the_fields_or_is_refused(given_: dict[str, Any]) -> None:
    fields = {"a": {"title": "A", "type": "integer", "default": 1}, "b": {"title": "B", "when": {"a": "1"}}}
    try:
        found = values_of(fields, given_)
    except Refused:
        return
    assert set(found) == {"a", "b"} and all(
        isinstance(value, str) and "\n" not in value for value in found.values()
    )
    assert found["a"] == "1" or found["b"] == ""
    assert set(variables(found)) == {"APP_A", "APP_B"}


def test_a_text_is_said_in_the_language_that_is_there() -> None:
    assert (
        said({"en": "a", "zh_CN": "b"}, "zh_CN") == "b"
        and said({"en": "a"}, "zh_CN") == "a"
        and said("c", "en") == "c"
    )
