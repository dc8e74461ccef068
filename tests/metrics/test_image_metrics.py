"""Metrics of images against photos; without torchvision and torch-fidelity, which tests stand in for."""

from __future__ import annotations

import http.client
import math
import urllib.error
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.image_metrics import ImageMetrics
from hdgan.metrics.scores import IMAGE_METRICS
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
        metrics.add(metrics.measure(picture, photo))
    return metrics.values()


def test_psnr_is_the_mean_over_pictures() -> None:
    real = photos(2) * 0.8
    pictures = real.clone()
    pictures[0] += 0.1
    pictures[1] += 0.01
    values = measure(ImageMetrics(["psnr", "ssim"], 2, FeatureNetworks(None, CPU)), pictures, real)
    assert values["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert values["ssim"] is not None
    assert 0.9 < values["ssim"] < 1


def test_equal_pictures_are_perfect(segmenter: Segmenter) -> None:
    values = measure(ImageMetrics(["ssim", "scorer_fid"], 4, FeatureNetworks(segmenter, CPU)), photos(), photos())
    assert values["ssim"] == pytest.approx(1)
    assert values["scorer_fid"] == pytest.approx(0, abs=1e-4)


def test_the_scorer_fid_is_frechets_distance_of_its_features(segmenter: Segmenter) -> None:
    real, pictures = photos(), photos().square()
    values = measure(ImageMetrics(["scorer_fid"], 4, FeatureNetworks(segmenter, CPU)), pictures, real)
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

    monkeypatch.setattr("torch.hub.get_dir", lambda: "/cache/hub")
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", no_network)
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", no_library)
    metrics = ImageMetrics(IMAGE_METRICS, 4, FeatureNetworks(None, CPU))
    values = measure(metrics, photos(), photos().square())
    assert [name for name, value in values.items() if value is None] == ["lpips", "fid", "kid", "scorer_fid"]
    library = "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
    assert metrics.notes == {
        "lpips": (
            "its network's weights could not be loaded (<urlopen error Name or service not known>): put the file of "
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth into /cache/hub/checkpoints"
        ),
        "fid": library,
        "kid": library,
        "scorer_fid": "needs the features of hdgan's own scorer: --train-scorer",
    }


def test_a_single_picture_has_no_distribution(segmenter: Segmenter) -> None:
    metrics = ImageMetrics(IMAGE_METRICS, 1, FeatureNetworks(segmenter, CPU))
    values = measure(metrics, photos(1), photos(1).square())
    for name in ("fid", "kid", "scorer_fid"):
        assert values[name] is None
        assert metrics.notes[name] == "a single image has no distribution"


class Colours(nn.Module):
    """Stands in for Inception: the mean of each channel, in 2048 features."""

    made = 0

    def __init__(self, *_: Any) -> None:
        super().__init__()
        type(self).made += 1
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3 * 2048).reshape(3, 2048))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        assert image.dtype == torch.uint8
        self.seen.append(image)
        return image.float().mean((2, 3)) @ self.weight / 255


class Distance(nn.Module):
    """Stands in for LPIPS."""

    made = 0

    def __init__(self, **_: Any) -> None:
        super().__init__()
        type(self).made += 1
        self.net, self.values = nn.Identity(), []  # type: ignore[var-annotated]

    def reset(self) -> None:
        self.values.clear()

    def update(self, picture: Tensor, photo: Tensor) -> None:
        self.values.append(self.net(picture - photo).abs().mean())

    def compute(self) -> Tensor:
        return torch.stack(self.values).mean()


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for target, network in (
        ("fid.NoTrainInceptionV3", Colours),
        ("lpip.LearnedPerceptualImagePatchSimilarity", Distance),
    ):
        monkeypatch.setattr(f"torchmetrics.image.{target}", network)
        monkeypatch.setattr(network, "made", 0)


