"""The firewall's table comes back when somebody takes it out: by a real nft, in a network of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from galilean.errors import UserError
from spawner.docker.firewall import TABLE
from spawner.docker.gate import Gate
from spawner.docker.keeper import TableKeeper
from tests.docker.daemon import ROOT

BEGINS = """
from spawner.docker.firewall import TABLE, Reach, rules
from spawner.docker.gate import Gate, run_nft
from spawner.docker.keeper import TableKeeper
from spawner.licences import Way

WAY, OTHER = Way("10.20.30.40", 27000), Way("10.20.30.40", 27001)
reach = Reach(pool="10.213.0.0/16", address="10.213.0.1", ports=[20001])

def gate():
    return Gate(may_apply=lambda: True, keeper=TableKeeper(lambda: rules(reach), run_nft))

run_nft(["-f", "-"], rules(reach))  # by the start of the product
mine = gate()
mine.open("gal-a", [WAY])
whole = run_nft(["--stateless", "list", "table", "inet", TABLE], "")
assert "10.20.30.40" in whole and "counter drop" in whole
"""


def inside(code: str) -> str:
    """What a program says that is root of a network of its own."""
    if not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("nft is missing")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", BEGINS + code],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "flush ruleset",
        f"flush table inet {TABLE}",
        f"flush chain inet {TABLE} here",
        f"flush set inet {TABLE} licences",
        f"insert rule inet {TABLE} input accept",
    ],
)
def test_whatever_is_taken_out_is_put_in_again_with_the_ways_that_were_open(words: str) -> None:
    said = inside(f"""
assert mine.keeper.keep() is True
run_nft({words.split()!r}, "")
assert run_nft(["--stateless", "list", "ruleset"], "") != whole
assert mine.keeper.keep() is False
assert run_nft(["--stateless", "list", "table", "inet", TABLE], "") == whole
assert mine.keeper.keep() is True
""")
    assert "nodes could reach this machine's services" in said


def test_a_start_finds_the_rules_in_place_whatever_became_of_them() -> None:
    inside("""
run_nft(["flush", "ruleset"], "")
mine.open("gal-b", ())
assert run_nft(["--stateless", "list", "table", "inet", TABLE], "") == whole, "the way of the first, and no other"
""")


def test_a_new_hub_keeps_the_ways_of_the_one_before_and_closed_ones_stay_closed() -> None:
    said = inside("""
mine.open("gal-b", [OTHER])
mine.close("gal-b")
second = gate()
second.keep()
run_nft(["flush", "ruleset"], "")
second.keep()
assert run_nft(["--stateless", "list", "table", "inet", TABLE], "") == whole
""")
    assert said.count("nodes could reach") == 1, "the first look of a hub is no alarm"


def test_nothing_is_started_when_the_rules_cannot_be_put_in_again() -> None:
    def broken(words: Sequence[str], text: str) -> str:
        raise OSError("Error: No such file or directory" if "list" in words else "netlink: not permitted")

    gate = Gate(may_apply=lambda: True, nft=broken, keeper=TableKeeper(lambda: "", broken))
    with pytest.raises(UserError, match="not permitted") as caught:
        gate.open("gal-a", ())
    assert caught.value.status == 503
    gate.close("gal-a")  # a removal goes on
    Gate(may_apply=lambda: False, keeper=gate.keeper).open("gal-a", ())
