"""A sandbox gives everything back."""

from __future__ import annotations

import random
from contextlib import suppress
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
