"""Ctrl-C ends a training at the next batch, with a checkpoint; a second one ends it at once.

Where several processes train together, a wish of any of them (to stop, to write a checkpoint) must
be followed by all at the same step: they agree on it, one step later.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

NOTHING, CHECKPOINT, STOP = 0, 1, 2
"""What a process may wish for after a step; the larger wish wins."""


class Agreement:
    """The largest wish of all processes, known to all of them at the same step."""

    def __init__(self) -> None:
        self._under_way: tuple[torch.Tensor, dist.Work] | None = None

    def reach(self, wish: int) -> int:
        """Tell the others of a wish after a step; returns what all agreed on.

        With one process that is the wish itself, with several what they wished for at the step
        before: its answer came while they worked.
        """
        if not dist.is_initialized():
            return wish
        agreed = self.settle()
        ballot = torch.tensor(wish)
        work = dist.all_reduce(ballot, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._under_way = (ballot, work)
        return agreed

    def settle(self) -> int:
        """Wait for the answer that is still under way; all processes call it together."""
        if self._under_way is None:
            return NOTHING
        ballot, work = self._under_way
        self._under_way = None
        work.wait()
        return int(ballot)


class Interrupt:
    """While entered, SIGINT and SIGTERM set ``requested`` instead of breaking a batch in two."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, signal.Handlers] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)  # type: ignore[assignment]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        # A second SIGTERM is the first one once more: Slurm sends it to every process of a job, and
        # torchrun passes on to its processes the one that it got itself.
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
