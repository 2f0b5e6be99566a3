"""What training from scratch and fine-tuning share: from data and settings to a finished run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet import files
from alexnet.data.colors import ColorStatistics, measure_colors
from alexnet.data.loader import Pixels, fits_in_memory, load_pixels, workers_beside
from alexnet.data.pillow import DecodeError
from alexnet.data.sources import Pictures, Splits, data_folder, open_data, write_bad_images
from alexnet.errors import UsageError
from alexnet.evaluation.evaluate import PARTS
from alexnet.evaluation.metrics import Evaluation
from alexnet.evaluation.score import score
from alexnet.models.contract import Network
from alexnet.models.pretrained import run_config, save_run
from alexnet.models.registry import create_model, input_spec, model_entry
from alexnet.models.state import load_into, read_state
from alexnet.models.weights import find_weights
from alexnet.progress import log
from alexnet.runtime import Runtime, everywhere, on_main, resolve, wait_for_all
from alexnet.spec import InputSpec
from alexnet.tasks.report import write_report
from alexnet.tasks.request import Request
from alexnet.torchrun import is_main, launch, local_world_size, world_size
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position
from alexnet.training.loop import Job, diverged, fit
from alexnet.training.optim import check_schedule, lower_rate
from alexnet.training.sharing import check_sharing

SEEN_WITHIN = 60.0
"""Seconds in which what one machine wrote is seen by the others."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it is.
        config: the content of its ``config.json``.
        metrics: what it scored.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Any]


