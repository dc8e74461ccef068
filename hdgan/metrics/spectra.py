"""Power spectra of generated images beside those of the photos: blur, noise, streaks and repeated cells in figures.

As in Welch's method (1967), every image is cut into tiles that overlap by half, and each tile is multiplied by a Hann
window. All sizes of images therefore have the same frequencies. The logarithms of the tiles' power are averaged, so
that a fault in plain areas counts as much as one in texture. Durall et al. (CVPR 2020) and Schwarz et al. (NeurIPS
2021) compare spectra averaged over rings, which show what is missing or added at each scale. Frank et al. (ICML 2020)
find the grids of upsampling as peaks of the two-dimensional spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 64
"""Width and height of a tile in pixels, and the number of frequencies along each axis."""
PERIODS = (4, 8, 16)
"""Pixels after which the grids repeat that are looked for: those of two to four upsamplings by 2. A grid of 2 pixels
also repeats after 4."""
STREAKS = ("horizontal streaks", "vertical streaks")
_LONGEST = 16
"""Period in pixels of the coarsest streaks."""
_ROUNDING = 1 / (12 * 255**2)
"""Power of the noise that rounding to 8 bits adds to images in [0, 1]. It keeps the logarithm of plain areas finite."""


@dataclass(frozen=True)
class SpectralScores:
    """How the spectra of the images of one run differ from those of the photos."""

    distance: float
    """Root mean square difference of the mean spectra over all frequencies, in dB."""
    patterns: dict[str, float]
    """For each of `STREAKS` and of the grids of `PERIODS` pixels, by how many dB more than in the photos its
    frequencies stand out from their neighbours."""
    frequencies: tuple[float, ...]
    """Of the rings, in cycles per pixel, from 2/64 to 1/2."""
    image: tuple[float, ...]
    """Mean spectrum of the images on each ring, in dB. White noise of variance 1 has -2.5, the mean logarithm of a
    power whose mean is 1."""
    photo: tuple[float, ...]
    """The same of the photos."""

    @property
    def strongest(self) -> float:
        """The largest of the patterns, in dB; below 0 if all stand out less than in the photos."""
        return max(self.patterns.values())


class Spectra:
    """Adds up the spectra of images and photos. Each channel has its own, and all images count alike."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = torch.zeros(2, TILE, TILE, dtype=torch.float64)  # of the images, of the photos

    def add(self, powers: Tensor) -> None:
        """Add an image and its photo: the `log_power` of both, [2, TILE, TILE]."""
        self.count += 1
        self._sums += powers

    def scores(self) -> SpectralScores:
        """The scores of all images so far, of which there must be one."""
        image, photo = self._sums / self.count
        difference = image - photo
        y, x = _indices()
        shown = (y > 1) | (x > 1)  # beyond the lobe of the window around frequency 0
        return SpectralScores(
            float(difference[shown].square().mean().sqrt()),
            _patterns(difference),
            tuple(ring / TILE for ring in _RINGS),
            _ring_means(image),
            _ring_means(photo),
        )


@torch.inference_mode()
def log_power(images: Tensor) -> Tensor:
    """The logarithm of the power spectrum of each image, averaged over its tiles and channels.

    Args:
        images: [B, C, H, W] float in [0, 1], at least `TILE` pixels high and wide.

    Returns:
        [B, TILE, TILE] in dB, by vertical and horizontal frequency in the order of `torch.fft.fftfreq`.
    """
    line = torch.hann_window(TILE, periodic=True, device=images.device)
    window = line[:, None] * line
    rows = []
    for y in _starts(images.shape[2]):  # of tiles, which hold every pixel four times: one row takes little memory
        tiles = torch.stack([images[..., y : y + TILE, x : x + TILE] for x in _starts(images.shape[3])], dim=1).float()
        tiles = tiles - (tiles * window).sum((-2, -1), keepdim=True) / window.sum()
        power = torch.fft.fft2(tiles * window).abs().square() / window.square().sum()
        rows.append((power + _ROUNDING).log10().mean((1, 2)))
    return 10 * torch.stack(rows).mean(0)


def _starts(side: int) -> list[int]:
    """Where the tiles begin along a side: evenly spread from end to end, and overlapping by half or more."""
    gaps = -(-(side - TILE) // (TILE // 2))
    return [round(i * (side - TILE) / max(gaps, 1)) for i in range(gaps + 1)]


def _indices() -> tuple[Tensor, Tensor]:
    """Vertical and horizontal frequency of each value of a spectrum, in cycles per tile from 0 to TILE / 2."""
    k = (torch.fft.fftfreq(TILE) * TILE).abs().round().long()
    return k[:, None].expand(TILE, TILE), k.expand(TILE, TILE)


_RINGS = range(2, TILE // 2 + 1)


def _ring_means(spectrum: Tensor) -> tuple[float, ...]:
    """Mean of a spectrum over each ring of frequencies."""
    y, x = _indices()
    radius = (y.square() + x.square()).float().sqrt().round()
    return tuple(float(spectrum[radius == ring].mean()) for ring in _RINGS)


def _patterns(difference: Tensor) -> dict[str, float]:
    """How much each pattern stands out in a difference of spectra in dB.

    Streaks parallel to a border have their power on an axis. A pattern that repeats after p pixels has it at multiples
    of 1/p. The lobes of the window reach one frequency further, so the neighbours are free of the pattern. Each
    frequency belongs to the shortest period that has it, and the axes belong to the streaks.
    """
    y, x = _indices()
    beside, above = (_excess(difference, shifts) for shifts in (((0, 4), (0, -4)), ((4, 0), (-4, 0))))
    between = _excess(difference, ((2, 2), (2, -2), (-2, 2), (-2, -2)))
    least = TILE // _LONGEST
    found = {
        STREAKS[0]: _mean_power(beside[(x <= 1) & (y >= least)]),
        STREAKS[1]: _mean_power(above[(y <= 1) & (x >= least)]),
    }
    taken = (y == 0) | (x == 0)
    for period in PERIODS:
        multiples = (y % (TILE // period) == 0) & (x % (TILE // period) == 0)
        found[f"grid of {period} pixels"] = _mean_power(between[multiples & ~taken])
        taken |= multiples
    return found


def _excess(difference: Tensor, shifts: tuple[tuple[int, int], ...]) -> Tensor:
    """Each value minus the mean of its neighbours at the given distances."""
    return difference - torch.stack([difference.roll(shift, (0, 1)) for shift in shifts]).mean(0)


def _mean_power(decibels: Tensor) -> float:
    """Mean of ratios that are given in dB, in dB. One strong harmonic among weak ones counts for most of it."""
    return float(10 * (10 ** (decibels / 10)).mean().log10())
