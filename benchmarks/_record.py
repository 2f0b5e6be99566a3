"""What the scripts share: where results go, what machine they were measured on, intervals."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet.evaluation.intervals import students_t

RESULTS = Path(__file__).parent / "results"


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95% confidence interval (Student's t)."""
    return statistics.mean(differences), *students_t(differences)


def write(script: str, packages: Iterable[str], result: dict[str, Any]) -> None:
    """Write ``result`` with machine and versions to ``results/<script's name>.json``."""
    whole = {
        **result,
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{Path(script).stem}.json"
    path.write_text(json.dumps(whole, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
