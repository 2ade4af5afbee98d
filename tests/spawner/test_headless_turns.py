"""What counts as waiting in a kernel, by what was asked of it and what it said."""

from __future__ import annotations

import pytest

from spawner.node.headless import Headless


@pytest.fixture
def headless() -> Headless:
    found = Headless()
    found.watch("k", None)
    return found


def ask(headless: Headless, key: str, session: str = "page") -> None:
    headless.sent("k", {"msg_id": key, "session": session}, {"cellId": key}, "1")


def begin(headless: Headless, key: str) -> None:
    headless.heard("k", "execute_input", key, lambda: {"execution_count": 1})


def end(headless: Headless, key: str) -> None:
    headless.heard("k", "status", key, lambda: {"execution_state": "idle"})


def test_a_cell_that_the_kernel_has_not_begun_waits_even_if_it_is_the_only_one(headless: Headless) -> None:
    ask(headless, "a")
    assert headless.waiting() == 1, "else the node looks idle between the request and its begin"
    begin(headless, "a")
    assert headless.waiting() == 0, "the kernel itself is busy now"
    end(headless, "a")
    assert headless.waiting() == 0


def test_a_request_that_a_kernel_never_got_waits_no_longer_than_the_next_of_its_page(
    headless: Headless,
) -> None:
    ask(headless, "lost")
    ask(headless, "others", session="another page")
    ask(headless, "b")
    begin(headless, "b")
    end(headless, "b")
    assert headless.waiting() == 1, "of the other page nothing is known yet"
    ask(headless, "c")
    assert headless.waiting() == 2
