"""Score networks on pictures that are fitted to their inputs: one, or several together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from alexnet.data.loader import Pixels
from alexnet.data.sources import BadImage
from alexnet.evaluation.metrics import Evaluation, Mistake, Tally
from alexnet.evaluation.views import VIEWS, Views, cut_views
from alexnet.progress import track
from alexnet.runtime import Runtime
from alexnet.spec import InputSpec


@dataclass(frozen=True)
class Member:
    """A network of an ensemble, or the only one.

    Attributes:
        name: what it is called in the result.
        network: on its device.
        spec: its input.
        runtime: its device and precision.
        pixels: the pictures, as :func:`alexnet.evaluation.views.load_squares` reads them; members
            of the same input share one object, which is read once.
        views: how many views of a picture it averages.
        columns: which of its outputs each class is, int64 ``[K]``; None where they are in order.
        temperature: that its logits are divided by (Guo et al. 2017).
    """

    name: str
    network: nn.Module
    spec: InputSpec
    runtime: Runtime
    pixels: Pixels
    views: Views = "center"
    columns: Tensor | None = field(default=None, compare=False)
    temperature: float = 1.0

    def log_probabilities(self, squares: Tensor, batch_size: int) -> Tensor:
        """Logarithms of a batch's probabilities, float64 ``[B, K]`` on the CPU.

        The softmax of each view is averaged (Krizhevsky et al. 2012, section 4.1), not the logits.
        """
        views = cut_views(squares.to(self.runtime.device), self.spec, self.views)
        found = []
        for part in views.flatten(0, 1).split(batch_size):
            inputs = self.runtime.place(self.spec.normalize(part))
            with self.runtime.autocast():
                logits = self.network(inputs)
            found.append(logits.float().cpu())
        logits = torch.cat(found).double() / self.temperature
        if self.columns is not None:
            logits = logits[:, self.columns]
        each = logits.log_softmax(1).unflatten(0, views.shape[:2])
        return log_mean(each)


def log_mean(each: Tensor) -> Tensor:
    """The logarithm of the mean of probabilities, over the first dimension of their logarithms."""
    if len(each) == 1:
        return each[0]
    return each.logsumexp(0) - math.log(len(each))


def score(
    network: nn.Module,
    pixels: Pixels,
    spec: InputSpec,
    runtime: Runtime,
    classes: tuple[str, ...],
    *,
    batch_size: int = 256,
    mistakes: int = 0,
    skipped: Sequence[BadImage] = (),
) -> Evaluation:
    """Score ``network`` on pictures already fitted to its input; exact for any batch size.

    Where torchrun started several processes, all of them call it together with the same weights:
    each takes its share of the pictures, and every one gets the whole result.
    """
    member = Member("", network, spec, runtime, pixels)
    return score_together(
        [member], classes, batch_size=batch_size, mistakes=mistakes, skipped=skipped
    )


def score_together(
    members: Sequence[Member],
    classes: tuple[str, ...],
    *,
    batch_size: int = 256,
    mistakes: int = 0,
    skipped: Sequence[BadImage] = (),
) -> Evaluation:
    """Score the mean of several networks' probabilities, and each alone; else as :func:`score`.

    Args:
        members: the networks; their pictures are the same ones in the same order.
        classes: names in the order of the labels.
        batch_size: views that a network sees at a time.
        mistakes: how many of the most confident mistakes to keep.
        skipped: pictures that could not be read.
    """
    first = members[0]
    count, runtime = len(first.pixels), first.runtime
    together = Tally(len(classes), count)
    alone = [Tally(len(classes), count) for _ in members] if len(members) > 1 else []
    at_once = max(1, batch_size // max(VIEWS[member.views] for member in members))
    mine = torch.arange(runtime.rank, count, runtime.world_size)
    plan = mine.split(at_once) if len(mine) else ()
    read = list({id(member.pixels): member.pixels for member in members}.values())
    streams = zip(*(pixels.batches(iter(plan)) for pixels in read), strict=True)
    for member in members:
        member.network.eval()
    with torch.inference_mode(), runtime.active():
        for batches in track(streams, "evaluating", len(plan)):
            squares = {id(pixels): batch[0] for pixels, batch in zip(read, batches, strict=True)}
            _, labels, indices = batches[0]
            each = torch.stack(
                [m.log_probabilities(squares[id(m.pixels)], batch_size) for m in members]
            )
            together.add(log_mean(each), labels, indices)
            for tally, outputs in zip(alone, each, strict=bool(alone)):
                tally.add(outputs, labels, indices)
    for tally in (together, *alone):
        tally.add_up()
    scores = [Evaluation.from_tally(tally, classes) for tally in alone]
    names = [member.name for member in members]
    shown = _mistakes(first, together, mistakes, classes)
    return Evaluation.from_tally(
        together,
        classes,
        mistakes=tuple(shown),
        skipped=tuple(skipped),
        views=first.views,
        members=tuple(zip(names, scores, strict=True)) if scores else (),
    )


def all_log_probabilities(member: Member, batch_size: int = 256) -> Tensor:
    """Logarithms of the probabilities of every picture, float64 ``[N, K]``, in one process."""
    member.network.eval()
    at_once = max(1, batch_size // VIEWS[member.views])
    plan = torch.arange(len(member.pixels)).split(at_once)
    with torch.inference_mode(), member.runtime.active():
        stream = track(member.pixels.batches(iter(plan)), "evaluating", len(plan))
        return torch.cat([member.log_probabilities(batch[0], batch_size) for batch in stream])


def _mistakes(first: Member, tally: Tally, count: int, classes: tuple[str, ...]) -> list[Mistake]:
    answers = tally.answers()
    wrong = (answers.taken_for != answers.labels).nonzero().flatten()
    order = answers.confidence[wrong].argsort(descending=True, stable=True)[:count]
    worst = wrong[order]
    if not len(worst):
        return []
    ((squares, _, _),) = first.pixels.batches([worst])
    pictures = cut_views(squares, first.spec, "center")[0]
    return [
        Mistake(
            name=str(first.pixels.names[index]),
            label=classes[int(answers.labels[index])],
            predicted=classes[int(answers.taken_for[index])],
            probability=float(answers.confidence[index]),
            thumbnail=picture.permute(1, 2, 0).numpy(),
        )
        for picture, index in zip(pictures, worst.tolist(), strict=True)
    ]
