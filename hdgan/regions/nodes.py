"""Images that are computed region by region: sources, and local operations on other images.

A node knows which region of each input it reads for a region of its own. `evaluate` (evaluation.py) asks it for these
first, and then for its pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.models.inputs import map_edge_repeated
from hdgan.ops import LabelPlanes, label_conv2d, label_planes
from hdgan.ops.instance_norm_act import TORCH_PAD_MODES, PadMode
from hdgan.ops.label_conv2d import pooled_side
from hdgan.regions.boxes import Box, Padded, Reach, Sliding, Spreading


class Held(Protocol):
    """Pixels of an image that lie in memory or in a file."""

    def read(self, box: Box) -> Tensor:
        """[B, …, H, W] of a box."""
        ...


class Node(ABC):
    """An image [B, C, H, W], or a map [B, H, W], that is computed region by region.

    Attributes:
        inputs: what it is computed from.
        shape: of the whole.
        dtype: of its pixels.
        held: its pixels, once they were computed and kept.
    """

    def __init__(self, inputs: Sequence[Node], shape: Sequence[int], dtype: torch.dtype) -> None:
        self.inputs = tuple(inputs)
        self.shape = tuple(shape)
        self.dtype = dtype
        self.held: Held | None = None

    @property
    def box(self) -> Box:
        """All of its pixels."""
        return Box.whole(*self.shape[-2:])

    def bytes(self, box: Box) -> int:
        """Memory of the pixels of a box."""
        planes = 1
        for size in self.shape[:-2]:
            planes *= size
        return planes * box.area * self.dtype.itemsize

    def reads(self, box: Box) -> list[Box]:
        """For a box of this image, the box of each input that it depends on."""
        boxes = []
        for k, node in enumerate(self.inputs):
            (rows, columns), (height, width) = self.reach(k), node.shape[-2:]
            boxes.append(Box(*rows.reads(box.rows, height), *columns.reads(box.columns, width)))
        return boxes

    def writes(self, k: int, box: Box) -> Box:
        """The box of this image that depends on a box of input k."""
        if not box.area:
            return Box(0, 0, 0, 0)
        (rows, columns), (height, width) = self.reach(k), self.shape[-2:]
        return Box(*rows.writes(box.rows, height), *columns.writes(box.columns, width)).within(self.box)

    def reach(self, k: int) -> tuple[Reach, Reach]:
        """What rows of input k matter for the rows of this image, and what columns for its columns."""
        return Reach(), Reach()

    @abstractmethod
    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        """The pixels of a box, from those of `boxes` of the inputs, which are what `reads` returned."""

    def release(self) -> None:
        """Forget the inputs of an image that is held, so that their memory can be freed."""
        self.inputs = ()


class Source(Node):
    """Pixels that are there from the start."""

    def __init__(self, held: Held, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__((), shape, dtype)
        self.held: Held = held

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        return self.held.read(box)


class Pointwise(Node):
    """A function of the pixels of one place, such as an activation or a sum."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Node],
        planes: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        *own, height, width = inputs[0].shape
        super().__init__(inputs, (*(own if planes is None else planes), height, width), dtype or inputs[0].dtype)
        self._function = function

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        return self._function(*inputs)


