"""An ordinary run of a network that notes how its pixels were computed, so that a region can be computed again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdgan.models.draws import DROPOUT, Draws
from hdgan.regions.boxes import Box
from hdgan.regions.nodes import Node, Source
from hdgan.regions.run import PlaneMoments, RegionRun, Statistics
from hdgan.regions.storage import RegionStorage
from hdgan.regions.tensor import RegionTensor, stand_in_for


class HeldPixels:
    """The pixels of a tensor, as a node holds them.

    Args:
        pixels: [B, …, H, W].
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def read(self, box: Box) -> Tensor:
        """Those of a box; a view."""
        return self.pixels[..., slice(*box.rows), slice(*box.columns)]


class Recording(RegionRun):
    """A run at once whose features are kept: the inputs of all norms, and the sums of residual blocks.

    The network computes with the operations of any other run, so its image has the same bits. Run it on
    `Recorded.source`, and hand the node of its image to `RegionChanges`.

    Args:
        device: on which the network runs.
        check: called before each operation. What it raises ends the run.
    """

    def __init__(self, device: torch.device, check: Callable[[], None] = lambda: None) -> None:
        super().__init__(RegionStorage(0, Path(tempfile.gettempdir())), device, keep_features=True)
        self.check = check
        self._read: dict[Node, Tensor] = {}
        self._held: set[Node] = set()

    def apply(
        self,
        function: Callable[..., Any],
        stand_in: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """The result of an operation and that of its stand-in, as `Recorded` in the place of each tensor."""
        self.check()
        self._read = {}
        named = {name: _mapped(self._pixels, value) for name, value in kwargs.items()}
        pixels = function(*_mapped(self._pixels, tuple(args)), **named)
        return _mapped(self._recorded, stand_in(*args, **kwargs), pixels)

    def statistics_of(self, node: Node) -> Statistics:
        """As of `RegionRun`, from the pixels that the norm reads, which are kept."""
        pixels = self._read[node]
        if node.held is None:
            node.held = HeldPixels(pixels)
        moments = PlaneMoments.of(pixels)
        found = Statistics(moments.mean, moments.squares / moments.n)
        self.statistics.append(found)
        return found

    def hold(self, node: Node) -> None:
        """As of `RegionRun`: once its pixels are known."""
        self._held.add(node)

    def _pixels(self, tensor: Recorded) -> Tensor:
        self._read[tensor.node] = tensor.pixels
        return tensor.pixels

    def _recorded(self, made: RegionTensor, pixels: Tensor) -> Recorded:
        for node in (made.node, *made.node.inputs):  # a sum may be padded
            if node in self._held:
                self._held.remove(node)
                (top, left) = (
                    (large - small) // 2 for large, small in zip(pixels.shape[2:], node.shape[2:], strict=True)
                )
                node.held = HeldPixels(pixels[:, :, top : top + node.shape[2], left : left + node.shape[3]])
        return Recorded.both(made.node, pixels, self)


class Recorded(RegionTensor):
    """A tensor together with the node that computes its regions again.

    Attributes:
        pixels: the tensor.
    """

    pixels: Tensor
    run: Recording

    @staticmethod
    def both(node: Node, pixels: Tensor, run: Recording) -> Recorded:
        """The tensor of a node whose pixels were computed."""
        tensor = Recorded.of(node, run)
        tensor.pixels = pixels
        return tensor

    @staticmethod
    def source(pixels: Tensor, run: Recording) -> Recorded:
        """An input of the network."""
        return Recorded.both(Source(HeldPixels(pixels), pixels.shape, pixels.dtype), pixels, run)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        stand_in = stand_in_for(func)
        if stand_in is None:
            return super().__torch_function__(func, types, args, kwargs)
        runs: list[Recording] = []
        _mapped(lambda tensor: runs.append(tensor.run), (*args, *(kwargs or {}).values()))
        return runs[0].apply(func, stand_in, args, kwargs or {})


class RecordedDraws(Draws):
    """Draws the numbers of a run at once, which are inputs of the network like any other.

    Args:
        run: of which they are part.
    """

    def __init__(self, run: Recording) -> None:
        self._run = run

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """As of `Draws`."""
        return Recorded.source(super().normal(shape, like), self._run)

    def dropout(self, h: Tensor) -> Tensor:
        """As of `Draws`."""
        assert isinstance(h, Recorded)
        kept = super().dropout(torch.ones_like(h.pixels)) > 0
        return h * Recorded.source(kept, self._run) * (1 / (1 - DROPOUT))


def _mapped(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """A value with a function applied to each `RegionTensor` in it, and to what is at its place in others."""
    if isinstance(value, RegionTensor):
        return function(value, *others)
    if isinstance(value, (list, tuple)):
        parts = [_mapped(function, *each) for each in zip(value, *others, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
