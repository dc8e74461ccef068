"""The shared runner: what a benchmark consists of, and how its implementations are checked and measured.

A benchmark is one file of cases/: its setup makes the inputs of a case and says what each implementation runs.
`differentiable` turns that into trials of the forward pass, the backward pass and both, which are compared with float32
truth of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hdgan.benchmarks.timing import Clock, Timing, measure
from hdgan.training.memory import saved_bytes

FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest |found - truth| / |truth|, as norms of a whole tensor."""
PASSES = ("forward", "backward", "both")
COMPILED = {"compile": "default", "max-autotune": "max-autotune-no-cudagraphs"}
"""The modes in which torch.compile compiles eager PyTorch; CUDA graphs would overwrite what a backward pass needs."""
OF_OPS = ("eager", *COMPILED, "cpu", "cuda", "triton")
GRAPH = "cuda-graph"
"""Our CUDA kernels, replayed from a CUDA graph."""
OF_NETWORKS = (*OF_OPS, GRAPH, "nvidia")
BOTH = "compile-hdgan"
"""Another project's network after `hdgan.accelerate`, compiled."""
IMPLEMENTATIONS = (*OF_NETWORKS, "scatter", BOTH, "hdgan")
"""PyTorch, our backends, NVIDIA's code, torch.scatter, both of us, and hdgan where there is nothing to compare."""

Where = Literal["anywhere", "gpu", "named"]
"""Where a case runs by default; a "named" one runs only if its name is given, as do the others elsewhere."""
Function = Callable[..., Any]


class CheckFailed(Exception):
    """An implementation does not compute the truth, so it gets no number."""


@dataclass(frozen=True)
class Cost:
    """The least that a call needs: each input is read once, each output written once, and its arithmetic done."""

    bytes: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.flops + other.flops)


@dataclass(frozen=True)
class Context:
    """What a setup makes trials for."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    layout: str = "NCHW"
    implementations: tuple[str, ...] = ("eager",)
    passes: tuple[str, ...] = PASSES
    reference: Path | None = None
    """A checkout of NVIDIA/pix2pixHD."""

    @property
    def memory_format(self) -> torch.memory_format:
        return FORMATS[self.layout]

    def randn(self, *shape: int) -> Tensor:
        """A random image [B, C, H, W] or volume [B, C, D, H, W] in the dtype and memory format of this run."""
        made = torch.randn(shape, device=self.device).to(self.dtype)
        of_volumes = len(shape) == 5 and self.memory_format == torch.channels_last
        return made.contiguous(memory_format=torch.channels_last_3d if of_volumes else self.memory_format)


@dataclass(frozen=True)
class Trial:
    """One thing to check and to time."""

    implementation: str
    direction: str
    call: Callable[[], Sequence[Tensor]]
    truth: Callable[[], Sequence[Tensor]]
    cost: Cost
    tolerance: float
    forward: Callable[[], Any] | None = None
    """The forward pass with its graph, whose memory is counted."""
    exclude: tuple[Tensor, ...] = ()
    """Tensors that do not count, since they are in memory anyway."""
    per_call: int = 1
    """Images that a call handles."""
    found: Callable[[], Sequence[Tensor]] | None = None
    """What is compared with the truth, where that is not what `call` returns."""


@dataclass(frozen=True)
class Benchmark:
    """What is measured in several cases."""

    name: str
    cases: Mapping[str, Where]
    setup: Callable[[str, Context], Iterator[Trial]]
    implementations: tuple[str, ...] = OF_OPS
    layouts: bool = True
    """Whether the memory format makes a difference."""
    dtypes: bool = True
    clock: Clock = "kernels"
    """What is timed on a GPU: the kernels of an op, or the whole call of what has to wait for the CPU."""


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a trial."""

    timing: Timing
    error: float
    saved_bytes: int | None
    peak_bytes: int | None


def run(trial: Trial, device: torch.device, seconds: float, clock: Clock = "kernels") -> TrialResult:
    """Check a trial, then measure it.

    Raises:
        CheckFailed: it is further from the truth than its tolerance, or not finite.
    """
    error = check(trial)
    saved = None if trial.forward is None else saved_bytes(trial.forward, trial.exclude)
    timing = measure(trial.call, device, seconds, clock).divided(trial.per_call)
    return TrialResult(timing, error, saved, _peak(trial.call) if device.type == "cuda" else None)


def check(trial: Trial) -> float:
    """The largest relative error of a trial's tensors.

    Raises:
        CheckFailed: it exceeds the tolerance.
    """
    truth, found = trial.truth(), (trial.found or trial.call)()
    error = max((_distance(*pair) for pair in zip(found, truth, strict=True)), default=0.0)
    if not error <= trial.tolerance:  # NaN is not
        raise CheckFailed(f"off by {error:.1e} of the truth, where {trial.tolerance:.1e} is allowed")
    return error


