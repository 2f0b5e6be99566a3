"""What the trainings of an ablation show, as figures and as sentences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet.evaluation.intervals import students_t
from alexnet.tasks.ablation.runs import Trained

EASY = 0.02
"""A training error below which there is next to nothing left to learn."""


def summary(values: Sequence[float]) -> dict[str, Any]:
    """How many, their mean, its interval, and each."""
    low, high = students_t(values)
    return {
        "n": len(values),
        "top1": statistics.mean(values),
        "interval": [low, high],
        "values": list(values),
    }


def paired(name: str, base: Sequence[Trained], other: Sequence[Trained]) -> dict[str, Any]:
    """What the base has above what is trained instead, seed by seed."""
    apart = [with_it.top1 - without.top1 for with_it, without in zip(base, other, strict=True)]
    low, high = students_t(apart)
    return {
        **summary([one.top1 for one in other]),
        "difference": statistics.mean(apart),
        "difference_interval": [low, high],
        "sentence": verdict(name, apart),
    }


def verdict(name: str, apart: Sequence[float]) -> str:
    """Whether something helps, in plain words, from paired differences of top-1."""
    mean, (low, high) = statistics.mean(apart), students_t(apart)
    points = f"{100 * mean:+.2f} points of top-1, 95% {100 * low:+.2f} to {100 * high:+.2f}"
    told = "helps" if low > 0 else "hurts" if high < 0 else "not shown by these data"
    if low == high == 0:
        return f"{name}: makes no difference here (n = {len(apart)})"
    return f"{name}: {told} ({points}, n = {len(apart)})"


def together(
    alone: Sequence[Trained], divided: Sequence[Trained], processes: int
) -> dict[str, Any]:
    """What processes that share each batch bring, in accuracy and in time."""
    name = f"{processes} processes"
    faster = [one.seconds / shared.seconds for one, shared in zip(alone, divided, strict=True)]
    low, high = students_t(faster)
    found = paired(name, divided, alone)
    mean = statistics.mean(faster)
    return {
        **found,
        "faster": mean,
        "faster_interval": [low, high],
        "sentence": (
            f"{found['sentence']}; {mean:.2f} times as fast as one (95% {low:.2f} to {high:.2f})"
        ),
    }


def race(raced: Mapping[str, Sequence[Trained]], rates: Mapping[str, float]) -> dict[str, Any]:
    """In how many epochs ReLU reaches the training error that tanh ends with (figure 1)."""
    relu, tanh = raced["relu"], raced["tanh"]
    epochs = len(tanh[0].train_errors)
    reached = [
        _first(one.train_errors, other.train_errors[-1])
        for one, other in zip(relu, tanh, strict=True)
    ]
    known = [one for one in reached if one is not None]
    mean = statistics.mean(known) if len(known) == len(reached) else None
    if mean is None:
        told = (
            f"ReLU reaches the training error that tanh has after {epochs} epochs in "
            f"{len(known)} of {len(reached)} pairs"
        )
    else:
        told = (
            f"ReLU reaches the training error that tanh has after {epochs} epochs in "
            f"{mean:.1f} epochs (mean of {len(known)})"
        )
        told += "" if mean <= epochs / 2 else ": more than half of them"
    half = (epochs + 1) // 2
    errors = {
        epoch: [statistics.mean(one.train_errors[epoch - 1] for one in f) for f in (relu, tanh)]
        for epoch in (half, epochs)
    }
    midway, end = ("{:.2%} and {:.2%}".format(*errors[epoch]) for epoch in (half, epochs))
    told += f"; ReLU and tanh have {midway} after {half} epochs, {end} at the end"
    holds = mean is not None and mean <= epochs / 2
    slopes = {
        kind: statistics.mean(one.slope for one in found if one.slope is not None)
        for kind, found in raced.items()
        if any(one.slope is not None for one in found)
    }
    if len(slopes) == 2 and not holds:
        told += f". {_why(slopes, max(errors[epochs]))}"
    return {
        "epochs": epochs,
        "rates": dict(rates),
        "reached": reached,
        "mean": mean,
        "holds": holds,
        "slopes": slopes,
        "errors": {
            kind: [
                statistics.mean(values)
                for values in zip(*(t.train_errors for t in found), strict=True)
            ]
            for kind, found in raced.items()
        },
        "sentence": told,
    }


def _why(slopes: Mapping[str, float], most: float) -> str:
    """Why ReLU is not much faster, as far as is measured; ``most``: the larger error at the end."""
    relu, tanh = slopes["relu"], slopes["tanh"]
    found = f"the mean slope of tanh is {tanh:.2f} at the end, of ReLU {relu:.2f}"
    if tanh < relu:
        found += ": tanh does pass on less of the gradient, the paper's reason (3.1)"
    else:
        found += ": tanh passes on no less of the gradient, against the paper's reason (3.1)"
    if most < EASY:
        return (
            "Why: by then both know nearly all of the pictures, which leaves little to be faster "
            f"at; {found}"
        )
    return f"Why: {found}" if tanh >= relu else f"Why is not known; {found}"


def _first(errors: Sequence[float], wanted: float) -> int | None:
    """The first epoch, counted from 1, with an error of at most ``wanted``."""
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= wanted), None)
