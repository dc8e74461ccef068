"""Versions of torch without one of the private names that hdgan uses: never a wrong number, and said where it costs."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap

from hdgan.models import blocks
from hdgan.ops import BackendError, _backend, _checks, _register, _torch_internals, avg_pyramid, instance_norm_act
from tests.ops.test_backend import used_kernels

X = torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def without(monkeypatch):
    """Take private names away from torch, and let the ops and networks use what _torch_internals makes of the rest."""

    def take(*names, warns=False):
        with monkeypatch.context() as patch:
            for owner, name in names:
                patch.delattr(owner, name)
            spec = importlib.util.spec_from_file_location("fresh_internals", _torch_internals.__file__)
            fresh = importlib.util.module_from_spec(spec)
            if warns:
                with pytest.warns(UserWarning, match="in plain PyTorch, which is slower"):
                    spec.loader.exec_module(fresh)
            else:
                spec.loader.exec_module(fresh)
        monkeypatch.setattr(_backend, "unusual_derivative", fresh.unusual_derivative)
        monkeypatch.setattr(_checks, "is_mapping", fresh.is_mapping)
        for name in ("is_intercepted", "is_ordinary", "is_profiled"):
            monkeypatch.setattr(_register, name, getattr(fresh, name))
        for name in ("has_hooks", "transforms_active"):
            monkeypatch.setattr(blocks, name, getattr(fresh, name))
        return fresh

    return take


def norm(x, backend=None):
    return instance_norm_act(x, activation="relu", pad=1, backend=backend)


def cubed(backend=None):
    return lambda x: norm(x, backend).pow(3).sum()


def test_torch_has_all_of_them():
    assert _torch_internals._LEVEL_KNOWN
    assert None not in (_torch_internals._kinds, _torch_internals._interpreters, _torch_internals._active)
    assert _torch_internals._any_global_hook is not None
    assert _torch_internals._profiler_enabled is not None
    modes = (_torch_internals._dispatch_modes, _torch_internals._function_modes, _torch_internals._is_tracing)
    assert None not in modes
    assert _torch_internals.is_ordinary(X)
    if torch.version.cuda:
        assert None not in (_torch_internals._current_gpu, _torch_internals._raw_stream)
    assert all(hasattr(nn.Identity(), name) for name in _torch_internals._HOOKS)
    assert _torch_internals.conv_forward(nn.Conv2d(1, 1, 1)) is not None


def test_the_compiler_knows_the_mark_of_constants():
    def constant():
        return 1

    marked = torch.compiler.assume_constant_result(lambda: 1)
    assert vars(_torch_internals.constant_when_compiled(constant)).items() <= vars(marked).items()


def test_without_the_level_of_forward_mode_all_ops_are_eager(without):
    without((forward_ad, "_current_level"), warns=True)
    assert not used_kernels(lambda: avg_pyramid(X, 1))
    expected = jvp(lambda x: norm(x, "eager"), (X,), (X.flip(3),))[1]
    torch.testing.assert_close(jvp(norm, (X,), (X.flip(3),))[1], expected)
    with pytest.raises(BackendError, match=r"'cpu' cannot run in this version of torch.*: use 'eager'"):
        norm(X, "cpu")


@pytest.mark.parametrize("name", ["get_interpreter_stack", "TransformType"])
def test_without_the_kinds_of_transforms_all_transforms_are_eager(without, name):
    without((torch._C._functorch, name))
    assert used_kernels(lambda: norm(X))
    torch.testing.assert_close(grad(cubed())(X), grad(cubed("eager"))(X))
    both = torch.stack([X, -X])
    torch.testing.assert_close(vmap(norm)(both), vmap(lambda x: norm(x, "eager"))(both))
    assert not used_kernels(lambda: vmap(norm)(both))


def test_without_a_sign_of_transforms_torch_refuses_to_differentiate_kernels(without):
    fresh = without((torch._C, "_are_functorch_transforms_active"))
    assert used_kernels(lambda: norm(X))
    assert not fresh.transforms_active()
    with pytest.raises(RuntimeError, match="functorch transforms"):
        grad(cubed())(X)
    both = torch.stack([X, -X])
    torch.testing.assert_close(vmap(norm)(both), vmap(lambda x: norm(x, "eager"))(both))


@pytest.mark.parametrize(
    "name", ["_len_torch_dispatch_stack", "_len_torch_function_stack", "_is_tracing", "_dispatch_keys"]
)
def test_without_a_sign_of_modes_all_ops_are_operators(without, name):
    x = X.clone().requires_grad_()
    direct = norm(x)
    without((torch._C, name))
    found = norm(x)
    assert type(found.grad_fn) is not type(direct.grad_fn)
    assert torch.equal(found, direct)
    assert torch.equal(*(torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (found, direct)))


def test_without_a_sign_of_the_profiler_ops_are_named_for_it(without):
    without((torch.autograd, "_profiler_enabled"))
    assert used_kernels(lambda: norm(X))


def test_without_raw_streams_the_public_functions_are_asked(without, monkeypatch):
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 1, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda gpu: 10 + gpu, raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda gpu: SimpleNamespace(cuda_stream=20 + gpu))
    fresh = without((torch._C, "_cuda_getDevice"), (torch._C, "_cuda_getCurrentRawStream"))
    assert (fresh.current_gpu(), fresh.raw_stream(1)) == (2, 21)
    fresh = without()
    assert (fresh.current_gpu(), fresh.raw_stream(1)) == (1, 11)


def test_without_global_hooks_every_module_is_called(without):
    conv = nn.Conv2d(2, 2, 3)
    assert blocks.is_plain(conv)
    without((nn.modules.module, "_has_any_global_hook"))
    assert not blocks.is_plain(conv)
    assert blocks.as_function(conv) is conv


def test_without_the_hooks_of_a_module_it_is_called():
    conv = nn.Conv2d(2, 2, 3)
    assert not _torch_internals.has_hooks(conv)
    del conv._forward_hooks
    assert _torch_internals.has_hooks(conv)


def test_without_its_forward_a_convolution_is_called(monkeypatch):
    conv = nn.Conv2d(2, 2, 3)
    for kind in (nn.Conv2d, nn.modules.conv._ConvNd):
        monkeypatch.delattr(kind, "_conv_forward")
    assert blocks.as_function(conv) is conv


def test_without_the_registries_of_modules_public_functions_give_the_same(monkeypatch):
    part = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1, bias=False))
    module = nn.ModuleDict({"first": part, "second": part})
    found = [_torch_internals.names_in(one) for one in module.modules()], dict(_torch_internals.parts_of(module))
    assert _torch_internals._REGISTRIES_KNOWN
    monkeypatch.setattr(_torch_internals, "_REGISTRIES_KNOWN", False)
    assert ([_torch_internals.names_in(one) for one in module.modules()], _torch_internals.parts_of(module)) == found
    with pytest.raises(RuntimeError, match="install a version of torch that this version of hdgan supports"):
        _torch_internals.exchange_tensors(module, lambda tensor: tensor)
