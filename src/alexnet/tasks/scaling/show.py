"""A plan as text and tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from alexnet.tasks.scaling.plan import Row, TrainingPlan
from alexnet.tasks.scaling.traffic import SCHEMES

TITLES = {
    "ddp": "ddp: every device has the whole network, gradients are averaged",
    "hybrid": "hybrid: convolutions data parallel, fully connected layers split",
    "towers": "towers: half of every layer on each device of a pair, pairs data parallel",
}
COLUMNS = (
    "devices", "batch", "step ms", "apart", "images/s", "efficiency", "apart", "time", "apart",
    "sent MB", "memory GB",
)  # fmt: skip
"""Headings of the cells of :func:`cells`: ``apart`` is the column before it without overlap."""

_SECONDS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def describe(plan: TrainingPlan) -> str:
    """What the tables rest on, in a few lines."""
    counts, cost, training = plan.counts, plan.cost, plan.training
    measured = ", ".join(f"{seconds:.3g} s at {size}" for size, seconds in cost.points)
    return "\n".join(
        (
            f"{counts.model}: {counts.parameters:,} parameters, {counts.macs / 1e9:.2f} G "
            f"multiplications a picture forward and backward, {counts.precision}",
            f"{training.images:,} pictures, {training.epochs} epochs, {training.optimizer}",
            f"step on one device: {1e3 * cost.per_step:.3g} ms and "
            f"{1e3 * cost.per_picture:.3g} ms a picture",
            f"  {cost.source}" + (f": {measured}" if measured else ""),
            f"network: {plan.link.bandwidth * 8 / 1e9:g} Gbit/s a device, "
            f"{plan.link.latency * 1e6:g} us a message",
        )
    )


def lines(plan: TrainingPlan) -> Iterator[tuple[str, list[list[object]]]]:
    """A title and the rows of its table, for each way to share the work."""
    for scheme in SCHEMES:
        rows = [cells(row) for row in plan.rows if row.parallel == scheme]
        if rows:
            yield TITLES[scheme], rows


def cells(row: Row) -> list[object]:
    """One row of the table, in the order of :data:`COLUMNS`."""
    return [
        row.devices,
        row.total_batch_size,
        1e3 * row.step_seconds,
        1e3 * row.step_seconds_apart,
        round(row.images_per_second) if row.images_per_second >= 100 else row.images_per_second,
        f"{row.efficiency:.0%}",
        f"{row.efficiency_apart:.0%}",
        duration(row.seconds),
        duration(row.seconds_apart),
        row.sent_bytes / 1e6,
        row.memory.total / 1e9,
    ]


def duration(seconds: float) -> str:
    """A time in the unit that reads best: ``"5.3 d"``, ``"24 min"``, ``"392 ms"``."""
    for size, unit in _SECONDS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e3 * seconds:.3g} ms"
