"""The choice of a backend: by call, by context, by environment."""

import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from hdgan import ops
from hdgan.ops import BackendError, _backend, avg_pyramid

X = torch.zeros(1, 1, 4, 4)


def used_kernels(run):
    """Whether `run` calls a registered operator of hdgan."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return any(event.key.startswith("hdgan::") for event in profile.key_averages())


def test_kernels_are_the_choice_on_the_cpu():
    assert used_kernels(lambda: avg_pyramid(X, 1))
    assert not used_kernels(lambda: avg_pyramid(X, 1, backend="eager"))


def test_float64_is_for_eager():
    assert not used_kernels(lambda: avg_pyramid(X.double(), 1))
    with pytest.raises(BackendError, match=r"float32, bfloat16 or float16, got torch\.float64"):
        avg_pyramid(X.double(), 1, backend="cpu")


def test_context_switches_all_and_ends():
    with ops.backend("eager"):
        assert not used_kernels(lambda: avg_pyramid(X, 1))
        assert used_kernels(lambda: avg_pyramid(X, 1, backend="cpu"))
        with ops.backend(None):
            assert used_kernels(lambda: avg_pyramid(X, 1))
    assert used_kernels(lambda: avg_pyramid(X, 1))


def test_context_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), ops.backend("eager"):
        raise ZeroDivisionError
    assert used_kernels(lambda: avg_pyramid(X, 1))


def test_compiled_code_follows_the_context():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: avg_pyramid(x, 1)[1], backend="aot_eager", fullgraph=True)
    assert used_kernels(lambda: compiled(X))
    with ops.backend("eager"):
        assert not used_kernels(lambda: compiled(X))
    assert used_kernels(lambda: compiled(X))


def test_environment_switches_all():
    run = "import torch; from hdgan.ops import _backend; print(_backend.choose('op', None, torch.zeros(1)))"
    for name in ("eager", "cpu"):
        done = subprocess.run(
            [sys.executable, "-c", run], env=os.environ | {"HDGAN_BACKEND": name}, capture_output=True, text=True
        )
        assert done.stdout.strip() == name, done.stderr


@pytest.mark.parametrize("name", ["abacus", ""])
def test_unknown_backend(name):
    with pytest.raises(BackendError, match=f"expected a backend among eager, cpu, cuda, triton, got {name!r}"):
        avg_pyramid(X, 1, backend=name)
    with pytest.raises(BackendError, match="expected a backend among"), ops.backend(name):
        pass


def test_gpu_backends_refuse_cpu_tensors():
    for name in ("cuda", "triton"):
        with pytest.raises(BackendError, match=f"avg_pyramid: backend '{name}' cannot run: it works on cuda tensors"):
            avg_pyramid(X, 1, backend=name)


def test_missing_extension_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdgan._C", None)
    _backend._why_unusable.cache_clear()
    try:
        assert not used_kernels(lambda: avg_pyramid(X, 1))
        with pytest.raises(BackendError, match=r"cannot be imported .*install hdgan with a C\+\+ compiler"):
            avg_pyramid(X, 1, backend="cpu")
    finally:
        _backend._why_unusable.cache_clear()


def test_a_processor_that_the_extension_is_not_for_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdgan._C", SimpleNamespace(cpu_supported=False))
    _backend._why_unusable.cache_clear()
    try:
        assert not used_kernels(lambda: avg_pyramid(X, 1))
        with pytest.raises(BackendError, match="backend 'cpu' cannot run: this processor has no AVX2, FMA or F16C"):
            avg_pyramid(X, 1, backend="cpu")
    finally:
        _backend._why_unusable.cache_clear()


@pytest.mark.parametrize(
    ("archs", "capability", "fits"),
    [
        ("8.0 9.0", (9, 0), True),
        ("8.0 9.0", (8, 9), True),
        ("8.0 9.0", (10, 0), False),
        ("8.0 9.0+PTX", (12, 1), True),
        ("9.0a", (9, 0), True),
        ("10.0a", (10, 3), False),
        ("9.0a 12.0+PTX", (10, 0), False),
        ("8.6", (8, 0), False),
    ],
)
def test_architectures(monkeypatch, archs, capability, fits):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capability)
    reason = _backend._gpu_too_old(archs, 0)
    assert (reason is None) == fits
    assert fits or f'TORCH_CUDA_ARCH_LIST="{capability[0]}.{capability[1]}"' in reason


def test_nobody_is_told_to_build_for_a_gpu_that_the_cuda_kernels_cannot_be_built_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (7, 5))
    reason = _backend._gpu_too_old("8.0 9.0", 0)
    assert reason == "the CUDA kernels need compute capability 8.0 or higher, this GPU has 7.5"


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are GPUs of these capabilities, and an extension with kernels for some of them."""

    def pretend(*capabilities, archs="9.0", built="13.0", driver=13000):
        extension = SimpleNamespace(cuda_archs=archs, cuda_version=built, cuda_driver_version=lambda: driver)
        monkeypatch.setitem(sys.modules, "hdgan._C", extension)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capabilities[gpu])

    _backend._why_unusable.cache_clear()
    yield pretend
    _backend._why_unusable.cache_clear()


