"""A comparison as JSON, CSV, Markdown and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.tasks.report import comparison_table, write_comparison
from alexnet.training.loop import DIVERGED


def write(
    out: Path,
    result: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    networks: Mapping[str, Any],
) -> None:
    """Write a comparison into its folder.

    Args:
        out: the folder.
        result: the content of ``compare.json``.
        histories: network's name to the lines of its ``metrics.jsonl``.
        networks: network's name to the trained network.
    """
    rows = result["models"]
    files.write_json(out / "compare.json", dict(result))
    files.write_text(out / "compare.csv", _as_csv(rows))
    files.write_text(out / "compare.md", as_markdown(rows))
    counts = result["images"]
    write_comparison(
        out / "report.html",
        rows,
        histories,
        networks=networks,
        title=f"{len(rows)} ways to see {Path(result['data']).name}",
        notes=[
            f"Learned from the same {counts['train']:,} pictures of {result['data']}, in "
            f"{result['classes']} classes, and tested once on the same {counts['test']:,} others. "
            f"Each had the epochs that {result['minutes']:g} minutes should suffice for."
            f"{_held_back(result)}{_without(result)}",
            "In brackets the 95% interval over test pictures; another training would differ too.",
        ],
    )


def _held_back(result: Mapping[str, Any]) -> str:
    """Who learned from fewer pictures, choosing by the others."""
    whole = result["images"]["train"]
    here = [
        row for row in result["models"] if Path(row.get("trained_on") or "") == Path(result["data"])
    ]
    fewer = [row["name"] for row in here if row["train_images"] < whole]
    if not fewer:
        return ""
    return f" Of those to learn from, some were held back to choose by for: {', '.join(fewer)}."


def _without(result: Mapping[str, Any]) -> str:
    """Who could not be trained."""
    if not result["diverged"]:
        return ""
    names = ", ".join(result["diverged"])
    return f" Without a row, for {DIVERGED}: {names}; a lower learning rate may help."


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {
            k: "x".join(map(str, v)) if k == "input" else v for k, v in row.items() if v is not None
        }
        writer.writerow(shown)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown, a column a network."""
    names = [str(row["name"]) for row in rows]
    lines = [["", *names], ["---"] + ["---:"] * len(names)]
    lines += [[label, *cells] for label, cells in comparison_table(rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
