"""The evaluator: all scores of one row of a table, updated batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from hdgan.metrics.confusion import ClassScore, Confusion
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.image_metrics import ImageMetrics
from hdgan.metrics.scorer import Scorer
from hdgan.metrics.scores import IMAGE_METRICS, METRICS, SEGMENTATION, SPECTRAL, RunScores
from hdgan.metrics.spectra import TILE, Spectra


class Evaluator:
    """Scores images against photos and label maps.

    Args:
        names: of the metrics, from `METRICS`.
        count: total number of images.
        scorer: recognises classes; None leaves out the metrics that need one.
        n_labels: classes of the label maps; 0 without.
        dontcare: label of pixels that have no class.
        networks: of image metrics, shared by all evaluators.
        channels: of the images.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        count: int,
        scorer: Scorer | None,
        n_labels: int,
        dontcare: int | None,
        networks: FeatureNetworks,
        channels: int = 3,
    ) -> None:
        names = set(names)
        self.scorer, self.confusion = scorer, None
        self.notes: dict[str, str] = {}
        if scorer is not None and n_labels and not names.isdisjoint(SEGMENTATION):
            self.confusion = Confusion(n_labels, dontcare)
        else:
            reason = "no scorer: give --scorer FILE, or --train-scorer" if n_labels else "no labels"
            self.notes |= dict.fromkeys(SEGMENTATION, reason)
        self.images = ImageMetrics([name for name in IMAGE_METRICS if name in names], count, networks, channels)
        self.spectra = None if names.isdisjoint(SPECTRAL) else Spectra(networks.device)

    def add(self, image: Tensor, photo: Tensor, label: Tensor | None) -> Tensor | None:
        """Score a batch.

        Args:
            image: [B, C, H, W] float in [0, 1].
            photo: the same.
            label: [B, H, W] integer, or None without label maps.

        Returns:
            The classes that the scorer recognises, [B, H, W] int64; None if the segmentation is not scored.
        """
        self.images.add(image, photo)
        self._add_spectra(image, photo)
        if self.confusion is None or self.scorer is None or label is None:
            return None
        recognised = self.scorer(image * 2 - 1)
        self.confusion.add(label, recognised)
        return recognised

    def _add_spectra(self, image: Tensor, photo: Tensor) -> None:
        """Add the spectra of a batch; one that is too small ends them."""
        if self.spectra is not None and min(photo.shape[2:]) < TILE:
            self.spectra = None
            self.notes |= dict.fromkeys(SPECTRAL, f"its tiles need images of at least {TILE} pixels per side")
        if self.spectra is not None:
            self.spectra.add(image, photo)

    def scores(self, name: str) -> RunScores:
        """The scores of all batches so far, as a row of this name."""
        metrics = dict.fromkeys(METRICS) | self.images.values()
        known = self.notes | self.images.notes
        notes = {metric: known[metric] for metric in METRICS if metric in known}
        classes: tuple[ClassScore, ...] = ()
        spectra = None
        if self.confusion is not None:
            metrics |= {"miou": self.confusion.mean_iou, "pixel_accuracy": self.confusion.pixel_accuracy}
            classes = tuple(self.confusion.classes())
        if self.spectra is not None:
            spectra = self.spectra.scores()
            metrics |= {"spectrum": spectra.distance, "pattern": spectra.strongest}
        return RunScores(name, metrics, notes, classes, spectra)
