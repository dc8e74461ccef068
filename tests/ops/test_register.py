"""Ops that are called directly, and all who must see them as operators nevertheless."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hdgan.ops import avg_pyramid, instance_norm_act, l1_distance
from tests.ops.test_backend import used_kernels

X = torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(0))
OPS = {
    "norm": lambda x: instance_norm_act(x, x.new_ones(2), None, x, "relu", pad=1),
    "pyramid": lambda x: avg_pyramid(x, 2)[2],
    "distance": lambda x: l1_distance(x, x.detach().flip(3)),
}
every_op = pytest.mark.parametrize("name", OPS)
NAMES = {"norm": "instance_norm_act", "pyramid": "avg_pyramid", "distance": "l1_distance"}


class Seen(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class SeenAsFunction(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name() if hasattr(func, "name") else func.__name__)
        return func(*args, **(kwargs or {}))


class Marked(torch.Tensor):
    """A subclass, which may mean anything."""

    seen: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(func.name() if hasattr(func, "name") else func.__name__)
        return super().__torch_function__(func, types, args, kwargs)


def forced_through_the_operator(op, x):
    with SeenAsFunction():
        return op(x)


@every_op
def test_both_ways_give_the_same_bits(name):
    x = X.clone().requires_grad_()
    results = []
    for run in (OPS[name], lambda x: forced_through_the_operator(OPS[name], x)):
        y = run(x)
        (dx,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.pow(2).sum(), x)
        results.append((y, dx, ddx, type(y.grad_fn).__name__))
    *direct, ours = results[0]
    *operator, theirs = results[1]
    assert all(torch.equal(*pair) for pair in zip(direct, operator, strict=True))
    assert ours != theirs


@every_op
@pytest.mark.parametrize("mode", [Seen, SeenAsFunction])
def test_modes_see_operators(name, mode):
    with mode() as seen:
        y = OPS[name](X.clone().requires_grad_())
    assert f"hdgan::{NAMES[name]}" in seen.names
    with mode() as seen:
        y.sum().backward()
    if mode is Seen:
        assert f"hdgan::{NAMES[name]}_backward" in seen.names


@every_op
def test_subclasses_see_operators(name):
    Marked.seen.clear()
    y = OPS[name](X.as_subclass(Marked))
    assert f"hdgan::{NAMES[name]}" in Marked.seen
    assert torch.equal(torch.as_tensor(y).as_subclass(torch.Tensor), OPS[name](X))


@every_op
def test_a_negation_that_is_still_to_come_comes(name):
    lazy = torch.complex(X, -X).conj().imag  # X, marked as to be negated in memory
    assert lazy.is_neg()
    torch.testing.assert_close(OPS[name](lazy), OPS[name](X))


@every_op
def test_the_profiler_sees_names(name):
    assert used_kernels(lambda: OPS[name](X))
    x = X.clone().requires_grad_()
    y = OPS[name](x)
    assert used_kernels(lambda: y.sum().backward())


@every_op
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_hold_operators(name):
    traced = torch.jit.trace(OPS[name], X)
    assert f"hdgan::{NAMES[name]}" in str(traced.graph)
    torch.testing.assert_close(traced(2 * X), OPS[name](2 * X))


@every_op
def test_exports_hold_operators(name):
    class Network(nn.Module):
        def forward(self, x):
            return OPS[name](x)

    for strict in (False, True):
        program = torch.export.export(Network(), (X,), strict=strict)
        assert f"hdgan.{NAMES[name]}" in str(program.graph)
        torch.testing.assert_close(program.module()(2 * X), OPS[name](2 * X))


@every_op
def test_no_graph_is_built_that_nobody_asked_for(name):
    x = X.clone().requires_grad_()
    with torch.no_grad():
        assert not OPS[name](x).requires_grad
    with torch.inference_mode():
        assert OPS[name](x).is_inference()
    assert not OPS[name](X).requires_grad
    assert OPS[name](nn.Parameter(X.clone())).requires_grad


def test_a_gradient_of_weights_alone():
    weight = torch.ones(2, requires_grad=True)
    instance_norm_act(X, weight).pow(2).sum().backward()
    assert weight.grad.abs().sum() > 0


def test_only_what_is_used_has_a_gradient():
    """Nothing is made for results without one."""
    x = X.clone().requires_grad_()
    y = instance_norm_act(x)
    with Seen() as seen:
        y.sum().backward()
    made = [name for name in seen.names if "zeros" in name or "fill" in name]
    assert made == []
