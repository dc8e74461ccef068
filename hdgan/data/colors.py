"""Label maps, instance maps and tensors as pictures for people."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor


def label_palette(n: int) -> np.ndarray:
    """Colours of n labels, [n, 3] uint8: PASCAL VOC's colour map, the bits of a label spread over the channels."""
    labels = np.arange(n)
    palette = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def colorize_labels(label: np.ndarray, palette: np.ndarray | None = None) -> Image.Image:
    """Colour a label map [H, W] of integers."""
    palette = label_palette(256) if palette is None else palette
    return Image.fromarray(palette[label.astype(np.int64) % len(palette)])


def colorize_ids(ids: np.ndarray) -> Image.Image:
    """Colour an instance map [H, W]: each id its own colour, the same in every picture."""
    unique, inverse = np.unique(ids, return_inverse=True)
    # Knuth's multiplicative hash spreads neighbouring ids over the colours.
    hashed = (unique.astype(np.int64) * 2654435761) & 0xFFFFFFFF
    colours = np.stack([hashed >> 24, hashed >> 16, hashed >> 8], axis=1) & 0xFF
    return Image.fromarray((colours * 0.75 + 48).astype(np.uint8)[inverse.reshape(ids.shape)])


def to_image(tensor: Tensor) -> Image.Image:
    """Turn an image [C, H, W] in [-1, 1] into a picture: grey for one channel, RGB for the first three of more."""
    array = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return Image.fromarray(array[0] if array.shape[0] < 3 else array[:3].transpose(1, 2, 0))
