"""Convolutions of one-hot planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import Written

N = 5
KIND = "convolution of one-hot planes"


def planes(label: Tensor) -> Tensor:
    return F.one_hot(label, N).permute(0, 3, 1, 2).float()


def label(*shape: int) -> Tensor:
    return torch.randint(0, N, shape or (2, 12, 10), generator=torch.Generator().manual_seed(2))


def stem(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(N, 4, options.pop("kernel_size", 3), **options)


STEMS: dict[str, tuple[nn.Module, Callable[..., Tensor]]] = {
    "bare": (stem(), lambda m, x: m.stem(planes(x))),
    "zeros": (stem(padding=1), lambda m, x: m.stem(planes(x))),
    "reflect in the layer": (stem(padding=1, padding_mode="reflect"), lambda m, x: m.stem(planes(x))),
    "without bias, with stride": (stem(stride=2, padding=1, bias=False), lambda m, x: m.stem(planes(x))),
    "padding layer": (stem(kernel_size=7), lambda m, x: m.stem(m.pad(planes(x)))),
    "padding call": (stem(), lambda m, x: m.stem(F.pad(planes(x), (1, 1, 1, 1), mode="replicate"))),
    "to": (stem(), lambda m, x: m.stem(F.one_hot(x, N).permute([0, 3, 1, 2]).to(torch.float32))),
}


def outputs_and_gradient(module: Any) -> list[Tensor]:
    y = module(label())
    directions = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    return [y, *torch.autograd.grad((y * directions).sum(), list(module.stem.parameters()))]


@pytest.mark.parametrize("name", STEMS)
def test_stems_are_replaced(name: str) -> None:
    layer, function = STEMS[name]
    module = Written(function, stem=layer, pad=nn.ReflectionPad2d(3))
    expected = outputs_and_gradient(module)
    report = accelerate(module, label())
    assert (report.replaced[0].where, report.replaced[0].what) == ("stem", KIND)
    torch.testing.assert_close(outputs_and_gradient(module), expected, rtol=1e-5, atol=1e-5)


KEPT: dict[str, tuple[nn.Module, Callable[..., Tensor]]] = {
    "dilated": (stem(dilation=2), lambda m, x: m.stem(planes(x))),
    "of unequal sides": (stem(kernel_size=(3, 1)), lambda m, x: m.stem(planes(x))),
    "circular": (stem(padding=1, padding_mode="circular"), lambda m, x: m.stem(planes(x))),
    "padded twice": (stem(padding=1), lambda m, x: m.stem(m.pad(planes(x)))),
    "other order": (stem(), lambda m, x: m.stem(F.one_hot(x, N).permute(0, 3, 2, 1).float())),
    "counted classes": (stem(), lambda m, x: m.stem(F.one_hot(x).permute(0, 3, 1, 2).float())),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_convolutions_are_kept(name: str) -> None:
    layer, function = KEPT[name]
    module = Written(function, stem=layer, pad=nn.ReflectionPad2d(3))
    expected = module(label())
    assert KIND not in [row.what for row in accelerate(module).replaced]
    assert torch.equal(module(label()), expected)


@pytest.mark.parametrize("bad", [-1, N])
def test_labels_of_no_class_are_refused_as_before(bad: int) -> None:
    module = Written(lambda m, x: m.stem(planes(x)), stem=stem())
    accelerate(module)
    given = label()
    given[0, 0, 0] = bad
    with pytest.raises(RuntimeError, match="Class values must be"):
        module(given)


def test_a_padding_that_is_too_large_is_refused_as_before() -> None:
    module = Written(lambda m, x: m.stem(m.pad(planes(x))), stem=stem(), pad=nn.ReflectionPad2d(3))
    accelerate(module)
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        module(label(1, 3, 9))
