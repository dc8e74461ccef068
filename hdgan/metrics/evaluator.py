"""The evaluator: all scores of one row of a table, updated image by image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hdgan.metrics.confusion import ClassScore, Confusion
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.image_metrics import ImageMeasures, ImageMetrics
from hdgan.metrics.instance_edges import InstanceEdges
from hdgan.metrics.scorer import Scorer
from hdgan.metrics.scores import EDGES, IMAGE_METRICS, METRICS, SEGMENTATION, SPECTRAL, RunScores
from hdgan.metrics.spectra import TILE, Spectra, log_power


@dataclass(frozen=True)
class Measures:
    """What one image adds to the scores of its row, on the CPU, so that processes can exchange it."""

    images: ImageMeasures
    powers: Tensor | None = None
    """`log_power` of the image and of its photo, [2, TILE, TILE] float32; None if they are too small or not wanted."""
    pixels: Tensor | None = None
    """`Confusion.count` of the label map and the recognised classes; None if the segmentation is not scored."""
    edges: Tensor | None = None
    """`InstanceEdges.measure` of the image and its photo; None without an instance map, or if they are not wanted."""


class Evaluator:
    """Scores images against photos and label maps.

    An image is first measured, by any of several processes, and then added. The scores depend on the order in which
    images are added, in their last bits, but not on who has measured them.

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
        self._notes: dict[str, str] = {}
        if scorer is not None and n_labels and not names.isdisjoint(SEGMENTATION):
            self.confusion = Confusion(n_labels, dontcare)
        else:
            reason = "no scorer: give --scorer FILE, or --train-scorer" if n_labels else "no labels"
            self._notes |= dict.fromkeys(SEGMENTATION, reason)
        self.images = ImageMetrics([name for name in IMAGE_METRICS if name in names], count, networks, channels)
        self.spectra = None if names.isdisjoint(SPECTRAL) else Spectra()
        self.edges = InstanceEdges(dontcare) if EDGES in names and n_labels else None
        if not n_labels:
            self._notes[EDGES] = "no labels"

    @property
    def notes(self) -> dict[str, str]:
        """Why metrics are not available, by their names."""
        return self._notes | self.images.notes

    @torch.inference_mode()
    def measure(
        self, image: Tensor, photo: Tensor, label: Tensor | None, ids: Tensor | None = None
    ) -> tuple[Measures, Tensor | None]:
        """Compare an image with its photo and its maps; adds nothing.

        Args:
            image: [1, C, H, W] float in [0, 1].
            photo: the same.
            label: [1, H, W] integer, or None without label maps.
            ids: [1, H, W] integer, the instance of each pixel, or None without instance maps.

        Returns:
            What was measured; and the classes that the scorer recognises, [1, H, W] int64, None if the segmentation is
            not scored.
        """
        powers, edges = None, None
        if self.spectra is not None and min(photo.shape[2:]) >= TILE:
            powers = log_power(torch.cat([image, photo])).cpu()
        if self.edges is not None and label is not None and ids is not None:
            edges = self.edges.measure(image, photo, label, ids)
        images = self.images.measure(image, photo)
        if self.confusion is None or self.scorer is None or label is None:
            return Measures(images, powers, edges=edges), None
        recognised = self.scorer(image * 2 - 1)
        return Measures(images, powers, self.confusion.count(label, recognised), edges), recognised

    def add(self, measures: Measures) -> None:
        """Add what was measured of the next image, here or in another process."""
        self.images.add(measures.images)
        if self.spectra is not None and measures.powers is None:
            self.spectra = None
            self._notes |= dict.fromkeys(SPECTRAL, f"its tiles need images of at least {TILE} pixels per side")
        if self.spectra is not None and measures.powers is not None:
            self.spectra.add(measures.powers)
        if self.edges is not None and measures.edges is None:
            self.edges = None
            self._notes[EDGES] = "no instance maps"
        if self.edges is not None and measures.edges is not None:
            self.edges.add(measures.edges)
        if self.confusion is not None and measures.pixels is not None:
            self.confusion.add(measures.pixels)

    def scores(self, name: str) -> RunScores:
        """The scores of all images so far, as a row of this name."""
        metrics = dict.fromkeys(METRICS) | self.images.values()
        notes = {metric: self.notes[metric] for metric in METRICS if metric in self.notes}
        if self.edges is not None:
            metrics[EDGES] = self.edges.score()
            if metrics[EDGES] is None:
                notes[EDGES] = "no objects of one class touch, or not even the photos show edges between them"
        classes: tuple[ClassScore, ...] = ()
        spectra = None
        if self.confusion is not None:
            metrics |= {"miou": self.confusion.mean_iou, "pixel_accuracy": self.confusion.pixel_accuracy}
            classes = tuple(self.confusion.classes())
        if self.spectra is not None:
            spectra = self.spectra.scores()
            metrics |= {"spectrum": spectra.distance, "pattern": spectra.strongest}
        return RunScores(name, metrics, notes, classes, spectra)
