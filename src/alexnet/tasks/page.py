"""The parts that the report and the comparison share: template, charts, filters, wording."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from torch import nn

import alexnet
from alexnet.files import write_text
from alexnet.tasks.charts import curves, data_uri, filter_bitmap

STAGES = {"train": "training", "head": "head", "finetune": "fine-tuning", "average": "average"}
"""What a stage of ``metrics.jsonl`` is called in a chart."""


def write_page(path: str | os.PathLike[str], template: str, content: Mapping[str, Any]) -> None:
    """Render a template of ``templates/`` with ``content`` and write it atomically."""
    page = _environment().get_template(template)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_text(path, page.render(**content, version=alexnet.__version__, date=date))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alexnet.tasks"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def percent(share: float | None) -> str:
    """``0.981`` as ``98.1%``; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}%"


def training_charts(history: Sequence[Mapping[str, Any]], prefix: str = "") -> list[Markup]:
    """Loss and top-1 by epoch, for training and validation; no charts without epochs.

    Args:
        history: the lines of ``metrics.jsonl``.
        prefix: of the charts' ids, where a page has those of several networks.
    """
    stages = stages_of(history)
    charts = []
    for key, title, factor, unit in (("loss", "Loss", 1, ""), ("top1", "Top-1", 100, "%")):
        parts = {"training": f"train_{key}", "validation": f"val_{key}"}
        lines = {part: column(history, name, factor) for part, name in parts.items()}
        lines = {part: values for part, values in lines.items() if set(values) - {None}}
        if lines:
            charts.append(curves(f"{prefix}{key}", title, lines, unit=unit, stages=stages))
    return charts


def column(
    history: Sequence[Mapping[str, Any]], name: str, factor: float = 1
) -> list[float | None]:
    """One figure of every epoch, times ``factor``; None where an epoch does not have it."""
    values = (record.get(name) for record in history)
    return [None if value is None else factor * value for value in values]


def stages_of(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Where the stages of a training begin (counting epochs from 1); none if there is only one."""
    names = [record.get("stage", "train") for record in history]
    starts = [n for n, name in enumerate(names) if n == 0 or names[n - 1] != name]
    if len(starts) < 2:
        return []
    return [(n + 1, STAGES.get(names[n], names[n])) for n in starts]


def first_filters(network: nn.Module, channel_order: str = "rgb") -> dict[str, Any] | None:
    """The kernels of the first convolution as a picture and its description; None without one."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4 and parameter.shape[2] > 1:
            kernels = parameter.detach().to("cpu", torch.float32)
            if channel_order == "bgr" and kernels.shape[1] == 3:
                kernels = kernels.flip(1)
            picture = data_uri(filter_bitmap(kernels.numpy()))
            size = "x".join(map(str, kernels.shape[2:]))
            layer = name.rpartition(".")[0] or name
            return {"picture": picture, "count": len(kernels), "size": size, "layer": layer}
    return None


def setting_groups(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A run's ``config.json`` as named groups of rows; class names and metrics are shown elsewhere.

    Plain values come first, under "run"; every nested object is a group of its own, its own
    nesting dotted.
    """
    shown = {k: v for k, v in config.items() if k not in ("classes", "metrics", "format_version")}
    plain = {name: value for name, value in shown.items() if not isinstance(value, Mapping)}
    groups = [{"name": "run", "rows": _rows(plain)}]
    groups += [
        {"name": name.replace("_", " "), "rows": _rows(value)}
        for name, value in shown.items()
        if isinstance(value, Mapping)
    ]
    return [group for group in groups if group["rows"]]


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
