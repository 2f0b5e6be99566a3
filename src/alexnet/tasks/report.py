"""Pages that open offline: ``report.html`` of one run, and two networks side by side.

Each is one file without scripts, links or requests; it reads on a phone and in the dark.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from alexnet.evaluation.intervals import wilson
from alexnet.tasks.charts import (
    SMALL,
    confusion_bitmap,
    curves,
    data_uri,
    reliability_diagram,
    scatter,
)
from alexnet.tasks.page import (
    column,
    first_filters,
    percent,
    setting_groups,
    training_charts,
    write_page,
)

if TYPE_CHECKING:
    from alexnet.evaluation.metrics import Evaluation, Mistake

TABLE_CLASSES = 30
"""Up to this many classes the confusion matrix is a table of counts; above, a picture."""
THUMBNAIL = 160
"""Largest side of a mistake's picture, in pixels."""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
    network: nn.Module,
) -> None:
    """Write how a run went as one HTML file.

    Args:
        path: of the file; written atomically.
        title: of the page.
        config: settings and how the run was made; nested objects become groups.
        history: the lines of ``metrics.jsonl``; may be empty.
        evaluation: what the network scored.
        network: its first convolution's filters are shown.

    Raises:
        AlexnetError: the file cannot be written.
    """
    order = config.get("input", {}).get("channel_order", "rgb")
    content = {
        "title": title,
        "sentence": summary_sentence(evaluation),
        "tiles": _tiles(evaluation),
        "charts": training_charts(history),
        "members": _members(evaluation),
        "sureness": _sureness(evaluation),
        "robustness": evaluation.robustness,
        "classes": evaluation.classes,
        "confusion": _confusion(evaluation),
        "confused": most_confused(evaluation),
        "per_class": _per_class(evaluation),
        "mistakes": [_mistake(one) for one in evaluation.mistakes],
        "filters_of_first": first_filters(network, order),
        "skipped": evaluation.skipped,
        "settings": setting_groups(config),
    }
    write_page(path, "report.html.j2", content)


def summary_sentence(evaluation: Evaluation) -> str:
    """The result in plain words."""
    right = int(evaluation.confusion.trace())
    share = percent(evaluation.top1)
    text = f"Of {evaluation.images:,} pictures, {right:,} were named right ({share})."
    worst = most_confused(evaluation, limit=1)
    if worst:
        one = worst[0]
        times = "once" if one["count"] == 1 else f"{one['count']} times"
        text += f" The most common mistake: {one['shown']} taken for {one['taken_for']}, {times}."
    return text


def most_confused(evaluation: Evaluation, limit: int = 12) -> list[dict[str, Any]]:
    """The pairs of classes mixed up most often, most first.

    Returns:
        ``shown``, ``taken_for``, ``count`` and ``share`` (of the pictures of the shown class).
    """
    wrong = evaluation.confusion.copy()
    wrong[range(len(wrong)), range(len(wrong))] = 0
    totals = evaluation.confusion.sum(1)
    flat = (-wrong).ravel().argsort(kind="stable")[:limit]
    pairs = (divmod(int(place), len(wrong)) for place in flat)
    return [
        {
            "shown": evaluation.classes[row],
            "taken_for": evaluation.classes[guess],
            "count": int(wrong[row, guess]),
            "share": float(wrong[row, guess] / totals[row]),
        }
        for row, guess in pairs
        if wrong[row, guess]
    ]


def _tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    low, high = evaluation.intervals.get("top1") or wilson(evaluation.top1, evaluation.images)
    note = f"95% sure: {percent(low)} to {percent(high)}"
    tiles = [{"name": "top-1", "value": percent(evaluation.top1), "note": note}]
    if len(evaluation.classes) > 5:
        note = "right class among five"
        tiles.append({"name": "top-5", "value": percent(evaluation.top5), "note": note})
    balanced = percent(evaluation.balanced_accuracy)
    tiles += [
        {"name": "balanced accuracy", "value": balanced, "note": "every class counts alike"},
        {"name": "loss", "value": f"{evaluation.loss:.3f}", "note": "cross-entropy"},
        {"name": "pictures", "value": f"{evaluation.images:,}", "note": ""},
        {"name": "classes", "value": f"{len(evaluation.classes):,}", "note": ""},
    ]
    if evaluation.skipped:
        tiles.append({"name": "not used", "value": f"{len(evaluation.skipped):,}", "note": ""})
    return tiles


