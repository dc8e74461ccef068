"""Whether an accelerated module computes what the original does.

A rounding error of one part in ten million is no fault, and a wrong padding is one, but both are differences. The
measure is the original itself: how far its results move when all of its weights and inputs are changed by one rounding.
The accelerated module may differ from the original by no more than four times that, or by four roundings of the
largest output or gradient. The same is asked in float64, in which every error other than rounding stands out, if the forward
takes it.

A ReLU whose input is zero within rounding may come out on either side of its kink, which changes a gradient by more
than rounding does. That happens by chance. A comparison that fails is therefore repeated, on inputs that are changed
by a thousandth; a fault fails every time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from hdgan.errors import HdganError

FACTOR = 4.0
"""How much more than the original's own error the accelerated module may differ from it."""
ATTEMPTS = 3
_SEED = 20181117


class ParityError(HdganError, RuntimeError):
    """An accelerated module that differs from the original. It was made the original again."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference from the original among the tensors of a kind, and what was allowed for that tensor."""

    mode: str
    """train or eval."""
    dtype: torch.dtype | None
    what: str
    """The tensor: an output, or the gradient of an input or parameter."""
    difference: float
    """Root mean square of the difference, over that of the largest output or gradient."""
    allowed: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed

    def __str__(self) -> str:
        if self.note:
            return f"{self.mode}, {self.note}"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.mode}, {dtype}: {self.difference:.1e} of {self.what}, {self.allowed:.1e} allowed"


Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


def compare(module: nn.Module, arguments: Arguments, originally: Callable[[], Any]) -> list[Comparison]:
    """Compare an accelerated module with the original, in training and evaluation mode.

    Args:
        module: the accelerated module. It is left as it was.
        arguments: what it is called with.
        originally: makes it the original within a context.

    Returns:
        The worst comparison of each mode and dtype.

    Raises:
        ParityError: the two differ.
    """
    results = []
    for mode in ("train", "eval"):
        for wide in (True, False):
            results.append(_compare_once(module, arguments, originally, mode, wide))
    return [result for result in results if result is not None]


def _compare_once(
    module: nn.Module, arguments: Arguments, originally: Callable[[], Any], mode: str, wide: bool
) -> Comparison | None:
    worst: Comparison | None = None
    for attempt in range(ATTEMPTS):
        shift = 1e-3 * attempt
        run = _Run(module, arguments, mode == "train", wide)
        with originally():
            try:
                first = run(shift)
            except Exception as error:
                reason = (str(error).strip().splitlines() or [""])[0]
                dtype = " in float64" if wide else ""
                return Comparison(mode, None, "", 0.0, 0.0, f"not compared{dtype}: the original raises {reason}")
            moved = run(shift, rounding=True)
        worst = _worst(mode, first, moved, run(shift))
        if worst is None or worst.passed:
            return worst
    assert worst is not None
    dtype = str(worst.dtype).removeprefix("torch.")
    raise ParityError(
        f"accelerate: {type(module).__name__} was left as it was, because {worst.what} would differ by "
        f"{worst.difference:.1e} in {worst.mode} mode and {dtype}, and {worst.allowed:.1e} is what rounding explains; "
        "name the part that cannot be replaced in skip, and please report it"
    )


@dataclass(frozen=True)
class _Tensors:
    """Results of a run by their names, outputs and gradients apart."""

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


