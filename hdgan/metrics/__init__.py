"""Metrics of generated images: segmentation score, PSNR, SSIM, LPIPS, FID and KID, and the evaluator of them all."""

from hdgan.metrics.scores import RunScores

__all__ = ["RunScores"]
