"""The scores of one row of an evaluation, and the titles of its columns."""

from __future__ import annotations

from dataclasses import dataclass, field

from hdgan.metrics.confusion import ClassScore
from hdgan.metrics.spectra import SpectralScores

SEGMENTATION = ("miou", "pixel_accuracy")
IMAGE_METRICS = ("psnr", "ssim", "lpips", "fid", "kid", "scorer_fid")
SPECTRAL = ("spectrum", "pattern")
OF_PHOTOS = (*IMAGE_METRICS, *SPECTRAL)
"""Those that compare images with the photos."""
METRICS = (*SEGMENTATION, *OF_PHOTOS)
"""All columns."""
TITLES = {
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "fid": "FID",
    "kid": "KID",
    "scorer_fid": "scorer FID",
    "spectrum": "spectrum (dB)",
    "pattern": "pattern (dB)",
}
HIGHER_IS_BETTER = frozenset(("miou", "pixel_accuracy", "psnr", "ssim"))
"""Metrics whose higher values are better. For the others, lower values are better."""
ORACLE = "real photos"
"""Name of the first row."""


@dataclass(frozen=True)
class RunScores:
    """The scores of one run, or of the real photos, on the held-out samples."""

    name: str
    """Name of the run's folder; `ORACLE` for the first row."""
    metrics: dict[str, float | None]
    """By the names in `METRICS`; None if it is not available, for the reason in `notes`."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why a metric is not available, by its name."""
    classes: tuple[ClassScore, ...] = ()
    """How well each class is recognised; empty without a scorer or label maps."""
    spectra: SpectralScores | None = None
    """What the metrics of spectra were computed from; None if they are not available."""


def shown(name: str, value: float | None) -> str:
    """A value as tables show it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if name in ("psnr", "fid", *SPECTRAL) else f"{value:.4f}"


def notes_of(rows: list[RunScores]) -> dict[str, str]:
    """Why some metrics are not available for any run: each reason by the titles of the metrics that it applies to."""
    by_note: dict[str, list[str]] = {}
    for name in METRICS:
        if all(name in row.notes for row in rows[1:]):
            by_note.setdefault(rows[1].notes[name], []).append(TITLES[name])
    return {", ".join(titles): note for note, titles in by_note.items()}
