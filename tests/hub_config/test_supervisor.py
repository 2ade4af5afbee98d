"""The supervisor with real processes: who dies, who is started again, who is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from galilean.errors import UserError
from hub_config.supervisor import Lock, Part, Supervisor, last_lines, pause_seconds, read_status, rotate

PROGRAM = """
import asyncio, sys
from pathlib import Path
from hub_config.supervisor import Lock, Part, Supervisor
state, parts = Path(sys.argv[1]), eval(sys.argv[2])
async def release():
    print("released", flush=True)
    return 0
async def hang():
    import asyncio
    await asyncio.sleep(3600)
lock = Lock(state)
made = [Part(name=n, command=[sys.executable, "-c", c], environment={"PATH": "/usr/bin:/bin"}, **k) for n, c, k in parts]
asyncio.run(Supervisor(made, state, say=lambda t: print(t, flush=True),
    release_all=hang if len(sys.argv) > 3 else release, settled=lambda: print("settled", flush=True)).run())
"""
SLEEPER = "import time; time.sleep(600)"
#: A part that leaves a node behind: a session of its own, as the hub's nodes are.
KEEPER = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
    "print('node', p.pid, flush=True); time.sleep(600)"
)


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, state: Path, parts: Any, *more: str) -> None:
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(state), repr(parts), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def part(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.state / "run" / "status.json").read_text())["parts"][name]
        except FileNotFoundError:
            return {"state": "", "pid": 0, "restarts": 0}

    def until(self, true: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := true():
                return found
            time.sleep(0.02)
        raise AssertionError(f"did not happen: {self.process.poll()}")

    def pid(self, name: str, other_than: int = 0) -> int:
        return self.until(
            lambda: (
                self.part(name)["state"] == "running"
                and self.part(name)["pid"] not in (0, other_than)
                and self.part(name)["pid"]
            )
        )

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=120)
        return said


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(parts: Any, *more: str) -> Running:
        made.append(Running(tmp_path / "state", parts, *more))
        return made[-1]

    yield start
    for running in made:
        running.process.kill()
        running.process.wait()


def test_a_part_that_is_killed_is_back_and_the_others_go_on(run: Callable[..., Running]) -> None:
    running = run([("one", SLEEPER, {}), ("two", SLEEPER, {})])
    one, two = running.pid("one"), running.pid("two")
    os.kill(one, signal.SIGKILL)
    assert running.pid("one", other_than=one) != one
    assert running.pid("two") == two
    assert running.part("one")["restarts"] == 1
    assert running.part("one")["last_exit"] == -9


def test_parts_die_with_a_killed_supervisor_and_nodes_do_not(run: Callable[..., Running]) -> None:
    running = run([("hub", KEEPER, {})])
    hub = running.pid("hub")
    log = running.state / "logs" / "hub.log"
    node = int(running.until(lambda: log.exists() and log.read_text().split()[1:2])[0])
    running.process.kill()
    running.process.wait()
    running.until(lambda: not alive(hub))
    assert alive(node)
    os.kill(node, signal.SIGKILL)


def test_sigterm_stops_the_parts_and_leaves_the_nodes(run: Callable[..., Running]) -> None:
    running = run([("hub", KEEPER, {}), ("two", SLEEPER, {})])
    hub, two = running.pid("hub"), running.pid("two")
    log = running.state / "logs" / "hub.log"
    node = int(running.until(lambda: log.read_text().split()[1:2])[0])
    said = running.end(signal.SIGTERM)
    assert running.process.returncode == 0
    assert "released" not in said
    assert not alive(hub)
    assert not alive(two)
    assert alive(node)
    os.kill(node, signal.SIGKILL)


def test_sigint_releases_every_cluster_before_anything_stops(run: Callable[..., Running]) -> None:
    running = run([("one", SLEEPER, {})])
    one = running.pid("one")
    said = running.end(signal.SIGINT).splitlines()
    assert said.index("released") < said.index("Stopping.")
    assert not alive(one)


def test_a_second_sigint_does_not_wait_for_the_release(run: Callable[..., Running]) -> None:
    running = run([("one", SLEEPER, {})], "hang")
    one = running.pid("one")
    running.process.send_signal(signal.SIGINT)
    assert running.process.stdout
    running.until(lambda: "Releasing" in running.process.stdout.readline())
    said = running.end(signal.SIGINT)
    assert "found by the next start" in said
    assert not alive(one)


def test_a_part_that_does_not_stop_is_killed(run: Callable[..., Running]) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    running = run([("deaf", stubborn, {"stop_seconds": 0.3})])
    deaf = running.pid("deaf")
    log = running.state / "logs" / "deaf.log"
    running.until(lambda: "x" in log.read_text())
    said = running.end(signal.SIGTERM)
    assert "deaf does not stop; it is killed." in said
    assert not alive(deaf)


def test_a_part_that_dies_at_once_is_tried_for_ever_and_hinders_no_stop(run: Callable[..., Running]) -> None:
    running = run([("broken", "raise SystemExit('no such thing')", {})])
    running.until(lambda: running.part("broken")["restarts"] >= 4)
    said = running.end(signal.SIGTERM)
    assert running.process.returncode == 0
    assert "broken ended with 1" in said
    assert "no such thing" in said  # the last words of its log


def test_a_part_waits_for_the_one_it_comes_after(run: Callable[..., Running]) -> None:
    late = "import time; time.sleep(0.5); print('first', flush=True); time.sleep(600)"
    running = run([("first", late, {}), ("second", SLEEPER, {"after": ("first",)})])
    running.pid("second")
    assert running.process.stdout
    assert running.process.stdout.readline().strip() == "settled"


def test_a_second_supervisor_on_one_state_directory_is_refused_in_words(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(UserError) as refused:
        Lock(tmp_path)
    assert str(os.getpid()) in str(refused.value)
    assert "GALILEAN_STATE" in str(refused.value)
    lock.release()
    Lock(tmp_path).release()


def test_status_is_read_only_while_a_supervisor_lives(run: Callable[..., Running]) -> None:
    running = run([("one", SLEEPER, {})])
    running.pid("one")
    status: Any = read_status(running.state)
    assert status["parts"]["one"]["state"] == "running"
    running.process.kill()
    running.process.wait()
    running.until(lambda: read_status(running.state) is None)


@pytest.mark.parametrize(
    ("failures", "lived", "pause"),
    [
        (1, 0.1, 0.1),
        (2, 0.1, 0.2),
        (4, 0.1, 0.8),
        (9, 0.1, 25.6),
        (10, 0.1, 30),
        (10_000, 0.1, 30),
        (1, 11, 0),
        (50, 11, 0),
    ],
)
def test_pauses_grow_to_half_a_minute_and_a_steady_part_is_back_at_once(
    failures: int, lived: float, pause: float
) -> None:
    assert pause_seconds(failures, lived) == pytest.approx(pause)


def test_a_log_that_grew_too_large_is_moved_aside_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "hub.log"
    with log.open("ab", buffering=0) as writer:
        for round_ in range(5):
            writer.write(f"round {round_}\n".encode() * 100)
            assert rotate(log, most_bytes=500, keep=3)
            writer.write(b"after\n")
    assert log.read_bytes().strip() == b"after"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["hub.log", "hub.log.1", "hub.log.2", "hub.log.3"]
    assert "round 4" in (tmp_path / "hub.log.1").read_text()
    assert not rotate(log, most_bytes=500)


def test_the_last_lines_of_a_log_are_cut_and_a_missing_log_is_none(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log, 3) == []
    log.write_text("\n".join(["a", "", "b", "c" * 500]))
    assert last_lines(log, 2) == ["b", "c" * 160]


async def test_a_full_disk_is_said_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    supervisor = Supervisor([Part(name="one", command=["true"], environment={})], tmp_path, say=said.append)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hub_config.supervisor.write_private", full)
    for _ in range(3):
        supervisor._write_status()
    assert len(said) == 1
    assert "disk is full" in said[0]
