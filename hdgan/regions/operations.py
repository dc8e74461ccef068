"""Local operations on images that are computed region by region, by what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import conv_by_rows
from hdgan.models.inputs import map_edge_repeated
from hdgan.ops import LabelPlanes, avg_pyramid, boundary_map, label_conv2d, label_planes
from hdgan.ops.instance_norm_act import PadMode
from hdgan.regions.enlargement import AlignedEnlargement, NearestEnlargement
from hdgan.regions.nodes import (
    Convolution,
    Crop,
    Local,
    Node,
    Padding,
    Pointwise,
    TransposedConvolution,
    label_codes,
    looked_up,
)
from hdgan.regions.tensor import RegionTensor, made_from, stands_for, unsupported

_PAD_MODES: Mapping[str, PadMode] = {"constant": "zero", "reflect": "reflect", "replicate": "replicate"}


def _one(value: Any, what: str) -> int:
    """A number that holds for rows and columns."""
    numbers = {value} if isinstance(value, int) else set(value)
    if len(numbers) != 1 or not isinstance(next(iter(numbers)), int):
        raise unsupported(f"{what} {value}")
    return cast(int, numbers.pop())


def _computed_in(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


@stands_for(F.conv2d)
def _conv2d(
    x: RegionTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> RegionTensor:
    if weight.shape[2] != weight.shape[3]:
        raise unsupported(f"a convolution of {weight.shape[2]}x{weight.shape[3]}")
    sides = _one(stride, "stride"), _one(padding, "padding"), _one(dilation, "dilation")

    def convolve(pixels: Tensor) -> Tensor:
        return F.conv2d(pixels, weight, bias, sides[0], 0, sides[2], groups)

    n_out, _, side, _ = weight.shape
    return made_from(x, Convolution(x.node, convolve, n_out, side, *sides, dtype=_computed_in(weight)))


@stands_for(conv_by_rows)
def _conv_by_rows(conv: nn.Conv2d, x: RegionTensor) -> RegionTensor:
    n_out, _, side, _ = conv.weight.shape
    return made_from(x, Convolution(x.node, partial(conv_by_rows, conv), n_out, side, 1, 0, 1, dtype=x.dtype))


@stands_for(F.conv_transpose2d)
def _conv_transpose2d(
    x: RegionTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> RegionTensor:
    if weight.shape[2] != weight.shape[3]:
        raise unsupported(f"a transposed convolution of {weight.shape[2]}x{weight.shape[3]}")
    numbers = _one(stride, "stride"), _one(padding, "padding"), _one(output_padding, "output padding")
    rest = groups, _one(dilation, "dilation")
    return made_from(x, TransposedConvolution(x.node, weight, bias, *numbers, *rest, dtype=_computed_in(weight)))


@stands_for(F.pad)
def _pad(x: RegionTensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> RegionTensor:
    if len(pad) != 4 or mode not in _PAD_MODES or value:
        raise unsupported(f"padding by {tuple(pad)} in mode {mode}")
    left, right, top, bottom = pad
    return made_from(x, Padding(x.node, (left, right, top, bottom), _PAD_MODES[mode]))


@stands_for(F.interpolate)
def _interpolate(
    x: RegionTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> RegionTensor:
    height, width = x.shape[2:]
    if size is None:
        factor = scale_factor if isinstance(scale_factor, (int, float)) else 0
        rows, columns = int(height * factor), int(width * factor)
        known = mode == "nearest" and factor == int(factor)
    else:
        rows, columns = (size, size) if isinstance(size, int) else size
        known = mode == "nearest" or (mode == "bilinear" and align_corners is True)
    if not known or antialias or rows < height or columns < width:
        raise unsupported(f"interpolation of mode {mode} from {width}x{height} to {columns}x{rows}")
    enlargement = NearestEnlargement if mode == "nearest" else AlignedEnlargement
    return made_from(x, enlargement(x.node, (rows, columns)))


@stands_for(Tensor.__getitem__)
def _getitem(x: RegionTensor, index: Any) -> RegionTensor:
    whole = slice(None)
    parts = index if isinstance(index, tuple) else (index,)
    parts += (whole,) * (4 - len(parts))
    if parts[0] != whole or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
        raise unsupported(f"the part {index} of an image")
    (first, last), (top, bottom), (left, right) = (
        part.indices(size)[:2] for part, size in zip(parts[1:], x.shape[1:], strict=True)
    )
    node: Node = Crop(x.node, (top, left), (bottom - top, right - left))
    if (first, last) != (0, x.shape[1]):
        node = Pointwise(lambda pixels: pixels[:, first:last], [node], (x.shape[0], last - first))
    return made_from(x, node)


def _pointwise(function: Callable[..., Tensor]) -> Callable[..., RegionTensor]:
    """Any function of the pixels of one place. Numbers, and tensors of one pixel, are the same for all places."""

    def apply(*args: Any, **kwargs: Any) -> RegionTensor:
        kwargs.pop("inplace", None)
        images = [k for k, a in enumerate(args) if isinstance(a, RegionTensor)]
        for a in args:
            if isinstance(a, Tensor) and not isinstance(a, RegionTensor) and a.dim() > 1 and a.shape[-2:] != (1, 1):
                raise unsupported("an image among images that are computed in tiles")
        like = function(*(_without_pixels(a) for a in args), **kwargs)
        if any(args[k].shape[-2:] != like.shape[-2:] for k in images):
            raise unsupported("images of different sizes together")
        nodes = [args[k].node for k in images]
        fixed = [None if k in images else a for k, a in enumerate(args)]  # which hold no node

        def compute(*pixels: Tensor) -> Tensor:
            filled = list(fixed)
            for k, p in zip(images, pixels, strict=True):
                filled[k] = p
            return function(*filled, **kwargs)

        return made_from(args[images[0]], Pointwise(compute, nodes, like.shape[:-2], like.dtype))

    return apply


def _without_pixels(value: Any) -> Any:
    """A tensor from which PyTorch finds shape and dtype of a result; other values as they are."""
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value


@stands_for(torch.cat)
def _cat(tensors: Sequence[RegionTensor], dim: int = 0) -> RegionTensor:
    if dim not in (1, -3):
        raise unsupported(f"a concatenation along dimension {dim}")
    if not all(isinstance(t, RegionTensor) for t in tensors):
        raise unsupported("an image among images that are computed in tiles")
    nodes = [t.node for t in tensors]
    channels = sum(node.shape[1] for node in nodes)
    return made_from(tensors[0], Pointwise(lambda *pixels: torch.cat(pixels, 1), nodes, (nodes[0].shape[0], channels)))


@stands_for(Tensor.to)
def _to(x: RegionTensor, *args: Any, **kwargs: Any) -> RegionTensor:
    dtype = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)), x.dtype)
    if dtype == x.dtype:
        return x
    return made_from(x, Pointwise(lambda pixels: pixels.to(dtype), [x.node], dtype=dtype))


@stands_for(F.avg_pool2d)
def _avg_pool2d(
    x: RegionTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> RegionTensor:
    side, step = _one(kernel_size, "pooling"), _one(stride or kernel_size, "stride")
    if side != step or padding or ceil_mode or divisor_override:
        raise unsupported(f"pooling by {side} with stride {step}")
    batch, channels, height, width = x.shape
    shape = batch, channels, height // side, width // side
    return made_from(x, Local(lambda p: F.avg_pool2d(p, side), [x.node], shape, x.dtype, stride=side, margin=0))


@stands_for(avg_pyramid)
def _avg_pyramid(x: RegionTensor, levels: int, *, backend: str | None = None) -> list[RegionTensor]:
    pyramid = [x]
    for _ in range(levels):
        last = pyramid[-1]
        batch, channels, height, width = last.shape
        shape = batch, channels, (height + 1) // 2, (width + 1) // 2
        half = partial(_halved, backend=backend)
        pyramid.append(made_from(last, Local(half, [last.node], shape, last.dtype, stride=2, margin=1)))
    return pyramid


def _halved(pixels: Tensor, backend: str | None) -> Tensor:
    return avg_pyramid(pixels, 1, backend=backend)[1]


@stands_for(label_planes)
def _label_planes(label: RegionTensor, ids: RegionTensor | None, n_labels: int, **options: Any) -> LabelPlanes:
    codes = label_codes(label.node, None if ids is None else ids.node, n_labels, **options)
    return LabelPlanes(made_from(label, codes), n_labels, ids is not None)


@stands_for(boundary_map)
def _boundary_map(ids: RegionTensor) -> RegionTensor:
    return made_from(ids, Local(boundary_map, [ids.node], ids.shape, torch.bool, stride=1, margin=1))


@stands_for(Tensor.unsqueeze)
def _unsqueeze(x: RegionTensor, dim: int) -> RegionTensor:
    batch, height, width = x.shape
    if dim != 1:
        raise unsupported(f"a map with a new dimension {dim}")
    planes = Local(lambda pixels: pixels[:, None], [x.node], (batch, 1, height, width), x.dtype, stride=1, margin=0)
    return made_from(x, planes)


@stands_for(map_edge_repeated)
def _map_edge_repeated(codes: RegionTensor, bottom: int, right: int) -> RegionTensor:
    return made_from(codes, Padding(codes.node, (0, right, 0, bottom), "replicate"))


@stands_for(label_conv2d)
def _label_conv2d(label: LabelPlanes, ids: None, weight: Tensor, **options: Any) -> RegionTensor:
    codes = cast(RegionTensor, label.codes)
    dtype = options.pop("dtype", None) or _computed_in(weight)
    every = {"stride": 1, "padding": 0, "pad_mode": "zero", "levels": 0, "window": 3} | options
    return made_from(codes, looked_up(label, codes.node, weight, dtype, **every))


_POINTWISE: tuple[tuple[Callable[..., Tensor], Sequence[Any]], ...] = (
    (torch.add, (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)),
    (torch.mul, (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)),
    (torch.div, (torch.div, Tensor.div, Tensor.__truediv__)),
    (torch.addcmul, (torch.addcmul,)),
    (torch.tanh, (torch.tanh, Tensor.tanh)),
    (torch.clamp, (torch.clamp, Tensor.clamp)),
    (F.relu, (F.relu, F.relu_)),
    (F.leaky_relu, (F.leaky_relu, F.leaky_relu_)),
)
for _function, _same in _POINTWISE:
    stands_for(*_same)(_pointwise(_function))


@stands_for(Tensor.float)
def _float(x: RegionTensor) -> RegionTensor:
    return _to(x, torch.float32)
