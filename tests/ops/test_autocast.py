"""Ops whose backward passes run under autocast too, as they do in a step that is one block, or in a penalty."""

import pytest
import torch

from hdgan import ops
from hdgan.ops import instance_index
from tests.ops.checks import dtypes_of

SIZE = (1, 24, 24)
LABEL = torch.randint(0, 4, SIZE, generator=torch.Generator().manual_seed(0))  # noise, which CPUs convolve densely
SHAPE = (1, 4, 24, 24)
SCALE = torch.linspace(0.5, 2, 4)
PADS = ("reflect", "zero", "replicate")


def norm(pad_mode):
    def op(x, **options):
        residual = ops.pad2d(x.flip(3), 1, "zero")
        return ops.instance_norm_act(x, SCALE.to(x.device), None, residual, pad=1, pad_mode=pad_mode, **options)

    return op


def labels(pad_mode, levels):
    def op(x, **options):
        weight, dtype = x[..., :3, :3].float(), x.dtype
        label = LABEL.to(x.device)
        return ops.label_conv2d(
            label, None, weight, padding=1, pad_mode=pad_mode, levels=levels, dtype=dtype, **options
        )

    return op


OPS = {
    **{f"norm, {mode}": norm(mode) for mode in PADS},
    **{f"labels, {mode}, {levels}": labels(mode, levels) for mode, levels in zip(PADS, (0, 1, 1), strict=True)},
    "mean": lambda x, **o: ops.instance_mean(x, LABEL.to(x.device), **o),
    "reduce": lambda x, **o: ops.instance_reduce(x, instance_index(LABEL.to(x.device)), **o),
    "broadcast": lambda x, **o: ops.instance_broadcast(x[0, :, 0, :4], instance_index(LABEL.to(x.device)), **o),
    "pyramid": lambda x, **o: torch.cat([level.flatten() for level in ops.avg_pyramid(x, 3, **o)[1:]]),
    "distance": lambda x, **o: ops.l1_distance(x, x.detach().flip(3), **o),
}


def derivatives(op, x, autocast):
    """Result, gradient, and gradient of a penalty on the gradient."""
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, x.dtype, enabled=autocast):
        y = op(x)
        (dx,) = torch.autograd.grad(y.float().pow(3).mean(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.float().square().sum(), x)
    return y, dx, ddx


@pytest.mark.parametrize("name", OPS)
def test_gradients_are_those_without_autocast(backend, device, name):
    for dtype in dtypes_of(backend, list(OPS).index(name), [torch.bfloat16, torch.float16]):
        x = torch.randn(SHAPE).to(device, dtype)
        op = lambda x: OPS[name](x, backend=backend)  # noqa: E731
        for found, expected in zip(derivatives(op, x, True), derivatives(op, x, False), strict=True):
            assert expected.abs().max() > 0
            torch.testing.assert_close(found, expected)
