import pytest
import torch
from torch.autograd import gradcheck

from hdgan.ops import BackendError, avg_pyramid

SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (1, 2, 8, 6), (1, 1, 1, 9), (1, 4, 2, 3)]


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
def test_equals_brute_force(shape, levels):
    x = torch.randn(shape, dtype=torch.float64)
    pyramid = avg_pyramid(x, levels)
    assert len(pyramid) == levels + 1
    expected = x
    for level in pyramid:
        torch.testing.assert_close(level, expected)
        expected = brute_force_half(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype):
    x = torch.randn(1, 2, 9, 6).to(dtype)
    _, half, quarter = avg_pyramid(x, 2)
    assert half.dtype == quarter.dtype == dtype
    torch.testing.assert_close(half.double(), brute_force_half(x.double()), rtol=1e-2, atol=1e-2)


def test_constant_stays_constant():
    for level in avg_pyramid(torch.full((1, 1, 11, 13), 3.0), 4):
        assert torch.equal(level, torch.full_like(level, 3.0))


def test_gradient():
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: tuple(avg_pyramid(x, 2)), x)


def test_memory_format_is_kept():
    x = torch.randn(2, 3, 8, 10)
    formatted = avg_pyramid(x.to(memory_format=torch.channels_last), 2)
    for level, expected in zip(formatted, avg_pyramid(x, 2), strict=True):
        assert level.is_contiguous(memory_format=torch.channels_last)
        assert expected.is_contiguous()
        torch.testing.assert_close(level, expected)


def test_strided_image():
    x = torch.randn(2, 3, 12, 9)[:, 1:, ::2, ::3]
    torch.testing.assert_close(avg_pyramid(x, 1)[1], avg_pyramid(x.contiguous(), 1)[1])


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
