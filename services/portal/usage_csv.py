"""CSV of machine time: what is shown, with plain numbers and UTC times, streamed.

Spreadsheets read names as text and numbers as numbers, never as formulas.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from tornado.web import RequestHandler

from services.metering.report import Line

#: Lines between two pieces of a file.
PIECE = 500
USAGE_HEAD = (
    "name", "first_start", "wall_seconds", "cpu_core_minutes", "memory_gb_minutes", "gpu_card_minutes",
    "node_seconds", "measured_seconds", "idle_seconds", "cpu_used_minutes", "memory_used_gb_minutes",
    "gpu_used_minutes", "deleted",
)  # fmt: skip


def csv_text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV that spreadsheets read as text and numbers, never as formulas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    if head:
        writer.writerow(head)
    for line in lines:
        writer.writerow([_harmless(value) for value in line])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """A text that begins like a formula gets an apostrophe in front."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def stamp(at: datetime | None) -> str:
    """A moment as files say it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def begin_csv(handler: RequestHandler, name: str) -> None:
    """The head of an answer that is a file; the mark in front tells spreadsheets that it is UTF-8."""
    handler.set_header("Content-Type", "text/csv; charset=utf-8")
    handler.set_header("Content-Disposition", f'attachment; filename="{name}"')
    handler.write("\ufeff")


def send_csv(handler: RequestHandler, name: str, text: str) -> None:
    """Answer with a file."""
    begin_csv(handler, name)
    handler.finish(text)


async def stream_usage(handler: RequestHandler, by: str, lines: Sequence[Line]) -> None:
    """Answer with all lines of a report, a piece at a time, so that other requests come in between."""
    begin_csv(handler, f"machine-time-by-{by}.csv")
    handler.write(csv_text((by, *USAGE_HEAD), ()))
    for begin in range(0, len(lines), PIECE):
        handler.write(csv_text((), (_usage_line(line) for line in lines[begin : begin + PIECE])))
        await handler.flush()
    handler.finish()


def _usage_line(line: Line) -> tuple[Any, ...]:
    return (
        line.key, line.label, stamp(line.first_start), line.seconds, line.cpu_core_minutes,
        line.memory_gb_minutes, line.gpu_card_minutes, round(line.node_us / 1_000_000),
        round(line.measured_us / 1_000_000), round(line.idle_us / 1_000_000), line.cpu_used_minutes,
        line.memory_used_gb_minutes, line.gpu_used_minutes, "yes" if line.deleted else "",
    )  # fmt: skip