class Session:
    """A run while it is made: the parts of the data, the network, and what is written of them.

    Attributes:
        request: what was asked for.
        splits: the parts of the data.
        spec: the network's input.
        runtime: device and precision.
        network: set by :meth:`begin`.
        train_pixels: the training pictures, at ``spec.resize``.
        val_pixels: the validation pictures, at ``spec.crop``; None where there are none.
    """

    def __init__(self, request: Request) -> None:
        self.request, config = request, request.config
        self.began = time.perf_counter()
        self.runtime: Runtime = resolve(
            config.training.device,
            config.training.precision,
            large=model_entry(request.model).low_precision_pays,
            deterministic=config.training.deterministic,
        )
        self.splits: Splits = on_main(self._open)
        self._check_everywhere()
        self._say_what_was_found()
        self.network: nn.Module = nn.Identity()
        self.spec: InputSpec = InputSpec()
        self.val_pixels: Pixels | None = None
        self.colors: ColorStatistics | None = None

    def _open(self) -> Splits:
        """Look at the data, and list what was refused."""
        told = self.request.config.data
        splits = open_data(
            self.request.data,
            seed=told.seed,
            fold=told.fold,
            val_fraction=told.val_fraction,
            test_fraction=told.test_fraction,
        )
        write_bad_images(self.request.folder.path / "bad_images.csv", splits.refused)
        return splits

    def _check_everywhere(self) -> None:
        """Refuse pictures that another process, on another machine, cannot read."""
        if world_size() == 1:
            return
        train = self.splits.train
        try:
            train.decode(0)
            readable = True
        except (DecodeError, OSError):
            readable = False
        if not everywhere(readable):
            raise UsageError(
                f"not every process can read {train.names[0]} of {self.request.data}, which "
                f"the first one can: the data must lie at the same place on every machine"
            )

    def _say_what_was_found(self) -> None:
        splits = self.splits
        parts = {"training": splits.train, "validation": splits.val, "test": splits.test}
        counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
        log.info("%s: %d classes; pictures: %s", self.request.data, len(splits.classes), counts)
        if splits.note:
            log.warning("%s", splits.note)
        if splits.refused:
            log.warning(
                "%d file(s) skipped, listed with the reason in %s",
                len(splits.refused),
                self.request.folder.path / "bad_images.csv",
            )

    def read_pictures(self, image_size: int | None) -> None:
        """Settle the network's input and fit the training and validation pictures to it."""
        spec = input_spec(self.request.model, image_size, self.request.config.model.get("in_chans"))
        wanted = self.request.config.data.fit
        if wanted is not None:
            resize = spec.crop if wanted == "stretch" else spec.resize
            spec = spec.replace(fit=wanted, resize=resize)
        self.spec = spec
        self.train_pixels: Pixels = self._load(self.splits.train, train=True)
        self._measure_colors()
        if self.splits.val is not None:
            self.val_pixels = self._load(self.splits.val, train=False)

    def _load(self, pictures: Pictures, *, train: bool) -> Pixels:
        workers, limit = self.request.config.data.workers, self._memory_limit
        if workers is None:
            workers = workers_beside(self.runtime.device, pictures, self.spec)
        return load_pixels(pictures, self.spec, train=train, workers=workers, memory_limit=limit)

    @property
    def _memory_limit(self) -> int | None:
        told = self.request.config.data.memory_gb
        return None if told is None else int(told * 2**30)

    def in_memory(self, count: int) -> bool:
        """Whether so many training pictures are held in memory."""
        size = count * self.spec.channels * self.spec.resize**2
        return fits_in_memory(size, self.splits.train, self._memory_limit)

    def _measure_colors(self) -> None:
        """Mean and main directions of the training part's colors, where something goes by them."""
        measured = self.request.config.data.mean == "measured"
        if not measured and not self.request.config.augment.pca:
            return
        self.colors = on_main(self._colors_of_run)
        if measured:
            mean = tuple(255 * self.spec.scale * value for value in self.colors.mean)
            order = mean[::-1] if self.spec.channel_order == "bgr" else mean
            self.spec = self.spec.replace(mean=order)

    def _colors_of_run(self) -> ColorStatistics:
        """As a resumed run began with them, or measured now."""
        recorded = self.request.folder.read_config().get("colors") if self.request.resumed else None
        return (
            ColorStatistics.from_dict(recorded) if recorded else measure_colors(self.train_pixels)
        )

    def about(self, status: str) -> dict[str, Any]:
        """What ``config.json`` says beside the network: how the run was made."""
        splits = self.splits
        folder = data_folder(self.request.data)
        described = {"class_descriptions": dict(splits.descriptions)} if splits.descriptions else {}
        return {
            "task": self.request.task,
            "status": status,
            "initialized_from": self.request.weights,
            "data": {
                "name": self.request.data,
                "folder": None if folder is None else str(folder),
                "train": len(splits.train),
                "val": len(splits.val or ()),
                "test": len(splits.test or ()),
                "refused": len(splits.refused),
                "digest": splits.digest,
                "names_digest": splits.names_digest,
            },
            "settings": self.request.config.to_dict(),
            "colors": self.colors.to_dict() if self.colors else None,
            "runtime": self.runtime.to_dict(),
            "launch": launch(),
            **described,
        }

    def build_network(self, **defaults: Any) -> nn.Module:
        """The network for these classes and this input, its weights drawn from the run's seed.

        Args:
            defaults: arguments that yield to the settings' ``model.*``.
        """
        arguments = {**defaults, **self.request.config.model}
        if ":" not in self.request.model:
            arguments["image_size"] = self.spec.size
        torch.manual_seed(self.request.config.training.seed)
        model, weights, classes = self.request.model, self.request.weights, len(self.splits.classes)
        record = None if weights is None else find_weights(weights, model)
        if weights is None or (record is not None and record.covers == "features"):
            return create_model(model, weights, num_classes=classes, **arguments)
        network = create_model(model, weights, **arguments)
        if not isinstance(network, Network):
            raise UsageError(f"{model} cannot be given other classes: choose one of the package's")
        network.reset_classifier(classes)
        return network

    def begin(self, network: nn.Module) -> None:
        """Take the network and write ``config.json``: from now on the run can be resumed."""
        self.network = self.runtime.place_network(network)
        check_sharing(self.network, self.request.config.training, self.runtime)
        check_schedule(self.request.config.training, validated=self.val_pixels is not None)
        if self.request.resumed:
            self._check_unchanged()
        elif is_main():
            content = run_config(
                self.network,
                classes=self.splits.classes,
                spec=self.spec,
                extra=self.about("running"),
            )
            files.write_json(self.request.folder.path / "config.json", content)
        if not everywhere(self._is_begun()):
            raise UsageError(
                f"not every process sees the run folder {self.request.folder.path}: it must lie on "
                f"a disk that all machines share"
            )

    def _is_begun(self) -> bool:
        """Whether this process sees the run; a network disk may show it late."""
        wait_for_all()
        until = time.monotonic() + (SEEN_WITHIN if world_size() > local_world_size() else 0)
        while not self.request.folder.begun:
            if time.monotonic() > until:
                return False
            time.sleep(0.5)
        return True

    def _check_unchanged(self) -> None:
        """Refuse to go on with other pictures: the run's parts would be others."""
        before = self.request.folder.read_config()
        now = {**self.about("running")["data"], "classes": list(self.splits.classes)}
        then = {**before["data"], "classes": before["classes"]}
        # Of a run that was begun before digests were kept, the numbers tell.
        now |= {} if "digest" in then else {"digest": None}
        if any(now[name] != then.get(name) for name in ("classes", "digest", *PARTS)):
            raise UsageError(
                f"{self.request.data} has other pictures than when {self.request.folder.path} was "
                f"started: restore them, or choose another folder with -o"
            )

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(checkpoint.found(self.request.folder.checkpoints))

    def validate(self) -> Evaluation:
        """Score the network on the validation part."""
        assert self.val_pixels is not None
        return score(self.network, self.val_pixels, self.spec, self.runtime, self.splits.classes)

    def keep(self, position: Position) -> None:
        """Write the weights as those of the run so far."""
        record = position.history[-1] if position.history else {}
        self._save("running", {k: v for k, v in record.items() if k.startswith(("val_", "epoch"))})

    def _save(self, status: str, metrics: Mapping[str, Any]) -> None:
        save_run(
            self.request.folder.path,
            self.network,
            classes=self.splits.classes,
            spec=self.spec,
            metrics=metrics,
            extra=self.about(status),
        )

    def fit(self, position: Position, stage: str) -> Position:
        """Run the loop to its end."""
        return fit(
            Job(
                network=self.network,
                pixels=self.train_pixels,
                classes=len(self.splits.classes),
                spec=self.spec,
                training=self.request.config.training,
                augment=self.request.config.augment,
                colors=self.colors,
                runtime=self.runtime,
                folder=self.request.folder,
                validate=None if self.val_pixels is None else self.validate,
                keep=self.keep,
                stage=stage,
                position=position,
            )
        )

    def finish(self, position: Position, settle: Callable[[], dict[str, Any]] | None = None) -> Run:
        """Load the kept weights, read the test part once, write the metrics and the report.

        Several processes share the test part; the main one writes.

        Args:
            position: at the end of the training.
            settle: a last change to the kept weights; returns its record for the history. It is
                done again where a run was killed before its end.
        """
        folder, history = self.request.folder.path, position.history
        wait_for_all()  # until the main process has written what it kept
        load_into(self.network, read_state(folder / "model.safetensors"))
        kept = next(r for r in history if r["epoch"] == position.best_epoch + 1)
        if settle:
            kept = {"epoch": history[-1]["epoch"] + 1, **settle()}
            history = [*history, kept]
        self.request.folder.write_history(history)
        part, pictures = "test", self.splits.test
        if pictures is None:
            part, pictures = ("val", self.splits.val) if self.splits.val else ("train", None)
        pictures = self.splits.train if pictures is None else pictures
        result = score(
            self.network,
            self._load(pictures, train=False),
            self.spec,
            self.runtime,
            self.splits.classes,
            mistakes=24,
            skipped=self.splits.refused,
        )
        if not math.isfinite(result.loss):
            raise diverged(self.request.config.training, f"on the {part} part")
        if result.only_answer is not None:
            log.warning(
                "the network has learned nothing: it takes every picture of the %s part for %r; "
                "lower the learning rate, --set %s, in a new folder, or train longer",
                part,
                result.only_answer,
                lower_rate(self.request.config.training),
            )
        metrics = {
            **{f"{part}_{key}": value for key, value in result.to_dict().items() if key in KEPT},
            **{key: value for key, value in kept.items() if key.startswith("val_")},
            "epoch": position.best_epoch + 1,
            "train_seconds": round(sum(r["seconds"] for r in history), 3),
            "skipped": len(self.splits.refused),
        }
        return on_main(lambda: self._write_result(part, result, metrics, history))

    def _write_result(
        self, part: str, result: Evaluation, metrics: dict[str, Any], history: list[dict[str, Any]]
    ) -> Run:
        """Write the evaluation, the report, and last what says that the run is finished."""
        folder = self.request.folder.path
        files.write_json(folder / "evaluation.json", {"part": part, **result.to_dict()})
        config = {**files.read_json(folder / "config.json"), "metrics": metrics}
        write_report(
            folder / "report.html",
            title=f"{self.request.model} on {Path(self.request.data).name}",
            config={**config, "status": "finished"},
            history=history,
            evaluation=result,
            network=self.network,
        )
        self._save("finished", metrics)  # last: a run that says so has all its files
        return Run(folder, files.read_json(folder / "config.json"), metrics)


KEPT = ("images", "top1", "top5", "loss", "balanced_accuracy")
"""What ``metrics`` takes of an evaluation."""


def finished(request: Request) -> Run | None:
    """The run that a resume finds already finished."""
    if not request.resumed:
        return None
    config = request.folder.read_config()
    if config.get("status") != "finished":
        return None
    log.info("%s is finished: nothing to resume", request.folder.path)
    return Run(request.folder.path, config, dict(config.get("metrics") or {}))
