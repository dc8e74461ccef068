"""A network's run on an image that is computed region by region: its passes over the image, and what they keep.

An instance norm needs the statistics of the whole image before the first pixel can be normalised. So each norm is a
pass over all tiles, which computes what is normalised, merges the statistics of the tiles, and keeps the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hdgan.regions.boxes import Box, tiles
from hdgan.regions.evaluation import evaluate, sources_of, working_bytes
from hdgan.regions.nodes import Held, Node, Source
from hdgan.regions.storage import RegionStorage

SIDES = (1024, 768, 512, 384, 256, 192, 128, 64)
"""Sides of tiles that are tried, in pixels."""
BLOCK = 2**18
"""Values whose moments are found at once on a CPU, whose cache then holds them from the first pass to the last."""


class Statistics(NamedTuple):
    """Mean and variance of each plane of an image, [B, C] float64."""

    mean: Tensor
    variance: Tensor


@dataclass
class RegionRun:
    """How an image is computed region by region.

    Args:
        storage: keeps what was computed.
        device: on which regions are computed.
        side: of a tile in pixels; None takes the largest of `SIDES` whose working memory suffices.
        working: bytes that the computation of a tile may take.
        given: statistics of all norms in their order, which are then not computed; no pass is made for them.
        rehearsal: compute nothing, and count the work.
        keep_features: keep those of all layers and how each is computed, for `RegionChanges`.
        progress: called with the pixels of each tile times the channels of what was computed.
    """

    storage: RegionStorage
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    side: int | None = None
    working: int = 2**29
    given: Sequence[Statistics] | None = None
    rehearsal: bool = False
    keep_features: bool = False
    progress: Callable[[int], None] = lambda work: None
    statistics: list[Statistics] = field(default_factory=list)
    """Of the norms so far."""

    def computed(self, node: Node) -> Iterator[tuple[Box, Tensor]]:
        """The pixels of all tiles of an image, row by row; none in a rehearsal."""
        height, width = node.shape[-2:]
        for box in tiles(height, width, self.side_for(node)):
            if not self.rehearsal:
                yield box, evaluate(node, box)
            self.progress(node.bytes(box))

    def side_for(self, node: Node) -> int:
        """The side of the tiles in which an image is computed."""
        if self.side is not None:
            return self.side
        height, width = node.shape[-2:]
        for side in SIDES[:-1]:
            top, left = (max(0, (size - side) // 2) for size in (height, width))
            box = Box(top, min(top + side, height), left, min(left + side, width))
            if working_bytes(node, box) <= self.working:
                return side
        return SIDES[-1]

    def hold(self, node: Node) -> None:
        """Compute all of an image and keep it. What it was computed from is let go."""
        if node.held is not None:
            return
        held = self.storage.allocate(node.shape, node.dtype)
        for box, pixels in self.computed(node):
            held.write(box, pixels)
        self._keep(node, held)

    def _keep(self, node: Node, held: Held) -> None:
        node.held = held
        if not self.keep_features:
            node.release()

    def statistics_of(self, node: Node) -> Statistics:
        """The statistics of an image that a norm follows, whose pixels are kept for the time when they are normalised.

        What the first convolution makes is not kept: it is larger than the maps that it is made of again.
        """
        again = not self.keep_features and all(isinstance(n, Source) for n in sources_of(node))
        keep = node.held is None and not again
        found = self._measured(node, keep) if self.given is None else self.given[len(self.statistics)]
        self.statistics.append(found)
        return found

    def _measured(self, node: Node, keep: bool) -> Statistics:
        held = self.storage.allocate(node.shape, node.dtype) if keep else None
        merged = PlaneMoments.none(node.shape, self.device)
        for box, pixels in self.computed(node):
            merged = merged.merged(PlaneMoments.of(pixels))
            if held is not None:
                held.write(box, pixels)
        if held is not None:
            self._keep(node, held)
        return Statistics(merged.mean, merged.squares / max(merged.n, 1))


class PlaneMoments(NamedTuple):
    """Number of pixels, their mean, and the sum of their squared distances to it, for each plane [B, C] in float64."""

    n: int
    mean: Tensor
    squares: Tensor

    @staticmethod
    def none(shape: Sequence[int], device: torch.device) -> PlaneMoments:
        """Those of no pixels."""
        zeros = torch.zeros(*shape[:2], dtype=torch.float64, device=device)
        return PlaneMoments(0, zeros, zeros)

    @staticmethod
    def of(pixels: Tensor) -> PlaneMoments:
        """Those of an image [B, C, H, W]."""
        row = pixels[:, :, :1].numel()
        blocks = (pixels,) if pixels.is_cuda else pixels.split(max(1, BLOCK // max(1, row)), 2)
        merged = PlaneMoments.none(pixels.shape, pixels.device)
        for block in blocks:
            merged = merged.merged(PlaneMoments._of_block(block))
        return merged

    @staticmethod
    def _of_block(pixels: Tensor) -> PlaneMoments:
        n = pixels.shape[2] * pixels.shape[3]
        values = pixels.float()
        mean = values.mean((2, 3), keepdim=True)
        distance = values - mean
        rest = distance.mean((2, 3)).double()  # what rounding has left of the mean
        squares = distance.square_().sum((2, 3)).double() - n * rest.square()
        return PlaneMoments(n, mean.double().flatten(1) + rest, squares.clamp(min=0))

    def merged(self, other: PlaneMoments) -> PlaneMoments:
        """Those of both (Chan et al. 1979)."""
        n = self.n + other.n
        distance = other.mean - self.mean
        mean = self.mean + distance * (other.n / n)
        squares = self.squares + other.squares + distance.square() * (self.n * other.n / n)
        return PlaneMoments(n, mean, squares)
