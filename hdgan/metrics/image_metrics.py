"""PSNR, SSIM, LPIPS, FID and KID by torchmetrics. A metric that is not available says why, and the others are scored.

The metrics of torchmetrics are told not to synchronise: they would otherwise wait for the other processes of a run,
which do not compute them.

The scorer FID is the Fréchet distance of the built-in scorer's features. FID's network has to be downloaded; this one
does not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.losses import as_rgb, rgb_obstacle
from hdgan.metrics.feature_networks import FeatureNetworks, Features, Unavailable

KID_SUBSET = 50
"""Images in each of KID's subsets, or all images if there are fewer."""
LEAST_PIXELS = {"ssim": (11, "its window"), "lpips": (32, "its AlexNet")}
"""Minimum width and height of images for a metric, and the part of it that needs them."""
_NETWORKS = {"fid": "inception", "kid": "inception", "scorer_fid": "scorer"}
"""The network whose features a distance of distributions compares; a method of `FeatureNetworks` makes it."""
_OF_NETWORKS = ("lpips", *_NETWORKS)


@dataclass(frozen=True)
class ImageMeasures:
    """What one image adds to the metrics of its row, on the CPU, so that processes can exchange it."""

    values: dict[str, float] = field(default_factory=dict)
    """Metrics that are the mean over the images, by name."""
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """The features of the image and of its photo, each [1, F] float32, by the name of the network."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why a metric cannot measure this image, by its name."""


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
        self.names, self.count, self.device = tuple(names), count, networks.device
        self.notes: dict[str, str] = {}
        self._lpips: Any = None
        self._networks: dict[str, Features] = {}
        self._measures: list[ImageMeasures] = []
        for name in self.names:
            try:
                if obstacle := _obstacle(name, channels):
                    raise Unavailable(f"its network {obstacle}")
                if name in _NETWORKS and count < 2:
                    raise Unavailable("a single image has no distribution")
                if name == "lpips":
                    self._lpips = networks.lpips()
                elif name in _NETWORKS:
                    self._networks[_NETWORKS[name]] = getattr(networks, _NETWORKS[name])()
            except Unavailable as reason:
                self.notes[name] = str(reason)

    @torch.inference_mode()
    def measure(self, image: Tensor, photo: Tensor) -> ImageMeasures:
        """Compare an image with its photo: both [1, C, H, W] float in [0, 1]."""
        measures = ImageMeasures()
        for name, (pixels, what) in LEAST_PIXELS.items():
            if name in self.names and not _obstacle(name, photo.shape[1]) and min(photo.shape[2:]) < pixels:
                measures.notes[name] = f"{what} needs images of at least {pixels} pixels per side"
        for name in self._available() - measures.notes.keys():
            if name == "psnr":
                measures.values[name] = _psnr(image, photo)
            elif name == "ssim":
                measures.values[name] = _ssim(image, photo)
            elif name == "lpips":
                self._lpips.reset()
                self._lpips.update(as_rgb(image), as_rgb(photo))
                measures.values[name] = float(self._lpips.compute())
        for name, network in self._networks.items():
            of_photo = network(as_rgb(photo))  # first, since the network keeps what it has seen last
            measures.features[name] = network(as_rgb(image)).cpu(), of_photo.cpu()
        return measures

    def add(self, measures: ImageMeasures) -> None:
        """Add what was measured of the next image."""
        self.notes |= measures.notes
        self._measures.append(measures)

    @torch.inference_mode()
    def values(self) -> dict[str, float | None]:
        """All metrics by name; None for those that `notes` explains."""
        values: dict[str, float | None] = dict.fromkeys(self.names)
        for name in self._available():
            if name in _NETWORKS:
                values[name] = self._distance(name)
            else:
                values[name] = math.fsum(one.values[name] for one in self._measures) / len(self._measures)
        return values

    def _available(self) -> set[str]:
        return set(self.names) - self.notes.keys()

    def _distance(self, name: str) -> float:
        """Fréchet's distance or KID of the features of all images, by torchmetrics."""
        pairs = [one.features[_NETWORKS[name]] for one in self._measures]
        images, photos = (torch.cat(features).to(self.device).double() for features in zip(*pairs, strict=True))
        metric = _METRICS[name](self.count, _Given(images.shape[1])).to(self.device)
        metric.update(photos, real=True)
        metric.update(images, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # KID draws subsets of images, which must be the same for every row
            result = metric.compute()
        distance = result[0] if name == "kid" else result  # KID's second value is its deviation over the subsets
        return float(distance.float())  # features have no more digits, and those beyond depend on the threads


def _obstacle(name: str, channels: int) -> str:
    """Why a metric cannot compare images of so many channels; empty if it can."""
    return rgb_obstacle(channels) if name in _OF_NETWORKS else ""


def _psnr(image: Tensor, photo: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values that are limited to [0, 1]; infinite for equal images."""
    error = _mean((image.clamp(0, 1) - photo.clamp(0, 1)).square())
    return 10 * math.log10(1 / error) if error else math.inf


def _ssim(image: Tensor, photo: Tensor) -> float:
    """The structural similarity of Wang et al. (2004), by torchmetrics."""
    # torchmetrics takes a second to import, which only an evaluation should cost.
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, similarity = structural_similarity_index_measure(image, photo, data_range=(0.0, 1.0), return_full_image=True)
    return _mean(similarity)


def _mean(values: Tensor) -> float:
    """The mean of all values [1, C, H, W] in float64, the same for any number of threads.

    PyTorch divides a sum to one number among the threads, but not the sums along a dimension.
    """
    return float(values.sum(-1, dtype=torch.float64).sum(-1).sum(-1)) / values.numel()


class _Given(nn.Module):
    """Features that are known already, as the network of torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _frechet(count: int, given: _Given) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=given, normalize=True, sync_on_compute=False)


def _kid(count: int, given: _Given) -> Any:
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the memory that the features of all images take
        return KernelInceptionDistance(
            feature=given, subset_size=min(KID_SUBSET, count), normalize=True, sync_on_compute=False
        )


_METRICS = {"fid": _frechet, "kid": _kid, "scorer_fid": _frechet}
