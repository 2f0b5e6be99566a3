"""A prepared data set: made, killed and made again, and trained from in memory that does not grow.

Claims: `alexnet prepare` killed half-way and called again leaves the bytes of a run that was not
killed; training from what it wrote takes less than 1.5 GB of anonymous memory above what the same
training takes of pictures that lie in memory, over all processes, and no more for ten times as many
pictures. Anonymous memory is Pss_Anon of /proc/PID/smaps_rollup, which counts a page that processes
share once; the tensors that workers hand over lie in shared memory and are told apart (Pss_Shmem).

    python benchmarks/prepare_memory.py /usr/share/backgrounds
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _record
import numpy as np
import psutil
from PIL import Image

LIMIT_GB = 1.5
GROWTH = 0.1
"""More memory for ten times the pictures, as a share of the limit, that is still the same."""
CLASSES = 4
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SETTINGS = {"training.epochs": 1, "training.batch_size": 128, "training.precision": "fp32"}


def make_photographs(wallpapers: Path, folder: Path, count: int) -> None:
    """Crops of about 500x375 of large photographs, an equal number a class."""
    random = np.random.default_rng(0)
    paths = sorted(path for path in wallpapers.rglob("*") if path.suffix.lower() in SUFFIXES)
    sources = [source for path in paths if (source := _opened(path)) is not None]
    if not sources:
        sys.exit(f"{wallpapers} holds no photographs: name a folder that does")
    for number in range(count):
        place = folder / f"class {number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        source = sources[random.integers(len(sources))]
        width, height = (int(side * random.uniform(0.9, 1.1)) for side in (500, 375))
        zoom = random.uniform(1, min(source.width / width, source.height / height))
        across, down = int(width * zoom), int(height * zoom)
        left = int(random.integers(source.width - across + 1))
        top = int(random.integers(source.height - down + 1))
        crop = source.resize((width, height), box=(left, top, left + across, top + down))
        crop.save(place / f"{number:05}.jpg", quality=92)


def _opened(path: Path) -> Image.Image | None:
    """A wallpaper at 2,000 pixels at most; None where it is too small or no picture."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2000, 2000))
            picture = image.convert("RGB")
    except (OSError, ValueError):
        return None
    picture.thumbnail((2000, 2000))
    return picture if picture.width >= 600 and picture.height >= 450 else None


def command(*words: object) -> list[str]:
    """The command line of alexnet."""
    return [sys.executable, "-m", "alexnet", *map(str, words)]


