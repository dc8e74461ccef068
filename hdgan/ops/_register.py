"""Registration of the kernels as PyTorch operators, so that autograd, torch.compile and torch.export know them.

PyTorch takes longer to call a registered operator than the kernel of a small image runs. An op on ordinary tensors, to
whose operators nobody listens, is therefore called directly, with the same implementation and the same derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.ops._torch_internals import is_intercepted, is_ordinary, is_profiled

LIBRARY = torch.library.Library("hdgan", "DEF")
_PLAIN = frozenset({Tensor, nn.Parameter, type(None), bool, int, float, str, list, tuple, torch.Size, torch.dtype})
"""Types of arguments that mean what they are. Subclasses of Tensor, and symbols in place of numbers, do not."""


def register(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    batched: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Define torch.ops.hdgan.<name> for CPU and CUDA tensors, and return what calls it or its implementation.

    Args:
        schema: with the name in front, in PyTorch's schema language; tensors come first, the backend comes last.
        implementation: allocates the results and launches the kernels.
        fake: creates empty results, for tracing.
        setup_context, backward: as for `torch.library.register_autograd`. Ops without gradients leave them out.
        batched: as for `torch.library.register_vmap`, with the op in front of its arguments.
    """
    name = schema[: schema.index("(")]
    qualified = f"hdgan::{name}"
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, implementation, "CPU")
    LIBRARY.impl(name, implementation, "CUDA")
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
    op = getattr(torch.ops.hdgan, name).default
    if batched is not None:
        torch.library.register_vmap(qualified, partial(batched, op), lib=LIBRARY)
    apply = None if backward is None else _node(name, implementation, setup_context, backward)
    n_tensors = schema[: schema.index("->")].count("Tensor")

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling() or is_intercepted() or not _PLAIN.issuperset(map(type, args)):
            return op(*args)
        function = implementation
        for x in args[:n_tensors]:
            if x is None:
                continue
            if not is_ordinary(x):
                return op(*args)
            if x.requires_grad and apply is not None and torch.is_grad_enabled():
                function = apply
        if is_profiled():
            with torch.profiler.record_function(qualified):
                return function(*args)
        return function(*args)

    return call


def _node(
    name: str,
    implementation: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """What calls an implementation and remembers its derivative, for calls that do not go through the operator."""

    def forward(ctx: Any, *args: Any) -> Any:
        output = implementation(*args)
        if setup_context is not None:
            setup_context(ctx, args, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    node = type(name, (torch.autograd.Function,), methods)
    # Function.apply without its preparations for transforms of torch.func, which never come here.
    return super(torch.autograd.Function, node).apply  # type: ignore[misc]


def fold(x: Any, mapped: int | None, into: int | None, size: int) -> Any:
    """Merge the dimension that `torch.vmap` maps over into another one.

    Args:
        x: an argument of an op. If it is not a tensor, it is returned unchanged.
        mapped: the mapped dimension, or None if x is the same for all.
        into: the other dimension, counted without the mapped one, or None if x has to be the same for all.
        size: the size of the mapped dimension.
    """
    if not isinstance(x, Tensor):
        return x
    if into is None:
        if mapped is not None:
            raise ValueError(
                "torch.vmap: expected one instance index for all that is mapped over, got a different one for each"
            )
        return x
    x = x.expand(size, *x.shape) if mapped is None else x.movedim(mapped, 0)
    return x.movedim(0, into).flatten(into, into + 1)


def folding(inputs: Sequence[int | None], output: Callable[[int], int]) -> Callable[..., Any]:
    """The rule for `torch.vmap` of an op that treats the planes, or the images, of its arguments one by one.

    Args:
        inputs: `into` of its leading arguments, as in `fold`. None of the others is a tensor.
        output: gives, for the number of a result, the dimension that holds the mapped one.
    """

    def rule(op: Callable[..., Any], info: Any, mapped: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        n, size = len(inputs), info.batch_size
        results = op(*(fold(x, dim, into, size) for x, dim, into in zip(args, mapped, inputs, strict=False)), *args[n:])
        if isinstance(results, Tensor):
            return results.unflatten(output(0), (size, -1)), output(0)
        # A result that the op was not asked for is empty, and the same for all.
        dims = [output(k) if y.numel() else None for k, y in enumerate(results)]
        unfolded = [y if dim is None else y.unflatten(dim, (size, -1)) for y, dim in zip(results, dims, strict=True)]
        return type(results)(unfolded), type(results)(dims)

    return rule


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
        The gradient with respect to dy, and those with respect to `inputs`. They are differentiable themselves.
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
