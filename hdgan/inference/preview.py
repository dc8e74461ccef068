"""What an edit changes in a generated image, at once: only the features that the edit reaches are computed again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor

from hdgan.errors import ConfigError, DataError
from hdgan.inference.maps import ImageSource, Maps, read_maps
from hdgan.inference.pipeline import Pipeline
from hdgan.models.draws import Draws, drawing_from
from hdgan.regions import Box, Node, RegionRun, RegionStorage, RegionTensor, Source
from hdgan.regions.draws import RegionDraws
from hdgan.regions.evaluation import RegionChanges
from hdgan.regions.recording import HeldPixels, Recorded, RecordedDraws, Recording
from hdgan.seeding import seeded
from hdgan.styles.sample import Styles
from hdgan.wording import memory_size

MARGIN = 32
"""Pixels around an edit that a preview shows as well. An edit reaches farther, but weakly."""
MAX_MEMORY = 2**30
"""Bytes that the features of an image may take if nothing else is said."""
_CELL = 32
"""Edits that lie farther apart than so many pixels are looked at one by one."""
_MOST_REGIONS = 8
"""Of one edit; more are joined to one, which may be most of the picture, since each takes its time even if it is small.
"""


class Region(NamedTuple):
    """A part of an image.

    Attributes:
        box: its place.
        pixels: [C, h, w] float32 in [0, 1].
    """

    box: Box
    pixels: Tensor


class Preview:
    """Previews of the edits of an image.

    `record` generates an image as the pipeline does and keeps its features. `edit` compares other maps or styles with
    those of the image, and computes the regions of the picture in which they differ. Instance norms keep the statistics
    of the recorded image there, so the picture is close to the one that a call of the pipeline makes of the edited
    maps, but not the same. Noise is that of the recorded image.

    Threads have to take turns.

    Args:
        pipeline: the model.
        margin: pixels around an edit that belong to its regions.
        max_memory: bytes that the features of an image may take. While an image is recorded, those of the one before
            are still there.
    """

    def __init__(self, pipeline: Pipeline, margin: int = MARGIN, max_memory: int = MAX_MEMORY) -> None:
        self.pipeline, self.margin, self.max_memory = pipeline, margin, max_memory
        self._shown: _RecordedImage | None = None

    @torch.no_grad()
    def record(
        self,
        source: ImageSource | Maps,
        instance: ImageSource | None = None,
        *,
        photo: ImageSource | None = None,
        styles: Styles | None = None,
        seed: int | None = None,
        variant: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Generate an image, of which edits can be shown from then on.

        Args:
            source, instance, photo, styles, seed, variant: as of a call of the pipeline, for one map.
            check: called before each operation. What it raises ends the call; the recorded image stays the one before.

        Returns:
            The image that a call of the pipeline makes, [image_channels, H, W] float32 in [0, 1].

        Raises:
            DataError, ConfigError, CheckpointError: as of a call of the pipeline, and for a batch. ConfigError also if
                the features take more than `max_memory`, or an operation of the model cannot be computed by regions.
        """
        self.pipeline.check(seed, variant)
        given = self._given(source, instance, photo, styles)
        self._require_memory(given, variant)
        run = Recording(self.pipeline.device, check)
        noise = nullcontext() if seed is None else seeded(self.pipeline.device, seed, variant)
        sources = [None if pixels is None else Recorded.source(pixels, run) for pixels in given]
        image = self._run(sources, variant, RecordedDraws(run), noise)
        assert isinstance(image, Recorded)
        self._shown = _RecordedImage(
            given, [None if s is None else s.node for s in sources], image.node, image.pixels[0]
        )
        return image.pixels[0].clone()

    @torch.no_grad()
    def edit(
        self,
        source: ImageSource | Maps,
        instance: ImageSource | None = None,
        *,
        photo: ImageSource | None = None,
        styles: Styles | None = None,
    ) -> Edit | None:
        """Compare other maps or styles with those of the recorded image.

        Args:
            source, instance, photo, styles: as of a call of the pipeline.

        Returns:
            What differs; None if they are of another size, or no image is recorded.

        Raises:
            DataError, ConfigError, CheckpointError: as of a call of the pipeline.
        """
        given, shown = self._given(source, instance, photo, styles), self._shown
        if shown is None or [_shape(pixels) for pixels in given] != [_shape(pixels) for pixels in shown.given]:
            return None
        return Edit(self.pipeline, shown, given, self.margin)

    def _given(
        self, source: ImageSource | Maps, instance: ImageSource | None, photo: ImageSource | None, styles: Styles | None
    ) -> list[Tensor | None]:
        """What the image is made of. Maps are int64, whatever they were read from."""
        maps = read_maps(source, instance, self.pipeline.config, self.pipeline.device)
        if maps.size[0] > 1:
            raise DataError(f"{maps.name} is a batch of {maps.size[0]}: give one map")
        with self.pipeline.autocast():
            given = self.pipeline.given(maps, photo, styles)
        return [t if t is None or t.is_floating_point() else t.long() for t in given]

    def _run(
        self, sources: Sequence[Tensor | None], variant: int, draws: Draws, noise: AbstractContextManager[None]
    ) -> Tensor:
        chosen = 0 if self.pipeline.config.variants is None else variant
        with self.pipeline.autocast(), noise, drawing_from(draws):
            return self.pipeline.image(*sources, variant=chosen)

    def _require_memory(self, given: Sequence[Tensor | None], variant: int) -> None:
        """Count the features before there are any."""
        storage = RegionStorage(2**62, Path(tempfile.gettempdir()), rehearsal=True)
        run = RegionRun(storage, self.pipeline.device, rehearsal=True, keep_features=True)
        sources = [None if t is None else RegionTensor.of(Source(HeldPixels(t), t.shape, t.dtype), run) for t in given]
        image = self._run(sources, variant, RegionDraws(run), nullcontext())  # which holds them
        if storage.in_memory > self.max_memory:
            raise ConfigError(
                f"the features of an image of {image.shape[3]}x{image.shape[2]} take {memory_size(storage.in_memory)}, "
                f"more than the {memory_size(self.max_memory)} that a preview may keep: give it more max_memory, or "
                "generate the image without one"
            )


