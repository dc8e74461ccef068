"""instance_norm_act: instance norm, activation, residual add and padding for the next convolution, in one op."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.ops._backend import resolve
from hdgan.ops._checks import check_image, check_same_device, memory_format_of

Activation = Literal["none", "relu", "leaky_relu"]
PadMode = Literal["reflect", "zero", "replicate"]
_TORCH_PAD_MODE = {"reflect": "reflect", "zero": "constant", "replicate": "replicate"}


def pad2d(x: Tensor, pad: int, mode: PadMode) -> Tensor:
    """Pad all four sides of x [B, C, H, W] by `pad` pixels."""
    return F.pad(x, (pad, pad, pad, pad), mode=_TORCH_PAD_MODE[mode]) if pad else x


def instance_norm_act_reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: Activation,
    negative_slope: float,
    eps: float,
    pad: int,
    pad_mode: PadMode,
) -> Tensor:
    # torch.instance_norm, not F.instance_norm: the latter rejects planes of one pixel.
    y = torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)
    if activation == "relu":
        y = F.relu(y, inplace=True)
    elif activation == "leaky_relu":
        y = F.leaky_relu(y, negative_slope, inplace=True)
    if residual is not None:
        y = y + residual
    return pad2d(y, pad, pad_mode).to(x.dtype).contiguous(memory_format=memory_format_of(x))


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Activation = "none",
    *,
    negative_slope: float = 0.2,
    eps: float = 1e-5,
    pad: int = 0,
    pad_mode: PadMode = "reflect",
    backend: str | None = None,
) -> Tensor:
    """Normalise each plane of `x`, activate, add `residual`, and pad for the next convolution.

    The residual is added after the activation and nothing follows the addition: with activation "none" this is the end
    of pix2pixHD's residual block, with "relu" the sum of the local enhancer with its lower level (paper section 3.2).

    Args:
        x: [B, C, H, W] floating point.
        weight: [C] scale, or None.
        bias: [C] shift, or None.
        residual: [B, C, H, W], may be a strided view (the interior of a padded tensor), or None.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: of leaky_relu.
        eps: added to the variance.
        pad: pixels added on each side.
        pad_mode: "reflect" (pad < H and pad < W), "zero" or "replicate".
        backend: implementation by name; None chooses.

    Returns:
        [B, C, H + 2 pad, W + 2 pad], in the dtype and memory format of `x`.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or option, saying expected and got.
        BackendError: the named backend cannot run.
    """
    op = "instance_norm_act"
    check_image(op, "x", x)
    check_same_device(op, x=x, weight=weight, bias=bias, residual=residual)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != (x.shape[1],):
            raise ValueError(f"{op}: expected {name} of shape ({x.shape[1]},), got {tuple(parameter.shape)}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"{op}: expected residual of shape {tuple(x.shape)}, got {tuple(residual.shape)}")
    if activation not in ("none", "relu", "leaky_relu"):
        raise ValueError(f"{op}: expected activation none, relu or leaky_relu, got {activation!r}")
    if pad_mode not in _TORCH_PAD_MODE:
        raise ValueError(f"{op}: expected pad_mode reflect, zero or replicate, got {pad_mode!r}")
    if pad < 0 or (pad_mode == "reflect" and pad >= min(x.shape[2:])):
        raise ValueError(f"{op}: expected 0 <= pad < {min(x.shape[2:])} for {pad_mode} padding, got {pad}")
    run = resolve(op, backend, {"eager": instance_norm_act_reference})
    return run(x, weight, bias, residual, activation, negative_slope, eps, pad, pad_mode)
