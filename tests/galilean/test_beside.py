"""What `make test` runs side by side: `scripts/beside`, the script itself in a clone that has nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "beside"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line; places for temporary files are below the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "scripts").mkdir()
    return [sys.executable, str(shutil.copy(SCRIPT, tmp_path / "scripts" / "beside"))]


def waits(mark: Path) -> str:
    """A command that is there until it is told to go, and takes its time then; so does its child."""
    return f"trap 'sleep 0.3; echo tidied; touch {mark}.tidied; exit 1' TERM; touch {mark}; sleep 600 & wait"


def appears(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_what_each_says_comes_in_one_piece_when_it_ends(beside: list[str], tmp_path: Path) -> None:
    first = f"until [ -e {tmp_path}/other ]; do sleep 0.02; done; echo first; echo and more"
    second = f"echo second; touch {tmp_path}/other"
    done = subprocess.run(
        [*beside, f"one={first}", f"two={second}"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\nfirst\nand more\n---- one: passed" in done.stdout
    assert "second\n---- two: passed" in done.stdout
    assert (tmp_path / "build" / "one.log").read_text() == "first\nand more\n"


def test_each_has_a_place_of_its_own_that_others_may_come_through(beside: list[str], tmp_path: Path) -> None:
    told = "stat -c '%a %n' $PYTEST_DEBUG_TEMPROOT"
    done = subprocess.run(
        [*beside, f"one={told}", f"two={told}"], capture_output=True, text=True, timeout=100, check=True
    )
    modes, places = zip(*(line.split() for line in done.stdout.splitlines() if line[0] == "7"), strict=True)
    assert modes == ("755", "755")
    assert len(set(places)) == 2
    assert not any(Path(place).exists() for place in places)


def test_one_that_fails_ends_the_others_which_tidy_up(beside: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    fails = f"until [ -e {mark} ]; do sleep 0.02; done; echo why; exit 3"
    done = subprocess.run(
        [*beside, f"one={fails}", f"two={waits(mark)}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "why\n---- one: FAILED" in done.stdout
    assert "tidied\n---- two: ended before its time" in done.stdout


def test_one_that_is_not_over_in_its_time_is_ended_and_fails_nobody(
    beside: list[str], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    until = ["--until", f"two={time.time() + 0.5}"]
    other = f"until [ -e {mark}.tidied ]; do sleep 0.02; done; echo went on"
    done = subprocess.run(
        [*beside, *until, f"one={other}", f"two={waits(mark)}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "tidied\n---- two: NOT OVER in its time, which decides nothing," in done.stdout
    assert "went on\n---- one: passed" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_ended_ends_all_and_shows_how_far_they_were(
    beside: list[str], tmp_path: Path, how: signal.Signals
) -> None:
    mark = tmp_path / "mark"
    running = subprocess.Popen(
        [*beside, f"one=echo so far; {waits(mark)}"], stdout=subprocess.PIPE, text=True
    )
    appears(mark)
    running.send_signal(how)
    said, _ = running.communicate(timeout=100)
    assert running.returncode == 1
    assert "so far\ntidied\n---- one: ended before its time" in said


def test_whoever_is_told_twice_clears_up_all_the_same(beside: list[str], tmp_path: Path) -> None:
    """`make` hands on what its own group was told already."""
    marks = [tmp_path / "mark", tmp_path / "other"]
    running = subprocess.Popen(
        [*beside, *(f"{mark.name}={waits(mark)}" for mark in marks)], stdout=subprocess.PIPE, text=True
    )
    for mark in marks:
        appears(mark)
    for _ in range(20):
        running.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    said, _ = running.communicate(timeout=100)
    assert running.returncode == 1
    for mark in marks:
        assert f"tidied\n---- {mark.name}: ended before its time" in said


def test_meanwhile_it_tells_where_each_of_them_is(beside: list[str], tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "beside"
    script.write_text(script.read_text().replace("TELL_SECONDS = 180", "TELL_SECONDS = 0.1"))
    works = f"echo; echo '---- kubernetes'; printf ..F.; until [ -e {tmp_path}/seen ]; do sleep 0.02; done"
    running = subprocess.Popen([*beside, f"one={works}"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line == "one, 0 min: ---- kubernetes | ..F.\n":
            break
    (tmp_path / "seen").touch()
    running.communicate(timeout=100)
    assert running.returncode == 0


def test_nobody_outlives_one_that_was_killed(beside: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    running = subprocess.Popen([*beside, f"one={waits(mark)}"], stdout=subprocess.DEVNULL)
    appears(mark)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    appears(Path(f"{mark}.tidied"))
