"""PSNR, SSIM, LPIPS, FID and KID by torchmetrics. A metric that is not available says why, and the others are scored.

The scorer FID is the Fréchet distance of the built-in scorer's features. FID's network has to be downloaded; this one
does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from hdgan.losses import as_rgb, rgb_obstacle
from hdgan.metrics.feature_networks import FeatureNetworks, Unavailable

KID_SUBSET = 50
"""Images in each of KID's subsets, or all images if there are fewer."""
LEAST_PIXELS = {"ssim": (11, "its window"), "lpips": (32, "its AlexNet")}
"""Minimum width and height of images for a metric, and the part of it that needs them."""


class ImageMetrics:
    """Compares the images of one run with the photos.

    Args:
        names: from `IMAGE_METRICS`.
        count: total number of images.
        networks: for LPIPS and the distances of distributions; shared by all runs.
        channels: of the images. Networks take RGB; one channel is repeated, and metrics of other images are left out.

    Attributes:
        notes: why a metric is not available, by its name.
    """

    def __init__(self, names: Iterable[str], count: int, networks: FeatureNetworks, channels: int = 3) -> None:
        self.names = tuple(names)
        self.notes: dict[str, str] = {}
        self._metrics: dict[str, Any] = {}
        for name in self.names:
            try:
                if obstacle := _obstacle(name, channels):
                    raise Unavailable(f"its network {obstacle}")
                if name in _OF_DISTRIBUTIONS and count < 2:
                    raise Unavailable("a single image has no distribution")
                self._metrics[name] = _MAKERS[name](count, networks).to(networks.device)
            except Unavailable as reason:
                self.notes[name] = str(reason)

    @torch.inference_mode()
    def add(self, image: Tensor, photo: Tensor) -> None:
        """Compare a batch: both [B, C, H, W] float in [0, 1]."""
        for name, (pixels, what) in LEAST_PIXELS.items():
            if name in self.names and not _obstacle(name, photo.shape[1]) and min(photo.shape[2:]) < pixels:
                self._metrics.pop(name, None)
                self.notes[name] = f"{what} needs images of at least {pixels} pixels per side"
        for name, metric in self._metrics.items():
            pair = (as_rgb(image), as_rgb(photo)) if name in _OF_NETWORKS else (image, photo)
            if name in _OF_DISTRIBUTIONS:
                metric.update(pair[1], real=True)
                metric.update(pair[0], real=False)
            else:
                metric.update(*pair)

    @torch.inference_mode()
    def values(self) -> dict[str, float | None]:
        """All metrics by name; None for those that `notes` explains."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # KID draws subsets of images, which must be the same for every row
            values = {name: metric.compute() for name, metric in self._metrics.items()}
        if "kid" in values:
            values["kid"] = values["kid"][0]  # of the pair (mean, deviation over the subsets)
        return {name: float(values[name]) if name in values else None for name in self.names}


_OF_DISTRIBUTIONS = ("fid", "kid", "scorer_fid")
_OF_NETWORKS = ("lpips", *_OF_DISTRIBUTIONS)


def _obstacle(name: str, channels: int) -> str:
    """Why a metric cannot compare images of so many channels; empty if it can."""
    return rgb_obstacle(channels) if name in _OF_NETWORKS else ""


# torchmetrics takes a second to import, which only an evaluation should cost.


def _psnr(count: int, networks: FeatureNetworks) -> Any:
    from torchmetrics.image import PeakSignalNoiseRatio

    return PeakSignalNoiseRatio(data_range=(0.0, 1.0), dim=(1, 2, 3))


def _ssim(count: int, networks: FeatureNetworks) -> Any:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    return StructuralSimilarityIndexMeasure(data_range=(0.0, 1.0))


def _lpips(count: int, networks: FeatureNetworks) -> Any:
    first = networks.lpips()
    return deepcopy(first, {id(first.net): first.net})  # with sums of its own, but the same network


def _fid(count: int, networks: FeatureNetworks) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=networks.inception(), normalize=True)


def _kid(count: int, networks: FeatureNetworks) -> Any:
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the memory that the features of all images take
        return KernelInceptionDistance(feature=networks.inception(), subset_size=min(KID_SUBSET, count), normalize=True)


def _scorer_fid(count: int, networks: FeatureNetworks) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=networks.scorer(), normalize=True)


_MAKERS: dict[str, Callable[[int, FeatureNetworks], Any]] = {
    "psnr": _psnr,
    "ssim": _ssim,
    "lpips": _lpips,
    "fid": _fid,
    "kid": _kid,
    "scorer_fid": _scorer_fid,
}
