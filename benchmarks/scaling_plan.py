"""`alexnet plan` foretells steps that can be measured on one machine.

Claim: both within 15% of what is measured, medians of 5 alternating repeats:

    batch  the step of 128 pictures, from those of 8 and 32, with this machine's defaults
    ddp    the step of two processes of one thread (DistributedDataParallel over gloo, loopback),
           from the step of one process while another does the same without exchanging anything,
           and the bandwidth of all-reduces of the same buckets

    python benchmarks/scaling_plan.py           some minutes, on a machine that does nothing else
    python benchmarks/scaling_plan.py --quick   a rehearsal that writes nothing

The second is the plan's bound without overlap: with a core a process, who sends does not compute.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import _record
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import alexnet
from alexnet import runtime
from alexnet.tasks.scaling import Row
from alexnet.tasks.scaling.counts import Counts, count
from alexnet.tasks.scaling.steps import from_points
from alexnet.tasks.scaling.traffic import ddp
from alexnet.training.measure import measure_step

MODEL = "alexnet"
LIMIT = 0.15
SIZES = (8, 32, 128)
BATCH = 16  # of each of the two processes
REPEATS = 5


def spread(runs: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs)}


def verdict(predicted: float, measured: Sequence[float]) -> dict[str, Any]:
    """What was foretold from medians, what was measured, and the error."""
    error = predicted / statistics.median(measured) - 1
    return {
        "predicted_seconds": predicted,
        "measured_seconds": spread(measured),
        "error": error,
        "holds": abs(error) <= LIMIT,
    }


def batch_check(sizes: tuple[int, int, int], repeats: int, counts: Counts) -> dict[str, Any]:
    """The step of the largest batch, from the two smaller."""
    chosen = runtime.resolve()
    network = alexnet.create_model(MODEL)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            steps = 1 if size == sizes[-1] else 3
            times[size].append(measure_step(network, size, chosen, steps).seconds)
    *smaller, largest = sizes
    points = {size: statistics.median(times[size]) for size in smaller}
    cost = from_points(points, counts, "sgd")
    return {
        **verdict(cost.seconds(largest), times[largest]),
        "runtime": chosen.to_dict(),
        "batch_sizes": list(sizes),
        "seconds": {size: spread(runs) for size, runs in times.items()},
        "by_pictures_alone_seconds": points[smaller[-1]] * largest / smaller[-1],
    }


def worker(rank: int, store: str, batch: int, repeats: int, sizes: list[int], results: Any) -> None:
    """One of two processes of one thread; puts its seconds of each kind on ``results``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    chosen = dataclasses.replace(runtime.resolve(), threads=1)
    network = alexnet.create_model(MODEL)
    twin = chosen.place_network(alexnet.create_model(MODEL))
    wrapped = DistributedDataParallel(twin, gradient_as_bucket_view=True)
    buckets = [torch.ones(size // 4) for size in sizes]
    times: dict[str, list[float]] = {"alone": [], "beside": [], "all-reduce": [], "ddp": []}
    for _ in range(repeats):
        dist.barrier()
        if rank == 0:
            times["alone"].append(measure_step(network, batch, chosen).seconds)
        dist.barrier()
        times["beside"].append(measure_step(network, batch, chosen).seconds)
        dist.barrier()
        times["all-reduce"].append(all_reduce(buckets))
        dist.barrier()
        times["ddp"].append(measure_step(wrapped, batch, chosen).seconds)
    results.put((rank, times))
    dist.barrier()
    dist.destroy_process_group()


def all_reduce(buckets: list[torch.Tensor], rounds: int = 3) -> float:
    """Seconds of an all-reduce of all buckets, the first round left out; the median."""
    runs = []
    for _ in range(1 + rounds):
        dist.barrier()
        began = time.perf_counter()
        for bucket in buckets:
            dist.all_reduce(bucket)
        runs.append(time.perf_counter() - began)
    return statistics.median(runs[1:])


def ddp_check(batch: int, repeats: int, counts: Counts) -> dict[str, Any]:
    """The step of two processes, from one beside another and the bandwidth between them."""
    context, exchanges = mp.get_context("spawn"), ddp(counts, 2, batch)
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", batch, repeats, [one.size for one in exchanges], results)
        processes = [context.Process(target=worker, args=(rank, *arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        found = dict(results.get(timeout=600) for _ in processes)
        for process in processes:
            process.join()
    slowest = {
        kind: [max(pair) for pair in zip(found[0][kind], found[1][kind], strict=True)]
        for kind in ("beside", "all-reduce", "ddp")
    }
    sent = sum(one.sent for one in exchanges)
    gbits = [8e-9 * sent / seconds for seconds in slowest["all-reduce"]]
    row = plan(batch, statistics.median(slowest["beside"]), statistics.median(gbits), counts)
    return {
        **verdict(row.step_seconds_apart, slowest["ddp"]),
        "overlapped_seconds": row.step_seconds,
        "batch_size": batch,
        "sent_bytes": sent,
        "alone_seconds": spread(found[0]["alone"]),
        "beside_another_seconds": spread(slowest["beside"]),
        "all_reduce_seconds": spread(slowest["all-reduce"]),
        "network_gbits": spread(gbits),
    }


def plan(batch: int, step: float, gbits: float, counts: Counts) -> Row:
    """The row of two devices; the messages' latency is in the measured bandwidth."""
    found = alexnet.plan_training(
        MODEL,
        gpus=2,
        batch_size=batch,
        step={batch: step},
        network=gbits,
        latency=0,
        parallel="ddp",
        precision=counts.precision,
    )
    return found.rows[-1]


def main() -> int:
    """Measure both, write the result; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description="Check what alexnet plan foretells.")
    parser.add_argument("--quick", action="store_true", help="small batches, two repeats")
    quick = parser.parse_args().quick
    counts = count(MODEL, runtime.resolve().precision)
    repeats = 2 if quick else REPEATS
    by_batch = batch_check((4, 8, 16) if quick else SIZES, repeats, counts)
    print(by_batch, flush=True)
    by_ranks = ddp_check(4 if quick else BATCH, repeats, counts)
    print(by_ranks, flush=True)
    if quick:
        return 0
    holds = by_batch["holds"] and by_ranks["holds"]
    result = {
        "claim": f"steps foretold within {LIMIT:.0%}, medians of {REPEATS} alternating repeats",
        "repeats": REPEATS,
        "batch": by_batch,
        "ddp": by_ranks,
        "holds": holds,
    }
    _record.write(__file__, ("torch",), result)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
