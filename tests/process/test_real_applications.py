"""Programs of others behind the sign-in, as their makers ship them (SC-3): fetched first, so one of the tests of images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Response, sync_playwright

from galilean.settings import load_settings
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.process.hub import eventually
from tests.process.jupyter import TOKEN, Jupyter
from tests.process.test_applications import Portal, running_at, start, stop

pytestmark = [pytest.mark.process, pytest.mark.images, pytest.mark.timeout(1800)]

PATIENCE_MS = 60_000
LOSSES = """
import sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(sys.argv[1])
for step in range(20):
    value = Summary.Value(tag="loss", simple_value=1 / (step + 1))
    writer.add_event(Event(step=step, wall_time=1e9 + step, summary=Summary(value=[value])))
writer.close()
"""


@pytest.fixture(scope="module")
def tensorboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with TensorBoard in it, from the package index."""
    place = tmp_path_factory.mktemp("tensorboard")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    uv = Path(sys.executable).parent / "uv"
    python = place / "bin/python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "tensorboard"], check=True)
    return place


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tensorboard: Path) -> Iterator[Jupyter]:
    known = {name: one.for_node() for name, one in load_settings(environ={}).applications.items()}
    portal = Portal(known)
    path = {"PATH": f"{tensorboard / 'bin'}:{os.environ['PATH']}"}
    made = Jupyter(tmp_path_factory.mktemp("node") / "home", portal=portal.url, more=path)
    try:
        eventually(lambda: portal.told, 60, "the node told what it has")
        yield made
    finally:
        made.stop()
        portal.shutdown()
        portal.server_close()


def fault_of(got: Response) -> list[str]:
    """What was asked for in vain; its style sheet asks for type at the root of the host, wherever it is."""
    return [] if got.ok or "/font-roboto/" in got.url else [f"{got.status} {got.url}"]


def test_tensorboard_shows_the_scalars_of_a_run_below_its_address(node: Jupyter, tensorboard: Path) -> None:
    subprocess.run([tensorboard / "bin/python", "-c", LOSSES, node.root / "logs"], check=True)
    assert start(node, "tensorboard", logdir="nowhere").status_code == 400
    assert start(node, "tensorboard", logdir="logs", reload=1).status_code == 202
    running_at(node, "tensorboard", 120)
    assert node.client.get("apps/tensorboard/data/runs").json() == ["."]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda got: faults.extend(fault_of(got)))
        page.goto(f"{node.url}apps/tensorboard/?token={TOKEN}")
        page.get_by_text("loss", exact=True).first.wait_for()
        page.locator("line-chart path").first.wait_for(state="attached")  # the curve
        if folder := os.environ.get("GALILEAN_PICTURES"):
            page.screenshot(path=f"{folder}/tensorboard.png")
        browser.close()
    assert not faults
    stop(node, "tensorboard")
