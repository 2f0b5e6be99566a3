"""Rewrite the tables of docs/scaling.md, each between its two markers.

    python benchmarks/scaling_plan.py        # first: measures, on a machine that does nothing else
    python scripts/make_scaling_tables.py

What was measured is read from benchmarks/results/amd-epyc-bf16/scaling_plan.json; what was
published is below, with its source. Nothing is measured here, so the tables follow from both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alexnet import plan_training
from alexnet.tasks.scaling import Row, TrainingPlan
from alexnet.tasks.scaling.plan import IMAGENET
from alexnet.tasks.scaling.show import duration

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scaling.md"
RECORD = ROOT / "benchmarks" / "results" / "amd-epyc-bf16" / "scaling_plan.json"
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Krizhevsky 2014, section 5 ('Experiments'), table 1: 90 epochs on K20 GPUs, 128 pictures a GPU,
# hours. The second figure of a batch in the table is that of the fully connected layers.
K20_HOURS = 98.05
K20_SPEEDUPS = {2: 1.95, 4: 3.74, 8: 6.25}
# The same section: GPUs under one processor exchange at PCI-Express 2.0's rate, about 6 GB/s; all
# eight go through the host at half of it.
K20_GBITS = {2: 48.0, 4: 48.0, 8: 24.0}


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    """A table; ``align`` is that of every column, ``"---"`` or ``"---:"``."""
    lines = ["| " + " | ".join(columns) + " |", "|" + f"{align}|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def efficiencies(row: Row) -> str:
    """With overlap, and without where that is another figure."""
    both = f"{row.efficiency:.0%}", f"{row.efficiency_apart:.0%}"
    return both[0] if both[0] == both[1] else f"{both[0]} ({both[1]})"


def scaling(plan: TrainingPlan) -> str:
    """A row for each number of devices, the ways to share the work side by side."""
    names = list(dict.fromkeys(row.parallel for row in plan.rows))
    found = {(row.parallel, row.devices): row for row in plan.rows}
    columns = ["devices"]
    for name in names:
        columns += [f"{name}: time", "efficiency", "sent", "memory"]
    rows = []
    for devices in DEVICES:
        line: list[object] = [f"{devices:,}"]
        for name in names:
            row = found[name, devices]
            line += [
                duration(row.seconds),
                efficiencies(row),
                f"{row.sent_bytes / 1e6:,.0f} MB",
                f"{row.memory.total / 1e9:.1f} GB",
            ]
        rows.append(line)
    return markdown(columns, rows, "---:")


def machine(record: dict[str, Any]) -> str:
    """90 epochs of ImageNet on processors like the measured one."""
    seconds = {int(size): one["median"] for size, one in record["batch"]["seconds"].items()}
    runtime = record["batch"]["runtime"]
    plan = plan_training("alexnet", step=seconds, precision=runtime["precision"])
    steps = " ".join(f"--step {value:.4g}@{size}" for size, value in seconds.items())
    told = (
        f"{record['machine']['processor']}, {runtime['threads']} threads, "
        f"{runtime['precision']}: {1e3 * plan.cost.per_step:.0f} ms a step and "
        f"{1e3 * plan.cost.per_picture:.1f} ms a picture.\n\n"
        f"```\nalexnet plan --precision {runtime['precision']} {steps}\n```\n\n"
    )
    return told + scaling(plan)


def titan_x() -> str:
    """alexnet_owt on a GPU whose step was published, behind two networks."""
    parts = []
    for gbits in (10, 100):
        plan = plan_training("alexnet_owt", step={128: 0.081}, precision="fp32", network=gbits)
        command = "alexnet plan --model alexnet_owt --precision fp32 --step 0.081@128"
        parts.append(f"```\n{command} --network {gbits}\n```\n\n{scaling(plan)}")
    return "\n\n".join(parts)


def k20() -> list[list[object]]:
    """Krizhevsky's eight GPUs, from the time of one."""
    step = {128: K20_HOURS * 3600 / (90 * IMAGENET / 128)}
    rows: list[list[object]] = []
    for devices, published in K20_SPEEDUPS.items():
        plan = plan_training(
            "alexnet_owt", gpus=devices, network=K20_GBITS[devices], step=step, precision="fp32"
        )
        by_name = {row.parallel: row for row in plan.rows if row.devices == devices}
        hybrid, ddp = (by_name[name] for name in ("hybrid", "ddp"))
        foretold = hybrid.efficiency_apart * devices
        bounds = (one * devices for one in (ddp.efficiency_apart, ddp.efficiency))
        rows.append(
            [
                f"Krizhevsky 2014, {devices} K20 (speed-up)",
                f"{published:.2f}",
                f"{foretold:.2f}",
                f"{foretold / published - 1:+.0%}",
                "ddp would be {:.2f} to {:.2f}".format(*bounds),
            ]
        )
    return rows