def timed(line: Sequence[str]) -> float:
    """Run to the end; the seconds it took."""
    began = time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def kill_half_way(line: Sequence[str], packed: Path, shards: int) -> int:
    """Start, kill when half of the shards are written; how many there are."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(packed.glob(".preparing/*-*.json"))) < shards // 2:
        if process.poll() is not None:
            sys.exit("prepare was done before it could be killed: ask for more --pictures")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(packed.glob(".preparing/*-*.json")))


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def repeated(packed: Path, folder: Path, times: float) -> int:
    """A prepared folder of the same shards, listed several times (or some of them); its pictures.

    The manifest lists a shard as often as it is to be read; the files are linked, not copied.
    """
    folder.mkdir()
    (folder / "train").symlink_to(packed / "train")
    manifest = json.loads((packed / "prepared.json").read_text())
    part = manifest["parts"]["train"]
    shards = part["shards"]
    few = [shards[0], shards[-1]]  # of different classes
    part["shards"] = few if times < 1 else shards * int(times)
    part["images"] = manifest["images"] = sum(shard["images"] for shard in part["shards"])
    (folder / "prepared.json").write_text(json.dumps(manifest))
    return part["images"]


class Sampler(threading.Thread):
    """The largest sums over a process and all below it, looked at every 50 ms."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.ended = psutil.Process(pid), threading.Event()
        self.peaks = {"Pss_Anon": 0, "Pss_Shmem": 0}

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.05):
            totals = dict.fromkeys(self.peaks, 0)
            for process in self._processes():
                for name, value in _rollup(process.pid).items():
                    if name in totals:
                        totals[name] += value
            for name, value in totals.items():
                self.peaks[name] = max(self.peaks[name], value)

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _rollup(pid: int) -> dict[str, int]:
    """Bytes by name; nothing for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {word[0].rstrip(":"): int(word[1]) * 1024 for word in words if len(word) == 3}


def train(data: Path, run: Path, model: str, **settings: Any) -> dict[str, float]:
    """One epoch; seconds, pictures a second, and the peaks in GB (10^9 bytes)."""
    line = command("train", data, "-m", model, "-o", run)
    for name, value in (SETTINGS | settings).items():
        line += ["--set", f"{name}={value}"]
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    sampler = Sampler(process.pid)
    sampler.start()
    said = process.communicate()[1]
    sampler.ended.set()
    sampler.join()
    if process.returncode:
        sys.exit(said)
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    peaks = sampler.peaks
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "training_images_per_second": record["images_per_second"],
        "anonymous_gb": round(peaks["Pss_Anon"] / 1e9, 3),
        "shared_gb": round(peaks["Pss_Shmem"] / 1e9, 3),
    }


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Make, prepare, kill, prepare again, train."""
    photographs, packed, again = work / "photographs", work / "packed", work / "again"
    make_photographs(arguments.wallpapers, photographs, arguments.pictures)
    source = sum(path.stat().st_size for path in photographs.rglob("*.jpg"))
    seconds = timed(command("prepare", photographs, "-o", packed))
    manifest = json.loads((packed / "prepared.json").read_text())
    shards = manifest["parts"]["train"]["shards"]
    killed = kill_half_way(command("prepare", photographs, "-o", again), again, len(shards))
    timed(command("prepare", photographs, "-o", again))
    same = digests(packed) == digests(again)
    trainings: dict[str, Any] = {}
    for name, times in (("alone", 0.5), ("once", 1), ("repeated", arguments.times)):
        count = repeated(packed, work / name, times)
        # "Alone" is the model with a few pictures in memory, read by no other process.
        extra = {"data.memory_gb": 4, "data.workers": 0} if name == "alone" else {}
        size = {"data.image_size": arguments.image_size}
        found = train(work / name, work / f"run {name}", arguments.model, **size, **extra)
        trainings[name] = {"pictures": count, **found}
        print(name, trainings[name], flush=True)
    alone = trainings["alone"]["anonymous_gb"]
    above = {n: round(trainings[n]["anonymous_gb"] - alone, 3) for n in ("once", "repeated")}
    return {
        "claim": f"below {LIMIT_GB} GB above the model's own, the same for ten times the pictures",
        "model": arguments.model,
        "image_size": arguments.image_size,
        "prepare": {
            "pictures": manifest["images"],
            "source_bytes": source,
            "bytes": sum(shard["bytes"] for shard in shards),
            "shards": len(shards),
            "seconds": round(seconds, 2),
            "images_per_second": round(manifest["images"] / seconds, 1),
        },
        "killed": {"after_shards": killed, "the_same_bytes": same},
        "trainings": trainings,
        "anonymous_gb_above_the_model": above,
        "holds": same
        and max(above.values()) < LIMIT_GB
        and above["repeated"] - above["once"] < GROWTH * LIMIT_GB,
    }


def main() -> int:
    """Measure, print, write the result; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wallpapers", type=Path, nargs="?", default="/usr/share/backgrounds")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--model", default="alexnet_owt")
    parser.add_argument("--image-size", type=int, default=63)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    arguments = parser.parse_args()
    work = arguments.keep or Path(tempfile.mkdtemp(prefix="prepare-memory-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        result = measure(arguments, work)
    finally:
        if not arguments.keep:
            shutil.rmtree(work)
    _record.write(__file__, ("torch", "pyarrow", "simplejpeg", "pillow"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
