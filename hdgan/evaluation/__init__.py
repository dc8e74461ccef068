"""How good pictures are: a segmentation score, PSNR, SSIM, LPIPS, FID and KID of trained runs on held-out data.

What training takes from here (`confusion`, `scorer`) does not import training; `comparison` is above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdgan.evaluation.comparison import evaluate
    from hdgan.evaluation.scores import RunScores
    from hdgan.evaluation.train import ScorerTraining, train_scorer

__all__ = ["RunScores", "ScorerTraining", "evaluate", "train_scorer"]


def __getattr__(name: str) -> Any:
    """Import what stands above training only when it is asked for."""
    if name in ("ScorerTraining", "train_scorer"):
        from hdgan.evaluation import train

        return getattr(train, name)
    if name == "evaluate":
        from hdgan.evaluation.comparison import evaluate

        return evaluate
    if name == "RunScores":
        from hdgan.evaluation.scores import RunScores

        return RunScores
    raise AttributeError(f"module 'hdgan.evaluation' has no attribute {name!r}")
