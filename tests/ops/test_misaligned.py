"""Tensors that begin in the middle of a 16-byte word: kernels must not take wide accesses for granted."""

import pytest
import torch

from hdgan.ops import (
    LabelPlanes,
    avg_pyramid,
    encode_labels,
    instance_index,
    instance_mean,
    instance_norm_act,
    l1_distance,
    label_conv2d,
    label_planes,
)
from tests.ops.backends import KERNELS
from tests.ops.checks import FORMATS, dtypes_of

SHAPE = (1, 8, 6, 16)


def shifted(x):
    """A copy in the same memory format, one element after the beginning of its memory."""
    memory = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return memory.as_strided(x.shape, x.stride(), 1).copy_(x)


def results(op, x):
    """Outputs and gradient, where the gradient that comes in begins like x."""
    leaf = x.detach().requires_grad_()
    outputs = op(leaf)
    torch.manual_seed(1)
    upstream = [torch.randn(y.shape).to(y).contiguous(memory_format=memory_format_of(y)) for y in outputs]
    if x.storage_offset():
        upstream = [shifted(g) for g in upstream]
    return [*outputs, *torch.autograd.grad(outputs, leaf, upstream)]


def memory_format_of(y):
    return torch.contiguous_format if y.is_contiguous() else torch.channels_last


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_images(backend, device, memory_format):
    ids = torch.randint(3, (1, *SHAPE[2:]), device=device)
    index = instance_index(shifted(ids), backend=backend)
    ops = {
        "norm": lambda x: [instance_norm_act(x, residual=x.detach(), activation="relu", pad=1, backend=backend)],
        "flat norm": lambda x: [instance_norm_act(x, residual=x.detach(), backend=backend)],
        "pyramid": lambda x: avg_pyramid(x, 2, backend=backend)[1:],
        "distance": lambda x: [l1_distance(x, x.detach().flip(3), backend=backend)],
        "mean": lambda x: [instance_mean(x, index, backend=backend)],
    }
    for dtype in dtypes_of(backend, FORMATS.index(memory_format)):
        x = torch.randn(SHAPE).to(device, dtype, memory_format=memory_format)
        assert shifted(x).data_ptr() % 16 != x.data_ptr() % 16
        for name, op in ops.items():
            for found, expected in zip(results(op, shifted(x)), results(op, x), strict=True):
                torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_maps(backend, device, dtype):
    ids = torch.randint(5, (2, 6, 16), device=device).to(dtype)
    for found, expected in zip(instance_index(shifted(ids), backend=backend), instance_index(ids), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(encode_labels(shifted(ids), shifted(ids), 4, backend=backend), encode_labels(ids, ids, 4))


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_label_planes(backend, device, memory_format):
    label = torch.arange(8, device=device).repeat_interleave(12).view(1, 6, 16)
    planes = label_planes(shifted(label), shifted(label), 8, backend=backend)
    moved = LabelPlanes(shifted(planes.codes), *planes[1:])
    for dtype in dtypes_of(backend, 1 + FORMATS.index(memory_format)):
        weight = torch.randn(8, 9, 3, 3).to(device, dtype, memory_format=memory_format).requires_grad_()
        dy = torch.randn(1, 8, 6, 16).to(device, dtype, memory_format=memory_format)
        for codes, given in ((moved, shifted(weight.detach()).requires_grad_()), (planes, weight)):
            y = label_conv2d(codes, None, given, padding=1, backend=backend)
            (grad,) = torch.autograd.grad(y, given, shifted(dy) if codes is moved else dy)
            if codes is moved:
                found = y, grad
        for one, other in zip(found, (y, grad), strict=True):
            torch.testing.assert_close(one, other)
