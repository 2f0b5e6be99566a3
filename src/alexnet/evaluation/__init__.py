"""What a network scores on labeled pictures."""

from alexnet.evaluation.evaluate import evaluate, score
from alexnet.evaluation.metrics import Evaluation, Mistake, Tally

__all__ = ["Evaluation", "Mistake", "Tally", "evaluate", "score"]
