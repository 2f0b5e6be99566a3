"""What a network scores on labeled pictures."""

from alexnet.evaluation.evaluate import evaluate
from alexnet.evaluation.metrics import Evaluation, Mistake, Tally
from alexnet.evaluation.score import score

__all__ = ["Evaluation", "Mistake", "Tally", "evaluate", "score"]
