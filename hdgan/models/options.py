"""Choices that the networks offer, by their names in configs and command lines."""

from __future__ import annotations

from typing import Literal

NormKind = Literal["batch", "instance"]
"""Statistics over the batch, or over each plane of each image."""
UpsampleMode = Literal["transposed", "resize"]
"""A transposed convolution, or nearest-neighbour resizing and a convolution."""
MOST_DOWNS = 8
"""Levels of the U-Net of Isola et al. 2017, whose innermost is one pixel for an image of 256x256."""
