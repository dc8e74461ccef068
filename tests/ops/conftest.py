"""Every op test that takes `backend` runs on all backends, on `device`.

With a GPU, cuda and triton run there and are marked `gpu`. Without one, triton runs in its interpreter, and cuda is
left out here; tests/csrc runs it on the host, in a process of its own under sanitizers (HDGAN_TEST_EMULATED), where the
CPU kernels are sanitized too.
"""

import importlib.util
from functools import cache

import pytest
import torch

from hdgan.ops import _backend
from tests.ops.backends import BACKENDS, EMULATED, HAS_GPU


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    name = request.param
    if name == "triton" and not HAS_GPU:
        on_host(monkeypatch, name)
    if name in ("cpu", "cuda") and EMULATED:
        on_host(monkeypatch, name)
        take_kernels(monkeypatch, name, extension_at(EMULATED))
    return name


@pytest.fixture
def device(backend):
    return "cuda" if HAS_GPU and not EMULATED and backend in ("cuda", "triton") else "cpu"


def on_host(monkeypatch, name):
    """Let the kernels of a backend work on CPU tensors."""
    why_unusable = _backend.why_unusable
    monkeypatch.setitem(_backend.DEVICE_OF, name, "cpu")
    monkeypatch.setattr(
        _backend, "why_unusable", lambda asked, gpu=None: None if asked == name else why_unusable(asked, gpu)
    )


def take_kernels(monkeypatch, name, extension):
    """Let a backend use the kernels of another build of the extension."""
    kernel_of = _backend.kernel_of

    def taken(stem, kernel, asked):
        return getattr(extension, f"{stem}_{kernel}_{name}") if asked == name else kernel_of(stem, kernel, asked)

    monkeypatch.setattr(_backend, "kernel_of", taken)


@cache
def extension_at(path):
    """A build of the extension that is not the installed one."""
    spec = importlib.util.spec_from_file_location("hdgan_emulated._C", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _seeded_and_poisoned():
    """Seed, and fill memory that ops leave uninitialised with NaN so that it shows in results."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