def _distance(found: Tensor, truth: Tensor) -> float:
    if found.shape != truth.shape:
        raise CheckFailed(f"shape {tuple(found.shape)} instead of {tuple(truth.shape)}")
    if not truth.is_floating_point():
        return 0.0 if torch.equal(found, truth.to(found.dtype)) else float("inf")
    difference = (found.detach().double() - truth.detach().double()).norm()
    return float(difference / truth.detach().double().norm().clamp_min(1e-30))


def _peak(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


@dataclass
class _Passes:
    """A function's passes as calls without arguments that return tensors."""

    function: Function
    inputs: Sequence[Tensor]
    parameters: Sequence[Tensor]
    upstream: Callable[[], Sequence[Tensor]] = field(default=lambda: ())

    @cached_property
    def leaves(self) -> list[Tensor]:
        return [t.detach().requires_grad_() if t.is_floating_point() else t for t in self.inputs]

    @property
    def variables(self) -> list[Tensor]:
        """What gradients are taken of."""
        return [t for t in (*self.leaves, *self.parameters) if t.requires_grad]

    def graph(self) -> list[Tensor]:
        return _as_list(self.function(*self.leaves))

    def forward(self) -> list[Tensor]:
        with torch.no_grad():
            return _as_list(self.function(*self.inputs))

    def both(self) -> list[Tensor]:
        outputs = self.graph()
        return [*outputs, *torch.autograd.grad(outputs, self.variables, self.upstream())]

    def backward(self) -> list[Tensor]:
        return list(torch.autograd.grad(self._kept, self.variables, self.upstream(), retain_graph=True))

    @cached_property
    def _kept(self) -> list[Tensor]:
        return self.graph()


def differentiable(
    context: Context,
    run: Callable[[str], Function],
    inputs: Sequence[Tensor],
    forward: Cost,
    backward: Cost | None = None,
    *,
    parameters: Sequence[Tensor] = (),
    truth: Function | None = None,
    truth_parameters: Sequence[Tensor] = (),
    slack: float = 1.0,
) -> Iterator[Trial]:
    """Yield the trials of a function with, unless `backward` is missing, a gradient.

    Args:
        context: what to make trials for.
        run: the function of `inputs` for an implementation; torch.compile is applied to that of "eager" here.
        inputs: of the context's dtype where floating point; gradients are taken of these.
        forward, backward: their least cost.
        parameters: tensors inside the function whose gradients are taken too.
        truth, truth_parameters: the function and its parameters in float32, where they are not those of "eager".
        slack: factor on the tolerance of an op, since rounding adds up in deep networks.
    """
    wide = [t.float().contiguous() if t.is_floating_point() else t for t in inputs]
    true = _Passes(truth or run("eager"), wide, truth_parameters)

    def upstream() -> list[Tensor]:
        if not gradients:
            gradients.extend(context.randn(*y.shape) for y in true.forward())
        return gradients

    gradients: list[Tensor] = []
    true.upstream = lambda: [gradient.float().contiguous() for gradient in upstream()]
    costs = {"forward": forward} | ({"backward": backward, "both": forward + backward} if backward else {})
    answers: dict[str, list[Tensor]] = {}

    def answer(direction: str) -> list[Tensor]:
        if direction not in answers:
            answers[direction] = getattr(true, direction)()
        return answers[direction]

    for implementation in context.implementations:
        function = compiled(run("eager"), implementation) if implementation in COMPILED else run(implementation)
        passes = _Passes(function, inputs, parameters, upstream)
        for direction in (name for name in context.passes if name in costs):
            yield Trial(
                implementation,
                direction,
                getattr(passes, direction),
                lambda direction=direction: answer(direction),  # type: ignore[misc]
                costs[direction],
                slack * TOLERANCE[context.dtype],
                passes.graph if direction == "both" else None,
                (*inputs, *parameters),
            )


def replayed(function: Function) -> Function:
    """The function on our CUDA kernels, from a CUDA graph of its first call, whose arguments later ones must repeat."""
    graph = torch.cuda.CUDAGraph()
    outputs: list[Tensor] = []

    def replay(*inputs: Tensor) -> list[Tensor]:
        if not outputs:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries choose their algorithms before the capture
                function(*inputs)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph, stream=side):
                outputs.extend(_as_list(function(*inputs)))
        graph.replay()
        return outputs

    return replay


def compiled(function: Function, implementation: str) -> Function:
    """The function compiled by torch.compile, for the shapes of its first call."""
    torch.compiler.reset()  # or the compiler would count the shapes of other rows against its limit, and give up
    _keep_buffers()
    mode = COMPILED["compile" if implementation == BOTH else implementation]
    return torch.compile(function, fullgraph=True, dynamic=False, mode=mode)


def _keep_buffers() -> None:
    """Let compiled backward passes leave the tensors of their graph alone: they are timed on one graph, which is kept.

    The switch is not public. Versions of PyTorch without it have no buffers that a backward pass reuses.
    """
    config = getattr(getattr(torch, "_functorch", None), "config", None)
    if config is not None and hasattr(config, "donated_buffer"):
        config.donated_buffer = False


def _as_list(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)
