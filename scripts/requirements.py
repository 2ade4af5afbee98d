"""``docs/requirements.md`` from ``docs/requirements.yaml``: every row, its state, and the test that shows it.

``--check`` writes nothing: it fails when a row is malformed, when a delivered row names no test, when a
named test does not exist, or when the page is not what the data say.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "requirements.yaml"
PAGE = ROOT / "docs" / "requirements.md"
STATES = ("delivered", "partly", "not yet")
KEYS = {"id", "rule", "state", "note", "tests"}


@dataclass(frozen=True)
class Row:
    id: str
    rule: str
    state: str
    note: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    prefix: str
    title: str
    rows: tuple[Row, ...]


def read(path: Path) -> tuple[list[Section], list[str]]:
    """The sections of the file, and what is wrong with their rows."""
    problems: list[str] = []
    sections: list[Section] = []
    seen: set[str] = set()
    for section in yaml.safe_load(path.read_text(encoding="utf-8"))["sections"]:
        rows: list[Row] = []
        for row in section["rows"]:
            name = str(row.get("id"))
            if unknown := set(row) - KEYS:
                problems.append(f"{name}: unknown keys: {', '.join(sorted(unknown))}")
            if not re.fullmatch(rf"{section['prefix']}-\d+", name) or name in seen:
                problems.append(f"{name}: not a new number of section {section['prefix']}")
            seen.add(name)
            made = Row(
                name,
                row.get("rule", ""),
                row.get("state", ""),
                row.get("note", ""),
                tuple(row.get("tests", ())),
            )
            if not made.rule or made.state not in STATES:
                problems.append(f"{name}: needs a rule, and a state out of {', '.join(STATES)}")
            if made.state == "delivered" and not made.tests:
                problems.append(f"{name}: delivered, but no test shows it")
            if made.state == "partly" and not made.note:
                problems.append(f"{name}: partly, but the note does not say what is missing")
            rows.append(made)
        sections.append(Section(section["prefix"], section["title"], tuple(rows)))
    return sections, problems


def missing_test(test: str) -> str | None:
    """Why a pytest id names nothing, or ``None``."""
    name, _, rest = test.partition("::")
    path = ROOT / name
    if not path.is_file():
        return f"no such file: {name}"
    if not rest:
        return "name a test in the file, not the whole file"
    body: Any = ast.parse(path.read_text(encoding="utf-8")).body
    for part in rest.split("::"):
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        if found is None:
            return f"no {part} in {name}"
        body = found.body
    return None


def page(sections: list[Section]) -> str:
    """The whole page in Markdown."""
    rows = [row for section in sections for row in section.rows]
    lines = [
        "% Written by scripts/requirements.py from requirements.yaml; change that file.",
        "",
        "# Requirements and their state",
        "",
        f"{len(rows)} rows: "
        + ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in STATES)
        + ".",
        "A row is *delivered* when a person can do it in the product (by page, command and API where that",
        "makes sense), a test shows it on the real component, and these pages tell how. *Partly* says what is",
        "there and what is missing.",
    ]
    for section in sections:
        lines += [
            "",
            f"## {section.prefix}. {section.title}",
            "",
            "| # | Rule | State | Shown by |",
            "|---|---|---|---|",
        ]
        for row in section.rows:
            state = f"**{row.state}**" if row.state != "not yet" else row.state
            if row.note:
                state += f": {row.note}"
            tests = "<br>".join(f"`{short(test)}`" for test in row.tests)
            lines.append(f"| {row.id} | {cell(row.rule)} | {cell(state)} | {tests} |")
    return "\n".join(lines) + "\n"


def short(test: str) -> str:
    """``tests/room/test_x.py::test_y`` → ``room/test_x.py::test_y``."""
    return test.removeprefix("tests/")


def cell(text: str) -> str:
    """Text as it may stand in a table: no bar of its own."""
    return text.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is wrong")
    arguments = parser.parse_args()
    sections, problems = read(DATA)
    for section in sections:
        for row in section.rows:
            problems += [f"{row.id}: {why}" for test in row.tests if (why := missing_test(test))]
    text = page(sections)
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        problems.append("docs/requirements.md is not what requirements.yaml says: run make requirements")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
