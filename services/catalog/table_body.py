"""A table as it stands in a preview: columns with what is in them, then the first rows."""

from __future__ import annotations

import html
from collections.abc import Callable

from galilean.errors import mark
from services.catalog.document import note
from services.catalog.table import Column, Table, is_missing, number_text, read_table

TABLE_BEGINS = '<div class="tview">'
CELL_CHARACTERS, TOP_CHARACTERS = 200, 24
RIGHT = ("number", "integer", "date")

Translate = Callable[[str], str]

KINDS = {
    "number": mark("number"),
    "integer": mark("whole number"),
    "date": mark("date"),
    "text": mark("text"),
    "empty": mark("no values"),
}


def table_body(
    text: str, read_bytes: int, size_bytes: int, translate: Translate, *, tabs: bool
) -> str | None:
    """The body of a table's document; ``None`` for what has no rows.

    Parameters
    ----------
    text
        The beginning of a file, or all of it.
    read_bytes, size_bytes
        How many bytes of the file it is, and how many there are.
    translate
        Into the reader's language.
    tabs
        Whether the values of a row are parted by tabs.
    """
    share = min(1.0, read_bytes / size_bytes) if size_bytes else 1.0
    if share < 1 and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    table = read_table(text, tabs=tabs, share=share)
    if table is None:
        return None
    said = html.escape(_rows_said(table, translate))
    return (
        f'{TABLE_BEGINS}<div class="tbar">{said}</div>'
        f'<div class="astable wide" tabindex="0">{_table(table, translate)}</div></div>{_beyond(table, translate)}'
    )


def _rows_said(table: Table, translate: Translate) -> str:
    shown, total = len(table.rows), _grouped(table.total)
    if table.exact and shown == table.total:
        return translate(mark("{total} rows")).format(total=total)
    if table.exact:
        return translate(mark("first {shown} of {total} rows")).format(shown=shown, total=total)
    return translate(mark("first {shown} of about {total} rows")).format(
        shown=shown, total=_grouped(float(f"{table.total:.2g}"))
    )


def _beyond(table: Table, translate: Translate) -> str:
    told = []
    if not table.exact:
        told.append(
            translate(mark("What is said of the columns is of the first {rows} rows.")).format(
                rows=_grouped(table.looked_at)
            )
        )
    if table.more_columns:
        told.append(translate(mark("{count} more columns are not shown.")).format(count=table.more_columns))
    return note(" ".join(told)) if told else ""


def _table(table: Table, translate: Translate) -> str:
    right = [" class=r" if column.kind in RIGHT else "" for column in table.columns]
    heads = "".join(
        _head(number, column, side, translate)
        for number, (column, side) in enumerate(zip(table.columns, right, strict=True), start=1)
    )
    rows = "".join(
        "<tr>"
        + "".join(_cell(row[number] if number < len(row) else "", side) for number, side in enumerate(right))
        + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(value: str, side: str) -> str:
    if is_missing(value):
        return f"<td{side}><span class=none>{html.escape(value) or '–'}</span></td>"
    text = value if len(value) <= CELL_CHARACTERS else value[:CELL_CHARACTERS] + "…"
    title = f' title="{html.escape(text)}"' if len(value) > 40 else ""
    return f"<td{side}{title}>{html.escape(text)}</td>"


def _head(number: int, column: Column, side: str, translate: Translate) -> str:
    name = column.name.strip() or translate(mark("column {n}")).format(n=number)
    lines = [f"<b>{html.escape(name)}</b>", _line(translate(KINDS[column.kind]))]
    if column.bins:
        lines.append(_bars(column.bins))
    if column.low:
        span = (
            column.low
            if column.low == column.high
            else translate(mark("{low} to {high}")).format(low=column.low, high=column.high)
        )
        lines.append(_line(span))
    if column.mean is not None and column.low != column.high:
        lines.append(_line(translate(mark("mean {mean}")).format(mean=number_text(column.mean))))
    if column.kind == "text":
        lines.append(_line(_different(column, translate)))
    lines += [_line(f"{_short(value)} · {_percent(count, column.count)}") for value, count in column.top]
    if column.missing:
        lines.append(
            _line(
                translate(mark("{share} missing")).format(
                    share=_percent(column.missing, column.count + column.missing)
                )
            )
        )
    return f"<th scope=col{side}>{''.join(lines)}</th>"


def _different(column: Column, translate: Translate) -> str:
    if column.distinct is None:
        return translate(mark("very many different values"))
    return translate(mark("{count} different values")).format(count=_grouped(column.distinct))


def _line(text: str) -> str:
    return f"<span>{html.escape(text)}</span>"


def _short(value: str) -> str:
    return value if len(value) <= TOP_CHARACTERS else value[:TOP_CHARACTERS] + "…"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    if 0 < share < 1:
        return "< 1 %"
    return f"{min(share, 99) if part < whole else share:.0f} %"


def _grouped(number: float) -> str:
    """Numbers in groups of three, parted by narrow spaces."""
    return f"{number:,.0f}".replace(",", "\u202f")


def _bars(bins: tuple[int, ...]) -> str:
    most = max(bins)
    bars = "".join(
        f'<i style="height:{max(6, round(100 * count / most)) if count else 0}%"></i>' for count in bins
    )
    return f'<span class=bars aria-hidden="true">{bars}</span>'
