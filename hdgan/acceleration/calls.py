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
from hdgan.nn.label_conv2d import PAD_MODES
from hdgan.ops import avg_pyramid, instance_mean, instance_norm_act, label_conv2d, pad2d
from hdgan.ops.instance_norm_act import Activation, PadMode

Norm = nn.Module | float
"""A layer, or the eps of a call of F.instance_norm."""
Act = nn.Module | float | None
"""A layer, or the slope of a call of F.relu (0) or F.leaky_relu, or nothing."""
Pad = nn.Module | tuple[PadMode, int] | None
"""A layer, or the mode and the pixels of a call of F.pad, or nothing."""
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_PAD_MODES: dict[type, PadMode] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.ZeroPad2d: "zero",
}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_bare(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a layer is of one of these classes itself, and nothing sees whether it is called."""
    return type(layer) in kinds and why_left(layer) is None


def eps_of(norm: Norm) -> float | None:
    """The eps of an instance norm that takes the statistics of its input; None for anything else."""
    if not isinstance(norm, nn.Module):
        return norm
    if not is_bare(norm, *NORMS) or norm.running_mean is not None or norm.running_var is not None:
        return None
    return float(norm.eps)


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
    if not is_bare(pad, *_PAD_MODES):
        return None
    sides: Any = pad.padding
    return (_PAD_MODES[type(pad)], int(sides[0])) if len(set(sides)) == 1 and sides[0] > 0 else None


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
    options: Any = {"negative_slope": slope, "eps": eps, "pad": pixels, "pad_mode": mode}
    if x.dim() == 4:
        return instance_norm_act(x, weight, bias, residual, kind, **options)
    rows = None if residual is None else residual.flatten(2, 3)  # a volume is a plane of D * H rows
    return instance_norm_act(x.flatten(2, 3), weight, bias, rows, kind, **options).unflatten(2, x.shape[2:4])


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
    as_usual = norm.running_mean is None and x.dim() == NORMS.index(own) + 4 and x.shape[1] == norm.num_features
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


def label_stem(label: Tensor, n_labels: int, conv: nn.Conv2d, pad: Pad = None) -> Tensor:
    """conv(pad(one-hot planes of a label map)), by `hdgan.ops.label_conv2d` if that computes the same.

    Args:
        label: [B, H, W] int64.
        n_labels: number of planes.
        conv: the layer.
        pad: the padding before it.
    """
    options = stem_options(conv, pad)
    if options is None or not _suits_stem(label, n_labels, conv, options):
        planes = F.one_hot(label, n_labels).permute(0, 3, 1, 2).to(conv.weight.dtype)
        return conv(_padded(planes, pad))
    stride, mode, pixels = options
    weight, bias = conv.weight, conv.bias
    y = label_conv2d(label, None, weight, stride=stride, padding=pixels, pad_mode=mode)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


def stem_options(conv: nn.Module | None, pad: Pad) -> tuple[int, PadMode, int] | None:
    """Stride, mode and pixels of padding as label_conv2d takes them; None where it does not compute the same."""
    outer = padding_of(pad)
    if conv is None or outer is None or not is_bare(conv, nn.Conv2d) or isinstance(conv.padding, str):
        return None
    pairs: list[Any] = [conv.kernel_size, conv.stride, conv.padding]
    if any(first != second for first, second in pairs) or conv.dilation != (1, 1) or conv.groups != 1:
        return None
    inner = int(pairs[2][0])
    if inner and outer[1]:
        return None  # two paddings, of which the second may reflect the first
    if not inner:
        return int(pairs[1][0]), outer[0], outer[1]
    mode = PAD_MODES.get(str(conv.padding_mode))
    return None if mode is None else (int(pairs[1][0]), mode, inner)


def _suits_stem(label: Tensor, n_labels: int, conv: nn.Module, options: tuple[int, PadMode, int]) -> bool:
    weight: Any = conv.weight
    if label.dim() != 3 or label.dtype != torch.int64 or label.numel() == 0 or weight.dtype not in _DTYPES:
        return False
    _, mode, pixels = options
    height, width = label.shape[1:]
    fits = min(height, width) + 2 * pixels >= weight.shape[2] and (mode != "reflect" or pixels < min(height, width))
    if not fits or weight.shape[1] != n_labels or weight.shape[2] > 59 or label.device != weight.device:
        return False
    if label.is_cuda or torch.compiler.is_compiling():
        return True  # one_hot does not look at the values there
    return bool(label.min() >= 0) and bool(label.max() < n_labels)


def _padded(y: Tensor, pad: Pad) -> Tensor:
    if pad is None:
        return y
    return pad(y) if isinstance(pad, nn.Module) else pad2d(y, pad[1], pad[0])


def pooled(x: Tensor, ids: Tensor) -> Tensor:
    """The mean of x over each instance, by `hdgan.ops.instance_mean`."""
    return instance_mean(x, ids)
