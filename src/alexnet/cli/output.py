"""What a command prints: tables for people, JSON for machines, always on standard output."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def emit(record: Mapping[str, Any]) -> None:
    """Write ``record`` as one line of JSON, at once, so that a reader can follow along.

    JSON has no infinity and no not-a-number; they become null.
    """
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(_finite(record), ensure_ascii=not unicode, allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def say(text: str = "") -> None:
    """Write a line of text."""
    sys.stdout.write(text + "\n")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """Write a table: drawn on a terminal, aligned plain text elsewhere.

    A column in which every cell is a number (or empty) is set flush right.

    Args:
        columns: the headings.
        rows: cells as text or numbers; None is left empty.
        title: a line above.
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    if sys.stdout.isatty():
        _draw(columns, cells, right, title)
        return
    if title:
        say(title)
    widths = [max(len(line[i]) for line in (columns, *cells)) for i in range(len(columns))]
    for line in (columns, *cells):
        padded = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        )
        say("  ".join(padded).rstrip())


def pairs(rows: Mapping[str, object]) -> None:
    """Write names and values, a pair a line, aligned."""
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        say(f"{name.ljust(width)}  {_text(value)}")


def percent(share: float | None) -> str:
    """``0.9812`` as ``98.12%``; nothing for None."""
    return "" if share is None else f"{100 * share:.2f}%"


def flatten(value: object) -> str:
    """A value of JSON as one line of text: lists with commas, long ones shortened."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {flatten(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        shown = ", ".join(map(flatten, value[:10]))
        return f"{shown}, ... ({len(value)} in all)" if len(value) > 10 else shown
    return _text(value)


def _draw(
    columns: Sequence[str], cells: list[list[str]], right: list[bool], title: str | None
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, flush in zip(columns, right, strict=True):
        drawn.add_column(name, justify="right" if flush else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    # Never narrower than a narrow terminal: a table of many columns wraps its cells.
    Console(width=max(shutil.get_terminal_size().columns, 60)).print(drawn)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.4g}"
    # A name of a file may hold anything; what a terminal would obey or cannot show is escaped.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(cell))


def _is_number(text: str) -> bool:
    plain = text.replace(",", "").removesuffix("%")
    return not plain or plain.replace(".", "", 1).replace("-", "", 1).replace("e", "", 1).isdigit()
