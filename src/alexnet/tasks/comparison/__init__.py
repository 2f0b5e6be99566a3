"""Networks side by side: the lecture's table, measured."""

from alexnet.tasks.comparison.compare import compare

__all__ = ["compare"]
