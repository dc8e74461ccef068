"""PSNR, SSIM, LPIPS, FID and KID by torchmetrics; what cannot be had says why, and the rest goes on.

LPIPS and FID, KID need networks trained on ImageNet, which torchmetrics takes from torchvision and torch-fidelity and
downloads. Without them the scorer FID stands in: Fréchet's distance of the built-in scorer's features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.evaluation.scores import IMAGE_METRICS
from hdgan.models.segmenter import Segmenter

LPIPS_PIXELS = 32
"""Least width and height of a picture for LPIPS: its AlexNet pools smaller ones away."""
KID_SUBSET = 50
"""Pictures of each of KID's subsets, where there are as many."""


class ImageMetrics:
    """Compares the pictures of one run with the photos.

    Args:
        segmenter: of the scorer FID, or None.
        size: (width, height) of the smallest picture.
        count: pictures.
        device: where they are.

    Attributes:
        notes: why a metric cannot be had, by its name.
    """

    def __init__(self, segmenter: Segmenter | None, size: tuple[int, int], count: int, device: torch.device) -> None:
        # torchmetrics takes a second to import: only who evaluates waits.
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

        self.notes: dict[str, str] = {}
        self._paired: dict[str, Any] = {
            "psnr": PeakSignalNoiseRatio(data_range=(0.0, 1.0), dim=(1, 2, 3)),
            "ssim": StructuralSimilarityIndexMeasure(data_range=(0.0, 1.0)),
        }
        self._distributions: dict[str, Any] = {}
        if min(size) < LPIPS_PIXELS:
            self.notes["lpips"] = f"pictures of {size[0]}x{size[1]} are smaller than {LPIPS_PIXELS} pixels"
        else:
            self._try(self._paired, "lpips", _lpips)
        if count < 2:
            self.notes |= dict.fromkeys(("fid", "kid", "scorer_fid"), "one picture has no distribution")
        else:
            self._try(self._distributions, "fid", _fid)
            self._try(self._distributions, "kid", lambda: _kid(count))
            if segmenter is None:
                self.notes["scorer_fid"] = "needs the features of hdgan's own scorer: --train-scorer"
            else:
                self._distributions["scorer_fid"] = _scorer_fid(segmenter)
        for metric in (*self._paired.values(), *self._distributions.values()):
            metric.to(device)

    @torch.inference_mode()
    def add(self, picture: Tensor, photo: Tensor) -> None:
        """Compare a batch: both [B, 3, H, W] float in [0, 1]."""
        for metric in self._paired.values():
            metric.update(picture, photo)
        for metric in self._distributions.values():
            metric.update(photo, real=True)
            metric.update(picture, real=False)

    @torch.inference_mode()
    def values(self) -> dict[str, float | None]:
        """All metrics by name; None for those that `notes` explains."""
        values = {name: metric.compute() for name, metric in (self._paired | self._distributions).items()}
        if "kid" in values:
            values["kid"] = values["kid"][0]  # the mean; the deviation over subsets is left out
        return {name: float(values[name]) if name in values else None for name in IMAGE_METRICS}

    def _try(self, metrics: dict[str, Any], name: str, make: Callable[[], Any]) -> None:
        try:
            metrics[name] = make()
        except (ModuleNotFoundError, OSError) as error:  # no library, or no network to download weights by
            self.notes[name] = _reason(error)


class _Pooled(nn.Module):
    """The scorer's features as torchmetrics asks for them."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.num_features = sum(segmenter.feature_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map pictures [B, 3, H, W] in [0, 1] to features [B, num_features]."""
        return self.segmenter.pooled_features(image * 2 - 1)


def _lpips() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)


def _fid() -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=2048, normalize=True)


def _kid(count: int) -> Any:
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the memory that the features of all pictures take
        return KernelInceptionDistance(subset_size=min(KID_SUBSET, count), normalize=True)


def _scorer_fid(segmenter: Segmenter) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=_Pooled(segmenter), normalize=True)


def _reason(error: Exception) -> str:
    """Torchmetrics' explanation in one line: its first sentence, and the remedy."""
    if isinstance(error, ModuleNotFoundError):
        return "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
    return f"its network's weights cannot be downloaded ({' '.join(str(error).split())})"
