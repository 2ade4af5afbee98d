"""Handles, families of processes, ends and stamps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spawner.node.marks import Mark
from spawner.process import handles
from spawner.process.exits import ended_at, exit_reason, write_exit
from spawner.process.family import Seen, end_family, family, look
from spawner.process.handles import Handle, Stat, parse_stat
from spawner.process.layout import read_json
from spawner.process.stamp import code_stamp, stamp_of, stamped_files
from spawner.process.zygote import frozen_difference

OURS = Mark("/s/clusters/a", "alice", "heat", "01RUN", 0)
OTHER = replace(OURS, directory="/s/clusters/b")


def process(pid: int, *, parent: int = 1, session: int = 0, mark: Mark | None = None) -> Seen:
    return Seen(Handle(pid, 1, "boot"), Stat("S", parent, pid, session or pid, 0, 1), mark, False)


def ours(mark: Mark) -> bool:
    return mark.directory == OURS.directory


def test_a_name_with_spaces_and_parentheses_does_not_confuse_the_parser() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    stat = parse_stat(f"77 (a) b ) Z {fields}")
    assert stat.state == "Z"
    assert stat.ended
    assert (stat.parent, stat.group, stat.session, stat.terminal) == (4, 5, 6, 7)
    assert stat.start_ticks == 22


def test_a_handle_is_of_one_process_and_not_of_its_id() -> None:
    mine = Handle.of(os.getpid())
    assert mine is not None
    assert mine.alive()
    assert not replace(mine, start_ticks=mine.start_ticks + 1).alive()
    assert not replace(mine, boot="another boot").alive()
    assert not replace(mine, start_ticks=mine.start_ticks + 1).signal(signal.SIGKILL)
    assert Handle.from_dict(mine.as_dict()) == mine


def test_the_start_of_a_process_is_known_as_a_time() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        handle = Handle.of(child.pid)
        assert handle is not None
        started_at = handle.started_at()
        child.kill()
    assert started_at is not None
    assert abs((datetime.now(UTC) - started_at).total_seconds()) < 5


def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen(["sleep", "30"])
    handle = Handle.of(child.pid)
    assert handle is not None
    child.kill()
    until = time.monotonic() + 60
    while (stat := handles.read_stat(child.pid)) and not stat.ended and time.monotonic() < until:
        time.sleep(0.01)
    assert handles.read_stat(child.pid) is not None, "still a zombie: nobody collected it"
    assert not handle.alive()
    child.wait()
    assert not handle.alive()


def test_kernels_terminals_and_what_they_started_belong_to_the_node() -> None:
    seen = [
        process(10, mark=OURS),
        process(11, parent=10, session=11),  # a kernel that was given an environment of its own
        process(12, parent=11, session=11),
        process(13, parent=1, session=11),  # its parent is gone, its session is not
        process(20, parent=1),
    ]
    assert sorted(item.pid for item in family(seen, ours)) == [10, 11, 12, 13]


def test_a_recorded_process_belongs_also_without_a_mark_but_only_itself() -> None:
    seen = [process(10), process(11, parent=10)]
    assert sorted(item.pid for item in family(seen, ours, [Handle(10, 1, "boot")])) == [10, 11]
    assert family(seen, ours, [Handle(10, 2, "boot")]) == []


def test_another_cluster_never_belongs_even_when_it_was_started_from_this_one() -> None:
    seen = [process(10, mark=OURS), process(11, parent=10, mark=OTHER), process(12, parent=11, mark=OTHER)]
    assert [item.pid for item in family(seen, ours)] == [10]


def marked(directory: Path, program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={"GALILEAN_CLUSTER_DIR": str(directory), "GALILEAN_RANK": "0"},
        start_new_session=True,
    )


def of(directory: Path) -> list[int]:
    return [item.pid for item in look() if item.mark and item.mark.directory == str(directory)]


def test_what_ignores_term_is_killed(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = marked(tmp_path, program)
    while not of(tmp_path):
        time.sleep(0.01)
    assert end_family(lambda mark: mark.directory == str(tmp_path), term_seconds=0.3) == 1
    assert of(tmp_path) == []
    assert child.wait() in (-signal.SIGKILL, -signal.SIGTERM)


def test_an_end_leaves_strangers_alone(tmp_path: Path) -> None:
    one, two = (
        marked(tmp_path / "one", "import time; time.sleep(60)"),
        marked(tmp_path / "two", "import time; time.sleep(60)"),
    )
    while not (of(tmp_path / "one") and of(tmp_path / "two")):
        time.sleep(0.01)
    end_family(lambda mark: mark.directory == str(tmp_path / "one"))
    assert one.wait() == -signal.SIGTERM
    assert two.poll() is None
    two.kill()
    two.wait()


#: Starts something that hid (no mark, a session of its own) and a kernel, and says when it is told whether that still runs.
SERVER = """
import signal, subprocess, sys, time
hidden = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
kernel = subprocess.Popen(["sleep", "600"], start_new_session=True)
def told(*_):
    try:
        kernel.wait(2)
    except subprocess.TimeoutExpired:
        print("the kernel runs", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, told)
