"""What a step costs on one device: a part that each picture adds, and a part that it does not.

    seconds(B) = per_step + B per_picture

Updating the weights, clearing and writing their gradients and casting them to a lower precision
cost the same for any batch; AlexNet's 61 million weights make that a good part of a small one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet import runtime
from alexnet.errors import UsageError
from alexnet.models.registry import create_model, model_entry
from alexnet.progress import log
from alexnet.tasks.scaling.counts import BUFFERS, FLOAT, Counts
from alexnet.training.config import Config
from alexnet.training.measure import measure_step

SIZES = (32, 128)
"""The two batch sizes that are measured: below them a picture costs more, on a GPU and, where
convolutions go by way of the frequencies, on a processor."""

ATTEMPTS = 3
"""How often both are measured until the larger takes longer: a busy machine may turn them round."""

Point = tuple[int, float]
"""A batch size and the seconds of its step."""


@dataclass(frozen=True)
class StepCost:
    """The time of a step on one device.

    Attributes:
        per_step: seconds whatever the batch.
        per_picture: seconds that each picture adds.
        source: where the figures are from, in words.
        points: the measured steps that they were made of.
    """

    per_step: float
    per_picture: float
    source: str
    points: tuple[Point, ...] = ()

    def seconds(self, batch_size: float) -> float:
        """Of a step of so many pictures."""
        return self.per_step + batch_size * self.per_picture

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "source": self.source,
            "per_step_seconds": self.per_step,
            "per_picture_seconds": self.per_picture,
            "measured": [{"batch_size": size, "seconds": time} for size, time in self.points],
        }


def step_bytes(counts: Counts, optimizer: str) -> int:
    """Bytes of weights, gradients and optimizer that a step must move, whatever the batch.

    Forward and backward pass read the weights (in the precision of the products); the gradient is
    written and read; the update reads and writes the weight and each of the optimizer's numbers.
    """
    update = 2 * FLOAT * (1 + BUFFERS[optimizer])
    return counts.parameters * (2 * counts.element + 2 * FLOAT + update)


def read_steps(texts: Sequence[str]) -> dict[int, float]:
    """Steps as a person writes them, ``"0.39@128"``, as ``{128: 0.39}``.

    Raises:
        UsageError: not seconds and pictures, or a batch size twice.
    """
    found: dict[int, float] = {}
    for text in texts:
        seconds, _, pictures = text.partition("@")
        try:
            size, value = int(pictures), float(seconds)
        except ValueError:
            raise UsageError(
                f"--step {text!r} is not SECONDS@PICTURES: write, for example, --step 0.39@128"
            ) from None
        if size in found:
            raise UsageError(f"--step names {size} pictures twice: give different batch sizes")
        found[size] = value
    return found


def read_bandwidth(gigabytes: float | None, *, given: bool) -> float:
    """A memory's GB/s as bytes a second; 0 for None.

    Raises:
        UsageError: not above 0, or of no use because the step is measured here.
    """
    if gigabytes is None:
        return 0.0
    if not given:
        raise UsageError(
            "--memory-bandwidth goes with --step or --device-tflops: what is measured here has it"
        )
    if not 0 < gigabytes < float("inf"):
        raise UsageError(f"--memory-bandwidth is {gigabytes:g}: it must be above 0 GB/s")
    return gigabytes * 1e9


def from_points(
    steps: Mapping[int, float],
    counts: Counts,
    optimizer: str,
    bandwidth: float = 0.0,
    *,
    source: str = "measured elsewhere",
) -> StepCost:
    """The line through measured steps.

    One alone is divided by counting: the bytes that must move a step at ``bandwidth`` (bytes a
    second; 0 leaves all of it to the pictures), the rest by its pictures.

    Args:
        steps: pictures -> seconds.
        counts: of the network.
        optimizer: ``"sgd"`` or ``"adamw"``.
        bandwidth: of the device's memory.
        source: of the figures, in words.

    Raises:
        UsageError: a batch or time that is not above 0, or a larger batch that takes no longer.
    """
    points = sorted(steps.items())
    for size, seconds in points:
        if size < 1 or not 0 < seconds < float("inf"):
            raise UsageError(f"--step {seconds:g}@{size}: seconds and pictures must be above 0")
    largest, longest = points[-1]
    if len(points) == 1:
        fixed = step_bytes(counts, optimizer) / bandwidth if bandwidth else 0.0
        if fixed >= longest:
            raise UsageError(
                f"--step {longest:g}@{largest} is shorter than what it must move takes at this "
                f"--memory-bandwidth ({fixed:.3g} s): correct one of them"
            )
    else:
        slope, fixed = _line(points)
        if slope <= 0:
            told = ", ".join(f"{seconds:.3g} s at {size}" for size, seconds in points)
            raise UsageError(
                f"a larger batch takes no longer by these steps ({told}): measure them again, "
                "on a machine that does nothing else, and give them as --step"
            )
    # The largest batch is met exactly; a negative part per step would be an error of measurement.
    fixed = max(fixed, 0.0)
    return StepCost(fixed, (longest - fixed) / largest, source, tuple(points))


def _line(points: Sequence[Point]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def from_speed(counts: Counts, flops: float, optimizer: str, bandwidth: float = 0.0) -> StepCost:
    """From what a device sustains: two operations a multiplication, and the bytes of a step.

    Args:
        counts: of the network.
        flops: operations a second that the device sustains.
        optimizer: ``"sgd"`` or ``"adamw"``.
        bandwidth: of its memory, bytes a second; 0 counts no time for it.

    Raises:
        UsageError: a speed that is not above 0.
    """
    if not 0 < flops < float("inf"):
        raise UsageError(f"--device-tflops {flops / 1e12:g}: it must be above 0")
    per_step = step_bytes(counts, optimizer) / bandwidth if bandwidth else 0.0
    source = f"counted arithmetic at {flops / 1e12:g} Tflop/s"
    return StepCost(per_step, 2 * counts.macs / flops, source)


def measured(counts: Counts, chosen: runtime.Runtime, optimizer: str, steps: int = 3) -> StepCost:
    """From steps measured here, at two batch sizes."""
    log.info("measuring steps of %s and %s pictures on %s", *SIZES, chosen.device)
    network = create_model(counts.model)
    training = Config().override({"training.optimizer": optimizer}).training
    for _ in range(ATTEMPTS):
        found = [measure_step(network, size, chosen, steps, training=training) for size in SIZES]
        if found[0].seconds < found[1].seconds:
            break
    where = f"{chosen.device}, {chosen.precision}, {chosen.threads} threads"
    points = {one.batch_size: one.seconds for one in found}
    return from_points(points, counts, optimizer, source=f"measured here ({where})")


def resolve(model: str, device: str = "auto", precision: str = "auto") -> runtime.Runtime:
    """Where ``model`` would be trained here."""
    return runtime.resolve(device, precision, large=model_entry(model).low_precision_pays)
