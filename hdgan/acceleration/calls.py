"""What an accelerated forward calls in the place of several layers.

Each of these functions gets the layers themselves, and looks at them and at its input in every call. If everything is
what the op computes, it calls the op. Otherwise (a layer has got a hook or was exchanged, an input has no batch
dimension) it calls one layer after the other, as the original does, with the same results and the same errors.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.acceleration.reads import why_left
from hdgan.nn import _paddings
from hdgan.nn.instance_norm_act import keeps_statistics, normalised
from hdgan.nn.label_conv2d import LabelConvOptions, convolved, options_of
from hdgan.ops import avg_pyramid, instance_mean, pad2d
from hdgan.ops.instance_norm_act import Activation, PadMode

Norm = nn.Module | float
"""A layer, or the eps of a call of F.instance_norm."""
Act = nn.Module | float | None
"""A layer, or the slope of a call of F.relu (0) or F.leaky_relu, or nothing."""
Pad = nn.Module | tuple[PadMode, int] | None
"""A layer, or the mode and the pixels of a call of F.pad, or nothing."""
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_bare(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a layer is of one of these classes itself, and nothing sees whether it is called."""
    return type(layer) in kinds and why_left(layer) is None


def eps_of(norm: Norm) -> float | None:
    """The eps of an instance norm that takes the statistics of its input; None for anything else."""
    if not isinstance(norm, nn.Module):
        return norm
    if not is_bare(norm, *NORMS) or keeps_statistics(norm):
        return None
    return float(norm.eps)  # type: ignore[arg-type]


def activation_of(act: Act) -> tuple[Activation, float] | None:
    """The activation and its slope as the op takes them; None for any other."""
    if act is None:
        return "none", 1.0
    if isinstance(act, nn.Module):
        if is_bare(act, nn.ReLU):
            return "relu", 0.0
        if not is_bare(act, nn.LeakyReLU):
            return None
        act = float(act.negative_slope)  # type: ignore[arg-type]
    if act == 0:
        return "relu", 0.0
    return ("leaky_relu", act) if 0 < act < 1 else None


def padding_of(pad: Pad) -> tuple[PadMode, int] | None:
    """The mode and the pixels of a padding that is the same on all sides; None for any other."""
    if pad is None:
        return "zero", 0
    if not isinstance(pad, nn.Module):
        return pad
    if not is_bare(pad, *_paddings.OF_LAYERS):
        return None
    sides: Any = pad.padding
    return (_paddings.OF_LAYERS[type(pad)], int(sides[0])) if len(set(sides)) == 1 and sides[0] > 0 else None


def is_pyramid_pool(pool: nn.Module) -> bool:
    """Whether a layer is AvgPool2d(3, stride=2, padding=1, count_include_pad=False)."""
    if not is_bare(pool, nn.AvgPool2d):
        return False
    options = (pool.kernel_size, pool.stride, pool.padding)
    whole = [tuple(option) if isinstance(option, list | tuple) else (option,) * 2 for option in options]
    return whole == [(3, 3), (2, 2), (1, 1)] and not (pool.ceil_mode or pool.count_include_pad or pool.divisor_override)


