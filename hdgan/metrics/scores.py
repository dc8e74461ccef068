"""The scores of one row of an evaluation, and the titles of its columns."""

from __future__ import annotations

from dataclasses import dataclass, field

from hdgan.metrics.confusion import ClassScore
from hdgan.metrics.spectra import SpectralScores

SEGMENTATION = ("miou", "pixel_accuracy")
IMAGE_METRICS = ("psnr", "ssim", "lpips", "fid", "kid", "scorer_fid")
SPECTRAL = ("spectrum", "pattern")
EDGES = "instance_edges"
OF_PHOTOS = (*IMAGE_METRICS, *SPECTRAL, EDGES)
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
    "instance_edges": "instance edges",
}
HIGHER_IS_BETTER = frozenset(("miou", "pixel_accuracy", "psnr", "ssim", "instance_edges"))
"""Metrics whose higher values are better. For the others, lower values are better."""
ABOUTS = {
    "miou": "How well the classes that the scorer recognises overlap those of the label map: intersection over union "
    "of their pixels over all images, mean over the classes that occur or are recognised; from 0 to 1, higher is "
    "better.",
    "pixel_accuracy": "Share of the pixels in which the scorer recognises the class of the label map; from 0 to 1, "
    "higher is better. Pixels without a class do not count.",
    "psnr": "Peak signal-to-noise ratio of an image and its photo in dB, mean over the images; higher is better. It "
    "favours blurred images.",
    "ssim": "Structural similarity of an image and its photo, mean over the images; 1 for equal ones, higher is "
    "better.",
    "lpips": "Distance of an image and its photo in the features of AlexNet, mean over the images, without unit; "
    "lower is better.",
    "fid": "Fréchet distance between Inception's features of all images and those of all photos, without unit; lower "
    "is better. It is larger for fewer images.",
    "kid": "Kernel distance (squared maximum mean discrepancy) between the same features, without unit; lower is "
    "better. It depends less on the number of images, and can be slightly negative.",
    "scorer_fid": "Fréchet distance between the features of hdgan's own scorer, a substitute for FID, without unit; "
    "lower is better. Compare it only within this table.",
    "spectrum": "Root mean square difference between the mean power spectra of images and photos in dB; lower is "
    "better. Blur and noise raise it.",
    "pattern": "By how many dB the strongest of five patterns (horizontal or vertical streaks along a border, and "
    "grids that repeat after 4, 8 or 16 pixels) stands out more than in the photos; lower is better.",
    "instance_edges": "How strong the edges between touching objects of one class are: the total variation of four "
    "pixels across their boundary beyond that of the pixels beside them, relative to the photos; 0 without edges, "
    "below 0 if images are plainer there than beside it, 1 as in the photos, up to which higher is better.",
}
"""What the columns are, their unit, and which values are better."""
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
    return f"{value:.2f}" if name in ("psnr", "fid", *SPECTRAL, EDGES) else f"{value:.4f}"


def notes_of(rows: list[RunScores]) -> dict[str, str]:
    """Why some metrics are not available for any run: each reason by the titles of the metrics that it applies to."""
    by_note: dict[str, list[str]] = {}
    for name in METRICS:
        if all(name in row.notes for row in rows[1:]):
            by_note.setdefault(rows[1].notes[name], []).append(TITLES[name])
    return {", ".join(titles): note for note, titles in by_note.items()}
