"""The scores of one row of an evaluation, and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass, field

from hdgan.metrics.confusion import ClassScore

SEGMENTATION = ("miou", "pixel_accuracy")
IMAGE_METRICS = ("psnr", "ssim", "lpips", "fid", "kid", "scorer_fid")
METRICS = (*SEGMENTATION, *IMAGE_METRICS)
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
}
HIGHER_IS_BETTER = frozenset(("miou", "pixel_accuracy", "psnr", "ssim"))
"""Of the others, lower is."""
ORACLE = "real photos"
"""Name of the first row."""


@dataclass(frozen=True)
class RunScores:
    """What one run, or the real photos, reached on the held-out pictures."""

    name: str
    """Of the run's folder; `ORACLE` for the first row."""
    metrics: dict[str, float | None]
    """By the names in `METRICS`; None where `notes` says why."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why a metric cannot be had, by its name."""
    classes: tuple[ClassScore, ...] = ()
    """Recognition of each class; empty without a scorer or label maps."""


def shown(name: str, value: float | None) -> str:
    """A value as tables show it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if name in ("psnr", "fid") else f"{value:.4f}"


def notes_of(rows: list[RunScores]) -> dict[str, str]:
    """Why metrics cannot be had of any run, by their titles; those with one reason share a line."""
    by_note: dict[str, list[str]] = {}
    for name in METRICS:
        if all(name in row.notes for row in rows[1:]):
            by_note.setdefault(rows[1].notes[name], []).append(TITLES[name])
    return {", ".join(titles): note for note, titles in by_note.items()}
