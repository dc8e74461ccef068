"""What a network reads: an image, or a label map whose one-hot planes are looked up instead of made.

A network takes a tensor [B, C, H, W] or a `LabelInput`. Its first convolutions look up the planes of a `LabelInput`
(`label_conv2d`), with the same weights as in the dense form. If one of them is not an unmodified convolution, the
network makes the dense planes for all of them (`input_for`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function

from hdgan.models.blocks import as_function, is_plain, prepared_conv
from hdgan.ops import LabelPlanes, avg_pyramid, label_conv2d, memory_format_of, pad2d
from hdgan.ops._overrides import is_taken
from hdgan.ops._torch_internals import transforms_active
from hdgan.ops.instance_norm_act import PadMode
from hdgan.ops.label_conv2d import pooled_planes, pooled_side


class LabelInput(NamedTuple):
    """The planes of a label map and further channels behind them, at one level of a pyramid."""

    planes: LabelPlanes
    """Of the full resolution."""
    features: Tensor | None = None
    """[B, C, H, W] at this level: the further channels."""
    level: int = 0
    """How often the planes are halved by average pooling."""
    window: int = 3
    """Side of the pooling, 3 or 2, as of `label_conv2d`."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the tensor which this stands for: [B, planes and further channels, H, W] at this level."""
        batch, height, width = self.planes.codes.shape
        height, width = (pooled_side(side, self.level, self.window) for side in (height, width))
        channels = self.planes.channels + (0 if self.features is None else self.features.shape[1])
        return batch, channels, height, width

    def dense(
        self, dtype: torch.dtype = torch.float32, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        """The tensor which this stands for, [B, channels, H, W]."""
        planes = pooled_planes(self.planes, self.level, self.window, dtype, memory_format)
        return planes if self.features is None else torch.cat([planes, self.features.to(dtype)], dim=1)

    def require_full_resolution(self) -> None:
        """Check that this is the full resolution, for networks that pad the planes or make their own pyramid.

        Raises:
            ValueError: it is a coarser level.
        """
        if self.level:
            raise ValueError(f"LabelInput: expected level 0, got {self.level}; give the tensor that `dense` makes")

    def padded(self, bottom: int, right: int) -> LabelInput:
        """The same with rows and columns that repeat the edge.

        Raises:
            ValueError: it is a coarser level.
        """
        self.require_full_resolution()
        codes, n_labels, edges = self.planes
        codes = map_edge_repeated(codes, bottom, right)
        features = None if self.features is None else _edge_repeated(self.features, bottom, right)
        return LabelInput(LabelPlanes(codes, n_labels, edges), features)


NetworkInput: TypeAlias = Tensor | LabelInput
Input = TypeVar("Input", bound=NetworkInput)


def input_for(x: NetworkInput, convs: Iterable[nn.Module], pad: int = 0) -> NetworkInput:
    """The input of a network as all of its first convolutions can read it: itself, or the dense tensor.

    Args:
        x: the input.
        convs: the first convolutions, or what took their place. One that is hooked, parametrised, replaced, dilated or
            the like reads a dense tensor, in the dtype that it computes in. A tensor is returned without a look at
            them.
        pad: what `first_conv` will pad by.
    """
    if isinstance(x, Tensor):
        return x
    first, *others = convs
    if all(_looks_up(conv, pad) for conv in (first, *others)):
        return x
    weight = first_weight(first)
    return x.dense(compute_dtype(weight), memory_format_of(weight))


def _looks_up(conv: nn.Module, pad: int) -> bool:
    """Whether `label_conv2d` computes what a module computes of padded planes."""
    if not (isinstance(conv, nn.Conv2d) and is_plain(conv)):
        return False
    sides = conv.kernel_size, conv.stride, conv.padding
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in sides)
    usual = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return square and usual and (pad == 0 or conv.padding == (0, 0))


def first_weight(network: nn.Module) -> Tensor:
    """The weight of its first convolution, or a part of a parametrised one: biases and norms have no memory format."""
    weights = (p for p in network.parameters() if p.is_floating_point() and p.dim() == 4 and p.numel() > len(p))
    return next(weights, torch.empty(0))  # of integers, where all convolutions are quantised


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a convolution with this weight computes in."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def first_conv(
    conv: nn.Module, x: NetworkInput, pad: int = 0, pad_mode: PadMode = "zero", *, bias: bool = False
) -> Tensor:
    """Pad x and apply the convolution that begins a network; a padded tensor is not kept (`prepared_conv`).

    Args:
        conv, bias: as of `as_function`.
        x: the input, or a level of its pyramid.
        pad, pad_mode: padding in addition to that of the convolution itself.

    Raises:
        ValueError: label planes and further channels are not as many as the convolution reads.
    """
    x = input_for(x, [conv], pad)
    if isinstance(x, LabelInput):
        if x.shape[1] != conv.in_channels:
            raise ValueError(f"first convolution: expected {conv.in_channels} channels, got {x.shape[1]}")
        return labels_conv(conv, x, pad, pad_mode, bias=bias)
    if not pad:
        return as_function(conv, bias=bias)(x)
    return prepared_conv(conv, x, partial(pad2d, pad=pad, mode=pad_mode), bias=bias)