def skylake(processors: int) -> list[object]:
    """You et al. 2017: AlexNet with batch norm, 32,768 pictures a step, 100 epochs in 11 minutes.

    Assumed: a Xeon Platinum 8160 sustains 40% of its 3.2 Tflop/s (24 cores of 2.1 GHz, 64
    operations a cycle); two of them share a node's 100 Gbit/s (Stampede2's Omni-Path).
    """
    plan = plan_training(
        "alexnet_bn",
        gpus=processors,
        network=50,
        total_batch_size=32_768,
        epochs=100,
        device_tflops=0.4 * 3.2,
        parallel="ddp",
        precision="fp32",
    )
    row = plan.rows[-1]
    middle = (row.seconds + row.seconds_apart) / 2
    return [
        f"You et al. 2017, {processors:,} Xeon 8160",
        "11 min",
        f"{duration(row.seconds)} to {duration(row.seconds_apart)}",
        f"{middle / 660 - 1:+.0%} (middle)",
        "40% of peak and 50 Gbit/s assumed",
    ]


def gtx_580() -> list[object]:
    """Krizhevsky et al. 2012, section 1: 5 to 6 days, two GTX 580; section 5: 90 epochs.

    Assumed: a third of 1.58 Tflop/s sustained; 6 GB/s between the two.
    """
    plan = plan_training(
        "alexnet",
        gpus=2,
        network=48,
        batch_size=64,
        device_tflops=1.58 / 3,
        parallel="towers",
        precision="fp32",
    )
    seconds = plan.rows[-1].seconds
    note = "a third of peak assumed"
    error = f"{seconds / (5.5 * 86_400) - 1:+.0%} (middle)"
    return ["Krizhevsky et al. 2012, two GTX 580", "5 to 6 d", duration(seconds), error, note]


def published() -> str:
    """What others measured beside what the model says."""
    columns = ("training", "published", "foretold", "error", "")
    return markdown(columns, [*k20(), gtx_580(), skylake(1024), skylake(2048)], "---")


def checks(record: dict[str, Any]) -> str:
    """The two steps that benchmarks/scaling_plan.py measures."""
    titles = {
        "batch": "128 pictures, from 8 and 32",
        "ddp": "two processes of one thread, from one beside another and the bandwidth",
    }
    rows = []
    for name, title in titles.items():
        one = record[name]
        measured = one["measured_seconds"]
        rows.append(
            [
                title,
                f"{one['predicted_seconds']:.3f} s",
                f"{measured['median']:.3f} s ({measured['min']:.3f} to {measured['max']:.3f})",
                f"{one['error']:+.1%}",
            ]
        )
    return markdown(("step", "foretold", "measured", "error"), rows, "---")


def main() -> None:
    """Rewrite every table of the page; those of measurements only where there is a record."""
    tables = {"titan-x": titan_x(), "published": published()}
    if RECORD.is_file():
        record = json.loads(RECORD.read_text())
        tables |= {"machine": machine(record), "checks": checks(record)}
    page = PAGE.read_text()
    for name, text in tables.items():
        pattern = re.compile(f"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        page, count = pattern.subn(lambda found, new=text: f"{found[1]}{new}\n{found[2]}", page)
        assert count == 1, f"{PAGE.name} has no place for {name}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
