"""A graph holds what one run of a forward did. Nothing that could differ in the next run is lost."""

from __future__ import annotations

import enum
import functools
import random
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hdgan.acceleration import accelerate
from tests.acceleration.networks import Block, Generator, Written, assert_accelerated, assert_same, image, results


class Mode(enum.Enum):
    PLAIN = 1
    DOUBLE = 2


def norm(m: Any, x: Tensor) -> Tensor:
    return m.act(m.norm(m.conv(x)))


def flag(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if m.twice else norm(m, x)


def by_class(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if m.on_class else norm(m, x)


def option(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if m.opt.deep.twice else norm(m, x)


def enumeration(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if m.mode is Mode.DOUBLE else norm(m, x)


def stored(m: Any, x: Tensor) -> Tensor:
    return m.after(norm(m, x))


def number(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * m.scale


def part_option(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * m.act.scale


Written.on_class = False  # type: ignore[attr-defined]

CHANGES: dict[str, tuple[Callable[..., Any], dict[str, Any], Callable[[Any], None]]] = {
    "flag": (flag, {"twice": False}, lambda m: setattr(m, "twice", True)),
    "flag of the class": (by_class, {}, lambda m: setattr(m, "on_class", True)),
    "option": (
        option,
        {"opt": Namespace(deep=Namespace(twice=False))},
        lambda m: setattr(m.opt.deep, "twice", True),
    ),
    "enumeration": (enumeration, {"mode": Mode.PLAIN}, lambda m: setattr(m, "mode", Mode.DOUBLE)),
    "function": (stored, {"after": torch.tanh}, lambda m: setattr(m, "after", torch.sigmoid)),
    "number": (number, {"scale": 1.0}, lambda m: setattr(m, "scale", 3.0)),
    "NumPy's number": (number, {"scale": np.float64(1)}, lambda m: setattr(m, "scale", np.float64(3))),
    "exchanged act": (norm, {}, lambda m: setattr(m, "act", nn.Sigmoid())),
    "exchanged norm": (norm, {}, lambda m: setattr(m, "norm", nn.BatchNorm2d(4))),
    "slope": (norm, {}, lambda m: setattr(m, "act", nn.LeakyReLU(0.3))),
    "eps": (norm, {}, lambda m: setattr(m.norm, "eps", 1.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_forward_reads_may_change_later(name: str) -> None:
    function, attributes, change = CHANGES[name]
    accelerated, original = (Written(function, **attributes) for _ in range(2))
    original.load_state_dict(accelerated.state_dict())
    assert assert_accelerated(accelerated, image()).modules == [""]
    before = accelerated(image())
    change(accelerated)
    change(original)
    assert_same(results(accelerated, image()), results(original, image()))
    assert not torch.equal(accelerated(image()), before)


def by_part(m: Any, x: Tensor) -> Tensor:
    y = norm(m, x)
    return y if m.shortcut is None else y + m.shortcut(x)


def test_a_part_that_is_none_may_come_later() -> None:
    module = Written(by_part)
    module.register_module("shortcut", None)
    assert assert_accelerated(module, image()).modules == [""]
    before = module(image())
    module.shortcut = nn.Conv2d(3, 4, 1)
    torch.testing.assert_close(module(image()), before + module.shortcut(image()), rtol=1e-5, atol=1e-5)
    module.shortcut = None
    assert torch.equal(module(image()), before)


def test_parameters_and_buffers_are_read_in_every_call() -> None:
    module = Written(lambda m, x: norm(m, x) * (m.gain * 2 + m.offset))
    module.gain = nn.Parameter(torch.ones(()))
    module.register_buffer("offset", torch.zeros(()))
    assert assert_accelerated(module, image()).modules == [""]
    before = module(image())
    module.gain.data.fill_(2.0)
    module.offset += 3.0
    torch.testing.assert_close(module(image()), before * 3.5)


class Parted(nn.Module):
    """A part whose methods others call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Doubled(Parted):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) * 2


def test_a_part_whose_method_was_called_may_be_exchanged() -> None:
    module = Written(lambda m, x: m.part.encode(x), part=Parted())
    assert assert_accelerated(module, image()).replaced[0].where == "part.norm"
    other = Doubled()
    other.load_state_dict(module.part.state_dict())
    expected = module(image()) * 2
    module.part = other
    torch.testing.assert_close(module(image()), expected, rtol=1e-5, atol=1e-5)


def in_mode(m: Any, x: Tensor) -> Tensor:
    y = F.dropout(norm(m, x), 1.0, m.training)
    return y if m.training else y * 2


def test_both_modes_are_accelerated_if_a_forward_reads_the_mode() -> None:
    module = Written(in_mode)
    expected = {mode: results(module.train(mode), image()) for mode in (True, False)}
    report = accelerate(module)
    assert [row.what for row in report.replaced] == ["instance norm + ReLU"]
    for mode in (True, False):
        assert_same(results(module.train(mode), image()), expected[mode])
        assert any(version.is_for(module, (image(),)) for version in type(module)._hdgan_program.versions)


class Optional(Written):
    """A forward with arguments that may be missing."""

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0, layers: list[int] = []) -> Any:  # noqa: B006
        z = norm(self, x) * scale
        if layers:
            return [z, *layers]
        return z if y is None else z + y


def test_other_arguments_than_those_of_the_trace() -> None:
    module = Optional(norm)
    accelerate(module)
    x, y = image(), image(2, 4, 12, 10)
    expected = module.act(module.norm(module.conv(x)))
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x, y), expected + y)
    torch.testing.assert_close(module(x, y=y, scale=2.0), 2 * expected + y)
    torch.testing.assert_close(module(x, layers=[3])[0], expected)
    assert module(x, layers=[3])[1] == 3


def test_the_example_says_which_arguments_are_traced() -> None:
    module = Optional(norm)
    x, y = image(), image(2, 4, 12, 10)
    expected = module(x, y)
    report = accelerate(module, (x, y))
    assert [row.what for row in report.replaced] == ["instance norm + ReLU"]
    assert type(module)._hdgan_program.versions[0].is_for(module, (x, y, 1.0, []))
    torch.testing.assert_close(module(x, y), expected)
    torch.testing.assert_close(module(x), expected - y, atol=1e-5, rtol=1e-5)


def no_gradient(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = m.conv(x)
    return m.block(y)


def own_tensor(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x) + torch.randn(1))


def remembers(m: Any, x: Tensor) -> Tensor:
    m.last = m.block(m.conv(x))
    return m.last


def by_value(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) if x.sum() > 0 else x


def by_shape(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) if x.shape[2] > 3 else x


def by_type(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) if isinstance(x, Tensor) else x


def by_chance(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * random.random()


def by_numpy(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * float(np.random.rand())  # noqa: NPY002


def by_clock(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * time.time()


def again(m: Any, x: Tensor) -> Tensor:
    return checkpoint(m.block, m.conv(x), use_reentrant=False)  # type: ignore[return-value]


def from_list(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * m.scales[0]


def with_rescue(m: Any, x: Tensor) -> Tensor:
    try:
        return m.block(m.conv(x)) if x.mean() > 0 else x
    except RuntimeError:
        return x


def options_as_a_whole(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) if m.opt == Namespace(a=1) else x


@torch.no_grad()
def decorated(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x))


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


def straight_through(m: Any, x: Tensor) -> Tensor:
    return Straight.apply(m.block(m.conv(x)))


@torch.autocast("cpu", torch.bfloat16)
def narrow(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x))


REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "no_grad": (no_gradient, {}, "switches gradients"),
    "decorated": (decorated, {}, "switches gradients"),
    "autocast": (narrow, {}, "switches autocast"),
    "derivative": (straight_through, {}, "a derivative of its own"),
    "own tensor": (own_tensor, {}, "makes or holds a tensor"),
    "attribute": (remembers, {}, "sets an attribute"),
    "value": (by_value, {}, "values or the shape"),
    "shape": (by_shape, {}, "values or the shape"),
    "type": (by_type, {}, "asks for the type"),
    "chance": (by_chance, {}, "draws numbers"),
    "numpy": (by_numpy, {}, "draws numbers"),
    "clock": (by_clock, {}, "another one each time"),
    "checkpoint": (again, {}, "checkpoints"),
    "list": (from_list, {"scales": [1.0, 2.0]}, "a list that may change"),
    "try": (with_rescue, {}, "with or try block"),
    "options": (options_as_a_whole, {"opt": Namespace(a=1)}, "as a whole"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_forwards_that_are_not_traced_and_their_parts_that_are(name: str) -> None:
    function, attributes, reason = REFUSED[name]
    module = Written(function, block=nn.Sequential(Block(4), Block(4)), **attributes)
    del module.norm
    report = accelerate(module)
    assert report.modules == ["block"]
    assert len(report.replaced) == 4
    assert [row.where for row in report.kept] == [""]
    assert reason in report.kept[0].why


def test_one_part_that_is_not_traced_leaves_the_rest_in_one_graph() -> None:
    network = Generator()
    network.blocks.insert(1, Written(by_shape, block=Block(4)))
    network.blocks[1].conv = nn.Conv2d(4, 4, 1)
    network.blocks[1].norm = nn.Identity()
    report = assert_accelerated(network, image())
    assert report.modules == ["", "blocks.1.block"]
    assert [row.where for row in report.kept] == ["blocks.1"]


class Wrapped(Written):
    @functools.wraps(Written.forward)
    def forward(self, *args: Any) -> Any:
        return super().forward(args[-1])


class Static(Written):
    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return x


class WithArray(Written):
    def forward(self, x: Tensor, scale: Any = np.ones(2)) -> Any:  # type: ignore[override] # noqa: B008
        return norm(self, x) * float(scale[0])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Wrapped, "is decorated"), (Static, "belongs to its class"), (WithArray, "takes scale, which is an array")],
)
def test_unusual_forwards_run_as_they_are(kind: type[Written], reason: str) -> None:
    module = kind(norm)
    expected = module(image())
    report = accelerate(module)
    assert [row.where for row in report.kept] == [""]
    assert reason in report.kept[0].why
    torch.testing.assert_close(module(image()), expected)
