"""Ten crops cost ten forward passes and no more: a picture is decoded once.

Claim, median of 5 pairs: testing AlexNet on 1,000 JPEGs of 500x375 by ten crops takes at most 10.5
times as long as by the center. The network has random weights, which cost as much.

    python benchmarks/views.py
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from pathlib import Path

import _record
import pipeline
from _alternate import Side, alternate, ratio, serve, spread

import alexnet
from alexnet.evaluation.views import Views
from alexnet.models import save_run
from alexnet.models.registry import input_spec

PICTURES, ROUNDS, MOST = 1000, 5, 10.5


def seconds(classifier: alexnet.Classifier, folder: Path, views: Views) -> float:
    """Wall time of one evaluation, reading included."""
    began = time.perf_counter()
    found = alexnet.evaluate(classifier, folder, views=views, mistakes=0)
    assert found.images == PICTURES
    return time.perf_counter() - began


def main() -> int:
    """Measure; 1 when the claim does not hold."""
    if len(sys.argv) > 1:
        run, folder = map(Path, sys.argv[1:])
        classifier = alexnet.Classifier.load(run)
        kinds: tuple[Views, ...] = ("center", "ten-crop")
        serve({v: functools.partial(seconds, classifier, folder, v) for v in kinds})
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, run = Path(temporary) / "pictures", Path(temporary) / "run"
        pipeline.draw(folder, PICTURES)
        network = alexnet.create_model("alexnet", num_classes=2)
        save_run(run, network, classes=("a", "b"), spec=input_spec("alexnet"))
        side = Side([sys.executable, __file__, str(run), str(folder)])
        times = alternate({"alexnet": side}, ROUNDS)
    found = ratio(times["ten-crop"], times["center"])
    result = {
        "claim": f"ten crops take at most {MOST} times as long as the center",
        "pictures": PICTURES,
        "seconds": {name: spread(values) for name, values in times.items()},
        "ratio": found,
        "holds": found["median"] <= MOST,
    }
    _record.write(__file__, ("torch", "simplejpeg"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