def norm_act(
    x: Tensor,
    norm: Norm,
    act: Act = None,
    residual: Tensor | None = None,
    pad: Pad = None,
    *,
    margin: int = 0,
    in_place: bool = False,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """pad(residual + act(norm(x))), by `hdgan.ops.instance_norm_act` if that computes the same.

    Args:
        x: what the norm reads.
        norm, act, pad: the layers.
        residual: what is added, of the shape of x, or None.
        margin: pixels by which the residual is padded, which are not added.
        in_place: whether the layers add the residual in place, so that the sum keeps its dtype and shape.
        weight, bias: of a call of F.instance_norm.
    """
    eps, activation, padding = eps_of(norm), activation_of(act), padding_of(pad)
    if eps is None or activation is None or padding is None or not _suits(x, norm, residual, margin, padding):
        return _one_by_one(x, norm, act, residual, pad, margin, in_place, weight, bias)
    if isinstance(norm, nn.Module):
        weight, bias = norm.weight, norm.bias  # type: ignore[assignment]
    kind, slope = activation
    mode, pixels = padding
    options: Any = {"activation": kind, "negative_slope": slope, "eps": eps, "pad": pixels, "pad_mode": mode}
    return normalised(x, weight, bias, residual, **options)


def _suits(x: Tensor, norm: Norm, residual: Tensor | None, margin: int, padding: tuple[PadMode, int]) -> bool:
    """Whether the op takes these tensors, and the layers would take them too."""
    if x.dim() not in (4, 5) or x.dtype not in _DTYPES or x.numel() == 0:
        return False
    batch, channels, *size = x.shape
    if isinstance(norm, nn.Module) and (type(norm) is not NORMS[x.dim() - 4] or norm.num_features != channels):
        return False  # the layer raises an error, or warns
    mode, pixels = padding
    if x.numel() == batch * channels or (mode == "reflect" and pixels >= min(size)):
        return False  # the layers raise an error
    if x.dim() == 5 and (pixels or margin):
        return False
    if residual is None:
        return True
    padded = (batch, channels, *(side + 2 * margin for side in size))
    return tuple(residual.shape) == padded and residual.dtype == x.dtype and residual.device == x.device


def _one_by_one(
    x: Tensor,
    norm: Norm,
    act: Act,
    residual: Tensor | None,
    pad: Pad,
    margin: int,
    in_place: bool,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    y = norm(x) if isinstance(norm, nn.Module) else F.instance_norm(x, weight=weight, bias=bias, eps=norm)
    if act is not None:
        y = act(y) if isinstance(act, nn.Module) else F.leaky_relu(y, act) if act else F.relu(y)
    if residual is not None:
        inner = slice(margin, -margin or None)
        y = operator.iadd(y, residual[..., inner, inner]) if in_place else y + residual[..., inner, inner]
    return _padded(y, pad)


def norm_alone(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """What an instance norm computes whose own forward is replaced by this one."""
    own = nn.InstanceNorm2d if isinstance(norm, nn.InstanceNorm2d) else nn.InstanceNorm3d
    as_usual = not keeps_statistics(norm) and x.dim() == NORMS.index(own) + 4 and x.shape[1] == norm.num_features
    if as_usual and _suits(x, norm.eps, None, 0, ("zero", 0)):
        return norm_act(x, norm.eps, weight=norm.weight, bias=norm.bias)
    return own.forward(norm, x)


def pyramid(x: Tensor, pools: Sequence[nn.Module | None]) -> list[Tensor]:
    """The levels below x that poolings one after the other give, by `hdgan.ops.avg_pyramid`.

    Args:
        x: the largest level.
        pools: the layers; None is a call of F.avg_pool2d.
    """
    bare = all(pool is None or is_pyramid_pool(pool) for pool in pools)
    if bare and x.dim() == 4 and x.dtype in _DTYPES and x.numel() > 0:
        return avg_pyramid(x, len(pools))[1:]
    levels = [x]
    for pool in pools:
        levels.append(F.avg_pool2d(levels[-1], 3, 2, 1, count_include_pad=False) if pool is None else pool(levels[-1]))
    return levels[1:]


def label_stem(label: Tensor, classes: int | Sequence[int], like: Tensor, conv: nn.Conv2d, pad: Pad = None) -> Tensor:
    """conv(pad(one-hot planes of a label map)), by `hdgan.ops.label_conv2d` if that computes the same.

    Args:
        label: int64, [B, H, W] for F.one_hot, [B, 1, H, W] for scatter.
        classes: the number of planes that F.one_hot makes; or the size of the zeros that scatter sets, (B, n, H, W).
        like: an empty tensor with the dtype of the planes, on their device.
        conv: the layer.
        pad: the padding before it.
    """
    options = stem_options(conv, pad)
    if isinstance(options, str) or not _suits_stem(label, classes, like, conv, options):
        return conv(_padded(_planes(label, classes, like), pad))
    return convolved(label, None, conv.weight, conv.bias, options)


def stem_options(conv: nn.Module | None, pad: Pad) -> LabelConvOptions | str:
    """How label_conv2d is called for a convolution behind a padding; or why it does not compute the same."""
    outer = padding_of(pad)
    if conv is None or outer is None or not is_bare(conv, nn.Conv2d):
        return "the convolution or its padding is of another class, or has hooks"
    mode, pixels = outer
    return options_of(conv, pixels, mode)  # type: ignore[arg-type]


def _suits_stem(
    label: Tensor, classes: int | Sequence[int], like: Tensor, conv: nn.Module, options: LabelConvOptions
) -> bool:
    """Whether the op takes these tensors, and the layers would take them too."""
    weight: Any = conv.weight
    if isinstance(classes, int):
        n_labels, are_planes = classes, label.dim() == 3
    else:
        batch, n_labels, *size = classes
        are_planes = label.shape == (batch, 1, *size)
    if not are_planes or label.dtype != torch.int64 or label.numel() == 0:
        return False
    if weight.dtype not in _DTYPES or like.dtype != weight.dtype or not like.device == label.device == weight.device:
        return False
    height, width = label.shape[-2:]
    smallest, reflects = min(height, width), options.pad_mode == "reflect"
    if smallest + 2 * options.padding < weight.shape[2] or (reflects and options.padding >= smallest):
        return False
    if weight.shape[1] != n_labels or weight.shape[2] > 59:
        return False
    if label.is_cuda or torch.compiler.is_compiling():
        return True  # PyTorch does not look at the values there before the kernel runs
    return bool(label.min() >= 0) and bool(label.max() < n_labels)


def _planes(label: Tensor, classes: int | Sequence[int], like: Tensor) -> Tensor:
    if isinstance(classes, int):
        return F.one_hot(label, classes).permute(0, 3, 1, 2).to(like)
    return like.new_zeros(classes).scatter_(1, label, 1)


def _padded(y: Tensor, pad: Pad) -> Tensor:
    if pad is None:
        return y
    return pad(y) if isinstance(pad, nn.Module) else pad2d(y, pad[1], pad[0])


def pooled(x: Tensor, ids: Tensor) -> Tensor:
    """The mean of x over each instance, by `hdgan.ops.instance_mean`."""
    return instance_mean(x, ids)
