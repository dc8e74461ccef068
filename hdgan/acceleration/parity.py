"""Whether an accelerated module computes what the original does.

A rounding error of one part in ten million is no fault, and a wrong padding is one, but both are differences. The
measure is the original itself: how far its results move when its weights, its inputs and the gradients of its outputs
are changed by one rounding. The accelerated module may differ from the original by no more than four times that, or by
four roundings of the largest output or gradient; a loop that sums over the pixels of an instance rounds more often. The
same is asked in float64, in which every error other than rounding stands out, if the forward takes it. Both draw the
same random numbers.

A ReLU whose input is zero within rounding may come out on either side of its kink, which changes a gradient by more
than rounding does. That happens by chance. A comparison that fails is therefore repeated, on inputs that are changed
by a thousandth; a fault fails every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.acceleration.nested import tensors_in, with_tensors
from hdgan.acceleration.sandbox import SEED, gpus_of, sandbox
from hdgan.errors import HdganError
from hdgan.wording import first_line

FACTOR = 4.0
"""How much more than the original's own error the accelerated module may differ from it."""
MEANINGLESS = 0.1
"""The allowed difference beyond which a comparison says nothing, as for a norm of constant planes."""
DRAWS = 2
"""How often the original is run with changed numbers; what moves most counts."""
ATTEMPTS = 3
"""How often a comparison is tried before it counts as failed."""


class ParityError(HdganError, RuntimeError):
    """An accelerated module that differs from the original. It was made the original again."""


@dataclass(frozen=True)
class Parity:
    """The largest difference from the original among the tensors of a kind, and what was allowed for that tensor."""

    mode: str
    """train or eval."""
    dtype: torch.dtype | None = None
    what: str = ""
    """The tensor: an output, or the gradient of an input or parameter."""
    difference: float = 0.0
    """Root mean square of the difference, over that of the largest output or gradient."""
    allowed: float = 0.0
    fault: str = ""
    """What cannot be compared since only one of the two has it, or in another form; a sentence."""
    note: str = ""
    """Why nothing was compared, if that is so."""

    @property
    def is_rounding(self) -> bool:
        """Whether the tensor moves so much by roundings that it says nothing. In 16 bits that is usual."""
        exact = self.dtype is not None and self.dtype.is_floating_point and torch.finfo(self.dtype).eps < 1e-3
        return exact and self.allowed > MEANINGLESS

    @property
    def passed(self) -> bool:
        """Whether the difference is within what was allowed, and nothing else was wrong."""
        return not self.fault and self.difference <= self.allowed

    def __str__(self) -> str:
        if self.note:
            return f"{self.mode}, {self.note}"
        setting = f"{self.mode}, {str(self.dtype).removeprefix('torch.')}"
        return f"{setting}: {self.fault or f'{self.difference:.1e} of {self.what}, {self.allowed:.1e} allowed'}"


Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


def compare(module: nn.Module, arguments: Arguments, originally: Callable[[], Any], summed: int = 1) -> list[Parity]:
    """Compare an accelerated module with the original, in training and evaluation mode.

    Args:
        module: the accelerated module. It is left as it was.
        arguments: what it is called with.
        originally: makes it the original within a context.
        summed: values that the original may add up one by one. The errors of such a sum grow with their square root.

    Returns:
        The worst comparison of each mode and dtype.

    Raises:
        ParityError: the two differ.
    """
    name = type(module).__name__
    made: list[Parity] = []
    for mode, in_float64 in product(("train", "eval"), (True, False)):
        made.append(_compare_once(module, arguments, originally, mode, in_float64, summed))
        if not made[-1].passed:
            raise ParityError(
                f"accelerate: {name} was left as it was, because {made[-1].what} would differ ({made[-1]}); "
                "leave out parts by skip to find the one that cannot be replaced, and please report it"
            )
    if all(one.note for one in made):
        reason = f"because in {made[-1]}"
        raise ParityError(f"accelerate: {name} was left as it was, {reason}; give another example, or none")
    return made


