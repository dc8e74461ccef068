"""instance_norm_act: instance norm, activation, residual add and padding for the next convolution, in one op."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function

from hdgan.ops._backend import choose, declared, launch
from hdgan.ops._checks import check_image, check_same_device, dense, empty_as, memory_format_of
from hdgan.ops._overrides import is_taken
from hdgan.ops._register import folding, gradients_of_gradients, register

Activation = Literal["none", "relu", "leaky_relu"]
PadMode = Literal["reflect", "zero", "replicate"]
"""Kernels get these names, too; C++ has an enum with the same names (csrc/tensor.h)."""
TORCH_PAD_MODES = {"reflect": "reflect", "zero": "constant", "replicate": "replicate"}


def pad2d(x: Tensor, pad: int, mode: PadMode) -> Tensor:
    """Pad all four sides of an image.

    Args:
        x: [B, C, H, W].
        pad: pixels that are added to each side.
        mode: how they are filled: reflect, zero or replicate.

    Returns:
        [B, C, H + 2 pad, W + 2 pad].

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in TORCH_PAD_MODES:
        raise ValueError(f"pad2d: expected mode reflect, zero or replicate, got {mode!r}")
    return F.pad(x, (pad, pad, pad, pad), mode=TORCH_PAD_MODES[mode]) if pad else x


def _slope_of(activation: str, negative_slope: float) -> float:
    """The activation as the factor of negative values, which is all that kernels need.

    Raises:
        ValueError: there is no such activation.
    """
    slopes = {"none": 1.0, "relu": 0.0, "leaky_relu": negative_slope}
    if activation not in slopes:
        raise ValueError(f"instance_norm_act: expected activation none, relu or leaky_relu, got {activation!r}")
    return slopes[activation]


def _activate(y: Tensor, slope: float) -> Tensor:
    if slope == 0:
        return F.relu(y, inplace=True)  # which makes zeros of infinities, too
    # PyTorch cannot tell from the result of a negative slope what the input was.
    return y if slope == 1 else F.leaky_relu(y, slope, inplace=slope > 0)


def _rstd_of(variance: Tensor) -> Tensor:
    """1 / standard deviation, or 0 for a variance of 0, as in PyTorch's norm."""
    constant = variance == 0
    return torch.where(constant, 0.0, torch.where(constant, 1.0, variance).rsqrt())


def _margin(residual: Tensor, x: Tensor) -> int:
    """Pixels by which a residual is padded on each side."""
    return (residual.shape[2] - x.shape[2]) // 2


def _interior(residual: Tensor, x: Tensor) -> Tensor:
    """The part of a residual that lies on x."""
    margin = _margin(residual, x)
    return residual[:, :, margin : margin + x.shape[2], margin : margin + x.shape[3]] if margin else residual


def instance_norm_act_reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    eps: float,
    pad: int,
    pad_mode: PadMode,
) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if p is None else p.to(wide) for p in (weight, bias))
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)  # PyTorch cannot differentiate a norm with a bias alone twice
    # F.instance_norm rejects planes of one pixel, so torch.instance_norm is called. Planes are flattened, because its
    # gradient on the CPU is wrong if x [1, C, H, W] is contiguous and the incoming gradient is channels_last.
    y = torch.instance_norm(x.flatten(2), weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)
    y = y.unflatten(2, x.shape[2:])
    y = _activate(y, slope)
    if residual is not None:
        y = y + _interior(residual, x)
    return pad2d(y, pad, pad_mode).to(x.dtype).contiguous(memory_format=memory_format_of(x))


# Both operators end with the options slope, eps, pad, pad_mode and backend.


def _forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    slope, eps, pad, pad_mode, backend = options
    x = dense(x)
    y, mean, rstd = _fake(x, weight, bias, residual, *options)
    tensors = x, weight, bias, _readable(residual, x), y, mean, rstd, _scratch(x, backend)
    launch("instance_norm_act", "fwd", backend, x.device, *tensors, slope, eps, pad, pad_mode)
    return y, mean, rstd


def _fake(x: Tensor, weight: Any, bias: Any, residual: Any, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, channels, height, width), (_, _, pad, *_) = x.shape, options
    y = empty_as(x, (batch, channels, height + 2 * pad, width + 2 * pad))
    mean = x.new_empty((batch, channels), dtype=torch.float32)
    return y, mean, torch.empty_like(mean)