@pytest.mark.parametrize(
    ("built", "driver", "fits"),
    [("13.0", 13000, True), ("13.0", 12090, False), ("12.8", 12040, True), ("12.4", 13000, True), ("13.0", 0, False)],
)
def test_a_driver_older_than_the_extension(gpus, built, driver, fits):
    gpus((9, 0), built=built, driver=driver)
    reason = _backend.why_unusable("cuda")
    assert (reason is None) == fits
    if not fits:
        supported = f"{driver // 1000}.{driver % 1000 // 10}"
        assert f"was built with CUDA {built}, the driver of this GPU supports CUDA {supported}; update the" in reason


def test_triton_runs_where_the_driver_is_too_old_for_the_extension(gpus):
    gpus((9, 0), driver=12080)
    assert _backend._choose("op", None, "cuda", 0, torch.float32) == ("triton", None)
    name, reason = _backend._choose("op", "cuda", "cuda", 0, torch.float32)
    assert name == "cuda"
    assert "install hdgan again with the nvcc of CUDA 12 on PATH" in reason


@pytest.mark.parametrize(("capability", "chosen"), [((6, 1), "eager"), ((7, 0), "triton"), ((7, 5), "triton")])
def test_a_gpu_that_triton_cannot_compile_for(gpus, capability, chosen):
    gpus(capability)
    assert _backend._choose("op", None, "cuda", 0, torch.float32) == (chosen, None)
    _, refused = _backend._choose("op", "triton", "cuda", 0, torch.float32)
    if chosen == "eager":
        assert refused == (
            "backend 'triton' cannot run: the Triton kernels need compute capability 7.0 or higher, this GPU has 6.1"
        )
    else:
        assert refused is None


def test_gpus_of_amd_run_eager(gpus, monkeypatch):
    """PyTorch calls them cuda, and those of today have capabilities of 9.0 and more."""
    gpus((9, 4))
    monkeypatch.setattr(torch.version, "hip", "6.4.43482")
    assert _backend._choose("op", None, "cuda", 0, torch.float32) == ("eager", None)
    for name in ("cuda", "triton"):
        _, refused = _backend._choose("op", name, "cuda", 0, torch.float32)
        assert refused == (
            f"backend {name!r} cannot run: its kernels are for NVIDIA's GPUs, this PyTorch is for AMD's (ROCm)"
        )


@pytest.mark.parametrize("first", [0, 1])
def test_every_gpu_has_its_own_answer(gpus, first):
    """Whichever of two different GPUs is asked about first."""
    gpus((9, 0), (7, 5))
    for gpu in (first, 1 - first):
        expected = "cuda" if gpu == 0 else "triton"
        assert _backend._choose("op", None, "cuda", gpu, torch.float32) == (expected, None)
    assert _backend.why_unusable("cuda") is None
    assert "this GPU has 7.5" in _backend.why_unusable("cuda", 1)


@pytest.mark.parametrize("current", [0, 1])
def test_kernels_run_on_the_gpu_of_their_tensors(monkeypatch, current):
    calls, selected = [], [current]

    @contextmanager
    def select(gpu):
        selected.append(gpu)
        yield
        selected.pop()

    monkeypatch.setattr(_backend, "kernel_of", lambda *_: lambda *arguments: calls.append((selected[-1], arguments)))
    monkeypatch.setattr(_backend, "current_gpu", lambda: selected[-1])
    monkeypatch.setattr(_backend, "raw_stream", lambda gpu: 100 + gpu)
    monkeypatch.setattr(torch.cuda, "device", select)
    _backend.launch("op", "fwd", "cuda", torch.device("cuda", 1), "x")
    _backend.launch("op", "fwd", "triton", torch.device("cuda", 1), "x")
    assert calls == [(1, ("x", 101)), (1, ("x",))]
    assert selected == [current]


def test_import_probes_nothing():
    script = (
        "import sys, hdgan.ops, torch; "
        "print('triton' in sys.modules, 'hdgan._C' in sys.modules, torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_contexts_of_two_threads_end_in_any_order():
    first, second = ops.backend("eager"), ops.backend("cpu")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert used_kernels(lambda: avg_pyramid(X, 1))
    second.__exit__(None, None, None)
    assert _backend._forced == [None]


def test_a_wrong_choice_from_outside_is_said_to_be_one():
    with ops.backend("cuda"), pytest.raises(BackendError, match=r"\(from hdgan.ops.backend or HDGAN_BACKEND\)"):
        avg_pyramid(X, 1)


def test_errors_come_through_the_compiler():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: avg_pyramid(x, 1, backend="cuda")[1], backend="aot_eager")
    with pytest.raises(BackendError, match="works on cuda tensors"):
        compiled(X)


def test_forward_mode_is_eager():
    x, v = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 5, 6)
    ids = torch.randint(3, (1, 5, 6))
    for op in (
        lambda x: ops.instance_norm_act(x, pad=1),
        lambda x: ops.instance_mean(x, ids),
        lambda x: avg_pyramid(x, 1)[1],
    ):
        _, found = torch.func.jvp(op, (x,), (v,))
        step = 1e-3 * v.double()
        expected = (op(x.double() + step) - op(x.double() - step)) / 2e-3
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(BackendError, match="forward-mode"):
        torch.func.jvp(lambda x: avg_pyramid(x, 1, backend="cpu")[1], (x,), (v,))