def _members(evaluation: Evaluation) -> dict[str, Any] | None:
    """Each network of an ensemble alone, and what they have together above the best of them."""
    gain = evaluation.gain
    if gain is None:
        return None
    low, high = (100 * end for end in gain["interval"])
    told = (
        f"Together they have {100 * gain['top1']:+.2f} points of top-1 against the best of them, "
        f"{gain['over']} (95%, paired: {low:+.2f} to {high:+.2f})."
    )
    return {"sentence": told, "rows": evaluation.members}


def _sureness(evaluation: Evaluation) -> dict[str, Any] | None:
    """Whether the probabilities mean what they say."""
    found = evaluation.reliability
    if found is None or not evaluation.images:
        return None
    sure = sum(
        n * c for n, c in zip(found.count, found.confidence, strict=True) if c is not None
    ) / sum(found.count)
    apart = sure - evaluation.top1
    kind = "as sure as it is right" if abs(apart) < 0.005 else ""
    kind = kind or ("surer than it is right" if apart > 0 else "less sure than it is right")
    told = (
        f"On average {percent(sure)} sure and {percent(evaluation.top1)} right: {kind}. "
        f"Expected calibration error: {percent(found.error)}."
    )
    chart = reliability_diagram(
        "reliability", "Confidence and accuracy", found.count, found.confidence, found.accuracy
    )
    return {"sentence": told, "chart": chart}


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """A table of counts where it can be read, else a picture with numbers along its sides."""
    count = len(evaluation.classes)
    if count > TABLE_CLASSES:
        font = count / 45
        margin = 3.2 * font
        view = f"{-margin:.2f} {-margin:.2f} {count + 1.5 * margin:.2f} {count + 1.5 * margin:.2f}"
        step = next(n for n in (5, 10, 20, 50, 100, 200, 500, 1000, count) if count / n <= 10)
        return {
            "rows": [],
            "picture": data_uri(confusion_bitmap(evaluation.confusion)),
            "view": view,
            "font": font,
            "hair": count / 400,
            "ticks": [0, *range(step - 1, count, step)],
        }
    rows = []
    for number, name in enumerate(evaluation.classes):
        counts = evaluation.confusion[number].tolist()
        total = max(1, sum(counts))
        cells = [
            {
                "count": n,
                "kind": "hit" if guess == number else "miss",
                "share": round(math.sqrt(n / total), 3),
            }
            for guess, n in enumerate(counts)
        ]
        rows.append({"name": name, "cells": cells})
    return {"rows": rows}