def _scratch(x: Tensor, backend: str) -> Tensor | None:
    if backend == "cpu":
        return None  # it takes its own
    return x.new_empty(declared("instance_norm_act", "scratch", backend, x), dtype=torch.float32)


def _readable(residual: Tensor | None, x: Tensor) -> Tensor | None:
    """The residual on x, copied if its innermost dimension, in the memory format of x, has gaps."""
    if residual is None:
        return None
    residual = _interior(residual, x)
    format = memory_format_of(x)
    innermost = 1 if format == torch.channels_last else 3
    if residual.stride(innermost) == 1 or residual.shape[innermost] == 1:
        return residual
    return residual.contiguous(memory_format=format)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    margin: int | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    slope, _, pad, pad_mode, backend = options
    x = dense(x)
    dy = dy.contiguous(memory_format=memory_format_of(x))
    # The kernel for CPUs writes the margin, too. On a GPU it is added afterwards.
    written = margin if margin is None or backend == "cpu" else 0
    dx, dresidual, sums = _backward_fake(dy, x, weight, bias, mean, rstd, written)
    results = dx, None if margin is None else dresidual, sums
    tensors = dy, x, weight, bias, mean, rstd, *results, _scratch(x, backend)
    launch("instance_norm_act", "bwd", backend, x.device, *tensors, slope, pad, pad_mode)
    return dx, dresidual if margin == written else pad2d(dresidual, margin or 0, "zero"), sums


