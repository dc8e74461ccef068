"""Metrics of generated images: segmentation score, PSNR, SSIM, LPIPS, FID, KID and spectra, and
the evaluator of them all."""

from hdgan.metrics.scores import RunScores

__all__ = ["RunScores"]
