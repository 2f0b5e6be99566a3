"""Weights of ``alexnet_owt`` in this package's layout and in torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from safetensors.torch import save

from alexnet.errors import UsageError
from alexnet.files import write_bytes
from alexnet.models.state import to_torchvision
from alexnet.models.weights import load_state
from alexnet.progress import log

NETWORK = "alexnet_owt"
"""The network that torchvision calls ``alexnet``."""
HIDDEN, HEAD = "classifier.1.weight", "classifier.6.weight"


def convert_weights(source: str, target: Path, to: Literal["torchvision", "alexnet"]) -> int:
    """Read weights in either layout and write them, atomically, in the one asked for.

    Args:
        source: whatever :func:`alexnet.models.load_state` reads.
        target: a ``.safetensors`` file; one that exists is replaced.
        to: ``"torchvision"`` (``features.0.weight``) or ``"alexnet"`` (``conv1.weight``).

    Returns:
        The number of tensors.

    Raises:
        UsageError: weights of another network, or a target that is not ``.safetensors``.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} must end in .safetensors: a pickle is not written")
    state = load_state(source, NETWORK)
    if to == "torchvision":
        state = to_torchvision(state)
        if HEAD in state and HIDDEN not in state:
            log.warning(
                "%s has no fc6 and fc7, as fine-tuned runs: of torchvision.models.alexnet it fits "
                "the features alone; its classifier.6 reads the %d values of pool5",
                source,
                state[HEAD].shape[1],
            )
    content = {name: tensor.contiguous() for name, tensor in state.items()}
    write_bytes(target, save(content, metadata={"format": "pt"}))
    return len(content)
