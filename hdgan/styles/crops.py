"""Crops of instances from the training photos, as examples of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from hdgan.data import PairedDataset, photo_to_unit_range
from hdgan.data.colors import preview
from hdgan.errors import DataError
from hdgan.styles.bank import Example

SIZE = 96
"""Width and height of a crop in pixels."""
_MARGIN = 0.2


class Cropper:
    """Crops examples from the training photos.

    Args:
        dataset: the samples that were encoded, at any size.
    """

    def __init__(self, dataset: PairedDataset) -> None:
        self.dataset = dataset
        self.positions = {pair.stem: k for k, pair in enumerate(dataset.pairs)}

    def crops(self, examples: Iterable[Example]) -> dict[Example, Image.Image]:
        """Square crops of SIZE pixels; the surroundings of the instance are pale grey. Each photo is read once.

        Raises:
            DataError: a photo is no longer there.
        """
        by_stem: dict[str, set[Example]] = {}
        for example in examples:
            by_stem.setdefault(example.stem, set()).add(example)
        return {example: image for stem, own in by_stem.items() for example, image in self._crops_of(stem, own)}

    def _crops_of(self, stem: str, examples: Iterable[Example]) -> Iterator[tuple[Example, Image.Image]]:
        if stem not in self.positions:
            raise DataError(
                f"the encoded image {stem} is no longer among the training images: encode them again with `hdgan "
                "styles encode`"
            )
        sample = self.dataset[self.positions[stem]]
        photo = np.asarray(preview(photo_to_unit_range(sample["photo"]))[0].convert("RGB"))
        ids = (sample["ids"] if "ids" in sample else sample["label"]).numpy()
        for example in examples:
            yield example, crop(photo, ids == example.id, example.box)


def crop(photo: np.ndarray, mask: np.ndarray, box: tuple[float, float, float, float]) -> Image.Image:
    """Crop one instance from a photo. If it is longer than the photo's shorter side, the middle is taken.

    Args:
        photo: [H, W, 3] uint8.
        mask: [H, W] bool, the instance's pixels.
        box: left, top, right, bottom as shares of width and height.
    """
    pale = 170 + photo.mean(axis=2, keepdims=True) // 4
    image = Image.fromarray(np.where(mask[..., None], photo, pale).astype(np.uint8))
    left, right = box[0] * image.width, box[2] * image.width
    top, bottom = box[1] * image.height, box[3] * image.height
    side = min(image.width, image.height, max(1, round(max(right - left, bottom - top) * (1 + _MARGIN))))
    x = round(min(max((left + right - side) / 2, 0), image.width - side))
    y = round(min(max((top + bottom - side) / 2, 0), image.height - side))
    return image.crop((x, y, x + side, y + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
