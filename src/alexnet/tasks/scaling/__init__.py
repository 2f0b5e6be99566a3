"""Scaling on paper: time, memory and traffic of a training on many devices."""

from alexnet.tasks.scaling.plan import Row, Training, TrainingPlan, plan_training

__all__ = ["Row", "Training", "TrainingPlan", "plan_training"]
