import pytest
import torch

from benchmarks.conftest import FORMATS
from benchmarks.shapes import CONDITION_AND_IMAGE
from hdgan.ops import avg_pyramid

SIZES = {"1024x512": (512, 1024), "2048x1024": (1024, 2048)}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_forward_backward(measure, device, dtype, contestant, size, format):
    x = torch.randn(1, CONDITION_AND_IMAGE, *SIZES[size], device=device, dtype=dtype)
    x = x.to(memory_format=FORMATS[format])
    upstream = [torch.randn_like(level) for level in avg_pyramid(x, 2, backend="eager")[1:]]
    measure(lambda backend, x: avg_pyramid(x, 2, backend=backend)[1:], [x], upstream)
