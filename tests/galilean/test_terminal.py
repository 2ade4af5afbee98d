"""What commands say, in which language."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from galilean.terminal import terminal_language

GALILEAN = str(Path(sys.executable).parent / "galilean")


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_TW"}, "zh_CN"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh_CN"),
        ({"LANG": "C", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh_CN"),
    ],
)
def test_the_language_is_that_of_the_terminal(environ: dict[str, str], language: str):
    assert terminal_language(environ) == language


def said(tmp_path: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL", "LC_MESSAGES")}
    env = kept | {"GALILEAN_STATE": str(tmp_path / "state"), "GALILEAN_CONFIG": "", **environ}
    return subprocess.run(
        [GALILEAN, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


def test_results_and_refusals_are_said_in_chinese_where_the_terminal_is(tmp_path: Path):
    assert "设置无误" in said(tmp_path, "config", "check", LANG="zh_CN.UTF-8").stdout
    assert "从未在" in said(tmp_path, "backup", "x", LANG="zh_CN.UTF-8").stderr
    assert "never started" in said(tmp_path, "backup", "x", LANG="C").stderr


def test_a_terminal_that_knows_ascii_only_is_no_reason_to_fail(tmp_path: Path):
    done = said(tmp_path, "config", "check", LANG="zh_CN", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "process" in done.stdout
    assert "Traceback" not in done.stderr
