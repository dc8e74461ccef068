"""bfloat16 and float16: the numbers of autocast, from weights that are cast once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hdgan.inference import Pipeline
from hdgan.models import blocks
from hdgan.models.blocks import Casts, as_function, reusing
from tests.inference.test_replay import MODELS, calls, small

NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class CastsSeen(TorchDispatchMode):
    """Notes the shapes of tensors that become of a narrow type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == self.dtype:
            self.shapes.append(args[0].shape)
        return func(*args, **kwargs)


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("name", MODELS)
def test_images_have_the_bits_of_autocast(name: str, precision: Any) -> None:
    pipeline, by_autocast = (Pipeline(small(name), precision=precision) for _ in range(2))
    by_autocast._casts.of = lambda weight, dtype: weight  # type: ignore[method-assign]
    for found, expected in zip(calls(pipeline, name), calls(by_autocast, name), strict=True):
        assert torch.equal(found, expected)
    exact = Pipeline(small(name))
    assert not torch.equal(calls(exact, name)[0], calls(pipeline, name)[0])


def test_float16_is_closer_to_float32_than_bfloat16() -> None:
    name = next(iter(MODELS))
    exact = calls(Pipeline(small(name)), name)[0]
    off = {
        precision: (calls(Pipeline(small(name), precision=precision), name)[0] - exact).abs().mean()  # type: ignore
        for precision in NARROW
    }
    assert 0 < off["float16"] < off["bfloat16"] / 4


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_cast_once(name: str, precision: Any) -> None:
    pipeline = Pipeline(small(name), precision=precision)
    before = {key: value.clone() for key, value in pipeline.model.state_dict().items()}
    weights = {p.shape for p in pipeline.model.generator.parameters() if p.dim() == 4}
    for calls_before in (0, 1):
        with CastsSeen(NARROW[precision]) as seen:
            calls(pipeline, name)
        cast = [shape for shape in seen.shapes if shape in weights]
        assert bool(cast) == (calls_before == 0)
    after = pipeline.model.state_dict()
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())


@pytest.mark.parametrize("dtype", NARROW.values(), ids=NARROW)
def test_changed_weights_are_cast_again(dtype: torch.dtype) -> None:
    conv = nn.Conv2d(2, 3, 1).requires_grad_(False)
    x, casts = torch.randn(1, 2, 4, 4), Casts()

    def check() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype):
            expected = conv(x)
            with reusing(casts):
                assert torch.equal(as_function(conv, bias=True)(x), expected)

    check()
    conv.weight.mul_(2)
    check()
    conv.weight = nn.Parameter(-conv.weight, requires_grad=False)
    check()
    assert len(casts._held) == 2  # the weight that was replaced is not kept
    assert copy.deepcopy(casts)._held == {}


def test_blocks_may_end_in_any_order() -> None:
    """As they do in two threads."""
    first, second = (reusing(Casts()) for _ in range(2))
    for step in (first.__enter__, second.__enter__):
        step()
    for block in (first, second):
        block.__exit__(None, None, None)
    assert blocks._casts == []


def test_trained_weights_and_float32_are_left_alone() -> None:
    conv, casts = nn.Conv2d(2, 3, 1), Casts()
    x = torch.randn(1, 2, 4, 4)
    with reusing(casts):
        as_function(conv, bias=True)(x)
        with torch.autocast("cpu", torch.bfloat16):
            as_function(conv, bias=True)(x).sum().backward()
    assert casts._held == {}
    assert conv.weight.grad is not None
