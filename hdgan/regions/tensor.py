"""Tensors without pixels, on which a network runs as it is: each operation makes a node that computes regions.

`RegionTensor` takes part in PyTorch's protocol for other tensors, `__torch_function__`. What a network calls is looked
up in a table of the operations that are local or, like instance norm, need a sum over the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.errors import ConfigError
from hdgan.models.blocks import conv_by_rows
from hdgan.models.inputs import map_edge_repeated
from hdgan.ops import LabelPlanes, avg_pyramid, boundary_map, instance_norm_act, label_conv2d, label_planes
from hdgan.ops.instance_norm_act import PadMode
from hdgan.regions.boxes import Box
from hdgan.regions.nodes import (
    AlignedEnlargement,
    Convolution,
    Local,
    NearestEnlargement,
    Node,
    Padding,
    Pointwise,
    TransposedConvolution,
    label_codes,
    looked_up,
)
from hdgan.regions.run import Run, Statistics

_PAD_MODES: Mapping[str, PadMode] = {"constant": "zero", "reflect": "reflect", "replicate": "replicate"}


class RegionTensor(Tensor):
    """An image [B, C, H, W], or a map [B, H, W], whose pixels are computed region by region.

    Attributes:
        node: computes them.
        run: how.
    """

    node: Node
    run: Run

    @staticmethod
    def of(node: Node, run: Run) -> RegionTensor:
        """The tensor of a node."""
        bare = torch.empty(node.shape, dtype=node.dtype, device="meta")
        tensor = cast(RegionTensor, bare.as_subclass(RegionTensor))
        tensor.node, tensor.run = node, run
        return tensor

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """That on which regions are computed."""
        return self.run.device

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _OPERATIONS:
            return _OPERATIONS[func](*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            raise _unsupported(getattr(func, "__name__", str(func)))
        return result  # a size, a dtype or the like


def _unsupported(what: str) -> ConfigError:
    return ConfigError(f"the network uses {what}, which cannot be computed in tiles: generate the whole image at once")


def _on(x: RegionTensor, node: Node) -> RegionTensor:
    return RegionTensor.of(node, x.run)


def _one(value: Any, what: str) -> int:
    """A number that holds for rows and columns."""
    numbers = {value} if isinstance(value, int) else set(value)
    if len(numbers) != 1 or not isinstance(next(iter(numbers)), int):
        raise _unsupported(f"{what} {value}")
    return cast(int, numbers.pop())


def _computed_in(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


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
        raise _unsupported(f"a convolution of {weight.shape[2]}x{weight.shape[3]}")
    sides = _one(stride, "stride"), _one(padding, "padding"), _one(dilation, "dilation")

    def convolve(pixels: Tensor) -> Tensor:
        return F.conv2d(pixels, weight, bias, sides[0], 0, sides[2], groups)

    n_out, _, side, _ = weight.shape
    return _on(x, Convolution(x.node, convolve, n_out, side, *sides, dtype=_computed_in(weight)))


def _conv_by_rows(conv: nn.Conv2d, x: RegionTensor) -> RegionTensor:
    n_out, _, side, _ = conv.weight.shape
    return _on(x, Convolution(x.node, partial(conv_by_rows, conv), n_out, side, 1, 0, 1, dtype=x.dtype))


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
        raise _unsupported(f"a transposed convolution of {weight.shape[2]}x{weight.shape[3]}")
    numbers = _one(stride, "stride"), _one(padding, "padding"), _one(output_padding, "output padding")
    rest = groups, _one(dilation, "dilation")
    return _on(x, TransposedConvolution(x.node, weight, bias, *numbers, *rest, dtype=_computed_in(weight)))


def _pad(x: RegionTensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> RegionTensor:
    if len(pad) != 4 or mode not in _PAD_MODES or value:
        raise _unsupported(f"padding by {tuple(pad)} in mode {mode}")
    left, right, top, bottom = pad
    return _on(x, Padding(x.node, (left, right, top, bottom), _PAD_MODES[mode]))


def _interpolate(
    x: RegionTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **_: Any,
) -> RegionTensor:
    height, width = x.shape[2:]
    if mode == "bilinear" and align_corners and size is not None:
        rows, columns = (size, size) if isinstance(size, int) else size
        return _on(x, AlignedEnlargement(x.node, (rows, columns)))
    if size is None:
        size = (int(height * scale_factor), int(width * scale_factor))
    rows, columns = (size, size) if isinstance(size, int) else size
    if mode != "nearest" or rows < height or columns < width:
        raise _unsupported(f"interpolation from {width}x{height} to {columns}x{rows} in mode {mode}")
    return _on(x, NearestEnlargement(x.node, (rows, columns)))


class _Crop(Node):
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


def _getitem(x: RegionTensor, index: Any) -> RegionTensor:
    whole = slice(None)
    if not (isinstance(index, tuple) and len(index) == 4 and index[0] == index[1] == whole):
        raise _unsupported(f"the part {index} of an image")
    spans = [part.indices(size) for part, size in zip(index[2:], x.shape[2:], strict=True)]
    if any(step != 1 for _, _, step in spans):
        raise _unsupported(f"the part {index} of an image")
    (top, bottom, _), (left, right, _) = spans
    return _on(x, _Crop(x.node, (top, left), (bottom - top, right - left)))


def _pointwise(function: Callable[..., Tensor]) -> Callable[..., RegionTensor]:
    """Any function of the pixels of one place. Numbers, and tensors of one pixel, are the same for all places."""

    def apply(*args: Any, **kwargs: Any) -> RegionTensor:
        images = [k for k, a in enumerate(args) if isinstance(a, RegionTensor)]
        first: RegionTensor = args[images[0]]
        for a in args:
            if isinstance(a, Tensor) and not isinstance(a, RegionTensor) and a.dim() > 1 and a.shape[-2:] != (1, 1):
                raise _unsupported("an image among images that are computed in tiles")
        kwargs.pop("inplace", None)
        nodes = [args[k].node for k in images]
        fixed = [None if k in images else a for k, a in enumerate(args)]  # which hold no node

        def compute(*pixels: Tensor) -> Tensor:
            filled = list(fixed)
            for k, p in zip(images, pixels, strict=True):
                filled[k] = p
            return function(*filled, **kwargs)

        return _on(first, Pointwise(compute, nodes))

    return apply


def _cat(tensors: Sequence[RegionTensor], dim: int = 0) -> RegionTensor:
    if dim not in (1, -3):
        raise _unsupported(f"a concatenation along dimension {dim}")
    nodes = [t.node for t in tensors]
    channels = sum(node.shape[1] for node in nodes)
    return _on(tensors[0], Pointwise(lambda *pixels: torch.cat(pixels, 1), nodes, channels))


def _to(x: RegionTensor, *args: Any, **kwargs: Any) -> RegionTensor:
    dtype = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)), x.dtype)
    if dtype == x.dtype:
        return x
    return _on(x, Pointwise(lambda pixels: pixels.to(dtype), [x.node], dtype=dtype))


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
        raise _unsupported(f"pooling by {side} with stride {step}")
    batch, channels, height, width = x.shape
    shape = batch, channels, height // side, width // side
    return _on(x, Local(lambda p: F.avg_pool2d(p, side), [x.node], shape, x.dtype, stride=side, margin=0))


def _avg_pyramid(x: RegionTensor, levels: int, *, backend: str | None = None) -> list[RegionTensor]:
    pyramid = [x]
    for _ in range(levels):
        last = pyramid[-1]
        batch, channels, height, width = last.shape
        shape = batch, channels, (height + 1) // 2, (width + 1) // 2
        half = partial(_halved, backend=backend)
        pyramid.append(_on(last, Local(half, [last.node], shape, last.dtype, stride=2, margin=1)))
    return pyramid


def _halved(pixels: Tensor, backend: str | None) -> Tensor:
    return avg_pyramid(pixels, 1, backend=backend)[1]


def _label_planes(label: RegionTensor, ids: RegionTensor | None, n_labels: int, **options: Any) -> LabelPlanes:
    codes = label_codes(label.node, None if ids is None else ids.node, n_labels, **options)
    return LabelPlanes(_on(label, codes), n_labels, ids is not None)


def _boundary_map(ids: RegionTensor) -> RegionTensor:
    return _on(ids, Local(boundary_map, [ids.node], ids.shape, torch.bool, stride=1, margin=1))


def _unsqueeze(x: RegionTensor, dim: int) -> RegionTensor:
    batch, height, width = x.shape
    if dim != 1:
        raise _unsupported(f"a map with a new dimension {dim}")
    planes = Local(lambda pixels: pixels[:, None], [x.node], (batch, 1, height, width), x.dtype, stride=1, margin=0)
    return _on(x, planes)


def _map_edge_repeated(codes: RegionTensor, bottom: int, right: int) -> RegionTensor:
    return _on(codes, Padding(codes.node, (0, right, 0, bottom), "replicate"))


def _label_conv2d(label: LabelPlanes, ids: None, weight: Tensor, **options: Any) -> RegionTensor:
    codes = cast(RegionTensor, label.codes)
    dtype = options.pop("dtype", None) or _computed_in(weight)
    every = {"stride": 1, "padding": 0, "pad_mode": "zero", "levels": 0, "window": 3} | options
    return _on(codes, looked_up(label, codes.node, weight, dtype, **every))


def _instance_norm_act(
    x: RegionTensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: RegionTensor | None = None,
    activation: str = "none",
    *,
    negative_slope: float = 0.2,
    eps: float = 1e-5,
    pad: int = 0,
    pad_mode: PadMode = "reflect",
    backend: str | None = None,
) -> RegionTensor:
    found = x.run.statistics_of(x.node)
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": negative_slope}[activation]
    normalise = partial(_normalised, *_scale_and_shift(found, weight, bias, eps), slope=slope)
    node: Node = Pointwise(normalise, [x.node])
    if residual is not None:
        margin = (residual.shape[2] - x.shape[2]) // 2
        inner = _Crop(residual.node, (margin, margin), (x.shape[2], x.shape[3]))
        node = Pointwise(torch.add, [node, inner])
        if x.run.given is None:
            x.run.hold(node)  # the sum is read by two more operations, and so on along the chain
    return _on(x, Padding(node, (pad,) * 4, pad_mode) if pad else node)


def _batch_norm(
    x: RegionTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> RegionTensor:
    if training or running_mean is None or running_var is None:
        found = x.run.statistics_of(x.node)
    else:
        found = Statistics(running_mean.double()[None], running_var.double()[None])
    return _on(x, Pointwise(partial(_normalised, *_scale_and_shift(found, weight, bias, eps)), [x.node]))


def _group_norm(
    x: RegionTensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> RegionTensor:
    found = x.run.statistics_of(x.node)
    mean, variance = (values.unflatten(1, (num_groups, -1)) for values in found)
    common = mean.mean(2, keepdim=True)
    spread = (variance + (mean - common).square()).mean(2, keepdim=True)
    of_groups = Statistics(*(values.expand_as(mean).flatten(1) for values in (common, spread)))
    return _on(x, Pointwise(partial(_normalised, *_scale_and_shift(of_groups, weight, bias, eps)), [x.node]))


def _scale_and_shift(
    found: Statistics, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean, scale and shift of each plane, [B, C, 1, 1] float32."""
    scale = (found.variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = None if bias is None else bias.float().view(1, -1, 1, 1)
    return found.mean.float()[:, :, None, None], scale.float()[:, :, None, None], shift


def _normalised(mean: Tensor, scale: Tensor, shift: Tensor | None, pixels: Tensor, slope: float = 1.0) -> Tensor:
    y = (pixels.float() - mean).mul_(scale)
    if shift is not None:
        y = y.add_(shift)
    if slope != 1:
        y = F.relu_(y) if slope == 0 else F.leaky_relu_(y, slope)
    return y.to(pixels.dtype)


_OPERATIONS: dict[Any, Callable[..., Any]] = {
    F.conv2d: _conv2d,
    F.conv_transpose2d: _conv_transpose2d,
    conv_by_rows: _conv_by_rows,
    F.pad: _pad,
    F.interpolate: _interpolate,
    F.avg_pool2d: _avg_pool2d,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.leaky_relu: _pointwise(F.leaky_relu),
    F.relu: _pointwise(F.relu),
    torch.cat: _cat,
    Tensor.to: _to,
    Tensor.float: lambda x: _to(x, torch.float32),
    Tensor.__getitem__: _getitem,
    instance_norm_act: _instance_norm_act,
    label_conv2d: _label_conv2d,
    avg_pyramid: _avg_pyramid,
    label_planes: _label_planes,
    boundary_map: _boundary_map,
    map_edge_repeated: _map_edge_repeated,
    Tensor.unsqueeze: _unsqueeze,
    **{
        function: _pointwise(pure)
        for pure, functions in {
            torch.add: (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__),
            torch.mul: (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__),
            torch.addcmul: (torch.addcmul,),
            torch.tanh: (torch.tanh, Tensor.tanh),
            torch.div: (torch.div, Tensor.div, Tensor.__truediv__),
            torch.clamp: (torch.clamp, Tensor.clamp),
        }.items()
        for function in functions
    },
}
