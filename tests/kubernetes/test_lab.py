"""The lab itself: whoever comes second must not take the first one down, and nothing of it is left, however it ended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import lab
from tests.lab.lab import Lab
from tests.lab.places import BRIDGE, CGROUP, LOCK, MACHINE
from tests.process.hub import eventually

pytestmark = pytest.mark.kubernetes
ROOT = Path(__file__).parents[2]
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
            cwd=ROOT,
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


def test_the_bound_on_watchers_is_raised_and_never_lowered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = tmp_path / "max_user_instances"
    for before, after in ((128, lab.WATCHERS_LEAST), (8192, 8192)):
        bound.write_text(f"{before}\n")
        lab.let_watch(bound)
        assert int(bound.read_text()) == after
    assert not capsys.readouterr().out


def test_a_bound_on_watchers_that_cannot_be_raised_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Fixed(type(Path())):
        def read_text(self, *_: object, **__: object) -> str:
            return "128\n"

        def write_text(self, *_: object, **__: object) -> int:
            raise PermissionError(13, "Permission denied")

    lab.let_watch(Fixed("max_user_instances"))
    said = capsys.readouterr().out
    assert "max_user_instances is 128" in said
    assert "Permission denied" in said


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
one.parts.start("kubelet", "sleep", "600")
print(one.parts["kubelet"].pid, flush=True)
time.sleep(600)
"""


def test_a_killed_labs_parts_die_with_it(tmp_path: Path) -> None:
    """The next one has the same names and groups."""
    killed = subprocess.Popen(
        [sys.executable, "-c", PART, str(tmp_path / "lab")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
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


# ---------------------------------------------------------------------------------------------- by hand, with make


@pytest.fixture
def no_lab() -> None:
    """For tests that start labs of their own: they come before that of this run (``conftest.py``)."""
    if os.environ.get("GALILEAN_LAB_DIRECTORY"):
        pytest.skip("a lab runs here already, which is somebody else's")
    for place in (".venv", "node_modules"):
        assert not (ROOT / place).is_symlink(), (
            f"make would write through {place}, which is a link to elsewhere"
        )


def traces() -> dict[str, set[str]]:
    """What labs leave on a machine, if they leave anything."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout

    rules = "".join(said("iptables-save", "-t", table) for table in ("filter", "nat", "mangle"))
    names = {item["ifname"] for item in json.loads(said("ip", "-j", "link"))}
    mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    return {
        "interfaces": {name for name in names if name == BRIDGE or name.startswith("veth")},
        "namespaces": {path.name for path in Path("/run/netns").glob("cni-*")},
        "memories of plugins": {path.name for path in Path("/var/lib/cni/results").glob("*")},
        "mounts": {mount for mount in mounts if "/galilean-lab-" in mount or "/netns/cni-" in mount},
        "control groups": {str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}*")},
        "rules": {
            line
            for line in rules.splitlines()
            if any(word in line for word in ("KUBE-", "CNI-", "galilean-lab"))
        },
        "tables": {line for line in said("nft", "list", "tables").splitlines() if "galilean-lab" in line},
        "directories": {str(path) for path in Path("/tmp").glob("galilean-lab-*")},
        "processes": {word for word in said("ps", "-eo", "args").splitlines() if "/galilean-lab-" in word},
    }


@contextmanager
def lab_up(until: str) -> Iterator[list[str]]:
    """``make lab-up`` until it has said something; what it said up to then."""
    made = subprocess.Popen(
        ["make", "--no-print-directory", "lab-up"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert made.stdout is not None
        said: list[str] = []
        for line in made.stdout:
            said.append(line.strip())
            if until in line:
                break
        else:
            raise AssertionError("\n".join(said[-40:]))
        yield said
        made.stdout.read()
        made.wait(480)
    finally:
        made.kill()
        made.wait()


def holder() -> int:
    """The process that keeps the lab."""
    pid = int(LOCK.read_text().split()[0])
    assert b"tests.lab\0up" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return pid


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("no_lab")
def test_make_lab_up_keeps_one_until_lab_down_and_nothing_is_left_also_of_one_that_was_killed() -> None:
    before = traces()
    with lab_up("image: ") as said:
        os.kill(holder(), signal.SIGKILL)
    assert traces()["namespaces"] - before["namespaces"], "its pods have networks, and nobody takes them away"

    with lab_up("takes it away") as said:
        assert any("clearing up after one that was killed" in line for line in said)
        settings = dict(
            line.removeprefix("export ").split("  #")[0].split("=", 1) for line in said if "export" in line
        )
        program = next(line.partition("kubectl is: ")[2] for line in said if "kubectl is: " in line)
        nodes = subprocess.run(
            [*program.split(), "get", "nodes", "-o", "name"],
            env=os.environ | settings, capture_output=True, text=True, check=True, timeout=240,
        ).stdout  # fmt: skip
        assert nodes.split() == [f"node/{MACHINE}"]
        down = ["make", "--no-print-directory", "lab-down"]
        subprocess.run(down, cwd=ROOT, check=True, timeout=480, stdin=subprocess.DEVNULL)
        after = traces()
        assert {kind: left - before[kind] for kind, left in after.items() if left - before[kind]} == {}
    subprocess.run(down, cwd=ROOT, check=True, timeout=240, stdin=subprocess.DEVNULL)  # nothing to do
