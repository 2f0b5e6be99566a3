"""What the scripts share: where results go, what machine they were measured on, intervals."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.data.threads import available_processors
from alexnet.evaluation.intervals import students_t
from alexnet.runtime import resolve

RESULTS = Path(__file__).parent / "results"


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95% confidence interval (Student's t)."""
    return statistics.mean(differences), *students_t(differences)


def write(
    script: str, packages: Iterable[str], result: dict[str, Any], gpu: str | None = None
) -> None:
    """Write ``result`` with date, commit, machine and versions.

    It goes to ``results/<machine>/<script's name>.json``: a machine is a GPU's name, or a
    processor's with the precision that a large network has there by default, so that what one
    machine measured never replaces what another did.
    """
    precision = resolve("cpu").precision
    whole = {
        **result,
        "measured": {"date": date.today().isoformat(), "commit": commit()},
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "cores_used": available_processors(),
            "precision": precision,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
    }
    name = gpu or f"{processor()} {precision}"
    folder = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(R\)| Processor", "", name).lower())
    path = RESULTS / folder / f"{Path(script).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(whole, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def commit() -> str | None:
    """The commit, with a mark where code was changed since; None outside of a repository."""
    git = ["git", "-C", str(RESULTS.parents[1])]
    code = ["diff", "--quiet", "HEAD", "--", "src", "benchmarks/*.py"]
    try:
        head = [*git, "rev-parse", "--short", "HEAD"]
        name = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, *code], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}-dirty" if changed else name


def processor() -> str:
    """The processor's name, where the system tells it; with its generation if that is left out."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    told = dict(re.findall(r"^([^\t\n]+?)\t*: (.*)$", text.partition("\n\n")[0], re.MULTILINE))
    name = told.get("model name", "").strip()
    unnumbered = name == "AMD EPYC"  # in a virtual machine
    return f"{name} Zen 5" if unnumbered and told.get("cpu family") == "26" else name
