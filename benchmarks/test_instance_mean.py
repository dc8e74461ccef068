import pytest
import torch

from benchmarks.conftest import FORMATS
from benchmarks.shapes import FEATURES, instance_ids
from hdgan.ops import instance_index, instance_mean

CASES = {
    "1024x512, 60 instances": (512, 1024, 60),
    "2048x1024, 60": (1024, 2048, 60),
    "2048x1024, 2000": (1024, 2048, 2000),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_mean_forward_backward(measure, device, dtype, contestant, case, format):
    height, width, count = CASES[case]
    index = instance_index(instance_ids(height, width, count).to(device), backend="eager")
    x, upstream = (torch.randn(1, FEATURES, height, width, device=device, dtype=dtype) for _ in range(2))
    x = x.to(memory_format=FORMATS[format])
    measure(lambda backend, x: instance_mean(x, index, backend=backend), [x], [upstream])


@pytest.mark.parametrize("case", CASES)
def test_index(measure, device, contestant, case):
    ids = instance_ids(*CASES[case]).to(device)
    if contestant == "compile":
        pytest.skip("the number of instances depends on the data")
    measure(lambda backend, ids: instance_index(ids, backend=backend), [ids], None)
