"""Trained runs side by side on held-out pictures, and the training of the scorer that rates them."""

from hdgan.evaluation.comparison import evaluate
from hdgan.evaluation.scorer_training import ScorerTraining, train_scorer

__all__ = ["ScorerTraining", "evaluate", "train_scorer"]
