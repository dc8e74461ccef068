"""PSNR, SSIM, LPIPS, FID and KID by torchmetrics; what cannot be had says why, and the rest goes on.

LPIPS and FID, KID need networks trained on ImageNet, which torchmetrics takes from torchvision and torch-fidelity and
downloads. Without them the scorer FID stands in: Fréchet's distance of the built-in scorer's features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.models.segmenter import Segmenter

KID_SUBSET = 50
"""Pictures of each of KID's subsets, where there are as many."""


class ImageMetrics:
    """Compares the pictures of one run with the photos.

    Args:
        names: of `IMAGE_METRICS`.
        count: pictures there will be.
        segmenter: for the scorer FID.
        device: where the pictures are.

    Attributes:
        notes: why a metric cannot be had, by its name.
    """

    def __init__(self, names: Iterable[str], count: int, segmenter: Segmenter | None, device: torch.device) -> None:
        self.names = tuple(names)
        self.notes: dict[str, str] = {}
        self._paired: dict[str, Any] = {}
        self._distributions: dict[str, Any] = {}
        for name in self.names:
            metrics = self._distributions if name in _OF_DISTRIBUTIONS else self._paired
            try:
                metrics[name] = _MAKERS[name](count, segmenter).to(device)
            except _Missing as missing:
                self.notes[name] = str(missing)
            except ModuleNotFoundError:
                self.notes[name] = "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
            except OSError as error:
                self.notes[name] = f"its network's weights cannot be downloaded ({' '.join(str(error).split())})"

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
        return {name: float(values[name]) if name in values else None for name in self.names}


_OF_DISTRIBUTIONS = ("fid", "kid", "scorer_fid")


class _Missing(Exception):
    """A metric cannot be had; says why."""


class _Pooled(nn.Module):
    """The scorer's features as torchmetrics asks for them."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.num_features = sum(segmenter.feature_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map pictures [B, 3, H, W] in [0, 1] to features [B, num_features]."""
        return self.segmenter.pooled_features(image * 2 - 1)


# torchmetrics takes a second to import: only who evaluates waits.


def _psnr(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image import PeakSignalNoiseRatio

    return PeakSignalNoiseRatio(data_range=(0.0, 1.0), dim=(1, 2, 3))


def _ssim(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    return StructuralSimilarityIndexMeasure(data_range=(0.0, 1.0))


def _lpips(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)


def _fid(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    _require_several(count)
    return FrechetInceptionDistance(feature=2048, normalize=True)


def _kid(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image.kid import KernelInceptionDistance

    _require_several(count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the memory that the features of all pictures take
        return KernelInceptionDistance(subset_size=min(KID_SUBSET, count), normalize=True)


def _scorer_fid(count: int, segmenter: Segmenter | None) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    _require_several(count)
    if segmenter is None:
        raise _Missing("needs the features of hdgan's own scorer: --train-scorer")
    return FrechetInceptionDistance(feature=_Pooled(segmenter), normalize=True)


def _require_several(count: int) -> None:
    if count < 2:
        raise _Missing("a single picture has no distribution")


_MAKERS: dict[str, Callable[[int, Segmenter | None], Any]] = {
    "psnr": _psnr,
    "ssim": _ssim,
    "lpips": _lpips,
    "fid": _fid,
    "kid": _kid,
    "scorer_fid": _scorer_fid,
}
