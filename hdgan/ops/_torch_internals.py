"""All private names of PyTorch that the ops, the networks and `accelerate` use, and what happens if torch lacks one.

No public API answers these questions. Every name is looked up once, here. The tests remove each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])

_functorch = getattr(torch._C, "_functorch", None)
_kinds = getattr(_functorch, "TransformType", None)
_interpreters = getattr(_functorch, "get_interpreter_stack", None)
_active = getattr(torch._C, "_are_functorch_transforms_active", None)
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
_function_modes = getattr(torch._C, "_len_torch_function_stack", None)
_is_tracing = getattr(torch._C, "_is_tracing", None)
_dispatch_keys = getattr(torch._C, "_dispatch_keys", None)
_ORDINARY_KEYS = {
    "ADInplaceOrView",
    *(f"{kind}{device}" for kind in ("", "Autograd", "Autocast") for device in ("CPU", "CUDA")),
}
_ordinary: dict[int, bool] = {}
"""Whether a set of dispatch keys, by its number, has no others than those."""
_profiler_enabled = getattr(torch.autograd, "_profiler_enabled", None)
_current_gpu = getattr(torch._C, "_cuda_getDevice", None)  # a build for CPUs has neither of these
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
_any_global_hook = getattr(nn.modules.module, "_has_any_global_hook", None)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_PARTS, _TENSORS = "_modules", ("_parameters", "_buffers")
_REGISTRIES_KNOWN = {_PARTS, *_TENSORS} <= vars(nn.Module()).keys()
_LEVEL_KNOWN = hasattr(forward_ad, "_current_level")

if not _LEVEL_KNOWN:
    # PyTorch would take the forward-mode derivative of a kernel for zero.
    warnings.warn(
        f"torch {torch.__version__} does not show whether it differentiates in forward mode: hdgan runs all of its ops "
        "in plain PyTorch, which is slower. Install a version of torch that this version of hdgan supports.",
        stacklevel=2,
    )


def unusual_derivative() -> str | None:
    """What differentiates in any other way than backwards through a graph, the only way that custom operators support.

    If torch does not tell whether it is in forward mode, the answer is that it may be. If torch does not tell which
    transforms of torch.func are active, every one counts as a derivative. If it does not even tell whether there are
    any, none is assumed: PyTorch itself refuses to differentiate kernels in them.
    """
    if not _LEVEL_KNOWN:
        return "this version of torch, which does not show forward-mode differentiation"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    if transforms_active() and _differentiates():
        return "a transform of torch.func that differentiates"
    return None


def transforms_active() -> bool:
    """Whether code runs in a transform of torch.func. If torch does not tell, the answer is no."""
    return _active is not None and _active()


def is_intercepted() -> bool:
    """Whether something wants to see every operator: a mode of PyTorch, a transform of torch.func, or torch.jit.trace.

    If torch does not tell, the answer is yes: ops are then called as operators, which is slower.
    """
    if _active is None or _dispatch_modes is None or _function_modes is None or _is_tracing is None:
        return True
    return bool(_active() or _dispatch_modes() or _function_modes() or _is_tracing())


def is_ordinary(x: Tensor) -> bool:
    """Whether a tensor is its memory: not a batch of torch.vmap or of batched gradients, negated lazily, fake, sparse.

    If torch does not tell, the answer is no: ops are then called as operators, which is slower.
    """
    if _dispatch_keys is None:
        return False
    keys = _dispatch_keys(x)
    number = keys.raw_repr()
    known = _ordinary.get(number)
    if known is None:
        names = str(keys).removeprefix("DispatchKeySet(").removesuffix(")")
        known = _ordinary[number] = _ORDINARY_KEYS.issuperset(names.split(", "))
    return known


def is_profiled() -> bool:
    """Whether PyTorch's profiler runs. If torch does not tell, the answer is yes, which costs a microsecond."""
    return _profiler_enabled is None or _profiler_enabled()


def is_mapping() -> bool:
    """Whether torch.vmap maps over something; tensors have no memory format then.

    If torch does not tell which transforms are active, every one counts as torch.vmap: results are contiguous then.
    """
    return transforms_active() and _maps()


def current_gpu() -> int:
    """The index of the current GPU, which is known to exist."""
    return int(torch.cuda.current_device() if _current_gpu is None else _current_gpu())


def raw_stream(gpu: int) -> int:
    """The address of the current stream of a GPU."""
    return int(torch.cuda.current_stream(gpu).cuda_stream if _raw_stream is None else _raw_stream(gpu))


def constant_when_compiled(function: F) -> F:
    """Decorate a function whose result the compiler treats as a constant, until a guard of its caller fails.

    This is torch.compiler.assume_constant_result, which would import the compiler, and Triton with it, right here. If
    the compiler ignored the mark, it would trace into the function, and raise an error under `fullgraph`.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_compiled
def _differentiates() -> bool:
    return _known(("Grad", "Jvp"))


@constant_when_compiled
def _maps() -> bool:
    return _known(("Vmap",))


def _known(names: tuple[str, ...]) -> bool:
    """Whether a transform of one of these kinds is active."""
    if _kinds is None or _interpreters is None:
        return True
    kinds = [getattr(_kinds, name, None) for name in names]
    return None in kinds or any(one.key() in kinds for one in _interpreters() or ())


def has_own_hooks(module: nn.Module) -> bool:
    """Whether hooks of a module run when it is called. If torch keeps them under another name, the answer is yes."""
    return any(getattr(module, name, True) for name in _HOOKS)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks run when a module is called, either its own or global ones.

    If torch keeps them under another name, the answer is yes: a module with hooks is called as a module, and once.
    """
    return has_own_hooks(module) or _any_global_hook is None or _any_global_hook()


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called. If torch keeps the result under another name, the answer is yes."""
    return getattr(module, "_compiled_call_impl", module) is not None


def conv_forward(conv: nn.Conv2d) -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """What a convolution does with an input, a weight and a bias, in its padding mode.

    None if torch has another name for it: such a convolution is called as a module.
    """
    return getattr(conv, "_conv_forward", None)


def parts_of(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """The parts of a module by their names, also if two names are of one part.

    Whether there are names of parts that are None depends on the version of torch.
    """
    if _REGISTRIES_KNOWN:
        return module._modules
    return {name: part for name, part in module.named_modules(remove_duplicate=False) if name and "." not in name}


def names_in(module: nn.Module) -> tuple[str, ...]:
    """The names of the parts, parameters and buffers that a module has."""
    if _REGISTRIES_KNOWN:
        registries = module._modules, module._parameters, module._buffers
        return tuple(name for registry in registries for name, held in registry.items() if held is not None)
    parameters = module.named_parameters(recurse=False, remove_duplicate=False)
    buffers = module.named_buffers(recurse=False, remove_duplicate=False)
    return *parts_of(module), *(name for name, _ in parameters), *(name for name, _ in buffers)


def exchange_tensors(module: nn.Module, exchanged: Callable[[Tensor | None], Tensor | None]) -> None:
    """Give a module other parameters and buffers, which need not be of the same kind.

    They go when the `__dict__` that the module had before is put back. (functional_call of torch.func would leave them
    in a module that is registered at two places.)

    Raises:
        RuntimeError: torch keeps them under other names.
    """
    if not _REGISTRIES_KNOWN:
        raise RuntimeError(
            f"torch {torch.__version__} does not show where modules keep their parameters; install a version of torch "
            "that this version of hdgan supports"
        )
    for registry in _TENSORS:
        vars(module)[registry] = {name: exchanged(tensor) for name, tensor in vars(module)[registry].items()}
