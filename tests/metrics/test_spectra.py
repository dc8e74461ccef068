"""Spectra of images beside those of photos: which faults each figure shows, by how much, and which it does not show."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.metrics.spectra import PERIODS, STREAKS, TILE, Spectra, SpectralScores, log_power
from hdgan.scenes import render_scene

HEIGHT, WIDTH = 96, 128
COUNT = 24
AMPLITUDE = 5 / 255
"""Standard deviation of the faults, five levels of 8 bits."""
Fault = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """[2 * COUNT, 3, HEIGHT, WIDTH] in [0, 1]."""
    scenes = [render_scene(0, "test", index, WIDTH, HEIGHT) for index in range(2 * COUNT)]
    return torch.stack([torch.from_numpy(scene.photo).permute(2, 0, 1) for scene in scenes]).float() / 255


@pytest.fixture(scope="module")
def floor(photos: Tensor) -> SpectralScores:
    """Of one half of the photos against the other: what chance and content alone give."""
    return compare(*photos.split(COUNT))


def compare(images: Tensor, photos: Tensor) -> SpectralScores:
    spectra = Spectra()
    for powers in zip(log_power(images), log_power(photos), strict=True):
        spectra.add(torch.stack(powers))
    return spectra.scores()


def saved(images: Tensor) -> Tensor:
    """With 8 bits."""
    return (images.clamp(0, 1) * 255).round() / 255


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def checkerboard(period: int) -> Fault:
    y, x = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    return lambda photos: photos + AMPLITUDE * (1 - 2 * ((y // (period // 2) + x // (period // 2)) % 2))


def cells(period: int) -> Fault:
    cell = random(1, 1, period, period).repeat(1, 1, HEIGHT // period, WIDTH // period)
    return lambda photos: photos + AMPLITUDE * cell


def blurred(photos: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(photos, (1, 1, 1, 1), mode="reflect"), 3, 1)


def noisy(photos: Tensor) -> Tensor:
    return photos + AMPLITUDE * random(*photos.shape)


def streaks(*shape: int) -> Fault:
    return lambda photos: photos + AMPLITUDE * random(*shape)


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        pytest.param(streaks(COUNT, 1, HEIGHT, 1), "horizontal streaks", id="horizontal streaks"),
        pytest.param(streaks(COUNT, 1, 1, WIDTH), "vertical streaks", id="vertical streaks"),
        pytest.param(streaks(COUNT, 3, HEIGHT, 1), "horizontal streaks", id="coloured streaks"),
        pytest.param(checkerboard(2), "grid of 4 pixels", id="checkerboard of 2"),
        pytest.param(checkerboard(4), "grid of 4 pixels", id="checkerboard of 4"),
        pytest.param(checkerboard(8), "grid of 8 pixels", id="checkerboard of 8"),
        pytest.param(checkerboard(16), "grid of 16 pixels", id="checkerboard of 16"),
        pytest.param(cells(8), "grid of 8 pixels", id="repeated cells of 8"),
    ],
)
def test_a_pattern_stands_out_under_its_name(fault: Fault, pattern: str, photos: Tensor, floor: SpectralScores) -> None:
    """Photos with the fault against other photos; the floor is 0.6 dB here and the weakest fault has 1.5."""
    first, second = photos.split(COUNT)
    found = compare(saved(fault(first)), second)
    assert found.strongest == found.patterns[pattern] > 2 * floor.strongest
    assert found.distance > 1.2 * floor.distance


def test_repeated_cells_have_all_harmonics(photos: Tensor, floor: SpectralScores) -> None:
    first, second = photos.split(COUNT)
    found = compare(saved(cells(16)(first)), second).patterns
    assert min(found[f"grid of {period} pixels"] for period in PERIODS) > 5 * floor.strongest
    assert max(found[streak] for streak in STREAKS) < 2 * floor.strongest


@pytest.mark.parametrize(("fault", "times"), [(blurred, 20), (noisy, 1.2)])
def test_blur_and_noise_change_the_spectrum_but_are_no_pattern(
    fault: Fault, times: float, photos: Tensor, floor: SpectralScores
) -> None:
    """The distance is 27 times the floor for a blur of 3x3 pixels and 1.4 times for noise of five levels."""
    first, second = photos.split(COUNT)
    found = compare(saved(fault(first)), second)
    assert found.distance > times * floor.distance
    assert found.strongest < 2 * floor.strongest


def test_equal_images_have_equal_spectra(photos: Tensor) -> None:
    found = compare(photos, photos)
    assert found.image == found.photo
    assert (found.distance, set(found.patterns.values())) == (0, {0.0})


def test_levels_are_decibels_of_the_power_of_noise() -> None:
    """The mean logarithm of a chi-squared power of two degrees of freedom lies Euler's constant below its mean."""
    noise = random(64, 1, TILE, TILE)
    found = compare(noise, noise / 2)
    below = 10 / math.log(10) * 0.5772156649
    assert found.image[1:] == pytest.approx([-below] * (len(found.image) - 1), abs=0.5)
    assert sum(found.image) / len(found.image) == pytest.approx(-below, abs=0.1)
    assert found.distance == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert found.frequencies[0] == 2 / TILE
    assert found.frequencies[-1] == 1 / 2


def test_a_wave_has_its_power_at_its_frequency() -> None:
    wave = torch.cos(2 * math.pi * 8 / TILE * torch.arange(100)).expand(1, 3, 70, 100)
    level = log_power(wave)[0]
    assert divmod(int(level.argmax()), TILE) in ((0, 8), (0, TILE - 8))
    assert level[4, 20] == pytest.approx(10 * math.log10(1 / (12 * 255**2)), abs=0.1)  # nothing but the rounding


def test_images_of_one_evaluation_may_differ_in_size(photos: Tensor) -> None:
    spectra = Spectra()
    for height, width in ((64, 64), (65, 128), (96, 100)):
        spectra.add(log_power(photos[:2, :, :height, :width]))
    assert spectra.count == 3
    assert 0 < spectra.scores().distance < 20


def test_tiles_reach_from_end_to_end() -> None:
    """A bright column beyond the last full step changes the spectrum."""
    image = torch.full((1, 1, TILE, TILE + 20), 0.5)
    marked = image.clone()
    marked[..., -12] = 1
    assert (log_power(marked) - log_power(image)).abs().max() > 10
