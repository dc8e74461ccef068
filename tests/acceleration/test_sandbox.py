"""A sandbox gives everything back."""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from hdgan.acceleration.sandbox import preserved, sandbox


def module() -> Any:
    part = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    whole = nn.ModuleDict({"first": part, "second": part})  # registered twice
    whole.names, whole.table, whole.flag = ["a"], {"b": 1}, True
    return whole


def test_unregistered_state_is_given_back() -> None:
    whole = module()
    whole.ema, whole.names_seen, whole.generator = torch.zeros(2), {"a"}, torch.Generator()
    state = whole.generator.get_state()
    with preserved(whole):
        whole.ema += 1
        whole.names_seen.add("b")
        torch.randn(1, generator=whole.generator)
        whole["first"]._buffers["new"] = torch.zeros(1)
        whole["first"].append(nn.ReLU())
    assert torch.equal(whole.ema, torch.zeros(2))
    assert whole.names_seen == {"a"}
    assert torch.equal(whole.generator.get_state(), state)
    assert list(whole["first"].state_dict()) == list(module()["first"].state_dict())
    assert len(whole["first"]) == 2


class Pool:
    """Images that a module keeps, as NVIDIA's does for its discriminator."""

    def __init__(self) -> None:
        self.images: deque[torch.Tensor] = deque([torch.zeros(2)])
        self.count, self.own = 0, self


def test_state_deep_in_attributes_is_given_back() -> None:
    whole = module()
    helper = nn.Sequential(nn.BatchNorm1d(2))
    whole.nested = [{"maps": (torch.zeros(2), [torch.ones(1)])}, np.zeros(3)]
    whole.pool, whole.options, whole.helpers = Pool(), SimpleNamespace(seen=[]), [helper]
    array, image = whole.nested[1], whole.pool.images[0]
    with preserved(whole):
        whole.nested[0]["maps"][0].add_(1)
        whole.nested[0]["maps"][1].append(torch.ones(1))
        whole.nested[1] += 1
        whole.pool.images.append(image.add_(1))
        whole.pool.count = 1
        whole.options.seen.append(1)
        helper(torch.randn(4, 2))
        helper.append(nn.ReLU())
        helper[0].weight.data.mul_(2)
    maps = whole.nested[0]["maps"]
    assert torch.equal(maps[0], torch.zeros(2))
    assert len(maps[1]) == 1
    assert whole.nested[1] is array
    assert not array.any()
    assert whole.pool.images[0] is image
    assert (len(whole.pool.images), whole.pool.count, float(image.sum())) == (1, 0, 0.0)
    assert whole.options.seen == []
    assert len(helper) == 1
    assert torch.equal(helper[0].running_mean, torch.zeros(2))
    assert torch.equal(helper[0].weight, torch.ones(2))


def test_generators_among_the_attributes_are_given_back() -> None:
    def draw(whole: Any) -> list[float]:
        numpy, old, python, torchs = whole.generators
        drawn = [numpy.normal(), old.normal(), python.gauss(0, 1), float(torch.randn((), generator=torchs))]
        return [*drawn, whole.own.random()]

    whole = module()
    whole.own = random.Random(3)
    whole.generators = (
        np.random.default_rng(0),
        np.random.RandomState(1),
        random.Random(2),
        torch.Generator().manual_seed(3),
    )
    drawn = []
    for _ in range(2):
        with preserved(whole):
            drawn.append(draw(whole))
    assert drawn[0] == drawn[1] == draw(whole) != draw(whole)


def test_what_cannot_change_is_not_copied() -> None:
    whole = module()
    whole.frozen = np.zeros(3)
    whole.frozen.flags.writeable = False
    whole.chance, whole.meta = random.SystemRandom(), torch.zeros(2, device="meta")
    with preserved(whole):
        whole.flag = False
    assert whole.flag


def test_a_module_gets_its_tensors_and_attributes_back() -> None:
    whole = module()
    before = [(name, id(x)) for name, x in [*whole.named_parameters(), *whole.named_buffers()]]
    values = {name: x.clone() for name, x in whole.state_dict().items()}
    lists = id(whole.names), id(whole.table)
    with suppress(ZeroDivisionError), sandbox(whole, lambda x: x.detach().double()) as parameters:
        assert list(parameters) == ["first.0.weight", "first.0.bias", "first.1.weight", "first.1.bias"]
        assert whole["first"][0].weight is whole["second"][0].weight is parameters["first.0.weight"]
        assert whole["first"][1].running_mean.dtype == torch.float64
        whole["first"][1].running_mean += 1
        whole.names.append("c")
        whole.table.clear()
        whole.flag = whole.new = False
        whole.train(False)
        raise ZeroDivisionError
    assert [(name, id(x)) for name, x in [*whole.named_parameters(), *whole.named_buffers()]] == before
    assert all(torch.equal(values[name], x) for name, x in whole.state_dict().items())
    assert (id(whole.names), id(whole.table)) == lists
    assert (whole.names, whole.table, whole.flag, hasattr(whole, "new")) == (["a"], {"b": 1}, True, False)
    assert whole["first"].training


def test_generators_are_seeded_and_restored() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    whole = module()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    drawn = []
    for _ in range(2):
        with sandbox(whole):
            drawn.append(draw())
    after = draw()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert drawn[0] == drawn[1] != after
    assert after == draw()


def test_preserved_keeps_the_tensors_themselves() -> None:
    whole = module()
    with preserved(whole):
        weight = whole["first"][0].weight
        whole.flag = False
    assert whole["first"][0].weight is weight
    assert whole.flag is True
