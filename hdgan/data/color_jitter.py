"""Colour jitter: the brightness, contrast and saturation of a training sample, changed at random.

The change is a function of the colours of a pixel alone, the same for all pixels of a sample and for both of its
images. So it does not change what an A-to-B model can learn of B from A. (Contrast is therefore changed around medium
grey and not, as torchvision does it, around the mean of each image.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hdgan.data.config import PartName

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow converts RGB to grey


@dataclass(frozen=True)
class ColorJitter:
    """The factors of one sample."""

    brightness: float
    contrast: float
    saturation: float


def sample_jitter(strength: float, rng: np.random.Generator) -> ColorJitter:
    """Draw factors from 1 - strength to 1 + strength."""
    return ColorJitter(*map(float, rng.uniform(1 - strength, 1 + strength, 3)))


def apply_jitter(arrays: Mapping[PartName, np.ndarray], jitter: ColorJitter) -> dict[PartName, np.ndarray]:
    """Change the photo and, of A-to-B pairs, the input of a sample; other parts stay as they are.

    Args:
        arrays: input and photo [H, W, C], uint8 or uint16.
        jitter: The factors. Saturation applies to images of three channels only.

    Returns:
        The same parts, of the same shapes and types.
    """
    return {part: _changed(values, jitter) if part in ("input", "photo") else values for part, values in arrays.items()}


def _changed(values: np.ndarray, jitter: ColorJitter) -> np.ndarray:
    white = np.iinfo(values.dtype).max
    grey = white / 2
    # Brightness and contrast in one: (b * v - grey) * c + grey.
    changed = values.astype(np.float32) * (jitter.brightness * jitter.contrast) + grey * (1 - jitter.contrast)
    if values.shape[2:] == (3,):
        luma = (changed @ _LUMA)[..., None]
        changed = luma + (changed - luma) * jitter.saturation
    return changed.round().clip(0, white).astype(values.dtype)
