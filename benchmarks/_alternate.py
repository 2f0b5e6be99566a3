"""Rivals measured in turn, each in a process of its own, so that a busy moment hits all alike.

A process that measures calls :func:`serve`: it waits for the name of an arm, runs it and prints its
number (seconds, or whatever it measures). The script that compares calls :func:`alternate`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def serve(arms: Mapping[str, Callable[[], float]]) -> None:
    """Measure each arm whose name is read; first of all print the names."""
    print(json.dumps(list(arms)), flush=True)
    for line in sys.stdin:
        print(arms[line.strip()](), flush=True)


@dataclass(frozen=True)
class Side:
    """A process that :func:`serve` s.

    Attributes:
        command: its command line.
    """

    command: Sequence[str]


def alternate(sides: Mapping[str, Side], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """What every arm of every side measured, ``rounds`` times, one arm after another.

    Args:
        sides: what to start, by name.
        rounds: how often all arms are measured.
        warmup: rounds before those, whose numbers are thrown away.
    """
    measured: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        asked = {}
        for name, side in sides.items():
            child = stack.enter_context(
                subprocess.Popen(
                    side.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert child.stdin is not None
            assert child.stdout is not None
            said = child.stdout.readline()
            if not said:
                raise SystemExit(f"{name}: {' '.join(side.command)} ended without a word")
            for arm in json.loads(said):
                asked[arm] = child.stdin, child.stdout
        for number in range(warmup + rounds):
            for arm, (question, answer) in asked.items():
                print(arm, file=question, flush=True)
                said = answer.readline()
                if not said:
                    raise SystemExit(f"{arm}: the process that measures it ended, see above")
                value = float(said)
                if number >= warmup:
                    measured.setdefault(arm, []).append(value)
                print(f"  {arm}: {value:.4g}", file=sys.stderr, flush=True)
    return measured


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median and range, to so many digits that count."""
    return {
        "median": _rounded(statistics.median(values), digits),
        "least": _rounded(min(values), digits),
        "most": _rounded(max(values), digits),
        "n": len(values),
    }


def ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, Any]:
    """How many times the second is faster, from pairs measured in the same round."""
    return spread([a / b for a, b in zip(slower, faster, strict=True)], 4)


def best(*rivals: Sequence[float]) -> list[float]:
    """The least of each round."""
    return [min(values) for values in zip(*rivals, strict=True)]


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
