"""The lab itself: whoever comes second must not take the first one down."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import lab
from tests.lab.lab import Lab
from tests.process.hub import eventually

pytestmark = pytest.mark.kubernetes
WAITS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what was started in the background
from pathlib import Path
from tests.lab import lab
lab.LOCK, lab.build = Path(sys.argv[1]), lambda: Path()
lab.subprocess.run = lambda *args, **more: print("touched:", args, flush=True)
one = lab.Lab(Path(sys.argv[2]))
try:
    one.up()
finally:
    one.down()
"""


def test_who_stops_waiting_for_another_lab_leaves_it_alone(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, "-c", WAITS, str(tmp_path / "lock"), str(tmp_path / "second")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert second.stdout is not None
        assert "another one runs" in second.stdout.readline()
        second.send_signal(signal.SIGINT)
        try:
            assert second.wait(20) != 0
        finally:
            second.kill()
        assert second.stdout.read() == ""
        second.stdout.close()


def test_a_lab_that_never_was_up_is_taken_down_without_touching_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "build", lambda: tmp_path)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the machine was touched")

    monkeypatch.setattr(subprocess, "run", forbidden)
    (tmp_path / "lab").mkdir()
    Lab(tmp_path / "lab").down()
    assert not (tmp_path / "lab").exists()


PART = """
import sys, time
from pathlib import Path
from tests.lab import lab
lab.build = lambda: Path()
one = lab.Lab(Path(sys.argv[1]))
one.logs.mkdir(parents=True)
one._start("kubelet", "sleep", "600")
print(one._parts["kubelet"].pid, flush=True)
time.sleep(600)
"""


def test_a_killed_labs_parts_die_with_it(tmp_path: Path) -> None:
    """The next one has the same names and groups."""
    killed = subprocess.Popen(
        [sys.executable, "-c", PART, str(tmp_path / "lab")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert killed.stdout is not None
    part = int(killed.stdout.readline())
    assert Path(f"/proc/{part}").exists()
    killed.kill()
    killed.wait()
    killed.stdout.close()
    eventually(lambda: not _lives(part), 20, "the part is gone")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
