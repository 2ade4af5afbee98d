"""The first notebook of a project."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from galilean.i18n import LANGUAGES
from services.catalog.starter import starter_notebook


@pytest.mark.parametrize("language", [*LANGUAGES, "xx"])
def test_the_notebook_is_valid_in_every_language(language: str) -> None:
    notebook = nbformat.reads(starter_notebook(language).decode(), as_version=4)
    nbformat.validate(notebook)
    assert starter_notebook(language) == starter_notebook(language)


@pytest.mark.process
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_notebook_runs_as_it_is(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALILEAN_NODES", "1")
    monkeypatch.setenv("GALILEAN_RANK", "0")
    notebook = nbformat.reads(starter_notebook(language).decode(), as_version=4)
    NotebookClient(notebook, timeout=60).execute()
    texts = [
        "".join(output.text for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert "node-0 ←" in texts[1]
    assert all(texts)


def test_the_second_half_reaches_every_node(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GALILEAN_NODES", "2")
    notebook = nbformat.reads(starter_notebook("en").decode(), as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    asked: list[list[str]] = []

    class Done:
        stdout = "host"

    monkeypatch.setattr("subprocess.run", lambda command, **_: asked.append(command) or Done())
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/ssh")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    exec(code, {})
    assert asked == [["ssh", "node-0", "hostname"], ["ssh", "node-1", "hostname"]]
    said = capsys.readouterr().out
    assert "node-1" in said
    assert "ipyparallel is not in this environment." in said
