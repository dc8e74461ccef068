"""What PyTorch is doing with a function while an op runs in it: transforms of torch.func, forward-mode derivatives."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

_KINDS = torch._C._functorch.TransformType


def unusual_derivative() -> str | None:
    """What differentiates in another way than backwards through a graph, which is all that custom operators know."""
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    if torch._C._are_functorch_transforms_active() and _differentiates():
        return "a transform of torch.func that differentiates"
    return None


def is_mapping() -> bool:
    """Whether torch.vmap maps over something; tensors have no memory format then."""
    return torch._C._are_functorch_transforms_active() and _maps()


def _differentiates() -> bool:
    return any(one.key() in (_KINDS.Grad, _KINDS.Jvp) for one in torch._C._functorch.get_interpreter_stack() or ())


def _maps() -> bool:
    return any(one.key() == _KINDS.Vmap for one in torch._C._functorch.get_interpreter_stack() or ())


# As torch.compiler.assume_constant_result would do (see `_backend`): the compiler compiles anew for other transforms.
_differentiates._dynamo_marked_constant = _maps._dynamo_marked_constant = True  # type: ignore[attr-defined]
