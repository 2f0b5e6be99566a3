"""The ablation as a page that stands alone, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet.tasks.charts import curves, intervals
from alexnet.tasks.page import write_page


def write_ablation(path: Path, result: Mapping[str, Any]) -> None:
    """Write what :func:`alexnet.tasks.ablation.ablate` found.

    Args:
        path: of the file; written atomically.
        result: the content of ``ablation.json``.
    """
    ideas, steps, race = result["innovations"], result["stairs"], result["race"]
    gains = {row["name"]: _points(row, "difference", "difference_interval") for row in ideas}
    climbed = {row["name"]: _points(row, "top1", "interval") for row in steps}
    errors = {
        {"relu": "ReLU"}.get(kind, kind): [100 * value for value in values]
        for kind, values in race["errors"].items()
    }
    size = result["image_size"]
    at = f" at {size}x{size} pixels" if size else ""
    content = {
        "title": f"What AlexNet's ideas bring on {Path(result['data']).name}",
        "notes": [
            f"{result['model']}{at}, {result['epochs']} epochs, {result['seeds']} seeds; "
            f"{result['test_images']:,} test pictures. The base has all ideas; each row takes one "
            f"away, with the same pictures, order and seeds. Intervals are of 95% (Student's t, "
            f"paired).",
            *diverged(result),
        ],
        "ideas": ideas,
        "steps": [{**row, "shown": _points(row, "top1", "interval")} for row in steps],
        "race": race["sentence"],
        "processes": result["processes"] and result["processes"]["sentence"],
        "charts": [
            intervals("gains", "What each brings", gains, across="points of top-1", zero=True),
            intervals("stairs", "From LeNet to AlexNet", climbed, across="top-1, %"),
            curves("race", "Training error, without regularization", errors, unit="%"),
        ],
    }
    write_page(path, "ablation.html.j2", content)


def diverged(result: Mapping[str, Any]) -> list[str]:
    """A sentence on the trainings whose loss ceased to be a number, where there were any."""
    count = result["diverged"]
    if not count:
        return []
    return [f"Trainings that diverged, all of whose answers count as wrong: {count}."]


def _points(row: Mapping[str, Any], value: str, ends: str) -> tuple[float, float, float]:
    low, high = row[ends]
    return 100 * row[value], 100 * low, 100 * high


def as_markdown(result: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    base = result["base"]
    lines = [
        f"{result['model']}{_at(result)} on {result['data']}, {result['epochs']} epochs, "
        f"{result['seeds']} seeds, {result['test_images']:,} test pictures; top-1 of the base "
        f"{_percent(base)}.",
        "",
        "| innovation | instead | n | top-1 without it | difference, points (95%) | verdict |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in result["innovations"]:
        low, high = (100 * end for end in row["difference_interval"])
        said = row["sentence"].partition(": ")[2].partition(" (")[0]
        lines.append(
            f"| {row['name']} | {row['against']} | {row['n']} | {_percent(row)} | "
            f"{100 * row['difference']:+.2f} ({low:+.2f} to {high:+.2f}) | {said} |"
        )
    lines += ["", "| from LeNet to AlexNet | n | top-1 |", "|---|---:|---:|"]
    lines += [f"| {row['name']} | {row['n']} | {_percent(row)} |" for row in result["stairs"]]
    told = [result[name]["sentence"] + "." for name in ("race", "processes") if result[name]]
    return "\n".join([*lines, "", " ".join([*told, *diverged(result)]), ""])


def _at(result: Mapping[str, Any]) -> str:
    size = result["image_size"]
    return f" at {size}x{size} pixels" if size else ""


def _percent(row: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in row["interval"])
    return f"{100 * row['top1']:.2f}% ({low:.2f} to {high:.2f})"
