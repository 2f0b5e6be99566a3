"""How weights are moved: settings, recipes, the loop and its checkpoints."""

from alexnet.training.config import Config, DataConfig, FinetuneConfig, TrainingConfig, read_toml
from alexnet.training.folder import RunFolder
from alexnet.training.loop import Job, fit
from alexnet.training.recipes import RECIPES, get_recipe

__all__ = [
    "RECIPES",
    "Config",
    "DataConfig",
    "FinetuneConfig",
    "Job",
    "RunFolder",
    "TrainingConfig",
    "fit",
    "get_recipe",
    "read_toml",
]
