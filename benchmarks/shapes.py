"""The layers of pix2pixHD at their real sizes, and maps that resemble those of street scenes."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hdgan.scenes import render_scene

N_LABELS = 35
CONDITION = N_LABELS + 1
"""Channels of the generators' input: labels and boundaries."""
CONDITION_AND_IMAGE = CONDITION + 3
"""Channels of D's input."""
FEATURES = 3
"""Channels that E makes."""

Size = tuple[int, int]
SIZES: dict[str, Size] = {"1024x512": (512, 1024), "2048x1024": (1024, 2048)}
"""Height and width: of G1 and E, and of G2 and D."""


class NormCase(NamedTuple):
    """A use of instance_norm_act: x is [1, channels, height, width]."""

    channels: int
    height: int
    width: int
    activation: Literal["none", "relu", "leaky_relu"]
    pad: int
    residual: bool = False
    """The interior of a padded tensor is added."""


# Layers of G1, D and E at 1024x512 (paper appendix), with the padding that the next convolution needs.
NORM_CASES = {
    "G1 stem": NormCase(64, 512, 1024, "relu", 0),
    "G1 down 2": NormCase(256, 128, 256, "relu", 0),
    "G1 block, first norm": NormCase(1024, 32, 64, "relu", 1),
    "G1 block, second norm": NormCase(1024, 32, 64, "none", 1, residual=True),
    "G1 last up": NormCase(64, 512, 1024, "relu", 3),
    "D layer 1": NormCase(128, 129, 257, "leaky_relu", 0),
    "D layer 3": NormCase(512, 66, 130, "leaky_relu", 0),
    "E last up": NormCase(16, 512, 1024, "relu", 3),
}

# The layers that G2 and D add at 2048x1024.
LARGE_NORM_CASES = {
    "G2 stem": NormCase(32, 1024, 2048, "relu", 0),
    "G2 down": NormCase(64, 512, 1024, "relu", 1, residual=True),
    "G2 block, first norm": NormCase(64, 512, 1024, "relu", 1),
    "G2 block, second norm": NormCase(64, 512, 1024, "none", 1, residual=True),
    "G2 last up": NormCase(32, 1024, 2048, "relu", 3),
    "D layer 1, 2048x1024": NormCase(128, 257, 513, "leaky_relu", 0),
}


@cache
def instance_ids(height: int, width: int, count: int) -> Tensor:
    """[1, H, W] int32: `count` regions around random centres, with their own ids, numbered as in Cityscapes.

    The result is cached: do not change it."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([height, width])
    stuff = torch.rand(count, generator=generator) < 0.3  # one region a class, numbered by it
    stuff &= stuff.cumsum(0) < N_LABELS
    ids = torch.where(stuff, stuff.cumsum(0) - 1, 26000 + torch.arange(count))
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    _, nearest = cKDTree(centres.numpy()).query(pixels.numpy(), workers=-1)
    return ids.int()[torch.from_numpy(nearest)].view(1, height, width)


def label_map(ids: Tensor) -> Tensor:
    """[B, H, W] uint8: a class for every instance."""
    return (ids % N_LABELS).to(torch.uint8)


@cache
def scene_maps(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Label and instance map of a built-in scene, [1, H, W] uint8 and int32.

    Under a 7x7 kernel, 22 % of its windows see more than one class or a boundary at 1024x512, and 15 % at 2048x1024.
    These shares are like those of Cityscapes. The result is cached: do not change it.
    """
    scene = render_scene(0, "test", 2, width, height)
    return torch.from_numpy(scene.label.astype("uint8"))[None], torch.from_numpy(scene.ids.astype("int32"))[None]
