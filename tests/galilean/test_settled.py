"""A process looks for garbage among what it made, not among what it began with."""

from __future__ import annotations

import subprocess
import sys

import pytest


def in_a_process(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=160, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_is_there_is_set_aside_and_what_comes_later_is_still_collected() -> None:
    code = """
import gc, weakref
from galilean.settled import settle
class Thing: pass
settle()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
thing = Thing(); thing.itself = thing; gone = weakref.ref(thing); del thing
gc.collect(); print(gone() is None)
"""
    assert in_a_process(code) == ["True"] * 3


def test_a_page_of_thousands_of_lines_is_not_searched_for_garbage_while_it_is_made() -> None:
    code = """
import gc
from galilean.settled import settle
settle()
before = [kind["collections"] for kind in gc.get_stats()]
lines = [[number] for number in range(10_000)]
print([kind["collections"] for kind in gc.get_stats()] == before)
"""
    assert in_a_process(code) == ["True"]


@pytest.mark.parametrize("process", ["services.portal", "services.metering"])
def test_a_process_that_serves_begins_so(process: str) -> None:
    """Where it would begin to serve, what it imported is set aside."""
    code = f"""
import gc, os, runpy, tempfile
from unittest import mock
os.environ |= {{"JUPYTERHUB_API_URL": "http://127.0.0.1:9", "JUPYTERHUB_API_TOKEN": "x"}}
def served(work):
    work.close()
    print(gc.get_freeze_count() > 10_000)
with tempfile.TemporaryDirectory() as folder, mock.patch("asyncio.run", served):
    os.environ["GALILEAN_STATE"] = folder
    runpy.run_module("{process}", run_name="__main__")
"""
    assert in_a_process(code) == ["True"]


def test_so_does_the_hub() -> None:
    code = """
import gc
from unittest import mock
from hub_config import hub
with mock.patch.object(hub.GalileanHub, "launch_instance", lambda words: print(gc.get_freeze_count() > 10_000)):
    hub.main()
"""
    assert in_a_process(code) == ["True"]
