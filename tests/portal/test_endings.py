"""Every reason that any part of the product writes into a run has its words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from services.portal.pages.endings import CAUSES, ENDS
from spawner.steps import FAILURES

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("spawner", "services", "extensions", "hub_config", "galilean")
#: Who takes a reason → its place among the arguments; as a keyword it is always called ``reason``.
WRITERS = {
    "Cause": 0,
    "Release": 0,
    "Finish": 1,
    "begin_stop": 3,
    "ask_stop": 2,
    "cancel_waiting": 2,
    "release_run": 3,
}


def words(value: ast.expr, names: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The texts that an expression can be, as far as the module itself says."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from words(value.body, names)
        yield from words(value.orelse, names)
    elif isinstance(value, ast.BoolOp):
        for part in value.values:
            yield from words(part, names)
    elif isinstance(value, ast.Name):
        for assigned in names.get(value.id, []):
            yield from words(assigned, {})


def reasons(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    names: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, []).append(node.value)
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    for one, value in zip(target.elts, node.value.elts, strict=False):
                        if isinstance(one, ast.Name):
                            names.setdefault(one.id, []).append(value)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [word.value for word in node.keywords if word.arg == "reason"]
        arguments = node.args
        if called == "run" and arguments:  # database.run(function, …): the function's arguments, without conn
            function = arguments[0]
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in WRITERS:
            place = WRITERS[called]
            for value in given or arguments[place : place + 1]:
                yield from words(value, names)


def test_every_reason_that_is_written_has_its_words() -> None:
    found = {
        reason
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for reason in reasons(path.read_text(encoding="utf-8"))
    }
    # The search itself finds something in every way in which reasons are written.
    assert found >= {
        "asked", "cancelled", "start_failed", "not_placed", "hub_lost", "node_lost", "disappeared", "left",
        "signed_out", "user", "admin", "shutdown", "person_deleted",
    }  # fmt: skip
    assert found - ENDS.keys() == set()


def test_every_failure_has_a_title_of_its_own_or_a_sentence_from_the_lifecycle() -> None:
    assert FAILURES - CAUSES.keys() == {"start_failed"}
