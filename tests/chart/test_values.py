"""The values: their schema takes what ``galilean.yaml`` takes and refuses slips; what is written is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.chart.conftest import CHART

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def faults(values: dict[str, Any]) -> list[str]:
    found = Draft7Validator(SCHEMA).iter_errors(values)
    return [f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}" for fault in found]


def test_what_follows_from_the_values_is_up_to_date():
    done = subprocess.run(
        [sys.executable, str(CHART.parent / "chart.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_defaults_are_what_the_schema_allows():
    assert not faults(DEFAULTS)


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"site": {"name": "Centre", "timezone": "Asia/Shanghai"}}},
        {"config": {"sizes": {"small": {"title": "Small", "cpu": 0.5, "memory": "8G"}}}},
        {"config": {"roles": {"admin": {"limits": {"memory": "1T", "total_cpu": 256}}}}},
        {"config": {"volumes": {"fast": {"kind": "claim", "path": "/srv/fast", "claim": "fast"}}}},
        {
            "config": {
                "pools": {"default": {}, "gpu": {"node_selector": {"pool": "gpu"}, "open_to": ["admin"]}}
            }
        },
        {"config": {"jupyterhub": {"JupyterHub": {"concurrent_spawn_limit": 50}}}},
        {"global": {"anything": 1}},
    ],
)
def test_values_that_are_good_are_taken(values: dict[str, Any]):
    assert not faults(values)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"imagse": {}}, "imagse"),
        ({"hub": {"replicas": 2}}, "replicas"),  # never two of them
        ({"config": {"site": {"nmae": "Centre"}}}, "nmae"),
        ({"config": {"sizes": {"small": {"cpu": 1}}}}, "title"),
        ({"config": {"release": {"grace_seconds": 3}}}, "grace_seconds"),
        ({"config": {"state": "/elsewhere"}}, "state"),
        ({"config": {"backend": "process"}}, "backend"),
        ({"config": {"addresses": {"hub": "http://elsewhere:1"}}}, "addresses"),
        ({"config": {"database": {"url": "postgresql://"}}}, "database"),
        ({"config": {"web": {"port": 80}}}, "port"),
        ({"config": {"kubernetes": {"namespace": "another"}}}, "namespace"),
        ({"service": {"type": "Loadbalancer"}}, "service.type"),
    ],
)
def test_a_slip_is_refused_and_named(values: dict[str, Any], where: str):
    assert where in "\n".join(faults(values))


def test_every_setting_of_the_file_is_in_the_schema_but_what_the_chart_decides():
    from galilean.settings import Settings

    sys.path.insert(0, str(CHART.parent))
    try:
        from values import DECIDED  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    known = set(SCHEMA["$defs"]["config.Settings"]["properties"])
    assert known == set(Settings.model_fields) - set(DECIDED["Settings"])
    for section, names in DECIDED.items():  # a name that is no setting any more would decide nothing
        model = __import__("galilean.settings", fromlist=[section])
        assert set(names) <= set(getattr(model, section).model_fields), section
