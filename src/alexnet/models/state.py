"""State dicts: read from files and written, freed of wrappers, converted, and put into networks."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.files import FORMAT_VERSION, write_bytes

# torchvision's alexnet: the places of its convolutions in `features`, its linear layers in
# `classifier`.
TORCHVISION_LAYERS = {
    **{f"features.{place}": f"conv{n}" for n, place in enumerate((0, 3, 6, 8, 10), start=1)},
    **{f"classifier.{place}": f"fc{n}" for n, place in enumerate((1, 4, 6), start=6)},
}
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into keys."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file or a state dict that torch saved, without running any code.

    Raises:
        UsageError: not readable, damaged, or not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than tensors, or is no file of torch's: save its state_dict() with "
            f"torch.save or safetensors and give that"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot read {path} ({reason}): check the path") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise UsageError(f"{path} is damaged ({reason}): get it again") from error
    return unwrap(content, str(path))


def write_state(path: Path, network: nn.Module) -> None:
    """Write a network's state dict as safetensors, whole or not at all.

    Raises:
        UsageError: a folder that cannot be written to.
        FailedError: no space on the disk.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    header = {"format": "pt", "format_version": str(FORMAT_VERSION)}
    write_bytes(path, save(state, metadata=header))


def unwrap(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict inside what training scripts save: wrappers and prefixes are taken off.

    Args:
        content: a mapping of tensors, or one that holds it under a name of ``WRAPPERS``.
        source: where it is from, for the error.

    Raises:
        UsageError: no mapping of names to tensors in it.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f"{source} holds no state dict: save the network's state_dict()")
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UsageError(
                f"{source} is not a state dict ({key!r} is no tensor): save the network's "
                f"state_dict()"
            )
        state[".".join(part for part in key.split(".") if part not in PREFIXES)] = value
    return state


def is_torchvision_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of torchvision's ``alexnet``."""
    return all(key.rpartition(".")[0] in TORCHVISION_LAYERS for key in state)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From torchvision's keys to ours: ``features.0.weight`` becomes ``conv1.weight``.

    Raises:
        UsageError: a key that torchvision's alexnet does not have.
    """
    return _rename(unwrap(state, "the state dict"), TORCHVISION_LAYERS, "torchvision's alexnet")


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From our keys to torchvision's: the inverse of :func:`from_torchvision`, for ``alexnet_owt``.

    Raises:
        UsageError: a key that ``alexnet_owt`` does not have.
    """
    names = {ours: theirs for theirs, ours in TORCHVISION_LAYERS.items()}
    return _rename(state, names, "alexnet_owt")


def _rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], network: str
) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in names:
            raise UsageError(f"{network} has no {key!r}: these are weights of another network")
        renamed[f"{names[layer]}.{kind}"] = value
    return renamed


def load_into(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    covers: Literal["all", "features"] = "all",
    source: str = "the weights",
    assign: bool = False,
) -> None:
    """Put a state dict into a network, all of it or nothing.

    Args:
        network: changed in place; its dtype stays.
        state: tensors under the network's keys.
        covers: with ``"features"`` the state may lack the rest of the network.
        source: what to call the weights in an error.
        assign: make the tensors the network's own in place of copying (for one on ``meta``), but
            for those that begin where torch's never do.

    Raises:
        UsageError: keys or shapes that do not fit, naming the first of them.
    """
    own = network.state_dict()
    name = getattr(network, "model_name", type(network).__name__)
    unknown = [key for key in state if key not in own]
    missing = [key for key in own if key not in state]
    if not assign:  # a counter that old files lack, and that nothing here reads
        missing = [key for key in missing if not key.endswith(".num_batches_tracked")]
    if unknown or (missing and covers == "all"):
        what = [f"missing {_some(missing)}"] if missing and covers == "all" else []
        what += [f"unknown {_some(unknown)}"] if unknown else []
        raise UsageError(
            f"{source} do not fit {name} ({'; '.join(what)}): they are of another architecture; "
            f"name the model they were made for"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise _misfit(network, key, value, own[key], f"{source} do not fit {name}")
    if assign:
        state = {key: _aligned(value.to(own[key].dtype)) for key, value in state.items()}
    network.load_state_dict(state, strict=False, assign=assign)


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor where torch would have put it: at a multiple of 64 bytes.

    Those of a file begin anywhere, and the same numbers are then added in another order.
    """
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _misfit(network: nn.Module, key: str, value: Tensor, own: Tensor, what: str) -> UsageError:
    """Say which argument explains a difference of shape."""
    shapes = f"{key} is {_shape(value)}, the network's {_shape(own)}"
    classifier = getattr(network, "classifier_name", None)
    if key.rpartition(".")[0] == classifier and len(value) != len(own):
        return UsageError(
            f"{what}: they have {len(value)} classes and num_classes={len(own)}: leave num_classes "
            f"out, then reset_classifier({len(own)}), or fine-tune"
        )
    if value.dim() == own.dim() == 4 and value.shape[2:] == own.shape[2:]:
        if value.shape[0] == own.shape[0] and own.shape[1] in (1, 3):
            return UsageError(f"{what} ({shapes}): use in_chans={value.shape[1]}")
    elif value.dim() == own.dim() and len(value) == len(own):
        return UsageError(f"{what} ({shapes}): use the image_size they were made for")
    return UsageError(f"{what} ({shapes}): name the model they were made for")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
