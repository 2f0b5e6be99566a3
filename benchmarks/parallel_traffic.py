"""What each process sends a step: data parallelism against the hybrid of 2014, and two towers.

Claim: at 128 pictures a process, two processes and fp32, `hybrid` sends at least 8 times fewer
bytes a step than `ddp` for `alexnet`. The bytes are those that the kernel counted on the TCP
connections of the first process (gloo over loopback), in one whole training step after a first one;
4 and 8 processes stand beside, and what the formula says of `ddp`.

    python benchmarks/parallel_traffic.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _record
import torch
import torch.distributed as dist

from alexnet.data.augment import AugmentConfig
from alexnet.data.loader import MemoryPixels
from alexnet.models.registry import create_model, input_spec
from alexnet.runtime import process_group, resolve
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_loss
from alexnet.training.share import share_of
from alexnet.training.sharing import share_work
from alexnet.training.state import TrainingState
from alexnet.training.step import Stepper, set_training
from alexnet.training.sums import Sums
from alexnet.training.traffic import bytes_sent, data_parallel_bytes

A_PROCESS = 128
FLOOR = 8.0
SCHEMES = {2: ("ddp", "hybrid", "towers"), 4: ("ddp", "hybrid"), 8: ("ddp", "hybrid")}


def worker(scheme: str, path: Path) -> None:
    """One of the processes: a small step, then one that is counted."""
    with process_group():
        runtime = resolve("cpu", "fp32")
        network = create_model("alexnet", preset="original")
        config = TrainingConfig(parallel=scheme, micro_batch=16)  # type: ignore[arg-type]
        parallel = share_work(network, config, runtime)
        state = TrainingState(parallel, config, runtime)
        spec = input_spec("alexnet")
        total = A_PROCESS * runtime.world_size
        pixels = MemoryPixels(
            torch.randint(0, 256, (16, 3, spec.resize, spec.resize), dtype=torch.uint8),
            torch.arange(total) % 1000,
            [str(number) for number in range(total)],
            torch.arange(total) % 16,
        )
        loss_of = build_loss(network, config, torch.ones(1000))
        stepper = Stepper(
            state, spec, config, AugmentConfig(crop=True), None, 1000, runtime, loss_of
        )
        sums = Sums({}, parallel, runtime.device)
        set_training(parallel.trained)
        place = (parallel.data_rank, parallel.data_count)
        plan = (torch.arange(2 * runtime.world_size), torch.arange(total))
        shares = [share_of(batch, *place) for batch in plan]
        sent = []
        with runtime.active():
            stream = pixels.batches(share.indices for share in shares)
            for number, (images, labels, _) in enumerate(stream):
                dist.barrier()
                before = bytes_sent()
                stepper.step(images, labels, shares[number], 0, number, sums)
                dist.barrier()
                after = bytes_sent()
                assert before is not None
                assert after is not None
                sent.append(after - before)
        if runtime.rank == 0:
            weights = sum(p.numel() for p in network.parameters())
            result = {
                "sent": sent[-1],
                "ddp_by_formula": data_parallel_bytes(weights, runtime.world_size),
            }
            path.write_text(json.dumps(result))


def measure(scheme: str, processes: int) -> dict[str, Any]:
    """Start the processes and read what the first one counted."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "result.json"
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        line += ["--nproc-per-node", str(processes), __file__, scheme, str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(line, env=environment, check=True, stderr=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(path.read_text())
    print(scheme, processes, result, flush=True)
    return result


def main() -> int:
    """Count for 2, 4 and 8 processes; 1 when the claim does not hold."""
    if len(sys.argv) == 3:
        worker(sys.argv[1], Path(sys.argv[2]))
        return 0
    rows = []
    for processes, schemes in SCHEMES.items():
        counted = {scheme: measure(scheme, processes) for scheme in schemes}
        rows.append(
            {
                "processes": processes,
                **{f"{scheme}_bytes": found["sent"] for scheme, found in counted.items()},
                "ddp_by_formula": counted["ddp"]["ddp_by_formula"],
                "ddp_over_hybrid": round(counted["ddp"]["sent"] / counted["hybrid"]["sent"], 2),
            }
        )
    result = {
        "claim": f"hybrid sends at least {FLOOR} times fewer bytes a step than ddp (2 processes)",
        "pictures_a_process": A_PROCESS,
        "rows": rows,
        "holds": rows[0]["ddp_over_hybrid"] >= FLOOR,
    }
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
