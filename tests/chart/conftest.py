"""Helm as people use it: the chart rendered with a few values, or told why it will not be."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "galilean"
NAMESPACE = "centre"
#: Helm as a Go module takes an old one for granted, where it has no cluster to ask.
VERSION = ("--kube-version", "1.33.0")
RELEASE = "galilean"

Object = dict[str, Any]


class Refused(Exception):
    """What Helm said when it did not render."""


class Objects(dict[tuple[str, str], Object]):
    """Rendered objects by kind and by name."""

    def kind(self, kind: str) -> dict[str, Object]:
        return {name: found for (of, name), found in self.items() if of == kind}

    def pods(self) -> dict[str, Object]:
        """The pod's spec of everything that makes pods."""
        made = {
            name: found["spec"]["template"]["spec"]
            for (kind, name), found in self.items()
            if kind in ("Deployment", "Job")
        }
        return made | {name: found["spec"] for name, found in self.kind("Pod").items()}

    @property
    def config(self) -> dict[str, Any]:
        """galilean.yaml."""
        return yaml.safe_load(self["ConfigMap", f"{RELEASE}-config"]["data"]["galilean.yaml"])


@dataclass
class Chart:
    """The chart, and the program that renders it."""

    program: Path

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        with tempfile.TemporaryDirectory() as home:
            more = []
            if values is not None:
                (Path(home) / "values.yaml").write_text(json.dumps(values))
                more = ["-f", f"{home}/values.yaml"]
            done = subprocess.run(
                [str(self.program), *arguments, *more],
                env={"HOME": home, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
        if done.returncode:
            raise Refused(done.stdout + done.stderr)
        return done.stdout

    def render(self, values: dict[str, Any] | None = None, *arguments: str) -> Objects:
        text = self.helm(
            *("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *VERSION),
            *arguments,
            values=values or {},
        )
        found = Objects()
        for item in yaml.safe_load_all(text):
            if item:
                key = (item["kind"], item["metadata"]["name"])
                assert key not in found, f"twice: {key}"
                found[key] = item
        return found


@pytest.fixture(scope="session")
def chart() -> Chart:
    from tests.lab.build import build

    return Chart(build() / "helm")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the kubelet's pods come through to."""
    made = tmp_path_factory.mktemp("chart")
    for folder in (made, *made.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    return made
