"""`hdgan.accelerate`: the fused ops in a network that somebody else wrote."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.acceleration.nested import tensors_in, with_tensors
from hdgan.acceleration.parity import Arguments, Parity, compare
from hdgan.acceleration.program import Program, install, program_of, uninstall
from hdgan.acceleration.report import Report
from hdgan.acceleration.sandbox import sandbox
from hdgan.acceleration.units import Given, Search, wrapper_of
from hdgan.wording import first_line


def accelerate(
    module: nn.Module,
    example: Tensor | tuple[Any, ...] | Mapping[str, Any] | None = None,
    *,
    skip: Sequence[str] = (),
) -> Report:
    """Let a network use the ops of hdgan, in place.

    These become one op each: an instance norm (of planes or volumes) with the ReLU or leaky ReLU, the residual addition
    and the padding that follow it; average pyramids; the convolution of one-hot planes that F.one_hot or scatter_
    makes; and instance-wise average pooling. The module stays the same object with the same parts, parameters, state
    dict and hooks. Only its forward is replaced, or the forwards of some of its parts. Copies, pickles, torch.compile,
    torch.export, DataParallel and DistributedDataParallel work as before; TorchScript does not take it.

    What the original forward decides in Python is decided once, here. A call for which it would decide otherwise (other
    flags, options or global constants, an argument that is missing, a part, method or function that was exchanged, a
    hook) runs the original forward, as its class has it then. A forward that depends on anything else outside of it, or
    that changes something, is left as it is, and its parts are looked at one by one. Functions of PyTorch, NumPy and
    Python itself are not compared, nor are properties, nor whether two arguments are the same object.

    Results differ by rounding. There are three more differences. A norm keeps the memory format channels_last, where
    PyTorch's returns contiguous tensors; dropout after it then drops other elements under the same seed. Under autocast
    on a CPU, reflecting and replicating paddings return the dtype that they are given, where PyTorch's return float32.
    On a GPU, a label of no class sets no plane, where F.one_hot and scatter_ fail.

    Ops choose the fastest implementation for their device (`hdgan.ops.backend`). For images of a few hundred pixels,
    looking at the layers takes longer than the op saves.

    Args:
        module: the network, in any mode, on any device.
        example: what the network is called with: a tensor, a tuple of arguments, or a dict of keyword arguments. The
            accelerated network is compared with the original on it, forward and backward, in training and evaluation
            mode, in float64 and in its own dtype (`hdgan.acceleration.parity`), which takes 17 runs. The smallest image
            that the network takes is enough. Without an example, what is exact by construction is replaced and nothing
            is compared. Instance-wise average pooling is only recognised by an example.
        skip: names of parts that are to be left alone, as in `named_modules`.

    Returns:
        What was replaced, what was not and why, and the comparisons.

    Raises:
        TypeError: no nn.Module, or no example of the kinds above.
        ValueError: a module that is wrapped, compiled or scripted; an example that the module does not take; no part of
            a name in `skip`; a profiler that runs.
        ParityError: the accelerated network differs from the original by more than rounding, or cannot be compared with
            it. The module is the original again.
    """
    _check(module, skip)
    if program_of(module) is not None:
        return Report(type(module).__name__, comparisons=[], notes=["accelerated already: nothing was changed"])
    arguments = None if example is None else _arguments(example)
    if any(x.is_meta for _, x in tensors_in(arguments)):
        raise ValueError("accelerate: expected an example with values, got one on the device meta")
    given: Given = {} if arguments is None else _calls(module, arguments)
    search = Search(module, given, {module.get_submodule(name) for name in skip})
    programs = search.programs
    comparisons: list[Parity] | None = None if arguments is None else []
    try:
        for part, program in programs.items():
            install(part, program)
        if arguments is not None and programs:
            comparisons = compare(module, arguments, partial(_originally, programs), search.summed)
    except BaseException:
        for part in programs:
            uninstall(part)
        raise
    modules = [path for path, part in module.named_modules() if part in programs]
    return Report(type(module).__name__, search.found, modules, comparisons)


def undo(module: nn.Module) -> None:
    """Make an accelerated module the original again."""
    for part in module.modules():
        uninstall(part)


@contextmanager
def _originally(programs: Mapping[nn.Module, Program]) -> Iterator[None]:
    for part in programs:
        uninstall(part)
    try:
        yield
    finally:
        for part, program in programs.items():
            install(part, program)


def _check(module: Any, skip: Sequence[str]) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"accelerate: expected an nn.Module, got {type(module).__name__}")
    wrapper = wrapper_of(module)
    if wrapper is not None and program_of(module) is None:
        raise ValueError(f"accelerate: this {type(module).__name__} {'; '.join(wrapper)}")
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise TypeError(f"accelerate: expected skip to be a sequence of names, got {skip!r}")
    if sys.getprofile() is not None:  # tracing needs its place
        raise ValueError("accelerate: a profiler is running; accelerate the network before it starts")
    names = {name for name, _ in module.named_modules()}
    for name in skip:
        if name not in names:
            raise ValueError(f"accelerate: {type(module).__name__} has no part named {name!r} (skip)")


def _arguments(example: Any) -> Arguments:
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), dict(example)
    kind = type(example).__name__
    raise TypeError(f"accelerate: expected example to be a tensor, a tuple or a dict of keyword arguments, got {kind}")


@torch.no_grad()
def _calls(module: nn.Module, arguments: Arguments) -> Given:
    """What each module with parts is called with first, when the module runs on the example."""
    given: dict[nn.Module, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}

    def note(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.setdefault(part, with_tensors((args, kwargs), Tensor.clone))

    parts = [part for part in module.modules() if any(True for _ in part.children())]
    parts = [part for part in parts if not isinstance(part, torch.jit.ScriptModule)]
    handles = [part.register_forward_pre_hook(note, with_kwargs=True) for part in parts]
    args, kwargs = with_tensors(arguments, Tensor.clone)
    try:
        with sandbox(module):
            module(*args, **kwargs)
    except Exception as error:
        name = type(module).__name__
        raise ValueError(f"accelerate: {name} does not take this example: {first_line(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    return given