def labels_conv(
    conv: nn.Module, x: LabelInput, pad: int = 0, pad_mode: PadMode = "zero", *, bias: bool = False
) -> Tensor:
    """What a convolution makes of x, the leading channels of its input.

    Args:
        conv, pad, pad_mode, bias: as of `first_conv`.
        x: a result of `input_for` with this convolution, or a level of its pyramid.
    """
    y = planes_conv(conv, x, pad=pad, pad_mode=pad_mode)
    if x.features is not None:
        prepare = partial(pad2d, pad=pad, mode=pad_mode)
        channels = slice(x.planes.channels, x.shape[1])
        return add_in_place(prepared_conv(conv, x.features, prepare, bias=bias, channels=channels), y)
    assert isinstance(conv, nn.Conv2d)
    return add_in_place(y, conv.bias.to(y.dtype).view(-1, 1, 1)) if bias and conv.bias is not None else y


def planes_conv(conv: nn.Module, x: LabelInput, start: int = 0, pad: int = 0, pad_mode: PadMode = "zero") -> Tensor:
    """What a convolution makes of the planes of x alone, which are its input channels from `start`, without bias.

    Args:
        conv, x, pad, pad_mode: as of `labels_conv`.
        start: number of the channels before them.
    """
    assert isinstance(conv, nn.Conv2d)
    whole = conv.weight
    weight = whole[:, start : start + x.planes.channels]
    return label_conv2d(
        x.planes,
        None,
        weight.contiguous(memory_format=memory_format_of(whole)),  # a part has no format of its own
        stride=conv.stride[0],
        padding=pad or int(conv.padding[0]),
        pad_mode=pad_mode if pad else "zero",
        levels=x.level,
        window=x.window,
    )


def add_in_place(y: Tensor, other: Tensor) -> Tensor:
    """y + other, written over y, which nothing else may hold."""
    return y + other if transforms_active() else y.add_(other)  # torch.vmap may map over `other` alone


def input_pyramid(x: NetworkInput, levels: int) -> list[NetworkInput]:
    """The levels of `avg_pyramid`, finest first.

    Raises:
        ValueError: x is a level of label planes already.
    """
    if isinstance(x, Tensor):
        return [*avg_pyramid(x, levels)]
    x.require_full_resolution()
    features = [None] * (levels + 1) if x.features is None else avg_pyramid(x.features, levels)
    return [LabelInput(x.planes, level, k) for k, level in enumerate(features)]


def run_at_multiple(network: Callable[[Input], Tensor], x: Input, multiple: int, least: int = 2) -> Tensor:
    """Pad x (`pad_to_multiple`), run, and crop back.

    So a network whose levels must divide evenly takes any size, and its output has the size of its input.
    """
    height, width = x.shape[2:]
    y = network(pad_to_multiple(x, multiple, least))
    return _at(y, height, width) if torch.compiler.is_exporting() else y[:, :, :height, :width]


def pad_to_multiple(x: Input, multiple: int, least: int = 2) -> Input:
    """Repeat the right and bottom edge of x until height and width are multiples of `multiple`.

    A level that is coarser by `multiple` gets `least` pixels or more, two by default, as reflection needs.
    """
    steps = [_at_least(least, (size + multiple - 1) // multiple) for size in x.shape[2:]]
    if torch.compiler.is_exporting() and isinstance(x, Tensor):  # for all sizes, those that need no padding included
        return cast(Input, _at(x, *(n * multiple for n in steps)))
    bottom, right = (n * multiple - size for n, size in zip(steps, x.shape[2:], strict=True))
    if not (bottom or right):
        return x
    padded = x.padded(bottom, right) if isinstance(x, LabelInput) else _edge_repeated(x, bottom, right)
    return cast(Input, padded)


def _at_least(least: int, size: int) -> int:
    """The larger of both.

    An export for sizes that may be smaller, or that may be one, gets a number without an expression, because guards
    would exclude the small sizes.
    """
    larger = cast(int, torch.sym_max(size, least))
    if not torch.compiler.is_exporting():
        return larger
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports SymPy

    if statically_known_true(size >= max(least, 2)):
        return size
    hidden = cast(int, torch.full((), larger, dtype=torch.int64).item())
    torch._check(hidden >= least)
    return hidden


def _at(x: Tensor, height: int, width: int) -> Tensor:
    """x cropped, or with its right and bottom edge repeated, by operators that say nothing about its size."""
    for dim, size in ((2, height), (3, width)):
        x = x.index_select(dim, torch.arange(size, device=x.device).clamp(max=x.shape[dim] - 1))
    return x


def map_edge_repeated(codes: Tensor, bottom: int, right: int) -> Tensor:
    """A map [B, H, W] of integers with rows and columns that repeat its edge, which F.pad has for no integers."""
    if is_taken((codes,)):
        return handle_torch_function(map_edge_repeated, (codes,), codes, bottom, right)
    rows, columns = (
        torch.arange(side + more, device=codes.device).clamp(max=side - 1)
        for side, more in zip(codes.shape[1:], (bottom, right), strict=True)
    )
    return codes[:, rows[:, None], columns]


def _edge_repeated(x: Tensor, bottom: int, right: int) -> Tensor:
    return F.pad(x, (0, right, 0, bottom), mode="replicate")
