"""label_conv2d: the convolution of a label map's planes, as sums of rows of a table instead of a multiplication.

A pixel has one class. The convolution of its one-hot planes is therefore a sum of k * k rows of the table
`weight[tap][class]`; and where all pixels under the kernel have one class and none is on a boundary, which is most of a
street scene, it is one row of the table's sum over the taps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight
from torch.overrides import handle_torch_function

from hdgan.ops._backend import choose, declared, launch
from hdgan.ops._checks import check_same_device, format_of, is_channels_last
from hdgan.ops._overrides import is_taken
from hdgan.ops._register import fold, register
from hdgan.ops.encode_labels import LabelPlanes, label_planes
from hdgan.ops.instance_norm_act import PadMode, pad2d

_POOL_PADDING = {2: 0, 3: 1}
"""Pooling windows, and the padding that belongs to each."""
_CHANNELS, _CHANNELS_POOLED = 16, 48
"""A CPU multiplies noise of so many planes, as they are and pooled, as fast as it looks it up; measured."""


def label_conv2d_reference(
    planes: LabelPlanes,
    weight: Tensor,
    stride: int,
    padding: int,
    pad_mode: PadMode,
    levels: int,
    window: int,
    dtype: torch.dtype,
) -> Tensor:
    with _without_autocast(planes.codes.device.type):
        x = _padded_planes(planes, padding, pad_mode, levels, window, dtype, is_channels_last(weight))
        y = F.conv2d(x, weight.to(dtype), stride=stride)
    return y.to(dtype, memory_format=format_of(is_channels_last(weight)))


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """What `dtype` says counts, whatever autocast would choose, which also is active where a backward pass runs in it.

    Without autocast, an exported graph has no context.
    """
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _padded_planes(
    planes: LabelPlanes,
    padding: int,
    pad_mode: PadMode,
    levels: int,
    window: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    return pad2d(pooled_planes(planes, levels, window, dtype, format_of(channels_last)), padding, pad_mode)


def pooled_planes(
    planes: LabelPlanes, levels: int, window: int, dtype: torch.dtype, memory_format: torch.memory_format
) -> Tensor:
    """The dense planes at a level of their pyramid, which `label_conv2d` convolves without making them.

    Args:
        planes, levels, window: as of `label_conv2d`.
        dtype, memory_format: of the result.
    """
    x = planes.dense(dtype, memory_format)
    for _ in range(levels):
        x = F.avg_pool2d(x, window, stride=2, padding=_POOL_PADDING[window], count_include_pad=False)
    return x


def _dense_is_faster(codes: Tensor, channels: int, *options: Any) -> bool:
    """Whether the map changes so often that a CPU multiplies faster than it looks up.

    The share of pixels that differ from their left neighbour is counted in every 16th row. It is about 0.05 in street
    scenes and nearly 1 in noise. The cost of a look-up grows with this share, that of a multiplication with the number
    of channels.
    """
    *_, levels, _, _, _, backend = options
    if backend != "cpu":
        return False  # a GPU would have to be waited for
    rows = codes.numpy()[:, ::16]  # PyTorch's calls would take longer than the kernel of a small map
    pairs = rows[..., 1:] != rows[..., :-1]
    most = channels / (_CHANNELS_POOLED if levels else _CHANNELS)
    return np.count_nonzero(pairs) > most * pairs.size


# Both operators end with the options edges, stride, padding, pad_mode, levels, window, dtype, channels_last and
# backend; dtype and format are those of their result. The dense form, too, computes in float32: what a map shows does
# not decide how exact the result is.


def _forward(codes: Tensor, weight: Tensor, *options: Any) -> Tensor:
    if _dense_is_faster(codes, weight.shape[1], *options):
        edges, stride, padding, pad_mode, levels, window, dtype, channels_last, _ = options
        planes = LabelPlanes(codes, weight.shape[1] - int(edges), edges)
        weight = weight.to(torch.float32, memory_format=format_of(channels_last))
        y = label_conv2d_reference(planes, weight, stride, padding, pad_mode, levels, window, torch.float32)
        return y.to(dtype, memory_format=format_of(channels_last))
    y = _fake(codes, weight, *options)
    # [k * k, n (+ 1), C_out]: a row for each tap and plane
    table = weight.detach().float().permute(2, 3, 1, 0).flatten(0, 1).contiguous()
    _launch("fwd", codes, table, y, *options)
    return y


def _fake(codes: Tensor, weight: Tensor, *options: Any) -> Tensor:
    _, stride, padding, _, levels, window, dtype, channels_last, _ = options
    side = weight.shape[2]
    height, width = ((pooled_side(size, levels, window) + 2 * padding - side) // stride + 1 for size in codes.shape[1:])
    shape = codes.shape[0], weight.shape[0], height, width
    return torch.empty(shape, dtype=dtype, device=codes.device, memory_format=format_of(channels_last))


def _backward(codes: Tensor, dy: Tensor, shape: Sequence[int], *options: Any) -> Tensor:
    dweight = _backward_fake(codes, dy, shape, *options)
    if _dense_is_faster(codes, shape[1], *options):
        edges, stride, padding, pad_mode, levels, window, *_ = options
        planes = LabelPlanes(codes, shape[1] - int(edges), edges)
        with _without_autocast(codes.device.type):
            x = _padded_planes(planes, padding, pad_mode, levels, window, torch.float32, is_channels_last(dy))
            return dweight.copy_(conv2d_weight(x, shape, dy.float(), stride))
    n_out, n_in, side, _ = shape
    dtable = torch.empty(side * side, n_in, n_out, dtype=torch.float32, device=dy.device)
    _launch("bwd", codes, dtable, dy.contiguous(memory_format=format_of(is_channels_last(dy))), *options)
    return dweight.copy_(dtable.unflatten(0, (side, side)).permute(3, 2, 0, 1))


def _backward_fake(codes: Tensor, dy: Tensor, shape: Sequence[int], *options: Any) -> Tensor:
    *_, dtype, channels_last, _ = options
    return torch.empty(tuple(shape), dtype=dtype, device=dy.device, memory_format=format_of(channels_last))


def _launch(kernel: str, codes: Tensor, table: Tensor, y: Tensor, *options: Any) -> None:
    """Run a kernel on codes, the table or its gradient, and the result or its gradient."""
    edges, stride, padding, pad_mode, levels, window, _, _, backend = options
    # One pixel stays one pixel, but the span of its pooling would double with each further level.
    levels = min(levels, (max(codes.shape[1:]) - 1).bit_length())
    pools = [_pooling(size, levels, window, y.device) if levels else None for size in codes.shape[1:]]
    arguments = codes.contiguous(), table, y, *pools
    plain = table.shape[1] - int(edges), stride, padding, pad_mode
    scratch = None
    if backend != "cpu":
        size = declared("label_conv2d", f"{kernel}_scratch", backend, codes, table, y, *pools, *plain)
        scratch = y.new_empty(size, dtype=torch.float32)
    launch("label_conv2d", kernel, backend, y.device, *arguments, scratch, *plain)


def pooled_side(size: Any, levels: int, window: int) -> Any:
    """Height or width of planes at a level of their pyramid; `torch.compile` may give it a symbol."""
    for _ in range(levels):
        size = (size + 1) // 2 if window == 3 else size // 2
    return size


@cache
def _pooling(size: int, levels: int, window: int, device: torch.device) -> Tensor:
    """The pooling of one side as weights of the original pixels, [pooled size, span] float32.

    Pixel i of the result averages the span of pixels that begins at i * 2^levels, and with a window of 3 as many pixels
    before that as (span - 1) / 2. Those outside of the image have the weight 0.
    """
    weights = torch.ones(size, 1, dtype=torch.float64)
    for level in range(levels):
        step, below = 2**level, weights
        pooled = pooled_side(len(below), 1, window)
        weights = torch.zeros(pooled, below.shape[1] + (window - 1) * step, dtype=torch.float64)
        known = torch.zeros(pooled, 1, dtype=torch.float64)
        for k in range(window):
            source = 2 * torch.arange(pooled) + k - _POOL_PADDING[window]
            inside = ((source >= 0) & (source < len(below))).double().unsqueeze(1)
            weights[:, k * step : k * step + below.shape[1]] += inside * below[source.clamp(0, len(below) - 1)]
            known += inside
        weights /= known
    return weights.float().to(device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    codes, weight, *ctx.options = inputs
    ctx.save_for_backward(codes)
    ctx.shape, ctx.dtype, ctx.channels_last = weight.shape, weight.dtype, is_channels_last(weight)


def _backward_of(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    (codes,) = ctx.saved_tensors
    *options, _, _, backend = ctx.options
    dweight = _label_conv2d_backward(codes, dy, ctx.shape, *options, ctx.dtype, ctx.channels_last, backend)
    return None, dweight, *(None for _ in ctx.options)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    codes, dy, _, *ctx.options = inputs
    ctx.save_for_backward(codes)
    ctx.dtype, ctx.channels_last = dy.dtype, is_channels_last(dy)


def _double_backward_of(ctx: Any, ddweight: Tensor) -> tuple[Any, ...]:
    (codes,) = ctx.saved_tensors
    *options, _, _, backend = ctx.options
    ddy = _label_conv2d(codes, ddweight, *options, ctx.dtype, ctx.channels_last, backend)
    return None, ddy, None, *(None for _ in ctx.options)


def _batched(
    op: Callable[..., Tensor], info: Any, mapped: Sequence[Any], codes: Tensor, weight: Tensor, *rest: Any
) -> Any:
    """Mapped label maps join the batch, and mapped weights the output channels. Where both are mapped, the op runs once
    for each pair."""
    size = info.batch_size
    if mapped[1] is None:
        return op(fold(codes, mapped[0], 0, size), weight, *rest).unflatten(0, (size, -1)), 0
    if mapped[0] is None:
        return op(codes, fold(weight, mapped[1], 0, size), *rest).unflatten(1, (size, -1)), 1
    pairs = zip(codes.unbind(mapped[0]), weight.unbind(mapped[1]), strict=True)
    return torch.stack([op(*pair, *rest) for pair in pairs]), 0


def _backward_batched(
    op: Callable[..., Tensor], info: Any, mapped: Sequence[Any], codes: Tensor, dy: Tensor, *rest: Any
) -> tuple[Tensor, int]:
    each = (
        [x] * info.batch_size if dim is None else x.unbind(dim)
        for x, dim in zip((codes, dy), mapped, strict=False)
    )  # fmt: skip
    return torch.stack([op(*pair, *rest) for pair in zip(*each, strict=True)]), 0


_OPTIONS = (
    "bool edges, SymInt stride, SymInt padding, str pad_mode, SymInt levels, SymInt window, ScalarType dtype, "
    "bool channels_last, str backend"
)
_label_conv2d = register(
    f"label_conv2d(Tensor codes, Tensor weight, {_OPTIONS}) -> Tensor",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward_of,
    batched=_batched,
)
_label_conv2d_backward = register(
    f"label_conv2d_backward(Tensor codes, Tensor dy, SymInt[] shape, {_OPTIONS}) -> Tensor",
    _backward,
    _backward_fake,
    setup_context=_setup_backward,
    backward=_double_backward_of,
    batched=_backward_batched,
)


def label_conv2d(
    label: Tensor | LabelPlanes,
    ids: Tensor | None,
    weight: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    pad_mode: PadMode = "reflect",
    levels: int = 0,
    window: int = 3,
    dontcare: int | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve the planes of a label map without making them.

    The result is that of

        x = encode_labels(label, ids, n_labels, dontcare=dontcare)
        x = avg_pyramid(x, levels)[-1]
        conv2d(pad2d(x, padding, pad_mode), weight, stride=stride)

    computed in float32, where n_labels is the number of input channels of `weight`, less one for the boundaries if
    `ids` is given. Only `weight` has a gradient. A label map of many small regions costs more than one of large
    regions. On a CPU, a map that changes at most pixels is convolved in the dense form, which is faster then and makes
    the planes. The backend eager computes in `dtype`: it rounds the weight and its gradient to that, as autocast does.

    Args:
        label: [B, H, W] or [B, 1, H, W], any integer dtype; or the planes of `label_planes`, which several convolutions
            share.
        ids: instance ids in the same shapes, whose boundaries are the last plane; or a bool map, that plane itself; or
            None for no boundary plane. It must be None where `label` is `LabelPlanes`, and so must `dontcare`.
        weight: [C_out, n_labels (+ 1 with boundaries), k, k], as a dense convolution has it.
        stride: of the convolution.
        padding: pixels that are added to each side.
        pad_mode: how they are filled: reflect, zero or replicate.
        levels: how often the planes are halved by average pooling first.
        window: side of the pooling: 3 for that of `avg_pyramid`, 2 for AvgPool2d(2), which drops an odd last row.
        dontcare: label that belongs to no class, or None.
        dtype: of the result, floating point; None is autocast's where it is active and `weight` is not float64, or that
            of `weight`.
        backend: implementation by name; None chooses.

    Returns:
        [B, C_out, ⌊(H' + 2 padding - k) / stride⌋ + 1, …] for planes of H' rows, in the memory format of `weight`.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or option.
        BackendError: the named backend cannot run.
        RuntimeError: `weight` has more than 59 pixels a side on the backend cuda.
    """
    codes = label.codes if isinstance(label, LabelPlanes) else label
    if is_taken((codes, ids, weight)):
        given: dict[str, Any] = {"stride": stride, "padding": padding, "pad_mode": pad_mode, "levels": levels}
        given |= {"window": window, "dontcare": dontcare, "dtype": dtype, "backend": backend}
        return handle_torch_function(label_conv2d, (codes, ids, weight), label, ids, weight, **given)
    op = "label_conv2d"
    planes = _as_planes(op, label, ids, weight, dontcare, backend)
    _check(op, planes, weight, stride, padding, pad_mode, levels, window)
    kind = weight.device.type
    if dtype is None:
        narrowed = torch.is_autocast_enabled(kind) and weight.dtype != torch.float64
        dtype = torch.get_autocast_dtype(kind) if narrowed else weight.dtype
    if not dtype.is_floating_point:
        raise TypeError(f"{op}: expected a floating-point dtype of the result, got {dtype}")
    chosen = choose(op, backend, planes.codes, dtype)
    if chosen == "eager":
        return label_conv2d_reference(planes, weight, stride, padding, pad_mode, levels, window, dtype)
    options = stride, padding, pad_mode, levels, window, dtype, is_channels_last(weight), chosen
    return _label_conv2d(planes.codes, weight, planes.edges, *options)


