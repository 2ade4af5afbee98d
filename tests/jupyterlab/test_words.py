"""What of JupyterLab's extension needs no JupyterLab, tried by Node's own test runner on what was built."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "extensions" / "lab"


@pytest.mark.parametrize("tests", ["words.test.mjs", "link.test.mjs"])
def test_what_needs_no_jupyterlab_is_right_by_itself(tests: str) -> None:
    extension = LAB / "labextensions" / "@galilean" / "lab"
    about = json.loads((extension / "package.json").read_text())
    built = (extension / about["jupyterlab"]["_build"]["load"]).parent
    done = subprocess.run(
        ["node", "--test", str(Path(__file__).with_name(tests))],
        env=os.environ | {"BUILT": str(built), "SOURCES": str(LAB / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_what_is_read_while_jupyterlab_starts_is_small_and_alone() -> None:
    entry = (LAB / "src" / "remoteEntry.ts").read_text()
    assert "\nimport " not in entry, "a static import would be fetched while JupyterLab starts"
    assert len(entry) < 4000