def _per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The classes, those with the lowest recall first, those without pictures last."""
    rows = [
        {"number": number, "name": row["class"], **row}
        for number, row in enumerate(evaluation.per_class, start=1)
    ]
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"]))


def _mistake(mistake: Mistake) -> dict[str, Any]:
    return {
        "name": mistake.name,
        "label": mistake.label,
        "predicted": mistake.predicted,
        "probability": mistake.probability,
        "picture": data_uri(mistake.thumbnail, side=THUMBNAIL),
        "small": max(mistake.thumbnail.shape[:2]) <= SMALL,
    }


COMPARED: dict[str, str] = {
    "year": "year",
    "authors": "authors",
    "layers": "layers with weights",
    "activation": "activation",
    "pooling": "pooling",
    "regularization": "regularization",
    "normalization": "normalization",
    "input": "input",
    "parameters": "parameters",
    "macs": "MACs a picture",
    "weight_bytes": "weights",
    "activation_bytes": "kept of a picture in training",
    "initialized_from": "starts from",
    "trained_on": "trained on",
    "train_images": "training pictures",
    "epochs": "epochs, at most",
    "train_seconds": "training time",
    "images_per_second": "pictures a second",
    "latency_ms": "one picture takes",
    "accelerator": "computed by",
    "test_images": "test pictures",
    "top1": "top-1",
    "top5": "top-5",
    "balanced_accuracy": "balanced accuracy",
}
"""Fields of a comparison, in the order in which they are shown, and what they are called."""


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """A comparison with a column a network: label and cells, for the fields that any row has."""
    return [
        (label, [_cell_of(field, row) for row in rows])
        for field, label in COMPARED.items()
        if any(row.get(field) is not None for row in rows)
    ]


def _cell_of(field: str, row: Mapping[str, Any]) -> str:
    """A cell, with its interval where the row has one."""
    cell, ends = _cell(field, row.get(field)), row.get(f"{field}_interval")
    return f"{cell} ({100 * ends[0]:.2f} to {100 * ends[1]:.2f})" if ends else cell


def _cell(field: str, value: Any) -> str:
    if value is None:
        return "–"
    if field.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} kB"
    if field in ("top1", "top5", "balanced_accuracy"):
        return f"{100 * value:.2f}%"
    if field == "train_seconds":
        return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
    if field == "latency_ms":
        return f"{value:.1f} ms"
    if field == "year":
        return str(value)
    if field == "input" and isinstance(value, Sequence) and not isinstance(value, str):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_comparison(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    networks: Mapping[str, nn.Module] | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write networks side by side as one HTML file: table, curves, filters of the first layers.

    Args:
        path: of the file; written atomically.
        rows: an object a network: ``name`` and any of the fields of ``COMPARED``.
        histories: network's name to the lines of its ``metrics.jsonl``.
        networks: network's name to the trained network, for its filters.
        title: of the page; the names by default.
        notes: paragraphs above the table.
    """
    names = [str(row["name"]) for row in rows]
    content = {
        "title": title or " against ".join(names),
        "notes": list(notes),
        "names": names,
        "table": comparison_table(rows),
        "costs": _costs(rows),
        "charts": _compared_curves(histories),
        "sheets": [
            (name, sheet)
            for name, network in (networks or {}).items()
            if (sheet := first_filters(network))
        ],
    }
    write_page(path, "comparison.html.j2", content)


COSTS = {
    "macs": "multiplications a picture",
    "parameters": "parameters",
    "train_seconds": "seconds of training",
    "latency_ms": "milliseconds a picture",
}
"""What accuracy is drawn against."""


def _costs(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Top-1, with its interval, against what it costs, where two networks at least have both."""
    charts = []
    spans = {
        str(row["name"]): (100 * row["top1_interval"][0], 100 * row["top1_interval"][1])
        for row in rows
        if row.get("top1_interval")
    }
    for field, words in COSTS.items():
        points = {
            str(row["name"]): (float(row[field]), 100 * row["top1"])
            for row in rows
            if row.get(field) and row.get("top1") is not None
        }
        if len(points) > 1:
            charts.append(
                scatter(f"cost-{field}", "Top-1", points, across=words, unit="%", spans=spans)
            )
    return charts


def _compared_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Top-1 on what each network was chosen by (else on its training part), and training losses.

    Networks may be trained by different criteria, so that each loss has a chart of its own. A head
    that was fitted before the epochs is in none of these.
    """
    lines = {}
    for name, history in histories.items():
        for field in ("train_top1", "val_top1"):  # the second wins where there is one
            values = column(history, field, 100)
            if set(values) - {None}:
                lines[name] = values
    charts = [curves("compared-top1", "Top-1", lines, unit="%")] if lines else []
    for number, (name, history) in enumerate(histories.items()):
        epochs = [record for record in history if record.get("stage") != "head"]
        losses = column(epochs, "train_loss")
        if len([loss for loss in losses if loss is not None]) > 1:
            charts.append(curves(f"compared-loss-{number}", "Training loss", {name: losses}))
    return charts
