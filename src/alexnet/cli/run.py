"""What ``train`` and ``finetune`` print when a run is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet.cli.output import emit, pairs, percent, say

if TYPE_CHECKING:
    from alexnet import Run
    from alexnet.tasks.rehearse import Rehearsal

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


def show_rehearsal(found: Rehearsal, *, as_json: bool) -> None:
    """Print what a training would be and cost."""
    if as_json:
        emit(found.to_dict())
        return
    for section, values in found.config.items():
        for name, value in (values or {}).items():
            say(f"{section}.{name} = {value}")
    say()
    parts = {f"{name} pictures": count for name, count in found.pictures.items()}
    pairs(
        {
            **parts,
            "trained parameters": found.parameters,
            "device": f"{found.runtime['device']}, {found.runtime['precision']}",
            "steps": f"{found.steps:,} ({found.steps_an_epoch:,} an epoch)",
            "a step takes": f"{found.step_seconds:.3g} s",
            "all takes about": duration(found.seconds),
            "memory": f"{found.memory_bytes / 1e9:.2f} GB",
        }
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
