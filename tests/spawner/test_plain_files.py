"""What the person's programs may have put in the place of a file: a named pipe keeps no thread of the node."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from extensions.desktop import notes
from galilean.settings_applications import Application
from spawner.node import command, notebook
from spawner.node.applications import FOLDER, Applications
from spawner.node.listening import Ports
from spawner.node.plain_files import plain


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def applications(home: Path) -> Applications:
    made = Applications({"HOME": str(home)}, "/", Ports({}))
    made.learn({"a": Application.model_validate({"title": "A", "command": "sleep $APP_PORT"}).for_node()})
    return made


def run_command(home: Path) -> None:
    environ = {"HOME": str(home), command.COMMAND: "true", "PATH": os.environ["PATH"]}
    if command.start_command(environ, logging.getLogger(__name__)) is None:
        raise OSError("it does not run")


WAYS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "the note is read": ("work/notes.md", notes.read),
    "the note is written": ("work/notes.md", lambda home: notes.write(home, "text", "")),
    "outputs are put into a notebook": (
        "work/a.ipynb",
        lambda home: notebook.merge(home / "work/a.ipynb", [], ours=None, saved_at=0),
    ),
    "the start command prints": (command.LOG, run_command),
    "an application prints": (f"{FOLDER}/a.log", lambda home: applications(home).start("a", {})),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(home: Path, way: str) -> None:
    path, act = WAYS[way]
    os.mkfifo(home / path)
    said: list[BaseException | None] = []

    def do() -> None:
        try:
            act(home)
            said.append(None)
        except BaseException as error:
            said.append(error)

    thread = Thread(target=do, daemon=True)
    thread.start()
    thread.join(20)
    hangs = thread.is_alive()
    if hangs:
        os.close(os.open(home / path, os.O_RDWR | os.O_NONBLOCK))  # let go of it
    assert not hangs
    assert isinstance(said[0], OSError)


def test_the_log_of_an_application_that_became_a_pipe_reads_as_empty(home: Path) -> None:
    os.mkfifo(home / FOLDER / "a.log")
    end = os.open(home / FOLDER / "a.log", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert applications(home).log("a") == ""
    finally:
        os.close(end)


def test_a_pipe_that_somebody_holds_open_is_refused_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        for mode in ("rb", "wb", "ab"):
            with pytest.raises(OSError, match="no plain file"), open(tmp_path / "pipe", mode, opener=plain):
                pass
    finally:
        os.close(end)
    with pytest.raises(OSError, match="no plain file"), open("/dev/null", "wb", opener=plain):
        pass


def test_plain_files_are_opened_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for mode, there in (("w", "one"), ("w", "two"), ("a", "twotwo")):
        with open(path, mode, opener=plain) as file:
            assert os.get_blocking(file.fileno())
            file.write(there[-3:])
        assert path.read_text() == there
    (tmp_path / "link").symlink_to(path)
    with open(tmp_path / "link", opener=plain) as file:
        assert file.read() == "twotwo"
