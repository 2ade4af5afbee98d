"""Cells go on without their page, with a real Jupyter server and real kernels."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.hub import eventually as soon
from tests.process.jupyter import Jupyter, Page

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    server = Jupyter(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kernel(jupyter: Jupyter) -> str:
    """One kernel for all: starting one costs more than what the tests do with it."""
    return jupyter.session("first.ipynb")["kernel"]["id"]


@pytest.fixture
def book(jupyter: Jupyter, kernel: str, request: pytest.FixtureRequest) -> str:
    """A notebook of the test's own on that kernel, which begins fresh."""
    name = f"{request.node.name[:60]}.ipynb"
    session = jupyter.client.get("api/sessions").json()[0]
    jupyter.client.patch(
        f"api/sessions/{session['id']}", json={"path": name, "name": name, "type": "notebook"}
    )
    return name


def eventually(condition: Any, seconds: float = 60, what: str = "") -> Any:
    return soon(condition, seconds, what)


def wait_file(path: Path) -> str:
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.02)\n"


def idle(jupyter: Jupyter) -> bool:
    busy = jupyter.busy()
    return not (busy["kernels"] or busy["queued"])


def test_running_and_queued_cells_are_written_after_the_page_has_left(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    codes = [
        "print('before', flush=True)\n" + wait_file(go) + "print('after'); 6 * 7",
        "import sys; print('out'); print('err', file=sys.stderr)",
        "from IPython.display import display\nh = display('one', display_id=True)\nh.update('two')",
        "1 / 0",
        "print('never')",
    ]
    jupyter.notebook(book, *codes)
    page = Page(jupyter, kernel)
    for number, code in enumerate(codes):
        page.run(code, number)
    page.until("stream")
    eventually(lambda: jupyter.busy()["kernels"] == 1)
    assert jupyter.busy()["queued"] == 4
    page.close()
    eventually(
        lambda: jupyter.text(book) == "before\n", what="what was printed before is in the file at once"
    )
    eventually(lambda: jupyter.client.get("galilean/api/status").json()["headless"])
    said = [
        item for item in jupyter.client.get("galilean/api/status").json()["headless"] if item["path"] == book
    ]
    assert said[0]["cells"] == 5
    go.touch()
    eventually(lambda: idle(jupyter))
    cells = jupyter.cells(book)
    assert jupyter.text(book, 0) == "before\nafter\n"
    assert cells[0]["outputs"][-1]["data"]["text/plain"] == ["42"]
    assert cells[0]["outputs"][-1]["execution_count"] == cells[0]["execution_count"]
    assert [(item["name"], item["text"]) for item in cells[1]["outputs"]] == [
        ("stdout", ["out\n"]),
        ("stderr", ["err\n"]),
    ]
    assert [item["data"]["text/plain"] for item in cells[2]["outputs"]] == [["'two'"]]
    assert cells[3]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert (cells[4]["outputs"], cells[4]["execution_count"]) == ([], None), "aborted, as in a page"
    counts = [cell["execution_count"] for cell in cells[:4]]
    assert counts == list(range(counts[0], counts[0] + 4))
    import nbformat

    nbformat.validate(nbformat.read(jupyter.root / book, as_version=4))


def test_a_page_that_is_there_is_not_written_over(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    jupyter.notebook(book, "print(1)")
    before = (jupyter.root / book).read_text()
    page = Page(jupyter, kernel)
    key = page.run("print(1)")
    page.until("status", key, execution_state="idle")
    eventually(lambda: idle(jupyter))
    assert (jupyter.root / book).read_text() == before
    # The page saves, and leaves: it had everything.
    time.sleep(0.05)
    saved = before.replace("print(1)", "print(1) # saved")
    (jupyter.root / book).write_text(saved)
    page.close()
    go = tmp_path / "go"
    other = Page(jupyter, kernel)
    other.run(wait_file(go), 7)
    other.close()
    go.touch()
    eventually(lambda: idle(jupyter))
    time.sleep(2.5)  # the first page counts as left only now
    assert (jupyter.root / book).read_text() == saved


def test_what_had_ended_and_was_not_saved_is_written_when_the_page_leaves(
    jupyter: Jupyter, kernel: str, book: str
) -> None:
    jupyter.notebook(book, "print('unsaved')")
    page = Page(jupyter, kernel)
    key = page.run("print('unsaved')")
    page.until("status", key, execution_state="idle")
    page.close()
    eventually(lambda: jupyter.text(book) == "unsaved\n")


def test_edits_and_deleted_cells_are_respected(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    codes = [wait_file(go) + "print('a')", "print('b')"]
    jupyter.notebook(book, *codes)
    page = Page(jupyter, kernel)
    for number, code in enumerate(codes):
        page.run(code, number)
    page.close()
    path = jupyter.root / book
    edited = json.loads(path.read_text())
    edited["cells"][0]["source"] = "# edited meanwhile"
    del edited["cells"][1]
    edited["cells"].append({"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# New"})
    edited["metadata"]["mine"] = True
    path.write_text(json.dumps(edited))
    go.touch()
    eventually(lambda: jupyter.text(book) == "a\n")
    eventually(lambda: idle(jupyter), what="the deleted cell's output is dropped")
    after = json.loads(path.read_text())
    assert [cell["source"] for cell in after["cells"]] == ["# edited meanwhile", "# New"]
    assert after["metadata"] == {"mine": True}


def test_input_without_a_page_is_told_and_does_not_hang(jupyter: Jupyter, kernel: str, book: str) -> None:
    codes = ["x = input('name? ')", "y = input('again? ')"]
    jupyter.notebook(book, *codes)
    page = Page(jupyter, kernel)
    page.run(codes[0], 0)
    page.run(codes[1], 1, stop_on_error=False)
    page.until("input_request")
    page.close()
    eventually(lambda: idle(jupyter))
    cell = jupyter.cells(book)[0]
    assert "asked for input" in jupyter.text(book)
    assert cell["outputs"][-1]["ename"] == "EOFError"


def test_a_connection_that_broke_and_comes_back_is_the_pages_again(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = wait_file(go) + "print('to the page')"
    jupyter.notebook(book, code)
    before = (jupyter.root / book).read_text()
    page = Page(jupyter, kernel)
    key = page.run(code)
    page.until("status", key, execution_state="busy")
    page.lose()
    go.touch()
    eventually(lambda: jupyter.busy()["kernels"] == 0)
    again = Page(jupyter, kernel, page.session)
    assert again.until("stream", key)["content"]["text"] == "to the page\n"
    again.until("status", key, execution_state="idle")
    assert (jupyter.root / book).read_text() == before
    again.run("pass", 0)
    again.close()


def test_much_output_is_bounded_and_keeps_its_beginning_and_end(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = wait_file(go) + "for i in range(300_000): print(i, 'x' * 40)"
    jupyter.notebook(book, code)
    page = Page(jupyter, kernel)
    page.run(code)
    page.close()
    go.touch()
    eventually(lambda: idle(jupyter), 60)
    text = jupyter.text(book)
    assert text.startswith("0 xxx")
    assert text.endswith(f"299999 {'x' * 40}\n")
    assert "characters left out" in text
    assert len(text) < 7 * 2**20


def test_a_file_without_cell_ids_is_matched_by_code(jupyter: Jupyter, kernel: str, book: str) -> None:
    jupyter.notebook(book, "print('old')", ids=False)
    page = Page(jupyter, kernel)
    page.run("print('old')", 5)
    page.close()
    eventually(lambda: jupyter.text(book) == "old\n")
    assert "id" not in jupyter.cells(book)[0]


def test_the_death_of_a_kernel_is_written_too(
    jupyter: Jupyter, kernel: str, book: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    codes = [
        "print('last words', flush=True)\n" + wait_file(go) + "os.kill(os.getpid(), 9)",
        "print('queued')",
    ]
    jupyter.notebook(book, *codes)
    page = Page(jupyter, kernel)
    for number, code in enumerate(codes):
        page.run(code, number)
    page.until("stream")
    page.close()
    go.touch()
    eventually(lambda: "ended before this cell was done" in jupyter.text(book))
    assert jupyter.text(book).startswith("last words\n")
    eventually(lambda: idle(jupyter))
    assert jupyter.cells(book)[1]["outputs"] == []
    page = Page(jupyter, kernel)
    key = page.run("print('alive')", 1)
    page.until("status", key, execution_state="idle")
    page.close()
    eventually(lambda: jupyter.text(book, 1) == "alive\n", what="the kernel's successor is heard as well")


def test_a_terminal_with_a_command_is_busy_and_one_without_is_not(jupyter: Jupyter) -> None:
    from websockets.sync.client import connect

    from tests.process.jupyter import TOKEN

    name = jupyter.client.post("api/terminals").json()["name"]
    address = f"{jupyter.url.replace('http', 'ws', 1)}terminals/websocket/{name}?token={TOKEN}"
    with connect(address) as socket:
        socket.send(json.dumps(["stdin", "sleep 60\r"]))
        eventually(lambda: jupyter.busy()["terminals"] == 1)
        socket.send(json.dumps(["stdin", "\x03"]))
        eventually(lambda: jupyter.busy()["terminals"] == 0)
        socket.send(json.dumps(["stdin", "less /etc/hostname\r"]))
        time.sleep(0.5)
        assert jupyter.busy()["terminals"] == 0, "a pager waits for a person"
    jupyter.client.delete(f"api/terminals/{name}")


def test_a_release_writes_what_is_there(tmp_path: Path) -> None:
    server = Jupyter(tmp_path, language="zh_CN")
    try:
        server.notebook("a.ipynb", "…")
        kernel: Any = server.session("a.ipynb")["kernel"]["id"]
        page = Page(server, kernel)
        page.run("print('half way', flush=True)\nimport time; time.sleep(600)")
        page.until("stream")
        page.close()
    finally:
        server.stop()
    assert server.text("a.ipynb").startswith("half way\n")
    assert "内核" in server.text("a.ipynb")