class Convolution(Node):
    """A convolution with zeros around the image.

    Args:
        x: what it reads.
        function: the convolution without padding.
        channels: of the result.
        side, stride, padding, dilation: of its kernel, for rows and columns.
        dtype: of the result.
    """

    def __init__(
        self,
        x: Node,
        function: Callable[[Tensor], Tensor],
        channels: int,
        side: int,
        stride: int,
        padding: int,
        dilation: int,
        dtype: torch.dtype,
    ) -> None:
        extent = dilation * (side - 1) + 1
        batch, _, height, width = x.shape
        sides = ((size + 2 * padding - extent) // stride + 1 for size in (height, width))
        super().__init__((x,), (batch, channels, *sides), dtype)
        self._reach = Sliding(extent, stride, padding)
        self._function = function

    def reach(self, k: int) -> tuple[Reach, Reach]:
        return self._reach, self._reach

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        (x,), (given,) = inputs, boxes
        top, bottom = self._reach.unclipped(box.rows)
        left, right = self._reach.unclipped(box.columns)
        outside = (given.left - left, right - given.right, given.top - top, bottom - given.bottom)
        return self._function(F.pad(x, outside) if any(outside) else x)


class TransposedConvolution(Node):
    """F.conv_transpose2d.

    Args:
        x: what it reads.
        weight, bias, stride, padding, output_padding, groups, dilation: as of F.conv_transpose2d, with numbers that
            hold for both axes.
        dtype: of the result.
    """

    def __init__(
        self,
        x: Node,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        output_padding: int,
        groups: int,
        dilation: int,
        dtype: torch.dtype,
    ) -> None:
        extent = dilation * (weight.shape[2] - 1) + 1
        batch, _, height, width = x.shape
        sides = ((side - 1) * stride - 2 * padding + extent + output_padding for side in (height, width))
        super().__init__((x,), (batch, weight.shape[1] * groups, *sides), dtype)
        self._reach = Spreading(extent, stride, padding)
        self._bias = bias
        self._arguments = weight, None, stride, 0, 0, groups, dilation

    def reach(self, k: int) -> tuple[Reach, Reach]:
        return self._reach, self._reach

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        (x,), (given,) = inputs, boxes
        y = F.conv_transpose2d(x, *self._arguments)
        stride, padding = self._reach.stride, self._reach.padding
        top, left = given.top * stride - padding, given.left * stride - padding
        made = Box(top, top + y.shape[2], left, left + y.shape[3])
        inside = box.within(made)
        if not inside.area:  # output padding, or a gap between what pixels add
            inside = Box(box.top, box.top, box.left, box.left)
            y = y[:, :, :0, :0]
        else:
            rows, columns = inside.slices(made)
            y = y[:, :, rows, columns]
        missing = (inside.left - box.left, box.right - inside.right, inside.top - box.top, box.bottom - inside.bottom)
        if any(missing):
            y = F.pad(y, missing)
        return y if self._bias is None else y + self._bias.to(y.dtype).view(-1, 1, 1)


class Padding(Node):
    """Padding of rows and columns by `pad2d`'s modes; different on each side."""

    def __init__(self, x: Node, sides: tuple[int, int, int, int], mode: PadMode) -> None:
        left, right, top, bottom = sides
        *planes, height, width = x.shape
        super().__init__((x,), (*planes, height + top + bottom, width + left + right), x.dtype)
        self._rows, self._columns = Padded(top, bottom, mode), Padded(left, right, mode)

    def reach(self, k: int) -> tuple[Reach, Reach]:
        return self._rows, self._columns

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        (x,), (given,) = inputs, boxes
        inner = box.moved(-self._rows.before, -self._columns.before)
        if inner == given:
            return x
        height, width = self.inputs[0].shape[-2:]
        rows, columns = self._missing(inner.rows, height), self._missing(inner.columns, width)
        made = Box(given.top - rows[0], given.bottom + rows[1], given.left - columns[0], given.right + columns[1])
        if x.is_floating_point() or self._rows.mode == "zero":
            x = F.pad(x, (*columns, *rows), mode=TORCH_PAD_MODES[self._rows.mode])
        else:
            x = map_edge_repeated(x, rows[1], columns[1])
        rows_in, columns_in = inner.slices(made)
        return x[..., rows_in, columns_in]

    @staticmethod
    def _missing(span: tuple[int, int], size: int) -> tuple[int, int]:
        """How many pixels a span has before and after an image of this size."""
        return max(0, -span[0]), max(0, span[1] - size)


class Crop(Node):
    """Rows and columns from some pixel on."""

    def __init__(self, x: Node, begin: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__((x,), (*x.shape[:-2], *size), x.dtype)
        self._begin = begin

    def reads(self, box: Box) -> list[Box]:
        return [box.moved(*self._begin)]

    def writes(self, k: int, box: Box) -> Box:
        top, left = self._begin
        return box.moved(-top, -left).within(self.box)

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        return inputs[0]


class Local(Node):
    """An operation that is applied to a region as to a whole image, with pixels around it that are thrown away.

    Args:
        function: the operation.
        inputs: what it reads, all of one size.
        shape, dtype: of the result.
        stride: how many pixels of the input a pixel of the output advances by, where the operation has to begin at a
            multiple of it.
        margin: pixels of the output that the sides of a region may change.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Node],
        shape: Sequence[int],
        dtype: torch.dtype,
        stride: int,
        margin: int,
    ) -> None:
        super().__init__(inputs, shape, dtype)
        self._function, self._stride, self._margin = function, stride, margin

    def reads(self, box: Box) -> list[Box]:
        size = self.inputs[0].shape[-2:]
        spans = (self._span(span, side) for span, side in zip((box.rows, box.columns), size, strict=True))
        (top, bottom), (left, right) = spans
        return [Box(top, bottom, left, right)] * len(self.inputs)

    def _span(self, span: tuple[int, int], size: int) -> tuple[int, int]:
        begin, end = (span[0] - self._margin) * self._stride, (span[1] + self._margin) * self._stride
        # Where no room is left for a margin, all of the image is taken, whose own sides are right.
        least = self._margin * self._stride
        return (0 if begin < least else begin), (size if end > size - least else end)

    def writes(self, k: int, box: Box) -> Box:
        def grown(span: tuple[int, int]) -> tuple[int, int]:
            return span[0] // self._stride - self._margin, -(-span[1] // self._stride) + self._margin

        (top, bottom), (left, right) = grown(box.rows), grown(box.columns)
        return Box(top, bottom, left, right).within(self.box)

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        y = self._function(*inputs)
        given = boxes[0]
        top, left = given.top // self._stride, given.left // self._stride
        made = Box(top, top + y.shape[-2], left, left + y.shape[-1])
        rows, columns = box.slices(made)
        return y[..., rows, columns]


def label_codes(label: Node, ids: Node | None, n_labels: int, **options: Any) -> Node:
    """`label_planes`, as its codes."""

    def codes(label: Tensor, ids: Tensor | None = None) -> Tensor:
        return label_planes(label, ids, n_labels, **options).codes

    inputs = [label] if ids is None else [label, ids]
    return Local(codes, inputs, label.shape, torch.int32, stride=1, margin=0 if ids is None else 1)


def looked_up(planes: LabelPlanes, codes: Node, weight: Tensor, dtype: torch.dtype, **options: Any) -> Node:
    """`label_conv2d` of planes whose codes are a node.

    Args:
        planes: of which all but the codes count.
        codes: theirs.
        weight, options: as of `label_conv2d`.
        dtype: of the result.
    """
    stride, padding = options["stride"], options["padding"]
    levels, window = options["levels"], options["window"]
    extent = weight.shape[2]
    batch, *size = codes.shape
    pooled = [pooled_side(side, levels, window) for side in size]
    sides = ((side + 2 * padding - extent) // stride + 1 for side in pooled)

    def convolve(codes: Tensor) -> Tensor:
        return label_conv2d(planes._replace(codes=codes), None, weight, dtype=dtype, **options)

    # A pooled pixel sees its neighbour of each level; two pooled pixels cover that.
    margin = -(-(max(padding, extent - 1 - padding) + (2 if levels else 0)) // stride)
    return Local(convolve, [codes], (batch, weight.shape[0], *sides), dtype, stride * 2**levels, margin)