def _compare_once(
    module: nn.Module, arguments: Arguments, originally: Callable[[], Any], mode: str, in_float64: bool, summed: int
) -> Parity:
    run = _Run(module, arguments, mode == "train", in_float64)
    for attempt in range(ATTEMPTS):
        shift = 1e-3 * attempt
        with originally():
            try:
                first = run(shift)
                if run.drew and not run.contiguous:
                    run.contiguous = True
                    first = run(shift)
            except Exception as error:
                where = " in float64" if in_float64 else ""
                return Parity(mode, note=f"not compared{where}: the original raises {first_line(error)}")
            moved = [run(shift, rounding) for rounding in range(1, DRAWS + 1)]
        try:
            accelerated = run(shift)
        except Exception as error:
            name = type(module).__name__
            raise ParityError(f"accelerate: {name} was left as it was: it would raise {first_line(error)}") from error
        worst = _worst(mode, first, moved, accelerated, math.sqrt(summed))
        if worst.passed:
            break
    return worst


@dataclass(frozen=True)
class _Tensors:
    """Results of a run by their names, outputs and gradients apart."""

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    kind: str
    """The class of what was returned."""


class _Run:
    """Calls a module with copies of its tensors, and takes gradients, without a trace of it in the module."""

    def __init__(self, module: nn.Module, arguments: Arguments, training: bool, in_float64: bool) -> None:
        self._module, self._arguments, self._training, self._in_float64 = module, arguments, training, in_float64
        self.drew = False
        """Whether a run has drawn random numbers."""
        self.contiguous = False
        """Whether all tensors are made contiguous. Dropout draws in the order of memory, which an op may keep where
        PyTorch's instance norm does not."""

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(self, shift: float, rounding: int = 0) -> _Tensors:
        """Outputs and gradients.

        Args:
            shift: relative change of the floating-point inputs.
            rounding: if it is not 0, the number of the draw in which everything given is changed by one rounding.
        """
        change = _Changes(self._in_float64, self.contiguous, rounding)
        inputs: list[Tensor] = []

        def given(x: Tensor) -> Tensor:
            inputs.append(change.input(x, shift))
            return inputs[-1].clone()  # which is no leaf, since the module may change its input in place

        args, kwargs = with_tensors(self._arguments, given)
        with sandbox(self._module, change.state) as parameters:
            self._module.train(self._training)
            before = _generators(self._module)
            made = self._module(*args, **kwargs)
            self.drew |= any(not torch.equal(*states) for states in zip(before, _generators(self._module), strict=True))
            outputs = {path: _comparable(x) for path, x in tensors_in(made, "output")}
            named = (*zip(_names(self._arguments), inputs, strict=True), *parameters.items())
            sources = {f"the gradient of {name}": x for name, x in named if x.requires_grad}
            gradients = _gradients([x for x in outputs.values() if x.requires_grad], sources, change)
        return _Tensors({name: x.detach() for name, x in outputs.items()}, gradients, type(made).__name__)


def _names(arguments: Arguments) -> Iterator[str]:
    """What the tensors in arguments are called, in order."""
    for name, value in (*enumerate(arguments[0]), *arguments[1].items()):
        yield from (path for path, _ in tensors_in(value, f"input {name}"))


def _comparable(x: Tensor) -> Tensor:
    x = x if x.layout is torch.strided else x.to_dense()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


