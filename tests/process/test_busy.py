"""What counts as running in a node, and how it is told."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spawner.node import notebook
from spawner.node.busy import Process, Processes
from spawner.node.outputs import LEAST_CELL, MOST_CELL, MOST_OUTPUTS, MOST_TEXT, Outputs, Room, overwrite
from spawner.node.place import Place
from spawner.node.presence import Presence, Reporter

SERVER, KERNEL, SHELL = 10, 20, 30


def process(pid: int, parent: int = SERVER, **more: Any) -> Process:
    values = {"group": pid, "state": "S", "name": "python3", "arguments": 2, "ticks": 0, "moved_bytes": 0}
    return Process(pid=pid, start_ticks=1, parent=parent, **{**values, **more})


BASIC = [
    process(5, 1, name="python3"),  # a container's first process
    process(SERVER, 5),
    process(KERNEL),
    process(SHELL, name="bash", arguments=1),
    process(40, name="pylsp"),  # a helper of the server
    process(41, 40, name="pylsp", ticks=9999),
]


def at_work(*looks: list[Process], foreground: set[int] | None = None) -> int:
    """The count of the last of several looks, 10 s apart."""
    left = [[*BASIC, *look] for look in looks]
    times = iter(range(0, 1000, 10))
    processes = Processes((), read=lambda marks: left.pop(0), now=lambda: float(next(times)))
    count = 0
    for _ in looks:
        count = processes.at_work(
            server=SERVER, kernels={KERNEL}, shells={SHELL}, foreground=foreground or set()
        )
    return count


@pytest.mark.parametrize(
    ("what", "looks", "count"),
    [
        ("nothing but Jupyter", [[]], 0),
        ("a command in the background of a terminal", [[process(50, SHELL, name="sleep")]], 1),
        ("a detached one", [[process(50, 1)]], 1),
        (
            "one that came by ssh",
            [[process(50, name="sshd"), process(51, 50, name="bash"), process(52, 51)]],
            1,
        ),
        ("an editor", [[process(50, SHELL, name="vim")]], 0),
        ("an empty Python prompt", [[process(50, SHELL, arguments=1)]], 0),
        ("a stopped one", [[process(50, SHELL, state="T")]], 0),
        ("tmux with a shell", [[process(50, 1, name="tmux: server"), process(51, 50, name="bash")]], 0),
        (
            "a panel of a desktop",
            [[process(50, 1, desktop=True)], [process(50, 1, ticks=2, desktop=True)]],
            0,
        ),
        (
            "a desktop's program that computes",
            [[process(50, 1, desktop=True)], [process(50, 1, ticks=900, desktop=True)]],
            1,
        ),
        ("an idle worker of a kernel", [[process(50, KERNEL)], [process(50, KERNEL, ticks=2)]], 0),
        ("a worker of a kernel that computes", [[process(50, KERNEL)], [process(50, KERNEL, ticks=900)]], 1),
        (
            "one that only moves data",
            [[process(50, KERNEL)], [process(50, KERNEL, moved_bytes=10_000_000)]],
            1,
        ),
        ("what has ended and is not collected", [[process(50, 1, state="Z")]], 0),
    ],
)
def test_what_counts_as_running(what: str, looks: list[list[Process]], count: int) -> None:
    assert at_work(*looks) == count, what


def test_what_a_terminal_has_in_the_foreground_is_not_counted_twice() -> None:
    assert at_work([process(50, SHELL, name="mpirun")], foreground={50}) == 0


class Work:
    """What runs, by the number of looks."""

    def __init__(self, *busy: int) -> None:
        self.left = list(busy)
        self.now = {"kernels": 0}

    def told(self) -> dict[str, int]:
        return self.now

    async def look(self, *, somebody: bool = True) -> dict[str, int]:
        if self.left:
            self.now = {"kernels": self.left.pop(0)}
        return self.now


async def test_work_is_told_while_nobody_is_there_and_its_end_at_once() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    told: list[tuple[float, dict[str, Any]]] = []
    start = now

    async def send(body: dict[str, Any]) -> None:
        told.append(((now - start).total_seconds(), body))

    async def pause(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        if (now - start).total_seconds() > 120:
            raise asyncio.CancelledError
        await asyncio.sleep(0)

    place = Place(run="01RUN", server="heat", nodes=1, rank=0, prefix="/user/a/heat/")
    work = Work(*[1] * 9, *[0] * 50)
    reporter = Reporter(
        Presence(lambda: now), place, send, log=logging.getLogger("test"), pause=pause, work=work
    )
    try:
        await asyncio.wait_for(reporter.run(), 0.3)
    except (TimeoutError, asyncio.CancelledError):
        pass
    assert [(at, body["busy"]["kernels"]) for at, body in told] == [(0, 1), (30, 1), (40, 0)]
    assert not any("seen_at" in body for _, body in told), "nobody was seen"


# ---------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["10%", "\r20%", "\r100%\n", "done"], "100%\ndone"),
        (["a\r", "\nb"], "a\nb"),
        (["long line\rab"], "abng line"),
        (["x\n", "1\r2\r3"], "x\n3"),
        (["a", "b\n"], "ab\n"),
    ],
)
def test_a_carriage_return_overwrites_its_line(parts: list[str], text: str) -> None:
    shown = ""
    for part in parts:
        shown = overwrite(shown, part)
    assert shown == text


def test_outputs_follow_the_protocol() -> None:
    outputs = Outputs()
    for name in ("stdout", "stdout", "stderr"):
        outputs.take("stream", {"name": name, "text": "a\n"})
    outputs.take("display_data", {"data": {"text/plain": "one"}, "transient": {"display_id": "d"}})
    assert outputs.update("d", {"data": {"text/plain": "two\nlines"}, "metadata": {}})
    assert not outputs.update("e", {"data": {}})
    assert outputs.written() == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "a\n"]},
        {"output_type": "stream", "name": "stderr", "text": ["a\n"]},
        {"output_type": "display_data", "data": {"text/plain": ["two\n", "lines"]}, "metadata": {}},
    ]
    outputs.take("clear_output", {"wait": True})
    assert outputs.items
    outputs.take("execute_result", {"data": {"text/plain": "3"}, "execution_count": 7})
    assert [item["output_type"] for item in outputs.written()] == ["execute_result"]
    outputs.take("clear_output", {"wait": False})
    assert outputs.written() == []


def held(outputs: Outputs) -> int:
    return len(json.dumps(outputs.written()))


def display(outputs: Outputs, size: int, **more: object) -> None:
    outputs.take("display_data", {"data": {"image/png": "x" * size}, "metadata": {}, **more})


def test_pictures_without_end_do_not_fill_memory_and_that_is_said() -> None:
    outputs = Outputs()
    outputs.take("stream", {"name": "stdout", "text": "begins\n"})
    for _ in range(10):
        display(outputs, MOST_CELL // 4)
    outputs.take("error", {"ename": "E", "evalue": "", "traceback": ["x" * 100]})
    assert held(outputs) < 1.1 * MOST_CELL
    kinds = [item["output_type"] for item in outputs.written()]
    assert (kinds.count("display_data"), kinds[-1], kinds.count("stream")) == (3, "error", 2)
    said = "".join(text for item in outputs.written() for text in item.get("text", ()))
    assert "7 outputs left out" in said
    outputs.take("clear_output", {"wait": False})
    display(outputs, MOST_CELL + 1)  # one alone is too much
    assert [item["output_type"] for item in outputs.written()] == ["stream"]
    outputs.take("stream", {"name": "stderr", "text": "goes on\n"})
    assert outputs.written()[-1]["text"] == ["goes on\n"]
    for _ in range(MOST_OUTPUTS + 9):
        display(outputs, 1)
    assert len(outputs.written()) <= MOST_OUTPUTS + 2


def test_a_display_that_grows_is_bounded_too() -> None:
    outputs = Outputs()
    display(outputs, 1, transient={"display_id": "d"})
    outputs.update("d", {"data": {"text/html": ["x" * 1000] * (MOST_CELL // 1000 + 9)}})
    assert held(outputs) < 1000


def test_all_cells_of_a_kernel_keep_no_more_than_the_kernel_may() -> None:
    room = Room(10 * LEAST_CELL)
    cells = [Outputs(room) for _ in range(40)]
    for cell in cells:
        for _ in range(8):
            display(cell, LEAST_CELL // 2)
    assert sum(held(cell) for cell in cells) < 1.1 * (room.most + len(cells) * LEAST_CELL)
    assert len(cells[0].written()) == 8
    # A cell that is forgotten makes room for others.
    cell = cells[-1]
    before = len(cell.written())
    del cells[:-1]
    for _ in range(4):
        display(cell, LEAST_CELL // 2)
    assert len(cell.written()) >= before + 4
    assert room.used <= room.most
    cell.take("clear_output", {"wait": False})
    assert room.used == 0


def test_a_notebook_is_written_past_whatever_lies_beside_it(tmp_path: Path) -> None:
    book, precious = tmp_path / f"{'b' * 240}.ipynb", tmp_path / "precious"
    book.write_text("{}")
    book.chmod(0o640)
    precious.write_text("mine")
    for name in (f".{book.name}.galilean~", f".{book.stem[:40]}.galilean~"):
        if len(name) < 256:
            (tmp_path / name).symlink_to(precious)
    short = tmp_path / "a.ipynb"
    short.write_text("{}")
    (tmp_path / ".a.ipynb.galilean~").symlink_to(precious)
    for path in (book, short):
        beside = notebook.prepare(path, "new")
        assert notebook.replace(path, beside, notebook.stamp_of(path))
        assert (path.read_text(), path.is_symlink()) == ("new", False)
    assert book.stat().st_mode & 0o777 == 0o640
    assert precious.read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith("~") and not path.is_symlink()]


def test_text_without_end_keeps_its_beginning_and_its_end() -> None:
    outputs = Outputs()
    for number in range(400):
        outputs.take("stream", {"name": "stdout", "text": f"{number:06}" + "x" * 50_000 + "\n"})
    text = "".join(outputs.written()[0]["text"])
    assert text.startswith("000000x")
    assert "000399x" in text[-60_000:]
    assert "characters left out" in text
    assert len(text) < 2 * MOST_TEXT
