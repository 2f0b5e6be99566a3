"""AlexNet and LeNet: the exact networks, and a folder of photos made into a classifier.

Names are resolved when they are first used, so that ``import alexnet`` costs nothing::

    import alexnet

    network = alexnet.create_model("alexnet")
    run = alexnet.finetune("photos/", out="runs/photos")
    alexnet.Classifier.load("runs/photos").predict(["cat.jpg"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet import layers as layers
    from alexnet.evaluation.evaluate import evaluate
    from alexnet.evaluation.metrics import Evaluation
    from alexnet.models.registry import create_model, list_models
    from alexnet.models.zoo import register
    from alexnet.spec import InputSpec
    from alexnet.tasks.calibrate import calibrate
    from alexnet.tasks.finetune import finetune
    from alexnet.tasks.predict import Classifier, Prediction
    from alexnet.tasks.prepare import Prepared, prepare
    from alexnet.tasks.run import Run
    from alexnet.tasks.scaling.plan import plan_training
    from alexnet.tasks.train import train

__version__ = "0.1.0"

# Public name -> the module that has it. A module of its own name is itself the value.
_HOMES = {
    "Classifier": "alexnet.tasks.predict",
    "Evaluation": "alexnet.evaluation.metrics",
    "InputSpec": "alexnet.spec",
    "Prediction": "alexnet.tasks.predict",
    "Prepared": "alexnet.tasks.prepare",
    "Run": "alexnet.tasks.run",
    "create_model": "alexnet.models.registry",
    "calibrate": "alexnet.tasks.calibrate",
    "evaluate": "alexnet.evaluation.evaluate",
    "finetune": "alexnet.tasks.finetune",
    "layers": "alexnet.layers",
    "list_models": "alexnet.models.registry",
    "plan_training": "alexnet.tasks.scaling.plan",
    "prepare": "alexnet.tasks.prepare",
    "register": "alexnet.models.zoo",
    "train": "alexnet.tasks.train",
}

__all__ = [
    "Classifier",
    "Evaluation",
    "InputSpec",
    "Prediction",
    "Prepared",
    "Run",
    "__version__",
    "calibrate",
    "create_model",
    "evaluate",
    "finetune",
    "layers",
    "list_models",
    "plan_training",
    "prepare",
    "register",
    "train",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
