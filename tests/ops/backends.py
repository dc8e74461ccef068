"""The backends that op tests run on."""

import os

import pytest
import torch

EMULATED = os.environ.get("HDGAN_TEST_EMULATED")
"""A build of the extension whose CUDA kernels run on the host."""
HAS_GPU = torch.cuda.is_available()

TRITON = pytest.param("triton", marks=[pytest.mark.gpu] if HAS_GPU else [])
"""Slow without a GPU, where it runs in the interpreter."""
KERNELS = [
    "cpu",
    pytest.param("cuda", marks=[] if EMULATED else [pytest.mark.gpu]),
    TRITON,
]
"""For `@pytest.mark.parametrize("backend", KERNELS, indirect=True)`: what concerns kernels alone."""
BACKENDS = ["eager", *KERNELS]
