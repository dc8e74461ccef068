"""Comparison of trained runs on held-out samples, and training of the scorer."""

from hdgan.evaluation.scorer_training import ScorerTraining, train_scorer
from hdgan.evaluation.scoring import evaluate

__all__ = ["ScorerTraining", "evaluate", "train_scorer"]
