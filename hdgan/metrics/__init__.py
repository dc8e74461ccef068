"""Metrics of generated images: segmentation score, PSNR, SSIM, LPIPS, FID, KID and spectra."""

from hdgan.metrics.scores import RunScores

__all__ = ["RunScores"]
