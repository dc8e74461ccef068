"""Images of other channels for networks that take RGB."""

from __future__ import annotations

from torch import Tensor

RGB_CHANNELS = (1, 3)
"""Channels of the images that `as_rgb` accepts."""


def as_rgb(image: Tensor) -> Tensor:
    """Repeat the channel of grey images; RGB images are returned as they are.

    Args:
        image: [B, 1 or 3, H, W].

    Returns:
        [B, 3, H, W], for grey images a view.

    Raises:
        ValueError: the images have another number of channels.
    """
    if image.shape[1] not in RGB_CHANNELS:
        raise ValueError(f"as_rgb: expected images of 1 or 3 channels, got {image.shape[1]}")
    return image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)
