import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hdgan.ops import BackendError, avg_pyramid
from tests.ops.backends import KERNELS
from tests.ops.checks import FORMATS, assert_compiles, assert_near, dtypes_of, outputs_and_gradients

SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 7, 5),
    (1, 2, 8, 6),
    (1, 1, 1, 9),
    (3, 1, 9, 1),
    (1, 4, 2, 3),
    (1, 39, 5, 12),
    (1, 2, 37, 70),
    (1, 1, 37, 264),
]
TILES = [
    (1, 39, 5, 128),  # several tiles of a channels_last row, each aligned
    (1, 120, 5, 16),  # aligned slices of a channels_last pixel
    (1, 115, 3, 9),
    (5, 3, 9, 32),  # small planes that share a block
]


def brute_force_half(x):
    """Mean over the pixels of each 3x3 window that lie inside, at every second pixel."""
    height, width = x.shape[2:]
    result = x.new_empty(*x.shape[:2], (height + 1) // 2, (width + 1) // 2)
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            window = x[:, :, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
            result[:, :, i, j] = window.mean((2, 3))
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_reference_equals_brute_force(shape, levels):
    x = torch.randn(shape, dtype=torch.float64)
    pyramid = avg_pyramid(x, levels, backend="eager")
    assert len(pyramid) == levels + 1
    expected = x
    for level in pyramid:
        torch.testing.assert_close(level, expected)
        expected = brute_force_half(expected)


def test_reference_gradient():
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: tuple(avg_pyramid(x, 2)), x)
    assert gradgradcheck(lambda x: tuple(level**2 for level in avg_pyramid(x, 2)), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_near_truth(backend, device, shape, memory_format, levels):
    assert_pyramid_near_truth(backend, device, shape, memory_format, levels)


@pytest.mark.parametrize("shape", TILES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("backend", KERNELS[:2], indirect=True)
def test_tiles(backend, device, shape, memory_format):
    assert_pyramid_near_truth(backend, device, shape, memory_format, levels=3)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("levels", [1, 2])
def test_large_gradients_have_the_bits_of_small_ones(memory_format, levels):
    # From 16 MiB on, the CPU kernel writes them past the caches, which rows of odd length make hard.
    def gradient(x):
        x = x.detach().requires_grad_()
        level = avg_pyramid(x, levels, backend="cpu")[-1]
        return torch.autograd.grad(level, x, level.detach())[0]

    x = torch.randn(3, 7, 453, 455).contiguous(memory_format=memory_format)
    assert x.nbytes > 16 * 2**20 > x[0].nbytes
    assert torch.equal(gradient(x), torch.cat([gradient(image) for image in x.split(1)]))


def assert_pyramid_near_truth(backend, device, shape, memory_format, levels):
    for dtype in dtypes_of(backend, sum(shape) + levels + FORMATS.index(memory_format)):
        x = torch.randn(shape).to(dtype)
        truth = avg_pyramid(x.double(), levels, backend="eager")
        upstream = [torch.randn(y.shape).to(dtype) for y in truth]
        truths, (dtruth,) = outputs_and_gradients(
            lambda x: avg_pyramid(x, levels, backend="eager"), [x.double()], upstream
        )
        x = x.to(device, memory_format=memory_format)
        found, (dx,) = outputs_and_gradients(lambda x: avg_pyramid(x, levels, backend=backend), [x], upstream)
        for y, expected in zip(found, truths, strict=True):
            assert y.dtype == dtype
            assert y.is_contiguous(memory_format=memory_format)
            assert_near(y, expected)
        assert_near(dx, dtruth, dtype)


def test_constant_stays_constant(backend, device):
    for level in avg_pyramid(torch.full((1, 1, 11, 13), 3.0, device=device), 4, backend=backend):
        assert torch.equal(level, torch.full_like(level, 3.0))


def test_strided_image(backend, device):
    x = torch.randn(2, 3, 12, 9, device=device)[:, 1:, ::2, ::3]
    expected = avg_pyramid(x.contiguous(), 1, backend=backend)[1]
    torch.testing.assert_close(avg_pyramid(x, 1, backend=backend)[1], expected)


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (1, 3)])
def test_gradient_of_some_levels(backend, device, used):
    x = torch.randn(1, 2, 9, 6, device=device, requires_grad=True)
    sum(avg_pyramid(x, 3, backend=backend)[k].square().sum() for k in used).backward()
    found, x.grad = x.grad, None
    sum(avg_pyramid(x, 3, backend="eager")[k].square().sum() for k in used).backward()
    torch.testing.assert_close(found, x.grad)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_double_backward(backend, device):
    results = []
    x = torch.randn(1, 2, 6, 5, device=device, requires_grad=True)
    for name in (backend, "eager"):
        (dx,) = torch.autograd.grad(avg_pyramid(x, 2, backend=name)[2].pow(3).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(dx.square().sum(), x)[0])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    x = torch.randn(1, 2, 9, 6, device=device)
    assert_compiles(lambda x: avg_pyramid(x, 2, backend=backend), x, dynamic=dynamic)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_opcheck(backend, device):
    x = torch.randn(1, 2, 9, 6, device=device, requires_grad=True)
    for two in (False, True):
        torch.library.opcheck(torch.ops.hdgan.avg_pyramid, (x, two, backend))
    dhalf, dquarter = (torch.randn(1, 2, *size, device=device, requires_grad=True) for size in ((5, 3), (3, 2)))
    for grads in ((dhalf, None), (None, dquarter), (dhalf, dquarter)):
        torch.library.opcheck(torch.ops.hdgan.avg_pyramid_backward, (*grads, x.shape, False, backend))


@pytest.mark.parametrize(
    ("x", "levels", "error", "says"),
    [
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 1, TypeError, "floating-point dtype, got torch.uint8"),
        (torch.zeros(1, 2, 2), 1, ValueError, r"got \(1, 2, 2\)"),
        (torch.zeros(1, 1, 0, 2), 1, ValueError, "non-empty"),
        (torch.zeros(1, 1, 2, 2), -1, ValueError, "levels >= 0, got -1"),
    ],
)
def test_wrong_input(x, levels, error, says):
    with pytest.raises(error, match=f"avg_pyramid: expected .*{says}"):
        avg_pyramid(x, levels)


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        avg_pyramid(torch.zeros(1, 1, 2, 2), 1, backend="abacus")


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""
    for channels in (39, 32):
        x, half, quarter = (make(1, channels, 512 >> k, 1024 >> k) for k in range(3))
        yield "fwd", (x, half, quarter)
        yield "bwd", (half, quarter, x)
