"""Registration of the kernels as PyTorch operators, so that autograd, torch.compile and torch.export know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("hdgan", "DEF")


def register(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Define torch.ops.hdgan.<name> for CPU and CUDA tensors and return it.

    Args:
        schema: with the name in front, in PyTorch's schema language; the last argument is the backend.
        implementation: allocates the results and launches the kernels.
        fake: what results look like, for tracing.
        setup_context, backward: as for `torch.library.register_autograd`; left out for ops without gradients.
    """
    name = schema[: schema.index("(")]
    qualified = f"hdgan::{name}"
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, implementation, "CPU")
    LIBRARY.impl(name, implementation, "CUDA")
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
    return getattr(torch.ops.hdgan, name).default


def gradients_of_gradients(
    reference: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor, ddinputs: Sequence[Tensor | None]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Differentiate the backward pass of an op, by its eager reference.

    Args:
        reference: the op, of `inputs` alone.
        inputs: the tensors whose gradients the backward pass computed.
        dy: the gradient that it was given.
        ddinputs: the gradients with respect to what it computed, None for zero.

    Returns:
        The gradient with respect to dy, and those with respect to `inputs`. Differentiable themselves.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs]
        upstream = dy.view_as(dy) if dy.requires_grad else dy.detach().requires_grad_()
        grads = torch.autograd.grad(reference(*aliases), aliases, upstream, create_graph=True)
        known = [(grad, dd) for grad, dd in zip(grads, ddinputs, strict=True) if dd is not None]
        results = torch.autograd.grad(
            [grad for grad, _ in known],
            [upstream, *aliases],
            [dd for _, dd in known],
            create_graph=again,
            allow_unused=True,
        )
    return results[0], list(results[1:])
