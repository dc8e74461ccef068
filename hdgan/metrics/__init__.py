"""How good pictures are: segmentation, PSNR, SSIM, LPIPS, FID and KID, and the evaluator that takes them together."""

from hdgan.metrics.scores import RunScores

__all__ = ["RunScores"]