print(hidden.pid, kernel.pid, flush=True)
while True:
    time.sleep(60)
"""


def test_a_server_is_told_before_its_kernels_and_what_hid_ends_with_it(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={"PATH": os.environ["PATH"], "GALILEAN_CLUSTER_DIR": str(tmp_path), "GALILEAN_RANK": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    started = [Handle.of(int(pid)) for pid in server.stdout.readline().split()]
    first = Handle.of(server.pid)
    assert first is not None
    end_family(lambda mark: mark.directory == str(tmp_path), first=[first], first_seconds=120)
    assert server.stdout.read() == "the kernel runs\n"
    assert [handle for handle in started if handle is None or handle.alive()] == []
    server.wait()


def test_a_server_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = marked(tmp_path, program)
    while not of(tmp_path):
        time.sleep(0.01)
    first = Handle.of(child.pid)
    assert first is not None
    ended = end_family(
        lambda mark: mark.directory == str(tmp_path), first=[first], first_seconds=0.2, term_seconds=0.2
    )
    assert ended == 1
    assert child.wait() in (-signal.SIGKILL, -signal.SIGTERM)


def test_nothing_to_end_is_success(tmp_path: Path) -> None:
    assert end_family(lambda mark: mark.directory == str(tmp_path)) == 0


def test_an_end_is_written_with_its_time_and_told_of_one_process_only(tmp_path: Path) -> None:
    file = tmp_path / "node-0.exit.json"
    write_exit(file, 77, -9, 1_700_000_000.5)
    said = read_json(file)
    assert ended_at(said, 77) == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert ended_at(said, 78) is None
    assert ended_at(None, 77) is None
    assert [exit_reason(code) for code in (0, 1, -9)] == ["exited 0", "exited 1", "killed by signal 9"]
    write_exit(tmp_path / "gone" / "node-0.exit.json", 77, 0, 0)  # the directory was removed: no loss


def test_the_stamp_changes_with_any_file_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    before = stamp_of([str(file)])
    assert stamp_of([str(file)]) == before
    file.write_text("22")
    assert stamp_of([str(file)]) != before
    assert any(name.endswith("spawner/node/launcher.py") for name in stamped_files())
    assert any("jupyterhub" in name for name in stamped_files())
    assert code_stamp() == code_stamp()


@pytest.mark.parametrize(
    ("mine", "asked", "refused"),
    [
        ({}, {"JUPYTERHUB_SERVICE_PREFIX": "/x/"}, ""),
        ({}, {"JUPYTERHUB_SSL_KEYFILE": "/k"}, "JUPYTERHUB_SSL_KEYFILE"),
        ({"JUPYTERHUB_SINGLEUSER_APP": "notebook"}, {}, "JUPYTERHUB_SINGLEUSER_APP"),
        ({"PYTHONPATH": "/a"}, {"PYTHONPATH": "/a"}, ""),
        ({"PYTHONPATH": "/a"}, {"PYTHONPATH": "/b"}, "PYTHONPATH"),
        ({}, {"PYTHONWARNINGS": "error"}, "PYTHONWARNINGS"),
    ],
)
def test_a_variable_that_is_read_at_import_must_be_the_zygotes_own(
    mine: dict[str, str], asked: dict[str, str], refused: str
) -> None:
    assert frozen_difference(mine, asked) == refused
