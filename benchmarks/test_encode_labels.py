import pytest
import torch

from benchmarks.conftest import FORMATS
from benchmarks.shapes import N_LABELS, instance_ids
from hdgan.ops import encode_labels

SIZES = {"1024x512": (512, 1024), "2048x1024": (1024, 2048)}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_forward(measure, device, dtype, contestant, size, format):
    ids = instance_ids(*SIZES[size], 60).to(device)
    label = (ids % N_LABELS).to(torch.uint8)

    def op(backend, label, ids):
        return encode_labels(label, ids, N_LABELS, dtype=dtype, memory_format=FORMATS[format], backend=backend)

    measure(op, [label, ids], None)
