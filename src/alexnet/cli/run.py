"""What ``train`` and ``finetune`` print when a run is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet.cli.output import emit, pairs, percent, say

if TYPE_CHECKING:
    from alexnet import Run

SHARES = ("top1", "top5", "balanced_accuracy")
"""Metrics that are shares of 1."""


def show_run(run: Run, data: str, *, as_json: bool) -> None:
    """Print a finished run's metrics, where things are, and what to do next."""
    if as_json:
        emit({"run": str(run.folder), **run.metrics})
        return
    shown = {
        name.replace("_", " "): _figure(name, value)
        for name, value in run.metrics.items()
        if isinstance(value, int | float)
    }
    pairs({"run": run.folder, **shown, "report": run.folder / "report.html"})
    say(f"\nnext: alexnet predict {run.folder} PICTURE...")
    say(f"      alexnet evaluate {run.folder} --data {data}")


def _figure(name: str, value: float) -> str | float:
    """A metric (``top1``, ``val_top1``, ``loss``) as it is shown."""
    return percent(value) if name.endswith(SHARES) else value
