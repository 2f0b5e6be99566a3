"""The trainings of an ablation: in processes of their own, each kept under what it was told."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet import files
from alexnet.data.loader import load_pixels
from alexnet.data.pictures import Pictures
from alexnet.errors import FailedError
from alexnet.progress import track
from alexnet.tasks.ablation.places import places
from alexnet.tasks.ablation.slope import mean_slope
from alexnet.tasks.predict import Classifier
from alexnet.training.loop import DIVERGED

SOME = 256
"""Pictures that slopes are measured on."""


@dataclass(frozen=True)
class Trained:
    """What is kept of a training.

    Attributes:
        top1: on the test part.
        images: of the test part.
        train_errors: share of training pictures that were wrong, by epoch, as it went.
        seconds: of training.
        slope: mean derivative of its activations at the end; None of other than tanh and ReLU.
        diverged: whether its loss ceased to be a number; then every picture counts as wrong.
    """

    top1: float
    images: int
    train_errors: tuple[float, ...]
    seconds: float
    slope: float | None = None
    diverged: bool = False


@dataclass(frozen=True)
class _Training:
    """What a training is told."""

    settings: Mapping[str, Any]
    processes: int


class Runs:
    """Trains what it is asked for, and nothing twice.

    Args:
        folder: where results are kept, a file a training; an interrupted one goes on in it.
        data: what all learn from.
        learned: its training part, of which some pictures show how steep the activations are.
        model: the network's name.
        device: that all train on, as in the settings.
    """

    def __init__(
        self, folder: Path, data: str, learned: Pictures, model: str, device: str = "auto"
    ) -> None:
        self.folder, self.data, self.model, self.device = folder, data, model, device
        self.learned = learned
        self._children: set[subprocess.Popen[str]] = set()
        self._lock, self._stopped = threading.Lock(), False
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, wanted: Iterable[Mapping[str, Any]], processes: int = 1) -> list[Trained]:
        """Train each of ``wanted`` (settings), as many at a time as there are places for.

        Args:
            wanted: settings of each.
            processes: that share a training, data parallel, each with a thread or a GPU.

        Raises:
            FailedError: a training failed, other than by diverging; the message has what it said.
        """
        asked = [_Training(dict(sorted(settings.items())), processes) for settings in wanted]
        new = {self._file(one): one for one in asked if not self._file(one).is_file()}
        for one in asked:
            if self._file(one) not in new:  # killed before its folder was gone
                shutil.rmtree(self.folder / self._name(one), ignore_errors=True)
        free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for place in places(self.device, processes):
            free.put(place)
        with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
            under_way = [pool.submit(self._train_in, free, one) for one in new.values()]
            try:
                done = concurrent.futures.as_completed(under_way)
                for one in track(done, "training", len(under_way)):
                    one.result()
            except BaseException:
                self._stop()
                for one in under_way:
                    one.cancel()
                raise
        return [self._read(one) for one in asked]

    def _name(self, one: _Training) -> str:
        told = json.dumps([self.data, self.model, one.settings, one.processes], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _file(self, one: _Training) -> Path:
        return self.folder / f"{self._name(one)}.json"

    def _read(self, one: _Training) -> Trained:
        kept = files.read_json(self._file(one))
        return Trained(
            top1=float(kept["top1"]),
            images=int(kept["images"]),
            train_errors=tuple(kept["train_errors"]),
            seconds=float(kept["seconds"]),
            slope=kept.get("slope"),
            diverged=kept.get("diverged", False),
        )

    def _train_in(self, free: queue.SimpleQueue[Mapping[str, str]], one: _Training) -> None:
        """In the next place that is free."""
        place = free.get()
        try:
            self._train(one, place)
        finally:
            free.put(place)

    def _train(self, one: _Training, place: Mapping[str, str]) -> None:
        """In processes with one thread each; its folder goes when it is written down."""
        run = self.folder / self._name(one)
        line = [sys.executable]
        if one.processes > 1:
            line += ["-m", "torch.distributed.run", "--standalone"]
            line += ["--nproc-per-node", str(one.processes)]
        line += ["-m", "alexnet", "train", self.data, "--model", self.model, "-o", str(run)]
        if (run / "config.json").is_file():
            line.append("--resume")
        else:
            shutil.rmtree(run, ignore_errors=True)
            for name, value in one.settings.items():
                line += ["--set", _as_option(name, value)]
        found = self._found(run) if self._call(line, place) else _diverged(run)
        kept = {"settings": dict(one.settings), "processes": one.processes, **found}
        files.write_json(self._file(one), kept)
        shutil.rmtree(run, ignore_errors=True)

    def _found(self, run: Path) -> dict[str, Any]:
        """What is kept of a finished run."""
        metrics = files.read_json(run / "config.json")["metrics"]
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return {
            "top1": metrics["test_top1"],
            "images": metrics["test_images"],
            "train_errors": [round(1 - json.loads(told)["train_top1"], 6) for told in lines],
            "seconds": metrics["train_seconds"],
            "slope": self._slope(run),
        }

    def _slope(self, run: Path) -> float | None:
        """Of a finished training, on some of the pictures that it learned."""
        classifier = Classifier.load(run, device="cpu", precision="fp32")
        pixels = load_pixels(self._some, classifier.spec, train=False)
        ((images, _, _),) = pixels.batches([torch.arange(len(pixels))])
        return mean_slope(classifier.network, classifier.spec.normalize(images))

    @functools.cached_property
    def _some(self) -> Pictures:
        """Evenly from all: data are often sorted by class."""
        count = len(self.learned)
        return self.learned.subset(np.linspace(0, count - 1, min(SOME, count)).astype(np.int64))

    def _call(self, line: Sequence[str], place: Mapping[str, str]) -> bool:
        """Run it; whether it came to its end, and did not diverge."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **place}
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            child = subprocess.Popen(
                line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            self._children.add(child)
        said = child.communicate()[1]
        with self._lock:
            self._children.discard(child)
        if not child.returncode:
            return True
        if self._stopped:
            raise KeyboardInterrupt
        last = said.strip().splitlines()[-1] if said.strip() else f"status {child.returncode}"
        if DIVERGED in last:
            return False
        raise FailedError(f"a training of the ablation failed: {last}")

    def _stop(self) -> None:
        """Let the trainings that are under way write a checkpoint and stop."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.send_signal(signal.SIGTERM)


def _as_option(name: str, value: Any) -> str:
    """A setting as ``--set`` reads it."""
    several = isinstance(value, list | tuple)
    return f"{name}={','.join(map(str, value)) if several else value}"


def _diverged(run: Path) -> dict[str, Any]:
    """What is kept of a run whose loss ceased to be a number: nothing is right in any epoch."""
    epochs = files.read_json(run / "config.json")["settings"]["training"]["epochs"]
    errors = [1.0] * int(epochs)
    return {"top1": 0.0, "images": 0, "train_errors": errors, "seconds": 0.0, "diverged": True}
