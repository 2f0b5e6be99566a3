"""The ablation as a page that stands alone."""

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


def _points(row: Mapping[str, Any], value: str, ends: str) -> tuple[float, float, float]:
    low, high = row[ends]
    return 100 * row[value], 100 * low, 100 * high
