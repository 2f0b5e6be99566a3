"""The rival of `keras_step.py`, run by an interpreter that has TensorFlow and nothing of ours.

python benchmarks/_keras_alexnet.py BATCH [WHAT TO ADD TO THE NAMES]
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
from keras import layers


class ResponseNorm(layers.Layer):
    """TensorFlow's own local response normalization; its alpha multiplies the sum.

    Its kernel for processors knows float32 alone, so that Keras casts before and after.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalize ``x``, channels last."""
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=2, alpha=1e-4, beta=0.75)


class BandedNorm(layers.Layer):
    """The same as a product with a band of ones, which runs in any precision."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the band."""
        places = np.arange(shape[-1])
        band = np.abs(places[:, None] - places[None, :]) <= 2
        self.band = tf.constant(band, self.compute_dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalize ``x``, channels last."""
        sums = tf.cast(tf.einsum("nhwc,cd->nhwd", x * x, self.band), tf.float32)
        root = tf.math.rsqrt(2 + 1e-4 * sums)
        return x * tf.cast(root * tf.sqrt(root), x.dtype)


def network(norm: type[layers.Layer]) -> keras.Model:
    """The network of 2012 read as one tower, logits out."""
    conv, pool = functools.partial(layers.Conv2D, activation="relu"), layers.MaxPooling2D
    return keras.Sequential(
        [
            keras.Input((227, 227, 3)),
            conv(96, 11, 4), norm(), pool(3, 2),
            conv(256, 5, padding="same"), norm(), pool(3, 2),
            conv(384, 3, padding="same"), conv(384, 3, padding="same"),
            conv(256, 3, padding="same"), pool(3, 2), layers.Flatten(),
            layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
            layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
            layers.Dense(1000, dtype="float32"),
        ]
    )  # fmt: skip


def step(policy: str, norm: type[layers.Layer], batch: int) -> Callable[[], float]:
    """One call of ``train_on_batch``."""
    keras.mixed_precision.set_global_policy(policy)
    model = network(norm)
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=None),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    pictures = tf.constant(np.random.default_rng(0).normal(size=(batch, 227, 227, 3)), tf.float32)
    labels = tf.constant(np.arange(batch) % 1000)

    def run() -> float:
        began = time.perf_counter()
        model.train_on_batch(pictures, labels)
        return time.perf_counter() - began

    return run


def main() -> None:
    """The protocol of `_alternate.py`: names out, then a name in and seconds out."""
    batch = int(sys.argv[1])
    norms = {"float32": ResponseNorm, "mixed_bfloat16": BandedNorm}  # alike in float32
    about = "".join(sys.argv[2:])
    arms = {f"keras {policy}{about}": step(policy, norm, batch) for policy, norm in norms.items()}
    print(json.dumps(list(arms)), flush=True)
    for line in sys.stdin:
        print(arms[line.strip()](), flush=True)


if __name__ == "__main__":
    main()
