"""What a training is told: frozen, printable, and checked where a name is misspelt.

``--set training.lr=0.02``, a TOML file and the Python argument ``settings`` all name the same
fields. Layers and models never see these objects: they take plain arguments.
"""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet.data.augment import AugmentConfig
from alexnet.errors import UsageError, unknown_name
from alexnet.runtime import Precision

INFINITE = float("inf")
SEEDS = 1 << 32


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are divided.

    Attributes:
        image_size: side of the network's input in pixels; None is the network's own.
        fit: ``"crop"`` keeps a picture's shape and cuts its center; ``"stretch"`` makes the whole
            picture square, so that nothing at its edges is lost.
        mean: what is subtracted from the pictures: ``"published"``, the network's own, or
            ``"measured"``, the mean color of the training part.
        val_fraction: share of the training part kept aside to choose the epoch on.
        test_fraction: share of a folder without a ``test`` part that is kept aside and read once.
        fold: which of the five folds of ``mnist-5k`` is the test part.
        seed: of the splits.
        workers: processes that decode pictures that are not kept in memory, or threads where that
            is 0; None is 0, and one a processor beside a GPU for pictures that C does not read.
        memory_gb: decoded pictures of a part that take at most so many gigabytes (2^30 bytes) are
            kept in memory, others are read batch by batch; None is 4, and 0 for data that are read
            from where they lie (prepared ones, Hugging Face's).
    """

    image_size: int | None = None
    fit: Literal["crop", "stretch"] | None = None
    mean: Literal["published", "measured"] = "published"
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    fold: int = 0
    seed: int = 0
    workers: int | None = None
    memory_gb: float | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are moved.

    Attributes:
        epochs: passes over the training part.
        batch_size: pictures a step, over all processes.
        micro_batch: pictures that go through the network at once in each process; a larger share
            of the batch is gone through in parts whose gradients are added up. 0 does not divide.
        parallel: how processes share a step: ``"ddp"`` (each takes pictures), ``"hybrid"`` (and
            fc6 to fc8 are divided; Krizhevsky 2014) or ``"towers"`` (two, a tower each; 2012).
        optimizer: ``"sgd"``, ``"paper"`` (the update rule of Krizhevsky et al. 2012, section 5,
            which keeps the rate inside the momentum), ``"adamw"`` or ``"lars"`` (You et al. 2017;
            timm's).
        lr: the largest learning rate.
        momentum: of SGD.
        nesterov: SGD looks ahead.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW).
        decay: ``"all"`` parameters, or ``"weights"``: biases and normalizations do not decay.
        bias_lr: a rate of the biases' own, constant throughout and without decay; 0 has none.
        trust: LARS's coefficient.
        schedule: ``"cosine"`` or ``"poly"`` (see ``power``) to zero, ``"constant"``, ``"step"`` (a
            tenth at 1/3 and 2/3), ``"milestones"`` (a tenth after each of those epochs), or
            ``"plateau"`` (a tenth when the validation score has not risen for ``plateau`` epochs),
            or ``"table"`` (each epoch's rate is in ``rates``).
        rates: of the epochs, in place of ``lr``; the last one stays.
        power: of the polynomial schedule.
        milestones: epochs after which the rate falls to a tenth.
        plateau: epochs without a better validation score after which the rate falls.
        drops: how often it falls; training ends at the next plateau.
        warmup: share of the steps over which the rate rises from zero.
        stem_epochs: after which epoch the first layer's rate becomes ``stem_lr``, and after which
            it is not trained any more; 0, 0 is never.
        stem_lr: see ``stem_epochs``.
        clip_norm: largest norm of the gradient of all weights together; 0 does not clip.
        label_smoothing: share of each target spread evenly over the classes.
        class_balance: 0 treats every picture alike, 1 every class alike (logit adjustment,
            Menon et al. 2021, 'Long-tail learning via logit adjustment', equation 10).
        ema: decay of a running average of the weights, which is then what is validated and kept;
            0 keeps none.
        keep: the weights that are kept: ``"best"`` on the validation part, or ``"last"``.
        patience: epochs without a better one before stopping early; 0 never stops early.
        checkpoint_minutes: time between checkpoints within an epoch.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"fp64"`` to check others.
        device: ``"auto"`` or a torch device.
        deterministic: on a GPU, take algorithms that give the same bits each time (a processor's do
            anyway), so that a run which was stopped ends as if it had not been; slower.
        seed: of the weights, the order, augmentation and dropout.
    """

    epochs: int = 20
    batch_size: int = 64
    micro_batch: int = 0
    parallel: Literal["ddp", "hybrid", "towers"] = "ddp"
    optimizer: Literal["sgd", "paper", "adamw", "lars"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0005
    decay: Literal["all", "weights"] = "all"
    bias_lr: float = 0.0
    trust: float = 0.001
    schedule: Literal["cosine", "constant", "step", "milestones", "poly", "plateau", "table"] = (
        "cosine"
    )
    rates: tuple[float, ...] = ()
    power: float = 2.0
    milestones: tuple[int, ...] = ()
    plateau: int = 5
    drops: int = 3
    warmup: float = 0.05
    stem_epochs: tuple[int, int] = (0, 0)
    stem_lr: float = 1e-5
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    ema: float = 0.0
    keep: Literal["best", "last"] = "last"
    patience: int = 0
    checkpoint_minutes: float = 10.0
    precision: Precision = "auto"
    device: str = "auto"
    deterministic: bool = False
    seed: int = 0


@dataclass(frozen=True)
class FinetuneConfig:
    """What is done to a pretrained network.

    Attributes:
        unfreeze: how many of the network's parametrized layers, counted from the end, are trained
            after the head was fitted; 0 stops at the head (a linear probe).
        l2: penalty on the head's weights (for standardized features) while it is fitted alone;
            None chooses it on the validation part.
        share: of the fine-tuned weights in the mean with the head's that is kept in the end; 1
            keeps the fine-tuned weights as they are.
    """

    unfreeze: int = 4
    l2: float | None = None
    share: float = 0.5


@dataclass(frozen=True)
class Config:
    """Everything a training needs beside the data.

    Attributes:
        model: arguments of the network, such as ``{"dropout": 0.3}``.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    finetune: FinetuneConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    def override(self, settings: Mapping[str, Any]) -> Config:
        """A copy with dotted names such as ``"training.lr"`` set to other values.

        Strings are read as the field's type. ``model.*`` are the network's own arguments and are
        checked by the network.

        Raises:
            UsageError: a name that does not exist (the nearest is suggested) or a wrong value.
        """
        config = self
        for name, value in settings.items():
            section, _, key = name.partition(".")
            if section not in self._sections() or not key:
                raise unknown_name("setting", name, self.names())
            if section == "model":
                model = {**config.model, key: _plain(value)}
                config = dataclasses.replace(config, model=model)
                continue
            part = getattr(config, section)
            hints = typing.get_type_hints(type(part))
            if key not in hints:
                raise unknown_name("setting", name, self.names())
            converted = convert(name, value, hints[key])
            try:
                changed = dataclasses.replace(part, **{key: converted})
            except ValueError as error:  # a part that checks its own values
                raise UsageError(f"{section}.{error}") from error
            config = dataclasses.replace(config, **{section: changed})
        config.check()
        return config

    def _sections(self) -> list[str]:
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]

    def names(self) -> list[str]:
        """Every dotted name that can be set, the network's own arguments aside."""
        return [
            f"{section}.{f.name}"
            for section in self._sections()
            if section != "model"
            for f in dataclasses.fields(getattr(self, section))
        ]

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        t, d, f = self.training, self.data, self.finetune or FinetuneConfig()
        rules = (
            ("training.epochs", t.epochs, t.epochs >= 1, "at least 1"),
            ("training.batch_size", t.batch_size, t.batch_size >= 1, "at least 1"),
            ("training.lr", t.lr, 0 < t.lr < INFINITE, "above 0"),
            ("training.momentum", t.momentum, 0 <= t.momentum < 1, "from 0 to below 1"),
            ("training.weight_decay", t.weight_decay, 0 <= t.weight_decay < INFINITE, "0 or more"),
            ("training.warmup", t.warmup, 0 <= t.warmup < 1, "from 0 to below 1"),
            ("training.clip_norm", t.clip_norm, 0 <= t.clip_norm < INFINITE, "0 or more"),
            (
                "training.label_smoothing",
                t.label_smoothing,
                0 <= t.label_smoothing < 1,
                "from 0 to below 1",
            ),
            (
                "training.class_balance",
                t.class_balance,
                0 <= t.class_balance < INFINITE,
                "0 or more",
            ),
            ("training.patience", t.patience, t.patience >= 0, "0 or more"),
            ("training.micro_batch", t.micro_batch, t.micro_batch >= 0, "0 or more"),
            ("training.bias_lr", t.bias_lr, 0 <= t.bias_lr < INFINITE, "0 or more"),
            ("training.trust", t.trust, 0 < t.trust < INFINITE, "above 0"),
            ("training.power", t.power, 0 < t.power < INFINITE, "above 0"),
            (
                "training.milestones",
                t.milestones,
                all(early < late for early, late in itertools.pairwise((0, *t.milestones))),
                "epochs from 1, each later than the one before",
            ),
            (
                "training.rates",
                t.rates,
                all(0 < rate < INFINITE for rate in t.rates)
                and bool(t.rates) == (t.schedule == "table"),
                "rates above 0 with training.schedule=table, and none with another",
            ),
            ("training.plateau", t.plateau, t.plateau >= 1, "at least 1"),
            ("training.drops", t.drops, t.drops >= 0, "0 or more"),
            (
                "training.stem_epochs",
                t.stem_epochs,
                t.stem_epochs == (0, 0) or 0 < t.stem_epochs[0] <= t.stem_epochs[1],
                "two epochs, the second not before the first, or 0,0",
            ),
            ("training.stem_lr", t.stem_lr, 0 < t.stem_lr < INFINITE, "above 0"),
            ("training.ema", t.ema, 0 <= t.ema < 1, "from 0 to below 1"),
            (
                "training.checkpoint_minutes",
                t.checkpoint_minutes,
                0 < t.checkpoint_minutes < INFINITE,
                "above 0",
            ),
            ("data.val_fraction", d.val_fraction, 0 <= d.val_fraction < 1, "from 0 to below 1"),
            ("data.test_fraction", d.test_fraction, 0 <= d.test_fraction < 1, "from 0 to below 1"),
            ("data.workers", d.workers, d.workers is None or d.workers >= 0, "0 or more"),
            (
                "data.memory_gb",
                d.memory_gb,
                d.memory_gb is None or 0 <= d.memory_gb < INFINITE,
                "0 or more, or none",
            ),
            ("training.seed", t.seed, 0 <= t.seed < SEEDS, f"from 0 to below {SEEDS}"),
            ("data.seed", d.seed, 0 <= d.seed < SEEDS, f"from 0 to below {SEEDS}"),
            ("finetune.unfreeze", f.unfreeze, f.unfreeze >= 0, "0 or more"),
            ("finetune.share", f.share, 0 <= f.share <= 1, "from 0 to 1"),
            ("finetune.l2", f.l2, f.l2 is None or 0 <= f.l2 < INFINITE, "0 or more, or none"),
        )
        for name, value, good, wanted in rules:
            if not good:
                raise UsageError(f"{name} is {value}: it must be {wanted}")


def from_dict(content: Mapping[str, Any]) -> Config:
    """The inverse of :meth:`Config.to_dict`."""
    parts: dict[str, dict[str, Any]] = {
        section: {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        for section, fields in content.items()
        if fields is not None
    }
    return Config(
        model=dict(content["model"]),
        data=DataConfig(**parts["data"]),
        training=TrainingConfig(**parts["training"]),
        augment=AugmentConfig(**parts["augment"]),
        finetune=FinetuneConfig(**parts["finetune"]) if parts.get("finetune") else None,
    )


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings of a TOML file as dotted names.

    Raises:
        UsageError: no such file, or not TOML.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: correct it ({error})") from error
    settings: dict[str, Any] = {}
    for section, values in content.items():
        if not isinstance(values, dict):
            raise UsageError(
                f"{path}: {section!r} stands outside a section: write [training] first"
            )
        settings.update({f"{section}.{key}": value for key, value in values.items()})
    return settings


def convert(name: str, value: Any, hint: Any) -> Any:
    """Read ``value`` (a string from the command line, or a TOML value) as the type ``hint``.

    Raises:
        UsageError: it cannot be read so.
    """
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or value in ("none", "None"):
            return None
        return convert(name, value, next(c for c in choices if c is not type(None)))
    if origin is Literal:
        if value not in choices:
            raise UsageError(f"{name} is {value!r}: choose from {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if choices[-1] is Ellipsis and isinstance(parts, list | tuple):  # as many as are given
            parts = [part for part in parts if part != ""]
            return tuple(convert(name, part, choices[0]) for part in parts)
        if not isinstance(parts, list | tuple) or len(parts) != len(choices):
            raise UsageError(
                f"{name} is {value!r}: give {len(choices)} values with a comma between"
            )
        return tuple(
            convert(name, part, choice) for part, choice in zip(parts, choices, strict=True)
        )
    return _scalar(name, value, hint)


def _scalar(name: str, value: Any, kind: type) -> Any:
    text = str(value).strip()
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name} is {text!r}: write true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        kinds = {int: "a whole number", float: "a number"}
        raise UsageError(f"{name} is {text!r}: it must be {kinds.get(kind, kind)}") from None


def _plain(value: Any) -> Any:
    """A network's argument from the command line: a number, true, false or a word."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