class _Run:
    """Calls a module with copies of its tensors, and takes gradients, without a trace of it in the module."""

    def __init__(self, module: nn.Module, arguments: Arguments, training: bool, wide: bool) -> None:
        self._module, self._arguments, self._training, self._wide = module, arguments, training, wide

    def __call__(self, shift: float, rounding: bool = False) -> _Tensors:
        """Outputs and gradients.

        Args:
            shift: relative change of the floating-point inputs.
            rounding: change each input and parameter by one rounding.
        """
        change = _Changes(rounding)
        with sandbox(self._module), torch.enable_grad():
            self._module.train(self._training)
            seed_all()
            state = {name: change(self._cast(p)) for name, p in self._module.named_parameters()}
            buffers = {name: self._cast(b).clone() for name, b in self._module.named_buffers()}
            inputs, spec = pytree.tree_flatten(self._arguments)
            inputs = [change(self._cast(x), shift) if isinstance(x, Tensor) else x for x in inputs]
            # Copies that are no leaves, since the module may change its input in place.
            given = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
            args, kwargs = pytree.tree_unflatten(given, spec)
            made = functional_call(self._module, {**state, **buffers}, args, kwargs)
            outputs = {f"output {i}": x for i, x in enumerate(pytree.tree_leaves(made)) if isinstance(x, Tensor)}
            sources = {f"the gradient of input {i}": x for i, x in enumerate(inputs) if _differentiable(x)}
            sources |= {f"the gradient of {name}": p for name, p in state.items() if _differentiable(p)}
            gradients = _gradients([x for x in outputs.values() if _differentiable(x)], sources)
        return _Tensors({name: x.detach() for name, x in outputs.items()}, gradients)

    def _cast(self, x: Tensor) -> Tensor:
        return x.double() if self._wide and x.is_floating_point() else x


class _Changes:
    """Copies of tensors that require gradients where their originals may, changed a little."""

    def __init__(self, rounding: bool) -> None:
        self._rounding = rounding
        self._generator = torch.Generator().manual_seed(_SEED)

    def __call__(self, x: Tensor, shift: float = 0.0) -> Tensor:
        if not x.is_floating_point():
            return x.detach().clone()
        trains = x.requires_grad or not isinstance(x, nn.Parameter)
        x = x.detach()
        x = x + x * shift * self._noise(x) if shift else x.clone()
        if self._rounding:
            x = x + x * torch.finfo(x.dtype).eps * self._noise(x).sign()
        return x.requires_grad_(trains)

    def _noise(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self._generator, dtype=torch.float64).to(x)


def _differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _gradients(outputs: Sequence[Tensor], sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a random combination of the outputs."""
    if not outputs or not sources:
        return {}
    generator = torch.Generator().manual_seed(_SEED)
    directions = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in outputs]
    grads = torch.autograd.grad(outputs, list(sources.values()), directions, allow_unused=True)
    return {name: grad for name, grad in zip(sources, grads, strict=True) if grad is not None}


def _worst(mode: str, first: _Tensors, moved: _Tensors, accelerated: _Tensors) -> Comparison | None:
    """The tensor that is off by most, compared with what is allowed for it."""
    worst: Comparison | None = None
    for part in ("outputs", "gradients"):
        known, other, found = (getattr(tensors, part) for tensors in (first, moved, accelerated))
        if known.keys() != found.keys():
            names = ", ".join(sorted(known.keys() ^ found.keys()))
            return Comparison(mode, None, f"the presence of {names}", float("inf"), 0.0)
        largest = max((_rms(x) for x in known.values()), default=0.0)
        for name, x in known.items():
            comparison = _comparison(mode, name, x, other[name], found[name], largest)
            if worst is None or comparison.difference * worst.allowed > worst.difference * comparison.allowed:
                worst = comparison
    return worst


def _comparison(mode: str, name: str, x: Tensor, moved: Tensor, found: Tensor, largest: float) -> Comparison:
    if x.shape != found.shape or x.dtype != found.dtype:
        return Comparison(mode, x.dtype, f"the shape or dtype of {name}", float("inf"), 0.0)
    if not x.is_floating_point():
        return Comparison(mode, x.dtype, name, float((x != found).sum()), 0.0)
    scale = largest or 1.0
    own = _rms(moved.double() - x.double()) / scale
    off = _rms(found.double() - x.double()) / scale
    return Comparison(mode, x.dtype, name, off, FACTOR * max(own, torch.finfo(x.dtype).eps))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt()) if x.numel() else 0.0


def seed_all() -> None:
    """Seed all generators that a forward may draw from."""
    torch.manual_seed(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)


@contextmanager
def sandbox(module: nn.Module) -> Iterator[None]:
    """Leave the attributes and flags of all parts of a module, and the states of the generators, as they are.

    Parameters and buffers are not covered: run on copies of them.
    """
    attributes = [(part, dict(part.__dict__)) for part in module.modules()]
    devices = sorted({tensor.get_device() for tensor in (*module.parameters(), *module.buffers()) if tensor.is_cuda})
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
            for part, before in attributes:
                part.__dict__.clear()
                part.__dict__.update(before)
