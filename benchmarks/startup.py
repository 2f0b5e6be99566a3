"""The help comes without torch, and a prediction without much more than torch.

Claims, medians of 5 in turn, files cached, the interpreter's start included:

    help     in at most 0.4 s
    predict  `alexnet predict RUN one.jpg` takes at most 1.4 times what `import torch, torchvision`
             takes, for a LeNet-5 and for an AlexNet of 61 million weights

    python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _record
from _alternate import ratio, spread
from PIL import Image

import alexnet
from alexnet.models.pretrained import save_run

RUNS = 5
HELP, PREDICT = 0.4, 1.4
TORCH = "import torch, torchvision"
NETWORKS = ("lenet5_dense", "alexnet")


def commands(folder: Path) -> dict[str, list[str]]:
    """What is started; runs and a picture are made in ``folder``."""
    picture = folder / "one.jpg"
    Image.effect_mandelbrot((500, 375), (-2, -1.5, 1, 1.5), 100).convert("RGB").save(picture)
    made = {
        "interpreter alone": ["-c", "pass"],
        "import alexnet": ["-c", "import sys, alexnet; assert 'torch' not in sys.modules"],
        "alexnet --help": ["-m", "alexnet", "--help"],
        TORCH: ["-c", TORCH],
    }
    for name in NETWORKS:
        save_run(folder / name, alexnet.create_model(name))
        made[f"predict, {name}"] = ["-m", "alexnet", "predict", str(folder / name), str(picture)]
    return made


def seconds(arguments: list[str]) -> float:
    """The wall time of one run of the interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    """Measure, print, write the result; 1 when a claim does not hold."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        measured = commands(Path(temporary))
        for number in range(RUNS + 1):  # in turn, so that a busy moment hits all alike
            for name, arguments in measured.items():
                taken = seconds(arguments)
                if number:  # before: byte code compiled, files cached
                    times.setdefault(name, []).append(taken)
    ratios = {name: ratio(times[f"predict, {name}"], times[TORCH]) for name in NETWORKS}
    result = {
        "claim": f"help in at most {HELP} s; predict at most {PREDICT} times {TORCH!r}",
        "seconds": {name: spread(values) for name, values in times.items()},
        "predict_over_torch": ratios,
        "holds": spread(times["alexnet --help"])["median"] <= HELP
        and all(found["median"] <= PREDICT for found in ratios.values()),
    }
    _record.write(__file__, ("torch", "torchvision", "cyclopts", "rich"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
