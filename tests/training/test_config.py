from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import UsageError
from alexnet.training.config import (
    Config,
    DataConfig,
    FinetuneConfig,
    TrainingConfig,
    convert,
    from_dict,
    read_toml,
)
from alexnet.training.recipes import RECIPES, get_recipe


def test_text_from_the_command_line_becomes_the_field_s_type() -> None:
    config = Config(finetune=FinetuneConfig()).override(
        {
            "training.epochs": "7",
            "training.lr": "2e-2",
            "training.nesterov": "True",
            "training.optimizer": "adamw",
            "data.image_size": "96",
            "augment.scale": "0.5, 2",
            "finetune.l2": "none",
            "model.dropout": "0.3",
            "model.hidden": "128",
            "model.lrn": "false",
            "model.activation": "relu",
        }
    )
    assert config.training.epochs == 7
    assert config.training.lr == 0.02
    assert config.training.nesterov is True
    assert config.training.optimizer == "adamw"
    assert config.data.image_size == 96
    assert config.augment.scale == (0.5, 2.0)
    assert config.finetune is not None
    assert config.finetune.l2 is None
    assert config.model == {"dropout": 0.3, "hidden": 128, "lrn": False, "activation": "relu"}
    assert config.training.batch_size == TrainingConfig().batch_size


def test_values_of_python_and_toml_are_taken_as_they_are() -> None:
    settings = {"training.lr": 1, "data.image_size": None, "augment.scale": [0.5, 2]}
    config = Config().override({**settings, "training.nesterov": False, "model.hidden": 3})
    assert config.training.lr == 1.0
    assert isinstance(config.training.lr, float)
    assert config.data.image_size is None
    assert config.augment.scale == (0.5, 2.0)
    assert config.model == {"hidden": 3}