@pytest.mark.usefixtures("stand_ins")
def test_all_rows_look_through_the_same_networks() -> None:
    networks = FeatureNetworks(None, CPU)
    rows = [ImageMetrics(["lpips", "fid", "kid"], 4, networks) for _ in range(3)]
    made = [photos(), photos().square(), photos().sqrt()]
    for k, photo in enumerate(photos().split(1)):
        for row, pictures in zip(rows, made, strict=True):
            row.add(row.measure(pictures[k : k + 1], photo))
    values = [row.values() for row in rows]
    assert all(row.notes == {} for row in rows)
    assert all(value is not None and math.isfinite(value) for row in values for value in row.values())
    assert values[0]["lpips"] == 0
    assert values[1]["lpips"] == pytest.approx(float((made[1] - photos()).abs().mean()))
    assert values[1]["fid"] is not None
    assert values[1]["fid"] > 0
    assert (Colours.made, Distance.made) == (1, 1)


def test_a_photo_is_looked_at_once_and_as_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Colours()
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", lambda *_: network)
    networks = FeatureNetworks(None, CPU)
    rows = [ImageMetrics(["fid", "kid"], 2, networks) for _ in range(3)]
    saved = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    photo = saved / 255
    for row in rows:
        row.add(row.measure(photo.square(), photo))
    assert len(network.seen) == 4
    assert torch.equal(network.seen[0], saved)


@pytest.mark.usefixtures("stand_ins")
def test_kid_is_the_same_each_time_and_leaves_the_generator_alone() -> None:
    def kid() -> float | None:
        return measure(ImageMetrics(["kid"], 60, FeatureNetworks(None, CPU)), photos(60).square(), photos(60))["kid"]

    torch.manual_seed(1)
    first, state = kid(), torch.get_rng_state()
    torch.manual_seed(2)
    assert kid() == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route"),
        RuntimeError('invalid hash value (expected "7be5be79", got "00")'),
        http.client.IncompleteRead(b"half"),
    ],
)
def test_a_failure_is_final_for_all_rows(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise error

    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", fails)
    networks = FeatureNetworks(None, CPU)
    for _ in range(3):
        metrics = ImageMetrics(["psnr", "fid", "kid"], 4, networks)
        values = measure(metrics, photos().square(), photos())
        assert values["psnr"] is not None
        assert metrics.notes["fid"] == metrics.notes["kid"]
        assert metrics.notes["fid"].startswith(f"its network's weights could not be loaded ({error}): put the file of ")
    assert len(tried) == 1


def test_pictures_smaller_than_a_window_have_no_value() -> None:
    metrics = ImageMetrics(["psnr", "ssim"], 2, FeatureNetworks(None, CPU))
    small = [torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 10)]
    for photo in small:
        metrics.add(metrics.measure(photo.square(), photo))
    assert metrics.values()["ssim"] is None
    assert metrics.notes == {"ssim": "its window needs images of at least 11 pixels per side"}


def test_metrics_of_networks_repeat_grey(segmenter: Segmenter) -> None:
    networks = FeatureNetworks(segmenter, CPU)
    grey, real = photos()[:, :1] ** 2, photos()[:, :1]
    names = ["psnr", "ssim", "scorer_fid"]
    values = measure(ImageMetrics(names, 4, networks, channels=1), grey, real)
    rgb = measure(ImageMetrics(names, 4, networks), grey.expand(-1, 3, -1, -1), real.expand(-1, 3, -1, -1))
    assert values == pytest.approx(rgb, rel=1e-4)


def test_metrics_of_networks_are_left_out_for_other_channels(segmenter: Segmenter) -> None:
    real = torch.cat([photos(), photos()[:, :2]], dim=1)
    metrics = ImageMetrics(IMAGE_METRICS, 4, FeatureNetworks(segmenter, CPU), channels=5)
    values = measure(metrics, real * 0.9, real)
    reason = "its network takes RGB or grey images, but these have 5 channels"
    assert metrics.notes == dict.fromkeys(("lpips", "fid", "kid", "scorer_fid"), reason)
    assert [name for name, value in values.items() if value is not None] == ["psnr", "ssim"]
