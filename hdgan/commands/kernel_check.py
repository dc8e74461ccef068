"""Every kernel that can run here, compared with the definition of its op in float64, and its speed.

`hdgan info --check` is for a user's own device, which no test has seen. It takes about a minute on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hdgan import ops
from hdgan.benchmarks.timing import copy_ceiling, measure
from hdgan.devices import is_out_of_memory
from hdgan.errors import ConfigError
from hdgan.ops._backend import BACKENDS, DEVICE_OF, KERNEL_DTYPES, why_unusable

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 5e-3}
"""Of an element, relative to itself and to the root mean square of its tensor: some times the rounding of a sum."""
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
SHAPES = ((2, 5, 37, 53), (1, 16, 66, 130))
"""What is compared: an odd number of everything, and rows that fit wide accesses."""
LARGE = {"cpu": (1, 16, 256, 512), "cuda": (1, 32, 512, 1024)}
"""What is compared and timed."""
SECONDS = 0.1
"""For each rate."""
LABELS = 8

Function = Callable[..., Any]


@dataclass(frozen=True)
class KernelCase:
    """One op on one input."""

    op: str
    where: str
    """The dtype, memory format and shape, for messages."""
    function: Function
    """Of the inputs, on the backend that is named by its last argument; gives a tensor or several."""
    inputs: tuple[Tensor, ...]
    tolerance: float
    constants: tuple[Tensor, ...] = ()
    """What the function reads besides its inputs."""
    timed: bool = False

    @property
    def differentiable(self) -> list[int]:
        return [i for i, x in enumerate(self.inputs) if x.is_floating_point()]


@dataclass(frozen=True)
class CheckedOp:
    """What the check found about an op on a backend."""

    backend: str
    op: str
    device: str
    problem: str | None = None
    error: float = 0.0
    """The largest difference to the truth, as a part of what is allowed."""
    forward: float | None = None
    """Bytes per second, of tensors that are read or written at least."""
    backward: float | None = None


def check_kernels(gpus: Sequence[int], progress: Callable[[str], None] = lambda what: None) -> Iterator[CheckedOp]:
    """Check all kernels of all backends that can run, on the CPU and on these GPUs.

    A kernel that breaks its GPU ends the check: nothing that the process does on it after that could be trusted.

    Raises:
        ConfigError: a device has not enough free memory.
    """
    devices = [torch.device("cpu"), *(torch.device("cuda", gpu) for gpu in gpus)]
    for device in devices:
        for backend in BACKENDS[1:]:
            if DEVICE_OF[backend] != device.type or why_unusable(backend, device.index):
                continue
            for op in OPS:
                progress(f"{op} on {backend}")
                yield check_op(op, backend, device)
                if broken := _broken(device):
                    progress(broken)
                    return


def check_op(op: str, backend: str, device: torch.device) -> CheckedOp:
    """Compare an op with its definition in all dtypes and memory formats, and time it.

    Raises:
        ConfigError: the device has not enough free memory.
    """
    found = CheckedOp(backend, op, str(device))
    for case in cases(op, device):
        try:
            found = _compared(found, case, backend)
            if case.timed and found.problem is None:
                forward, backward = _rates(case, backend, device)
                found = replace(found, forward=forward, backward=backward)
        except Exception as error:  # whatever a kernel or its compiler raises is what the check is about
            if is_out_of_memory(error):  # which says nothing of the kernel
                raise ConfigError(
                    f"{op} cannot be checked, because {device} has not enough free memory: end other programs that use "
                    "it, and run hdgan info --check again"
                ) from error
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            return replace(found, problem=f"{case.where}: {first}")
        if found.problem is not None:
            return found
    return found


def rate_of_copies(device: torch.device) -> float | None:
    """Bytes per second of a large copy on the device; None if it cannot copy, as a GPU that a kernel broke."""
    try:
        return copy_ceiling(device)
    except RuntimeError:
        return None


def _broken(device: torch.device) -> str | None:
    """Why a GPU does not work any more; None if it does."""
    try:
        torch.ones(8, device=device).sum().item()
    except RuntimeError as error:
        return f"{device} does not work after this: {str(error).splitlines()[0]}"
    return None


def _compared(found: CheckedOp, case: KernelCase, backend: str) -> CheckedOp:
    truth = _results(case, "eager", wide=True)
    ours = _results(case, backend, wide=False)
    for name, x, y in zip(_names(case, len(ours)), ours, truth, strict=True):
        if x.shape != y.shape:
            return replace(found, problem=f"{name}, {case.where}: shape {tuple(x.shape)} instead of {tuple(y.shape)}")
        error = _error(x, y, case.tolerance)
        if not error <= 1:  # NaN is not
            return replace(found, problem=f"{name}, {case.where}: {error:.3g} times the allowed error", error=error)
        found = replace(found, error=max(found.error, error))
    return found


def _names(case: KernelCase, count: int) -> list[str]:
    gradients = [f"gradient {i}" for i in case.differentiable]
    return [*(f"result {i}" for i in range(count - len(gradients))), *gradients]


def _error(found: Tensor, truth: Tensor, tolerance: float) -> float:
    """The largest difference but for a few, as a part of what is allowed. Integers have to be equal.

    Where a value before an activation is almost 0, its rounding decides which of two slopes the gradient has. One
    element, and one more in each million, may therefore differ.
    """
    if not truth.is_floating_point():
        return 0.0 if torch.equal(found.long(), truth.long()) else float("inf")
    if not bool(found.isfinite().all()):
        return float("inf")
    truth = truth.double()
    allowed = tolerance * (truth.abs() + truth.square().mean().sqrt())
    differences = ((found.double() - truth).abs() / allowed.clamp_min(1e-12)).flatten()
    few = min(1 + len(differences) // 10**6, len(differences) - 1)
    return float(differences.topk(few + 1).values[-1])


def _results(case: KernelCase, backend: str, wide: bool) -> list[Tensor]:
    """The outputs of a case, and its gradients for an upstream that is the same every time."""
    inputs = [x.double() if wide and x.is_floating_point() else x for x in case.inputs]
    leaves = [inputs[i].detach().requires_grad_() for i in case.differentiable]
    for i, leaf in zip(case.differentiable, leaves, strict=True):
        inputs[i] = leaf
    outputs = _tensors(case.function(*inputs, backend))
    if not leaves:
        return outputs
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, leaves, _upstream(outputs))]


def _upstream(outputs: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = (torch.randn(y.shape, generator=generator) for y in outputs)
    return [g.to(y).contiguous(memory_format=ops.memory_format_of(y)) for g, y in zip(made, outputs, strict=True)]


def _tensors(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [y for y in found if isinstance(y, Tensor)]


def _rates(case: KernelCase, backend: str, device: torch.device) -> tuple[float, float | None]:
    """Bytes per second of both directions, counting every input and output once."""
    with torch.no_grad():
        outputs = _tensors(case.function(*case.inputs, backend))
        moved = sum(t.nbytes for t in (*case.inputs, *case.constants, *outputs))
        forward = moved / measure(lambda: case.function(*case.inputs, backend), device, SECONDS).median
    if not case.differentiable:
        return forward, None
    inputs = [x.detach().requires_grad_() if x.is_floating_point() else x for x in case.inputs]
    leaves = [inputs[i] for i in case.differentiable]
    outputs = _tensors(case.function(*inputs, backend))
    upstream = _upstream(outputs)
    backward = measure(lambda: torch.autograd.grad(outputs, leaves, upstream, retain_graph=True), device, SECONDS)
    return forward, moved / backward.median


# --- The cases of each op ---


def _norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
    return ops.instance_norm_act(x, weight, bias, residual, "leaky_relu", pad=1, backend=backend)


def _plain_norm(x: Tensor, backend: str) -> Tensor:
    return ops.instance_norm_act(x, activation="relu", backend=backend)


def _pyramid(x: Tensor, backend: str) -> list[Tensor]:
    return ops.avg_pyramid(x, 2, backend=backend)[1:]


def _distance(x: Tensor, backend: str, *, target: Tensor) -> Tensor:
    return ops.l1_distance(x, target, backend=backend)


def _mean(x: Tensor, backend: str, *, index: ops.InstanceIndex) -> Tensor:
    return ops.instance_mean(x, index, backend=backend)


def _fixed_order_mean(x: Tensor, backend: str, *, index: ops.InstanceIndex) -> Tensor:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        return ops.instance_mean(x, index, backend=backend)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _index(ids: Tensor, backend: str) -> tuple[Tensor, ...]:
    return tuple(ops.instance_index(ids, backend=backend))


def _encoded(label: Tensor, ids: Tensor, backend: str, *, format: torch.memory_format) -> Tensor:
    return ops.encode_labels(label, ids, LABELS, dontcare=3, memory_format=format, backend=backend)


def _codes(label: Tensor, ids: Tensor, backend: str) -> Tensor:
    return ops.label_planes(label, ids, LABELS, dontcare=3, backend=backend).codes


def _label_conv(weight: Tensor, backend: str, *, planes: ops.LabelPlanes, levels: int) -> Tensor:
    return ops.label_conv2d(planes, None, weight, padding=3, levels=levels, backend=backend)


OPS = (
    "avg_pyramid",
    "encode_labels",
    "instance_index",
    "instance_mean",
    "instance_norm_act",
    "l1_distance",
    "label_conv2d",
)


def cases(op: str, device: torch.device) -> Iterator[KernelCase]:
    """The cases of an op: small ones in every dtype and memory format, and one that is timed for each format."""
    narrow = torch.float32 if device.type == "cpu" else torch.bfloat16
    for layout, format in FORMATS.items():
        for shape in SHAPES:
            for dtype in KERNEL_DTYPES:
                yield from _cases_of(op, shape, dtype, layout, format, device)
        for case in _cases_of(op, LARGE[device.type], narrow, layout, format, device):
            yield replace(case, timed=True)


def _cases_of(
    op: str,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    layout: str,
    format: torch.memory_format,
    device: torch.device,
) -> Iterator[KernelCase]:
    generator = torch.Generator().manual_seed(0)
    batch, channels, height, width = shape

    def randn(*size: int) -> Tensor:
        made = torch.randn(size, generator=generator).to(device, dtype)
        return made.contiguous(memory_format=format) if len(size) == 4 else made

    def regions(most: int) -> Tensor:
        """A map of blocks, as label maps have them."""
        coarse = torch.randint(most, (batch, height // 8 + 1, width // 8 + 1), generator=generator)
        return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous().to(device)

    x, label, ids = randn(*shape), regions(LABELS), regions(60)
    function: Function
    where = f"{str(dtype).removeprefix('torch.')} {layout} {list(shape)}"
    case = partial(KernelCase, op, where, tolerance=TOLERANCE[dtype])
    if op == "instance_norm_act":
        yield case(_plain_norm, (x,))
        yield case(_norm, (x, randn(*shape), randn(channels).float(), randn(channels).float()))
    elif op == "avg_pyramid":
        yield case(_pyramid, (x,))
    elif op == "l1_distance":
        target = randn(*shape)
        yield case(partial(_distance, target=target), (x,), constants=(target,))
    elif op == "instance_mean":
        index = ops.instance_index(ids, backend="eager")
        for function in (_fixed_order_mean, _mean):
            yield case(partial(function, index=index), (x,), constants=(index.rows,))
    elif op == "instance_index":
        yield case(_index, (ids,))
    elif op == "encode_labels":
        yield case(_codes, (label, ids))
        yield case(partial(_encoded, format=format), (label, ids))
    elif op == "label_conv2d":
        planes = ops.label_planes(label, ids, LABELS, backend="eager")
        weight = randn(2 * channels, LABELS + 1, 7, 7)
        for levels in (1, 0):
            function = partial(_label_conv, planes=planes, levels=levels)
            yield case(function, (weight,), constants=(planes.codes,))