def _as_planes(
    op: str, label: Tensor | LabelPlanes, ids: Tensor | None, weight: Tensor, dontcare: int | None, backend: str | None
) -> LabelPlanes:
    if weight.dim() != 4 or weight.shape[2] != weight.shape[3] or not weight.numel():
        raise ValueError(f"{op}: expected weight of shape [C_out, n, k, k], got {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise TypeError(f"{op}: expected weight of a floating-point dtype, got {weight.dtype}")
    if isinstance(label, LabelPlanes):
        if ids is not None or dontcare is not None:
            raise ValueError(f"{op}: expected neither ids nor dontcare with LabelPlanes, which know their own")
        _check_codes(op, label.codes)
        planes = label
    else:
        n_labels = weight.shape[1] - (ids is not None)
        planes = label_planes(label, ids, n_labels, dontcare=dontcare, backend=backend)
    check_same_device(op, label=planes.codes, weight=weight)
    if weight.shape[1] != planes.channels:
        raise ValueError(f"{op}: expected weight of {planes.channels} input channels, got {weight.shape[1]}")
    return planes


def _check_codes(op: str, codes: Tensor) -> None:
    """Kernels trust codes. In some that were put together by hand, this finds the faults that are cheap to see."""
    if codes.dtype != torch.int32:
        raise TypeError(f"{op}: expected codes in torch.int32, as label_planes makes them, got {codes.dtype}")
    if codes.dim() != 3:
        raise ValueError(f"{op}: expected codes of shape [B, H, W], got {tuple(codes.shape)}")
    if codes.numel() == 0:
        raise ValueError(f"{op}: expected non-empty codes, got shape {tuple(codes.shape)}")


def _check(
    op: str, planes: LabelPlanes, weight: Tensor, stride: int, padding: int, pad_mode: str, levels: int, window: int
) -> None:
    if pad_mode not in ("reflect", "zero", "replicate"):
        raise ValueError(f"{op}: expected pad_mode reflect, zero or replicate, got {pad_mode!r}")
    if window not in _POOL_PADDING:
        raise ValueError(f"{op}: expected window 2 or 3, got {window}")
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("levels", levels, 0)):
        if value < least:
            raise ValueError(f"{op}: expected {name} >= {least}, got {value}")
    height, width = (pooled_side(size, levels, window) for size in planes.codes.shape[1:])
    if min(height, width) < 1:
        least, found = 2**levels, "x".join(map(str, planes.codes.shape[1:]))
        raise ValueError(f"{op}: expected a map of {least}x{least} pixels or more for levels {levels}, got {found}")
    if pad_mode == "reflect" and padding >= min(height, width):
        raise ValueError(f"{op}: expected planes larger than the padding {padding}, got {height}x{width}")
    if min(height, width) + 2 * padding < weight.shape[2]:
        raise ValueError(
            f"{op}: expected padded planes of at least the kernel's {weight.shape[2]} pixels, got {height}x{width}"
        )