class _Changes:
    """Copies of tensors, in float64 or in their own dtype, changed a little.

    Args:
        in_float64: whether floating-point tensors become float64.
        contiguous: whether tensors become contiguous.
        rounding: 0, or the number of the draw in which they are changed by one rounding.
    """

    def __init__(self, in_float64: bool, contiguous: bool, rounding: int) -> None:
        self._in_float64, self._rounding = in_float64, rounding
        self._format = torch.contiguous_format if contiguous else torch.preserve_format
        self._shifts = torch.Generator().manual_seed(SEED)
        self._signs = torch.Generator().manual_seed(SEED + rounding)

    def input(self, x: Tensor, shift: float) -> Tensor:
        """A copy of an input that has a gradient, changed by `shift` relatively."""
        if not x.is_floating_point():
            return self._cast(x)
        x = self._cast(x)
        x = x + x * shift * _noise(x, self._shifts) if shift else x
        return self.rounded(x).requires_grad_()

    def state(self, x: Tensor) -> Tensor:
        """A copy of a parameter or buffer."""
        if not x.is_floating_point() or not isinstance(x, nn.Parameter):
            return self._cast(x)
        return nn.Parameter(self.rounded(self._cast(x)), x.requires_grad)

    def _cast(self, x: Tensor) -> Tensor:
        dtype = torch.float64 if self._in_float64 and x.is_floating_point() else x.dtype
        return x.detach().to(dtype, copy=True, memory_format=self._format)

    def rounded(self, x: Tensor) -> Tensor:
        """A tensor changed by one rounding, or itself."""
        return x + x * torch.finfo(x.dtype).eps * _noise(x, self._signs).sign() if self._rounding else x


def _generators(module: nn.Module) -> list[Tensor]:
    """The states of PyTorch's generators that a module draws from."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in gpus_of(module))]


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


def _gradients(outputs: Sequence[Tensor], sources: Mapping[str, Tensor], change: _Changes) -> dict[str, Tensor]:
    """Those of a random combination of the outputs."""
    if not outputs or not sources:
        return {}
    generator = torch.Generator().manual_seed(SEED)
    directions = [change.rounded(_noise(x, generator)) for x in outputs]
    grads = torch.autograd.grad(outputs, list(sources.values()), directions, allow_unused=True)
    return {name: grad for name, grad in zip(sources, grads, strict=True) if grad is not None}


def _worst(mode: str, first: _Tensors, moved: Sequence[_Tensors], accelerated: _Tensors, roundings: float) -> Parity:
    """The tensor that is off by most, compared with what is allowed for it."""
    made = []
    for part in ("outputs", "gradients"):
        known, found, *others = (getattr(tensors, part) for tensors in (first, accelerated, *moved))
        for name in (name for name in {**known, **found} if name not in known or name not in found):
            giver, x = ("original", known[name]) if name in known else ("accelerated module", found[name])
            return Parity(mode, x.dtype, name, fault=f"only the {giver} gives {name}")
        for name, x in known.items():
            if not x.isfinite().all():
                return Parity(mode, note=f"not compared: {name} of the original is not finite")
        largest = max((_rms(x) for x in known.values()), default=0.0)
        for name, x in known.items():
            changed = [other[name] for other in others]
            made.append(_comparison(mode, name, x, changed, found[name], largest, roundings))
    if not made:
        return Parity(mode, note=f"not compared: in what the original gives, of the type {first.kind}, is no tensor")
    if all(one.passed for one in made) and any(one.is_rounding for one in made):
        return Parity(mode, note="not compared: what the original makes of this example is rounding errors")
    return max(made, key=_excess)


def _excess(one: Parity) -> float:
    """How many times as much as allowed a difference is; infinite if there is no such number."""
    if one.allowed and math.isfinite(one.difference):
        return one.difference / one.allowed
    return 0.0 if one.passed else float("inf")


def _comparison(
    mode: str, name: str, x: Tensor, moved: Sequence[Tensor], found: Tensor, largest: float, roundings: float
) -> Parity:
    if x.shape != found.shape or x.dtype != found.dtype:
        one, other = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (found, x))
        return Parity(mode, x.dtype, name, fault=f"{name} is {one} instead of {other}")
    if not x.is_floating_point():
        return Parity(mode, x.dtype, name, float((x != found).sum()), 0.0)
    scale = largest or 1.0
    own = max(_rms(other.double() - x.double()) for other in moved) / scale
    off = _rms(found.double() - x.double()) / scale
    return Parity(mode, x.dtype, name, off, FACTOR * max(own, roundings * torch.finfo(x.dtype).eps))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt()) if x.numel() else 0.0
