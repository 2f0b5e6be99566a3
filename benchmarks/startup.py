"""`alexnet --help` and `import alexnet` are quick, and load no torch.

Claim: the help is there in at most 0.4 s (median of 10, warm, the interpreter's start included).

    python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import _record

RUNS = 10
LIMIT = 0.4
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
    }
    _record.write(__file__, ("cyclopts", "rich"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
