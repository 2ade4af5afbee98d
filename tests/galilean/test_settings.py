"""``galilean.yaml``: what is wrong is told with its line, in words, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.settings import SettingsError, json_schema, load_settings, parse_settings


def problems(source: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(source, environ=environ)
    return caught.value.problems


def test_an_empty_file_is_a_whole_configuration():
    settings = parse_settings("")
    assert settings.backend == "process"
    assert settings.defaults.environment in settings.environments
    assert settings.state.is_absolute()


def test_an_unknown_key_is_named_with_its_line():
    assert problems("site:\n  name: A\n  nmae: B\n") == ["galilean.yaml:3: site.nmae: no such setting"]


def test_a_wrong_type_is_named_with_its_line():
    (problem,) = problems("web:\n  host: 0.0.0.0\n  port: many\n")
    assert problem.startswith("galilean.yaml:3: web.port: ")
    assert "integer" in problem


def test_a_value_deep_inside_is_named_with_its_line():
    (problem,) = problems("roles:\n  admin: {}\n  student:\n    limits:\n      nodes: -1\n")
    assert problem.startswith("galilean.yaml:5: roles.student.limits.nodes: ")


def test_an_item_of_a_list_is_named_with_its_line():
    (problem,) = problems("signup:\n  admins:\n    - ada\n    - [grace]\n")
    assert problem.startswith("galilean.yaml:4: signup.admins.1: ")


def test_every_mistake_is_told_not_only_the_first():
    found = problems("site:\n  nmae: A\nweb:\n  port: 99999\nnonsense: 1\n")
    assert [line.split(": ")[0] for line in found] == [
        "galilean.yaml:2",
        "galilean.yaml:4",
        "galilean.yaml:5",
    ]


def test_a_key_that_stands_twice_is_refused_with_both_lines():
    assert problems("site:\n  name: A\nweb: {}\nsite:\n  name: B\n") == [
        "galilean.yaml:4: site: stands already on line 1"
    ]


def test_what_is_not_yaml_is_said_with_its_line():
    (problem,) = problems("site:\n  name: [A\nweb: {}\n")
    assert problem.startswith("galilean.yaml:") and "not YAML" in problem


@pytest.mark.parametrize("source", ["- a\n- b\n", "just words", "42"])
def test_a_file_that_is_not_a_set_of_sections_is_refused(source: str):
    (problem,) = problems(source)
    assert "set of sections" in problem


def test_amounts_are_read_in_the_units_people_write():
    settings = parse_settings("defaults:\n  cpu: 0.5\n  memory: 512M\n")
    assert settings.defaults.cpu == 500
    assert settings.defaults.memory == 512 * 2**20


@pytest.mark.parametrize("amount", ["lots", "-1", "[1]", "8 bananas", ".nan", "true"])
def test_an_amount_that_is_none_is_refused_with_its_line(amount: str):
    (problem,) = problems(f"defaults:\n  memory: {amount}\n")
    assert problem.startswith("galilean.yaml:2: defaults.memory: ")


def test_a_default_that_the_file_does_not_offer_is_refused():
    (problem,) = problems("defaults:\n  environment: matlab\n")
    assert "matlab" in problem and "jupyter" in problem


def test_a_time_zone_that_does_not_exist_is_refused_with_its_line():
    (problem,) = problems("site:\n  timezone: Mars/Olympus\n")
    assert problem.startswith("galilean.yaml:2: site.timezone: no such time zone")


def test_the_admin_role_cannot_be_left_out():
    (problem,) = problems("roles:\n  student: {}\n")
    assert "admin" in problem


def test_the_environment_wins_over_the_file(tmp_path: Path):
    settings = parse_settings(
        "web:\n  host: 0.0.0.0\n  port: 1\nstate: /nowhere\n",
        environ={"PORT": "8123", "GALILEAN_STATE": str(tmp_path), "BACKEND": "process"},
    )
    assert (settings.web.port, settings.web.host, settings.state) == (8123, "0.0.0.0", tmp_path)


def test_a_wrong_value_in_the_environment_is_told_too():
    (problem,) = problems("", PORT="http")
    assert "web.port" in problem


def test_the_file_that_the_environment_names_is_read(tmp_path: Path):
    path = tmp_path / "centre.yaml"
    path.write_text("site:\n  name: Centre\n", encoding="utf-8")
    assert load_settings(environ={"GALILEAN_CONFIG": str(path)}).site.name == "Centre"


def test_a_file_that_was_named_but_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml", environ={})


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path):
    path = tmp_path / "galilean.yaml"
    path.write_bytes(b"site:\n  name: \xff\xfe\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(path, environ={})


def test_our_database_and_the_hubs_are_never_one_file():
    settings = parse_settings("")
    assert settings.database_url != settings.hub_database_url


def test_the_schema_refuses_unknown_keys_as_the_reader_does():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


@given(st.text(max_size=60))
def test_no_text_whatever_brings_more_than_a_settings_error(source: str):
    try:
        parse_settings(source)
    except SettingsError:
        pass