def _backward_fake(
    dy: Any, x: Tensor, weight: Any, bias: Any, mean: Tensor, rstd: Any, margin: int | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dresidual, and [2, B, C] sums over each plane, of dz and of dz times xhat.

    dresidual is that of a residual padded by `margin` pixels; with None it is not needed, and empty.
    """
    batch, channels, height, width = x.shape
    sums = mean.new_empty((2, *mean.shape))
    if margin is None:
        return empty_as(x, x.shape), x.new_empty(0), sums
    return empty_as(x, x.shape), empty_as(x, (batch, channels, height + 2 * margin, width + 2 * margin)), sums


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, residual, *ctx.options = inputs
    _, mean, rstd = output
    ctx.margin = 0 if residual is None else _margin(residual, x)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # or PyTorch would make zeros for mean and rstd
    ctx.save_for_backward(x, weight, bias, mean, rstd)


def _backward_of(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if dy is None:
        return None, None, None, None, *[None] * len(ctx.options)
    _, need_weight, need_bias, need_residual, *_ = ctx.needs_input_grad
    _, _, pad, *_ = ctx.options
    margin = ctx.margin
    if need_residual and pad == 0 and not any(ctx.needs_input_grad[:3]):
        return None, None, None, pad2d(dy, margin, "zero"), *[None] * len(ctx.options)
    # Without padding the residual's gradient is dy itself.
    computed = margin if need_residual and pad > 0 else None
    dx, dresidual, sums = _instance_norm_act_backward(dy, *ctx.saved_tensors, computed, *ctx.options)
    if computed is None:
        dresidual = pad2d(dy, margin, "zero") if need_residual else None
    dweight = sums[1].sum(0) if need_weight else None
    dbias = sums[0].sum(0) if need_bias else None
    return dx, dweight, dbias, dresidual, *[None] * len(ctx.options)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    dy, x, weight, bias, _, _, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dy, x, weight, bias)


def _double_backward_of(
    ctx: Any, ddx: Tensor | None, ddresidual: Tensor | None, ddsums: Tensor | None
) -> tuple[Any, ...]:
    dy, x, weight, bias = ctx.saved_tensors
    margin, slope, eps, pad, pad_mode, _ = ctx.options

    def reference(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor) -> Tensor:
        """The op with scale and shift [B, C] of each plane, whose gradients are the sums."""
        # Step by step: the third derivative of torch.instance_norm takes its saved mean and variance for constants.
        centred = x.float() - x.float().mean((2, 3), keepdim=True)
        y = centred * _rstd_of(centred.square().mean((2, 3), keepdim=True) + eps)
        y = y * scale[:, :, None, None] + shift[:, :, None, None]
        return pad2d(_activate(y, slope) + _interior(residual, x), pad, pad_mode).to(x.dtype)

    planes = x.shape[:2]
    scale = x.new_ones(planes, dtype=torch.float32) if weight is None else weight.expand(planes)
    shift = x.new_zeros(planes, dtype=torch.float32) if bias is None else bias.expand(planes)
    inputs = [x, scale, shift, pad2d(torch.zeros_like(x), margin or 0, "zero")]
    ddscale, ddshift = (None, None) if ddsums is None else (ddsums[1], ddsums[0])
    ddinputs = [ddx, ddscale, ddshift, None if margin is None else ddresidual]
    ddy, (d2x, d2scale, d2shift, _) = gradients_of_gradients(reference, inputs, dy, ddinputs)
    d2weight = None if weight is None or d2scale is None else d2scale.sum(0)
    d2bias = None if bias is None or d2shift is None else d2shift.sum(0)
    return ddy, d2x, d2weight, d2bias, None, None, *[None] * len(ctx.options)


_instance_norm_act = register(
    "instance_norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, float slope, float eps, int pad, "
    "str pad_mode, str backend) -> (Tensor y, Tensor mean, Tensor rstd)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward_of,
    batched=folding((1, 0, 0, 1), lambda _: 1),
)
_instance_norm_act_backward = register(
    "instance_norm_act_backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, "
    "int? margin, float slope, float eps, int pad, str pad_mode, str backend) "
    "-> (Tensor dx, Tensor dresidual, Tensor sums)",
    _backward,
    _backward_fake,
    setup_context=_setup_backward,
    backward=_double_backward_of,
    batched=folding((1, 1, 0, 0, 1, 1), lambda k: (1, 1, 2)[k]),
)


def _check(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, pad: int, pad_mode: str
) -> None:
    """Refuse unsuitable arguments; the message says what was expected and given."""
    op = "instance_norm_act"
    check_image(op, x)
    check_same_device(op, x=x, weight=weight, bias=bias, residual=residual)
    for name, given in (("weight", weight), ("bias", bias), ("residual", residual)):
        if given is not None and not given.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating-point dtype, got {given.dtype}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != (x.shape[1],):
            raise ValueError(f"{op}: expected {name} of shape ({x.shape[1]},), got {tuple(parameter.shape)}")
    if residual is not None:
        margins = [theirs - ours for theirs, ours in zip(residual.shape, x.shape, strict=False)]
        if residual.dim() != 4 or margins[:2] != [0, 0] or margins[2] != margins[3] or margins[2] % 2 or margins[2] < 0:
            raise ValueError(
                f"{op}: expected residual of shape {tuple(x.shape)}, or padded equally on all sides, got "
                f"{tuple(residual.shape)}"
            )
    if pad_mode not in TORCH_PAD_MODES:
        raise ValueError(f"{op}: expected pad_mode reflect, zero or replicate, got {pad_mode!r}")
    if pad < 0:
        raise ValueError(f"{op}: expected pad >= 0, got {pad}")
    if pad_mode == "reflect" and pad >= min(x.shape[2:]):
        raise ValueError(f"{op}: expected pad < {min(x.shape[2:])} for reflect padding, got {pad}")


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
        residual: [B, C, H, W], or [B, C, H + 2r, W + 2r] padded by any r, whose interior is added, or None. Pass a
            padded residual whole: if it is sliced, its gradient costs PyTorch two passes and the memory format.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: of leaky_relu.
        eps: added to the variance.
        pad: pixels added on each side.
        pad_mode: "reflect" (pad < H and pad < W), "zero" or "replicate".
        backend: implementation by name; None chooses. The third derivatives of eager are wrong, like those of
            `torch.instance_norm`. Those of the kernels are correct.

    Returns:
        [B, C, H + 2 pad, W + 2 pad], in the dtype and memory format of `x`.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or option; the message says what was expected and given.
        BackendError: the named backend cannot run.
    """
    if is_taken((x, weight, bias, residual)):
        tensors = x, weight, bias, residual
        given: dict[str, Any] = {"negative_slope": negative_slope, "eps": eps, "pad": pad, "pad_mode": pad_mode}
        return handle_torch_function(instance_norm_act, tensors, *tensors, activation, **given, backend=backend)
    _check(x, weight, bias, residual, pad, pad_mode)
    slope = _slope_of(activation, negative_slope)
    chosen = choose("instance_norm_act", backend, x)
    if chosen == "eager":
        return instance_norm_act_reference(x, weight, bias, residual, slope, eps, pad, pad_mode)
    weight, bias = (None if p is None else p.float().contiguous() for p in (weight, bias))
    residual = None if residual is None else residual.to(x.dtype)
    return _instance_norm_act(x, weight, bias, residual, slope, eps, pad, pad_mode, chosen)[0]
