"""What a forward reads or changes outside of its module."""

from __future__ import annotations

import cProfile
import gc
import pickle
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from random import choice
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from numpy.random import default_rng
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import Block, Generator, Written, assert_accelerated, assert_same, image, results

TWICE = False
TABLE = {"twice": False}
SEEN: list[int] = []
NUMBERS = default_rng(0)
OPTIONS = SimpleNamespace(twice=False)


class Options:
    twice = False


def norm(m: Any, x: Tensor) -> Tensor:
    return m.act(m.norm(m.conv(x)))


def by_global(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if TWICE else norm(m, x)


def by_attribute_of_a_class(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if Options.twice else norm(m, x)


def by_backend(m: Any, x: Tensor) -> Tensor:
    return norm(m, x) * 2 if torch.backends.cudnn.deterministic else norm(m, x)


def in_a_comprehension(m: Any, x: Tensor) -> Tensor:
    return torch.cat([norm(m, x) * 2 if TWICE else norm(m, x) for _ in range(2)])


CHANGES: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "global": (by_global, None, "TWICE"),
    "class": (by_attribute_of_a_class, Options, "twice"),
    "module": (by_backend, torch.backends.cudnn, "deterministic"),
    "comprehension": (in_a_comprehension, None, "TWICE"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_constants_that_a_forward_reads_may_change_later(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, holder, attribute = CHANGES[name]
    module = Written(function)
    assert assert_accelerated(module, image()).modules == [""]
    program = type(module)._hdgan_program  # type: ignore[attr-defined]
    copied = pickle.loads(pickle.dumps(program))
    expected = [2 * x for x in results(module, image())]
    assert all(one.versions[0].is_for(module, (image(),)) for one in (program, copied))
    if holder is None:
        monkeypatch.setitem(globals(), attribute, True)
    else:
        monkeypatch.setattr(holder, attribute, True)
    assert not any(one.versions[0].is_for(module, (image(),)) for one in (program, copied))
    assert_same(results(module, image()), expected)


def test_what_compiles_with_a_global(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Written(by_global)
    accelerate(module)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    expected = module(image())
    torch.testing.assert_close(compiled(image()), expected)
    monkeypatch.setitem(globals(), "TWICE", True)
    torch.testing.assert_close(compiled(image()), 2 * expected)


def by_table(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * 2 if TABLE["twice"] else m.block(m.conv(x))


def by_object(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * 2 if OPTIONS.twice else m.block(m.conv(x))


def appends(m: Any, x: Tensor) -> Tensor:
    SEEN.append(1)
    return m.block(m.conv(x))


def prints(m: Any, x: Tensor) -> Tensor:
    print("called")
    return m.block(m.conv(x))


def draws(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * float(NUMBERS.normal())


def makes_a_generator(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * float(default_rng().normal())


def chooses(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * choice([1.0, 2.0])


def by_clock(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * time.perf_counter()


def imports(m: Any, x: Tensor) -> Tensor:
    import tests.acceleration.test_watching as own

    return m.block(m.conv(x)) * 2 if own.TWICE else m.block(m.conv(x))


def closure(flag: bool) -> tuple[Callable[..., Tensor], Callable[[], None]]:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.block(m.conv(x)) * 2 if flag else m.block(m.conv(x))

    def change() -> None:
        nonlocal flag
        flag = True

    return forward, change


def counter() -> Callable[..., Tensor]:
    n = 0

    def forward(m: Any, x: Tensor) -> Tensor:
        nonlocal n
        n += 1
        return m.block(m.conv(x))

    return forward


def by_parameter(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x.to(next(m.parameters()).dtype)))


def by_state(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * len(m.state_dict())


def by_class(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * len(m.__class__.__name__)


def looks_for(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * getattr(m, "later", 1.0)


def sets_a_buffer(m: Any, x: Tensor) -> Tensor:
    m._buffers["last"] = m.block(m.conv(x))
    return m._buffers["last"]  # type: ignore[no-any-return]


def in_a_mode(m: Any, x: Tensor) -> Tensor:
    return m.block(m.conv(x)) * (2 if torch.is_inference_mode_enabled() else 1)


class Scaled:
    def __init__(self) -> None:
        self.scale = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.scale


def by_callable(m: Any, x: Tensor) -> Tensor:
    return m.after(m.block(m.conv(x)))


class Doubles(nn.Module):
    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x) * 2

    def forward(self, x: Tensor) -> Tensor:
        return x


def calls_twice(m: Any, x: Tensor) -> Tensor:
    return m.odd(m.block(m.conv(x)))


def makes_an_ordered_dict(m: Any, x: Tensor) -> Any:
    return OrderedDict(y=m.block(m.conv(x)))


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "table": (by_table, "reads TABLE, a dict that may change"),
    "object": (by_object, "reads OPTIONS, a SimpleNamespace that may change"),
    "list": (appends, "reads SEEN, a list that may change"),
    "print": (prints, "prints"),
    "generator": (draws, "reads NUMBERS, a Generator that may change"),
    "new generator": (makes_a_generator, "reads default_rng, a"),
    "choice": (chooses, "reads choice, a method that may change"),
    "clock": (by_clock, "is another one each time it runs"),
    "import": (imports, "imports a module"),
    "closure": (closure(False)[0], "reads a variable outside of it that may change (flag)"),
    "counter": (counter(), "variable outside of it"),
    "parameters": (by_parameter, "reads parameters as Python objects"),
    "state": (by_state, "reads parameters as Python objects"),
    "class": (by_class, "asks for the type of a value"),
    "missing": (looks_for, "looks for later, which is not there"),
    "buffer": (sets_a_buffer, "reads variables as a whole"),
    "mode": (in_a_mode, "asks for a mode of PyTorch"),
    "callable": (by_callable, "uses an object as a whole that may change (Scaled)"),
    "own call": (calls_twice, "calls a Doubles, which is called in a way of its own"),
    "ordered dict": (makes_an_ordered_dict, "makes a value of the type OrderedDict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_later_is_not_traced(name: str) -> None:
    function, reason = REFUSED[name]
    module = Written(function, block=nn.Sequential(Block(4), Block(4)), after=Scaled(), odd=Doubles())
    del module.norm
    module.register_buffer("last", torch.zeros(1))
    report = accelerate(module)
    assert type(module.last) is torch.Tensor
    assert report.modules == ["block"]
    assert [row.where for row in report.kept] == [""]
    assert reason in report.kept[0].why


def test_a_closure_that_changes_later() -> None:
    forward, change = closure(False)
    module = Written(forward, block=Block(4))
    accelerate(module)
    expected = 2 * module(image())
    change()
    assert torch.equal(module(image()), expected)


def test_a_dtype_that_is_read_of_parameters() -> None:
    module = Written(by_parameter, block=Block(4))
    accelerate(module)
    assert module.double()(image()).dtype == torch.float64


def with_inner_functions(m: Any, x: Tensor) -> Tensor:
    factor = 2.0

    def scaled(y: Tensor) -> Tensor:
        return norm(m, y) * factor

    parts = [scaled(x + shift) for shift in (0, 1)]
    return torch.cat([F.relu(part * factor) for part in parts])


def test_variables_of_the_forward_itself_are_no_hindrance() -> None:
    module = Written(with_inner_functions)
    assert assert_accelerated(module, image()).modules == [""]


def test_a_chance_that_agrees_twice_is_not_taken_for_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.25)
    module = Written(lambda m, x: norm(m, x) * random.random())
    assert "draws numbers" in accelerate(module).kept[0].why


def test_a_garbage_collection_is_not_taken_for_a_part_of_the_forward() -> None:
    def look_up(phase: str, info: dict[str, int]) -> None:
        assert isinstance(phase, str)

    before = gc.get_threshold()
    gc.callbacks.append(look_up)
    gc.set_threshold(20)
    try:
        report = accelerate(Written(lambda m, x: F.relu(norm(m, x))))
    finally:
        gc.callbacks.remove(look_up)
        gc.set_threshold(*before)
    assert not report.kept
    assert gc.isenabled()


@pytest.mark.skipif("hasattr(__import__('sys'), 'monitoring')", reason="cProfile does not use sys.setprofile")
def test_a_profiler_that_runs_is_refused_and_nothing_changes() -> None:
    network = Generator()
    kinds = [type(part) for part in network.modules()]
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        with pytest.raises(ValueError, match="a profiler is running; accelerate the network before it starts"):
            accelerate(network)
    finally:
        profiler.disable()
    assert [type(part) for part in network.modules()] == kinds
    assert len(accelerate(network).replaced) == 5
