"""Say what is on pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from alexnet.data.decode import square
from alexnet.errors import AlexnetError, UsageError
from alexnet.models.pretrained import LoadedModel, load_run
from alexnet.models.registry import model_entry
from alexnet.runtime import resolve
from alexnet.spec import InputSpec


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        label: the class.
        probability: from 0 to 1; the network's softmax.
        description: what the class is called by people, where its name is a code; else empty.
    """

    label: str
    probability: float
    description: str = ""


class Classifier:
    """A network with its class names and its input, ready to be asked.

    Attributes:
        network: in evaluation mode, on its device.
        classes: names of the outputs in order.
        spec: how pictures become its input.
        config: the content of the run's ``config.json``.
        temperature: that logits are divided by, so that probabilities mean what they say.
        descriptions: what classes are called by people, where their names are codes.
    """

    def __init__(
        self, loaded: LoadedModel, *, device: str = "auto", precision: str = "auto"
    ) -> None:
        large = model_entry(str(getattr(loaded.network, "model_name", ""))).low_precision_pays
        self.runtime = resolve(device, precision, large=large)
        self.network: nn.Module = self.runtime.place_network(loaded.network).eval()
        outputs = int(getattr(loaded.network, "num_classes", 0))
        self.classes = loaded.classes or tuple(f"class {number}" for number in range(outputs))
        self.spec: InputSpec = loaded.spec
        self.config: dict[str, Any] = loaded.config
        self.temperature = float(loaded.config.get("temperature", 1.0))
        self.descriptions: dict[str, str] = dict(loaded.config.get("class_descriptions") or {})

    @classmethod
    def load(
        cls, source: str | os.PathLike[str], *, device: str = "auto", precision: str = "auto"
    ) -> Classifier:
        """Load a run folder, weights by name, or ``"hf:OWNER/NAME"``.

        Raises:
            UsageError: nothing there, or files missing or damaged.
        """
        return cls(load_run(source), device=device, precision=precision)

    def predict(self, images: Any, top: int = 5, batch_size: int = 32) -> Any:
        """Classify pictures.

        Args:
            images: one picture or a sequence of them: paths, encoded bytes, PIL images, or uint8
                arrays ``[H, W]``, ``[H, W, 1]`` or ``[H, W, 3]``.
            top: answers a picture, most probable first.
            batch_size: pictures at a time.

        Returns:
            For one picture a list of :class:`Prediction`; for a sequence a list of such lists.

        Raises:
            UsageError: a picture cannot be read, or ``top`` or ``batch_size`` is below 1.
        """
        _check(top, batch_size)
        if not isinstance(images, list | tuple):
            return self._answers([images], top)[0]
        answers = []
        for chunk in _chunks(images, batch_size):
            answers.extend(self._answers(chunk, top))
        return answers

    def predict_files(
        self, paths: Iterable[str], top: int = 5, batch_size: int = 32
    ) -> Iterator[tuple[str, list[Prediction] | str]]:
        """Classify files in order; a file that cannot be read does not stop the rest.

        Yields:
            The path, and its answers or what is wrong with it.
        """
        _check(top, batch_size)
        for chunk in _chunks(paths, batch_size):
            squares, errors = {}, {}
            for number, path in enumerate(chunk):
                try:
                    squares[number] = square(path, self.spec)
                except AlexnetError as error:
                    errors[number] = str(error)
            found = dict(zip(squares, self._classify(list(squares.values()), top), strict=True))
            for number, path in enumerate(chunk):
                yield path, errors[number] if number in errors else found[number]

    def _answers(self, images: Sequence[Any], top: int) -> list[list[Prediction]]:
        return self._classify([square(image, self.spec) for image in images], top)

    @torch.inference_mode()
    def _classify(self, squares: list[Any], top: int) -> list[list[Prediction]]:
        if not squares:
            return []
        pixels = torch.stack([torch.from_numpy(square) for square in squares])
        inputs = self.runtime.place(self.spec.normalize(pixels.to(self.runtime.device)))
        with self.runtime.active(), self.runtime.autocast():
            logits = self.network(inputs)
        best = (
            (logits.float() / self.temperature).softmax(1).topk(min(top, len(self.classes)), dim=1)
        )
        return [
            [
                self._prediction(self.classes[index], float(probability))
                for probability, index in zip(values, indices, strict=True)
            ]
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _prediction(self, label: str, probability: float) -> Prediction:
        return Prediction(label, probability, self.descriptions.get(label, ""))


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of ``size`` items, the last shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _check(top: int, batch_size: int) -> None:
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name} is {value}: it must be at least 1")
