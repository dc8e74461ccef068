"""Metrics of pictures against photos; without torchvision and torch-fidelity, which tests stand in for."""

from __future__ import annotations

import math
import urllib.error
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.evaluation.image_metrics import ImageMetrics
from hdgan.evaluation.scores import IMAGE_METRICS
from hdgan.models.segmenter import Segmenter, SegmenterConfig

CPU = torch.device("cpu")


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(3, width=2)).eval()


def photos(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def measure(metrics: ImageMetrics, pictures: Tensor, real: Tensor) -> dict[str, float | None]:
    for picture, photo in zip(pictures.split(1), real.split(1), strict=True):
        metrics.add(picture, photo)
    return metrics.values()


def test_psnr_is_the_mean_over_pictures() -> None:
    real = photos(2) * 0.8
    pictures = real.clone()
    pictures[0] += 0.1
    pictures[1] += 0.01
    values = measure(ImageMetrics(["psnr", "ssim"], 2, None, CPU), pictures, real)
    assert values["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert values["ssim"] is not None
    assert 0.9 < values["ssim"] < 1


def test_equal_pictures_are_perfect(segmenter: Segmenter) -> None:
    values = measure(ImageMetrics(["ssim", "scorer_fid"], 4, segmenter, CPU), photos(), photos())
    assert values["ssim"] == pytest.approx(1)
    assert values["scorer_fid"] == pytest.approx(0, abs=1e-4)


def test_the_scorer_fid_is_frechets_distance_of_its_features(segmenter: Segmenter) -> None:
    real, pictures = photos(), photos().square()
    values = measure(ImageMetrics(["scorer_fid"], 4, segmenter, CPU), pictures, real)
    with torch.inference_mode():
        a, b = (segmenter.pooled_features(images * 2 - 1).double() for images in (real, pictures))
    covariances = a.T.cov() @ b.T.cov()
    root = torch.linalg.eigvals(covariances).sqrt().real.sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root
    assert values["scorer_fid"] == pytest.approx(float(expected), rel=1e-3)
    assert values["scorer_fid"] > 0


def test_what_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("Torch-fidelity is not installed")

    def no_network(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("Name or service\nnot known")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", no_network)
    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", no_library)
    monkeypatch.setattr("torchmetrics.image.kid.KernelInceptionDistance", no_library)
    metrics = ImageMetrics(IMAGE_METRICS, 4, None, CPU)
    values = measure(metrics, photos(), photos().square())
    assert [name for name, value in values.items() if value is None] == ["lpips", "fid", "kid", "scorer_fid"]
    library = "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
    assert metrics.notes == {
        "lpips": "its network's weights cannot be downloaded (<urlopen error Name or service not known>)",
        "fid": library,
        "kid": library,
        "scorer_fid": "needs the features of hdgan's own scorer: --train-scorer",
    }


def test_a_single_picture_has_no_distribution(segmenter: Segmenter) -> None:
    metrics = ImageMetrics(IMAGE_METRICS, 1, segmenter, CPU)
    values = measure(metrics, photos(1), photos(1).square())
    for name in ("fid", "kid", "scorer_fid"):
        assert values[name] is None
        assert metrics.notes[name] == "a single picture has no distribution"


class Colours(nn.Module):
    """Stands in for Inception."""

    num_features = 3

    def forward(self, image: Tensor) -> Tensor:
        return image.float().mean((2, 3))


def test_with_their_networks_fid_kid_and_lpips_have_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Distance(nn.Module):
        def update(self, picture: Tensor, photo: Tensor) -> None:
            self.value = (picture - photo).abs().mean()

        def compute(self) -> Tensor:
            return self.value

    monkeypatch.setattr(
        "torchmetrics.image.fid.FrechetInceptionDistance",
        lambda **_: FrechetInceptionDistance(Colours(), normalize=True),
    )
    monkeypatch.setattr(
        "torchmetrics.image.kid.KernelInceptionDistance",
        lambda subset_size, **_: KernelInceptionDistance(Colours(), subset_size=subset_size, normalize=True),
    )
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", lambda **_: Distance())
    metrics = ImageMetrics(["lpips", "fid", "kid"], 4, None, CPU)
    values = measure(metrics, photos().square(), photos())
    assert metrics.notes == {}
    assert all(value is not None and math.isfinite(value) for value in values.values())
    assert values["fid"] is not None
    assert values["fid"] > 0
