"""`alexnet --help` and `import alexnet` are quick, and load no torch.

Claim: the help is there in at most 0.4 s (median of 10, warm, the interpreter's start included).

    python benchmarks/startup.py
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

RUNS = 10
LIMIT = 0.4
RESULT = Path(__file__).parent / "results" / "startup.json"
COMMANDS = {
    "interpreter alone": ["-c", "pass"],
    "import alexnet": ["-c", "import sys, alexnet; assert 'torch' not in sys.modules"],
    "alexnet --help": ["-m", "alexnet", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """The wall time of one run of the interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def main() -> int:
    """Measure, print, write the result; 1 when the claim does not hold."""
    measured = {}
    for arguments in COMMANDS.values():  # warm: byte code compiled, files cached
        seconds(arguments)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):  # interleaved, so that a busy moment hits all alike
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    for name, runs in times.items():
        middle = statistics.median(runs)
        measured[name] = {"median": middle, "min": min(runs), "max": max(runs)}
        print(f"{name:20} {middle:.3f} s (from {min(runs):.3f} to {max(runs):.3f}, n={RUNS})")
    result = {
        "claim": f"alexnet --help in at most {LIMIT} s, median of {RUNS}, warm",
        "seconds": measured,
        "holds": measured["alexnet --help"]["median"] <= LIMIT,
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("cyclopts", "rich")},
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
