"""Norms of images that are computed region by region: each takes a pass over the image for its statistics."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.ops import instance_norm_act
from hdgan.ops.instance_norm_act import PadMode
from hdgan.regions.nodes import Crop, Node, Padding, Pointwise
from hdgan.regions.run import Statistics
from hdgan.regions.tensor import RegionTensor, made_from, stands_for


@stands_for(instance_norm_act)
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
        inner = Crop(residual.node, (margin, margin), (x.shape[2], x.shape[3]))
        node = Pointwise(torch.add, [node, inner])
        if x.run.given is None:
            x.run.hold(node)  # the sum is read by two more operations, and so on along the chain
    return made_from(x, Padding(node, (pad,) * 4, pad_mode) if pad else node)


@stands_for(F.batch_norm)
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
    return made_from(x, Pointwise(partial(_normalised, *_scale_and_shift(found, weight, bias, eps)), [x.node]))


@stands_for(F.group_norm)
def _group_norm(
    x: RegionTensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> RegionTensor:
    found = x.run.statistics_of(x.node)
    mean, variance = (values.unflatten(1, (num_groups, -1)) for values in found)
    common = mean.mean(2, keepdim=True)
    spread = (variance + (mean - common).square()).mean(2, keepdim=True)
    of_groups = Statistics(*(values.expand_as(mean).flatten(1) for values in (common, spread)))
    return made_from(x, Pointwise(partial(_normalised, *_scale_and_shift(of_groups, weight, bias, eps)), [x.node]))


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
