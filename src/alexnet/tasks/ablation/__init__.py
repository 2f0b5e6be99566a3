"""The innovations of AlexNet, measured one by one."""

from alexnet.tasks.ablation.ablate import ablate

__all__ = ["ablate"]
