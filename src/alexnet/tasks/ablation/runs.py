"""The trainings of an ablation: in processes of their own, each kept under what it was told."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.data.threads import available_processors
from alexnet.errors import FailedError
from alexnet.progress import track


@dataclass(frozen=True)
class Trained:
    """What is kept of a training.

    Attributes:
        top1: on the test part.
        images: of the test part.
        train_errors: share of training pictures that were wrong, by epoch, as it went.
        seconds: of training.
    """

    top1: float
    images: int
    train_errors: tuple[float, ...]
    seconds: float


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
        model: the network's name.
    """

    def __init__(self, folder: Path, data: str, model: str) -> None:
        self.folder, self.data, self.model = folder, data, model
        self._children: set[subprocess.Popen[str]] = set()
        self._lock, self._stopped = threading.Lock(), False
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, wanted: Iterable[Mapping[str, Any]], processes: int = 1) -> list[Trained]:
        """Train each of ``wanted`` (settings), as many at a time as there are processors.

        Args:
            wanted: settings of each.
            processes: that share a training, data parallel, each with a thread.

        Raises:
            FailedError: a training failed; what it said is in the message.
        """
        asked = [_Training(dict(sorted(settings.items())), processes) for settings in wanted]
        new = {self._file(one): one for one in asked if not self._file(one).is_file()}
        at_a_time = max(1, available_processors() // processes)
        with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
            under_way = [pool.submit(self._train, one) for one in new.values()]
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
        )

    def _train(self, one: _Training) -> None:
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
                line += ["--set", f"{name}={value}"]
        self._call(line)
        config = files.read_json(run / "config.json")
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        metrics = config["metrics"]
        kept = {
            "settings": dict(one.settings),
            "processes": one.processes,
            "top1": metrics["test_top1"],
            "images": metrics["test_images"],
            "train_errors": [round(1 - json.loads(told)["train_top1"], 6) for told in lines],
            "seconds": metrics["train_seconds"],
        }
        files.write_json(self._file(one), kept)
        shutil.rmtree(run, ignore_errors=True)

    def _call(self, line: Sequence[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._lock:
            if self._stopped:
                return
            child = subprocess.Popen(
                line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            self._children.add(child)
        said = child.communicate()[1]
        with self._lock:
            self._children.discard(child)
        if child.returncode and not self._stopped:
            last = said.strip().splitlines()[-1] if said.strip() else f"status {child.returncode}"
            raise FailedError(f"a training of the ablation failed: {last}")
        if child.returncode:
            raise KeyboardInterrupt

    def _stop(self) -> None:
        """Let the trainings that are under way write a checkpoint and stop."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.send_signal(signal.SIGTERM)