def test_overriding_leaves_the_original_alone() -> None:
    config = Config(model={"hidden": 1})
    config.override({"training.epochs": 99, "model.hidden": 2})
    assert config == Config(model={"hidden": 1})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("training.epoch", "did you mean 'training.epochs'"),
        ("data.imagesize", "did you mean 'data.image_size'"),
        ("augment.miror", "did you mean 'augment.mirror'"),
        ("trainig.lr", "did you mean 'training.lr'"),
        ("lr", "unknown setting 'lr'"),
        ("training", "unknown setting 'training'"),
        ("training.", "unknown setting 'training.'"),
        ("finetune.unfreeze", "unknown setting 'finetune.unfreeze'"),  # not of this recipe
    ],
)
def test_a_name_that_does_not_exist_gets_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config().override({name: "1"})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("training.epochs", "two", "training.epochs is 'two': it must be a whole number"),
        ("training.epochs", "2.5", "training.epochs is '2.5': it must be a whole number"),
        ("training.epochs", 2.5, "training.epochs is '2.5': it must be a whole number"),
        ("training.epochs", [1], "training.epochs is '[1]': it must be a whole number"),
        ("training.epochs", None, "training.epochs is 'None': it must be a whole number"),
        ("training.lr", "fast", "training.lr is 'fast': it must be a number"),
        ("training.lr", {"a": 1}, "it must be a number"),
        ("training.nesterov", "1", "training.nesterov is '1': write true or false"),
        ("training.keep", "all", "training.keep is 'all': choose from best, last"),
        ("data.image_size", "wide", "data.image_size is 'wide': it must be a whole number"),
        ("augment.scale", "1", "augment.scale is '1': give 2 values with a comma between"),
        ("augment.scale", "1,2,3", "give 2 values with a comma between"),
        ("augment.scale", 5, "augment.scale is 5: give 2 values with a comma between"),
        ("augment.scale", "1,b", "augment.scale is 'b': it must be a number"),
    ],
)
def test_a_value_of_the_wrong_kind(name: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config().override({name: value})
    assert said in str(caught.value)


OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "training.epochs": (0, -1),
    "training.batch_size": (0,),
    "training.lr": (0, -0.1, "nan", "inf"),
    "training.momentum": (-0.1, 1, "nan"),
    "training.weight_decay": (-1, "inf", "nan"),
    "training.warmup": (-0.1, 1),
    "training.clip_norm": (-1, "nan", "inf"),
    "training.label_smoothing": (-0.1, 1),
    "training.class_balance": (-1, "inf"),
    "training.patience": (-1,),
    "training.micro_batch": (-1,),
    "training.bias_lr": (-0.1, "nan", "inf"),
    "training.trust": (0, -1, "nan", "inf"),
    "training.power": (0, -1, "nan", "inf"),
    "training.milestones": ("0", "3,3", "5,4", "-1,2"),
    "training.rates": ("0", "-1,1", "nan", "inf", "0.1"),  # the last without its schedule
    "training.plateau": (0,),
    "training.drops": (-1,),
    "training.stem_epochs": ("0,5", "5,4", "-1,3", "3,0"),
    "training.stem_lr": (0, -1, "nan", "inf"),
    "training.ema": (-0.1, 1, "nan"),
    "training.checkpoint_minutes": (0, -1, "nan", "inf"),
    "training.seed": (-1, 1 << 32),
    "data.val_fraction": (-0.1, 1),
    "data.test_fraction": (-0.1, 1),
    "data.workers": (-1,),
    "data.memory_gb": (-1, "nan", "inf"),
    "data.seed": (-1, 1 << 32),
    "augment.mirror": (-0.1, 1.1, "nan"),
    "augment.erase": (1.5,),
    "augment.brightness": (2,),
    "augment.contrast": (-1,),
    "augment.saturation": (3,),
    "augment.rotate": (-1, "nan"),
    "augment.shift": (-1,),
    "augment.aspect": (-1,),
    "augment.shear": (-1, 90),
    "augment.scale": ("0,1", "2,1", "nan,nan"),
    "augment.share": (0,),
    "augment.pca": (-0.1, "nan", "inf"),
    "augment.pca_until": (-1,),
    "augment.pca_divide": (0.9, "nan", "inf"),
    "augment.randaugment": (-1,),
    "augment.magnitude": (-1, 30.5, "nan"),
    "augment.mixup": (-0.1, "nan", "inf"),
    "augment.cutmix": (-0.1, "nan", "inf"),
    "finetune.unfreeze": (-1,),
    "finetune.l2": (-1, "nan", "inf"),
    "finetune.share": (-0.1, 1.1),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Config(finetune=FinetuneConfig()).override({name: value})
    said = str(caught.value)
    assert said.startswith(name)
    assert "must" in said


def test_every_number_that_can_be_set_has_a_range() -> None:
    free = {"data.fold", "data.image_size"}  # what the data and the network allow
    numbers = set()
    for section in ("data", "training", "finetune", "augment"):
        part = getattr(Config(finetune=FinetuneConfig()), section)
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            kinds = set(typing.get_args(hints[field.name])) or {hints[field.name]}
            if kinds & {int, float}:
                numbers.add(f"{section}.{field.name}")
    assert numbers - free == OUT_OF_RANGE.keys()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_its_trip_through_json(name: str) -> None:
    config = get_recipe(name).override({"model.hidden": 3, "augment.scale": "0.5,2"})
    config.check()
    again = from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    again.check()


def test_a_recipe_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="did you mean 'lenet-modern'"):
        get_recipe("lenet-moden")


def test_a_toml_file_becomes_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        "[training]\nepochs = 3\nlr = 0.5\nnesterov = true\n"
        '[model]\nactivation = "relu"\n[augment]\nscale = [0.5, 2]\n',
        encoding="utf-8",
    )
    settings = read_toml(path)
    assert settings == {
        "training.epochs": 3,
        "training.lr": 0.5,
        "training.nesterov": True,
        "model.activation": "relu",
        "augment.scale": [0.5, 2],
    }
    config = Config().override(settings)
    assert config.training.epochs == 3
    assert config.augment.scale == (0.5, 2.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[training", "is not valid TOML: correct it"),
        (b"epochs = 3", "'epochs' stands outside a section: write [training] first"),
        (b"a = '\xff'", "is not valid TOML: correct it"),
    ],
)
def test_a_toml_file_that_is_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_toml(tmp_path / "bad.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_toml_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*gone\.toml \(No such file"):
        read_toml(tmp_path / "gone.toml")


def test_convert_reads_optional_values() -> None:
    assert convert("x", "none", int | None) is None
    assert convert("x", "3", int | None) == 3
    assert convert("x", " 3 ", int) == 3


def test_the_names_that_can_be_set_are_those_of_the_parts() -> None:
    names = Config().names()
    assert {"data.image_size", "training.lr", "augment.mirror"} <= set(names)
    assert not [name for name in names if name.startswith(("model.", "finetune."))]
    assert "finetune.l2" in Config(finetune=FinetuneConfig()).names()
    assert len(names) == len(set(names))
    assert DataConfig().image_size is None
