"""What `make test` is made of: `scripts/stage` and `scripts/again`, the scripts themselves in a clone that has nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.process.hub import eventually

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both scripts; whoever sleeps there writes for how long instead."""
    for name in ("stage", "again"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    (tmp_path / "bin").mkdir()
    sleep = tmp_path / "bin" / "sleep"
    sleep.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/slept\n')
    sleep.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sleep.parent}:{os.environ['PATH']}")
    return tmp_path / "scripts"


def fetching(scripts: Path, works_at: int, code: int = 7) -> subprocess.CompletedProcess[str]:
    """A fetch that works at this try, and else ends with ``code``."""
    tries = scripts.parent / "tries"
    command = f"echo try >> {tries}; [ $(wc -l < {tries}) = {works_at} ] || exit {code}"
    return subprocess.run(
        [str(scripts / "again"), "bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_what_is_fetched_at_the_third_try_is_fetched(scripts: Path) -> None:
    assert fetching(scripts, works_at=3).returncode == 0
    assert lines(scripts.parent / "slept") == ["5", "20"]


def test_what_cannot_be_fetched_says_so_after_three_tries(scripts: Path) -> None:
    done = fetching(scripts, works_at=9)
    assert done.returncode == 7
    assert len(lines(scripts.parent / "tries")) == 3
    assert "bash ended with 7; once more in 20 s" in done.stderr


def test_a_fetch_that_somebody_ended_is_not_begun_again(scripts: Path) -> None:
    assert fetching(scripts, works_at=9, code=143).returncode == 143
    assert len(lines(scripts.parent / "tries")) == 1


def stage(scripts: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(scripts / "stage"), *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_stage_does_all_that_it_has_and_says_what_failed_and_for_how_long(scripts: Path) -> None:
    said, _ = (made := stage(scripts, "lint", "echo one", "false", "echo three")).communicate(timeout=100)
    assert made.returncode == 1
    assert "one\n$ false\nFAILED lint: false\n$ echo three\nthree\n" in said
    assert "1 failed, 2 passed" in said
    (line,) = lines(scripts.parent / "build" / "stages.txt")
    assert line.startswith("lint ")
    assert line.endswith(" s (FAILED)")


def test_a_stage_that_is_ended_says_where_it_was_and_begins_nothing_more(scripts: Path) -> None:
    mark = scripts.parent / "mark"
    waits = f"trap 'echo tidied; exit 1' TERM; touch {mark}; /bin/sleep 600 & wait"
    made = stage(scripts, "product", waits, "echo too far")
    eventually(mark.exists, 60, "it has begun")
    os.killpg(made.pid, signal.SIGTERM)
    said, _ = made.communicate(timeout=100)
    assert made.returncode == 1
    assert "tidied\nFAILED product: " in said
    assert "(ended before its time)" in said
    assert "\ntoo far\n" not in said
    (line,) = lines(scripts.parent / "build" / "stages.txt")
    assert line.endswith(" s (ended before its time)")