@dataclass(frozen=True)
class _RecordedImage:
    """A recorded image."""

    given: Sequence[Tensor | None]
    sources: Sequence[Node | None]
    node: Node
    image: Tensor


class Edit:
    """Maps and styles that are compared with those of a recorded image.

    Args:
        pipeline: the model.
        shown: the recorded image.
        given: what the edited image is made of.
        margin: as of `Preview`.

    Attributes:
        boxes: the parts of the picture that `regions` computes: where maps or styles differ, and the margin. They do
            not overlap.
    """

    def __init__(self, pipeline: Pipeline, shown: _RecordedImage, given: Sequence[Tensor | None], margin: int) -> None:
        self._pipeline, self._shown, self._given = pipeline, shown, given
        whole = shown.node.box
        self._changed = [
            None if before is None or now is None else _differing(before, now)
            for before, now in zip(shown.given, given, strict=True)
        ]
        masks = [mask for mask in self._changed if mask is not None]
        found = [_grown(box, margin).within(whole) for box in _boxes(np.logical_or.reduce(masks))]
        self.boxes = _apart(found)

    @property
    def share(self) -> float:
        """Of the pixels of the picture that the boxes have, from 0 to 1."""
        return sum(box.area for box in self.boxes) / self._shown.node.box.area

    @torch.no_grad()
    def regions(self) -> list[Region]:
        """The pixels of the boxes, with the statistics of the recorded image.

        While they are computed, the sources of the recorded image hold what the edited one is made of.
        """
        changes = RegionChanges(self._shown.node)
        with self._edited(changes), self._pipeline.autocast():
            return [Region(box, changes.evaluate(box)[0].clone()) for box in self.boxes]

    def image(self) -> Tensor:
        """The recorded image with the regions, [image_channels, H, W] float32 in [0, 1]."""
        image = self._shown.image.clone()
        for box, pixels in self.regions():
            image[:, slice(*box.rows), slice(*box.columns)] = pixels
        return image

    @contextmanager
    def _edited(self, changes: RegionChanges) -> Iterator[None]:
        """Let the sources hold what the edited image is made of."""
        shown = self._shown
        every = list(zip(shown.sources, shown.given, self._given, self._changed, strict=True))
        try:
            for node, _, now, changed in every:
                if node is not None and now is not None and changed is not None and changed.any():
                    node.held = HeldPixels(now)
                    changes.add(node, _bounds(changed))
            yield
        finally:
            for node, before, _, _ in every:
                if node is not None and before is not None:
                    node.held = HeldPixels(before)


def _shape(pixels: Tensor | None) -> tuple[int, ...] | None:
    return None if pixels is None else tuple(pixels.shape)


def _differing(before: Tensor, now: Tensor) -> np.ndarray:
    """Where one of the planes differs, [H, W] bool."""
    different = before[0] != now[0]
    return (different.any(0) if different.dim() == 3 else different).cpu().numpy()


def _bounds(mask: np.ndarray) -> Box:
    """The bounding box of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _boxes(mask: np.ndarray) -> list[Box]:
    """The bounding boxes of the parts of a mask that lie apart."""
    height, width = (-(-side // _CELL) for side in mask.shape)
    padded = np.zeros((height * _CELL, width * _CELL), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded.reshape(height, _CELL, width, _CELL).any((1, 3))
    parts = []
    numbers, _ = label(cells, np.ones((3, 3), int))
    for number, (rows, columns) in enumerate(find_objects(numbers), 1):
        top, left = rows.start * _CELL, columns.start * _CELL
        inside = padded[top : rows.stop * _CELL, left : columns.stop * _CELL]
        own = np.kron(numbers[rows, columns] == number, np.ones((_CELL, _CELL), bool))
        parts.append(_bounds(inside & own).moved(top, left))
    return parts


def _grown(box: Box, margin: int) -> Box:
    return Box(box.top - margin, box.bottom + margin, box.left - margin, box.right + margin)


def _apart(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that cover the given ones and do not overlap."""
    apart: list[Box] = []
    waiting = list(boxes)
    while waiting:
        box = waiting.pop()
        touching = [other for other in apart if _overlap(box, other)]
        if touching:
            apart = [other for other in apart if other not in touching]
            for other in touching:
                box = box.hull(other)
            waiting.append(box)
        else:
            apart.append(box)
    if len(apart) > _MOST_REGIONS:
        joined = apart[0]
        for box in apart[1:]:
            joined = joined.hull(box)
        apart = [joined]
    return sorted(apart)


def _overlap(a: Box, b: Box) -> bool:
    return min(a.bottom, b.bottom) > max(a.top, b.top) and min(a.right, b.right) > max(a.left, b.left)
