"""Trained runs compared on held-out samples, and the training of the scorer that scores them."""

from hdgan.evaluation.scorer_training import ScorerTraining, train_scorer
from hdgan.evaluation.scoring import evaluate

__all__ = ["ScorerTraining", "evaluate", "train_scorer"]
