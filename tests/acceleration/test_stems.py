"""Convolutions of one-hot planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.acceleration import accelerate, calls
from tests.acceleration.networks import Written

N = 5
KIND = "convolution of one-hot planes"


def planes(label: Tensor) -> Tensor:
    return F.one_hot(label, N).permute(0, 3, 1, 2).float()


def scattered(x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return torch.zeros(b, N, h, w, device=x.device).scatter_(1, x.long(), 1.0)


def in_two_statements(x: Tensor) -> Tensor:
    size = x.size()
    found = torch.zeros((size[0], N, size[2], size[3])).to(x.device)
    found.scatter_(1, x, 1)
    return found


def of_new_zeros(x: Tensor) -> Tensor:
    zeros = x.new_zeros(x.shape[0], N, x.shape[2], x.shape[3], dtype=torch.float64)
    return torch.scatter(zeros, 1, x, 1.0).float()


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
    "cast first": (stem(), lambda m, x: m.stem(F.one_hot(x, N).float().permute(0, 3, 1, 2).contiguous())),
    "moved axis": (stem(), lambda m, x: m.stem(F.one_hot(x, N).movedim(-1, 1).type_as(m.stem.weight))),
}
SCATTERED: dict[str, tuple[nn.Module, Callable[..., Tensor]]] = {
    "numbers": (stem(padding=1), lambda m, x: m.stem(scattered(x))),
    "behind a padding layer": (stem(kernel_size=7), lambda m, x: m.stem(m.pad(scattered(x)))),
    "two statements": (stem(bias=False), lambda m, x: m.stem(in_two_statements(x))),
    "new zeros": (stem(stride=2), lambda m, x: m.stem(of_new_zeros(x))),
    "a map without channel": (stem(), lambda m, x: m.stem(scattered(x[:, 0].unsqueeze(1)))),
}


def outputs_and_gradient(module: Any, given: Tensor) -> list[Tensor]:
    y = module(given)
    directions = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    return [y, *torch.autograd.grad((y * directions).sum(), list(module.stem.parameters()))]


@pytest.mark.parametrize("name", [*STEMS, *SCATTERED])
def test_stems_are_replaced(name: str) -> None:
    layer, function = (STEMS | SCATTERED)[name]
    given = label() if name in STEMS else label(2, 1, 12, 10)
    module = Written(function, stem=layer, pad=nn.ReflectionPad2d(3))
    expected = outputs_and_gradient(module, given)
    report = accelerate(module, given)
    assert (report.replaced[0].where, report.replaced[0].what) == ("stem", KIND)
    torch.testing.assert_close(outputs_and_gradient(module, given), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [lambda m, x: m.stem(scattered(x)), lambda m, x: m.stem(planes(x[:, 0]))])
def test_the_planes_are_not_made(function: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    module = Written(function, stem=stem())
    assert accelerate(module).replaced[0].what == KIND
    monkeypatch.setattr(calls, "_planes", None)
    assert module(label(2, 1, 12, 10)).shape == (2, 4, 10, 8)


def set_twice(x: Tensor) -> Tensor:
    return scattered(x).scatter_(1, x, 1.0)


def summed_before(m: Any, x: Tensor) -> Tensor:
    zeros = torch.zeros((x.shape[0], N, x.shape[2], x.shape[3]))
    total = zeros.sum()
    return m.stem(zeros.scatter_(1, x, 1.0)) + total


def changed_label(m: Any, x: Tensor) -> Tensor:
    found = planes(x)
    x.clamp_(max=1)
    return m.stem(found)


KEPT: dict[str, tuple[nn.Module, Callable[..., Any], str]] = {
    "dilated": (stem(dilation=2), lambda m, x: m.stem(planes(x)), "one group and without dilation"),
    "of unequal sides": (stem(kernel_size=(3, 1)), lambda m, x: m.stem(planes(x)), "kernel_size to be a number"),
    "circular": (stem(padding=1, padding_mode="circular"), lambda m, x: m.stem(planes(x)), "got 'circular'"),
    "padded twice": (stem(padding=1), lambda m, x: m.stem(m.pad(planes(x))), "padding of its own"),
    "other order": (stem(), lambda m, x: m.stem(F.one_hot(x, N).permute(0, 3, 2, 1).float()), ""),
    "counted": (stem(), lambda m, x: m.stem(F.one_hot(x).permute(0, 3, 1, 2).float()), "are not the 5 channels"),
    "read twice": (stem(), lambda m, x: [m.stem(y := planes(x)), y], "are read by stem and the result"),
    "concatenated": (nn.Conv2d(2 * N, 4, 3), lambda m, x: m.stem(torch.cat([planes(x)] * 2, 1)), "are read by cat"),
    "of two labels": (stem(), lambda m, x: m.stem(planes(x) + planes(x)), "are read by add"),
    "label that changes": (stem(), changed_label, "their label map may"),
}
KEPT_SCATTERED: dict[str, tuple[nn.Module, Callable[..., Any], str]] = {
    "dilated": (stem(dilation=2), lambda m, x: m.stem(scattered(x)), "one group and without dilation"),
    "read twice": (stem(), lambda m, x: [m.stem(y := scattered(x)), y.mean()], "are read by stem and mean"),
    "concatenated": (nn.Conv2d(2 * N, 4, 3), lambda m, x: m.stem(torch.cat([scattered(x)] * 2, 1)), "are read by cat"),
    "set twice": (stem(), lambda m, x: m.stem(set_twice(x)), "are read by scatter_"),
    "read before": (stem(), summed_before, ""),
    "twos": (stem(), lambda m, x: m.stem(torch.zeros((2, N, x.shape[2], 10)).scatter_(1, x, 2.0)), ""),
    "other dimension": (stem(), lambda m, x: m.stem(torch.zeros((2, N, x.shape[2], 10)).scatter_(2, x, 1.0)), ""),
    "ones": (stem(), lambda m, x: m.stem(torch.ones((2, N, x.shape[2], 10)).scatter_(1, x, 1.0)), ""),
    "added": (stem(), lambda m, x: m.stem(torch.zeros((2, N, x.shape[2], 10)).scatter_(1, x, 1.0, reduce="add")), ""),
    "more classes": (
        stem(),
        lambda m, x: m.stem(torch.zeros((2, N + 1, x.shape[2], 10)).scatter_(1, x, 1.0)[:, :N]),
        "are read by getitem",
    ),
}


@pytest.mark.parametrize("name", [*KEPT, *(f"scattered, {name}" for name in KEPT_SCATTERED)])
def test_other_planes_are_kept(name: str) -> None:
    scatters = name.startswith("scattered")
    layer, function, reason = KEPT_SCATTERED[name.removeprefix("scattered, ")] if scatters else KEPT[name]
    given = label(2, 1, 12, 10) if scatters else label()
    module = Written(function, stem=layer, pad=nn.ReflectionPad2d(3))
    expected = module(given.clone())
    report = accelerate(module)
    assert KIND not in [row.what for row in report.replaced]
    reasons = [row.why for row in report.kept if row.what == "one-hot planes"]
    assert (reason in reasons[0]) if reason else not reasons
    found = module(given.clone())
    for one, other in zip(*(y if isinstance(y, list) else [y] for y in (found, expected)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (label(2, 1, 8, 10), (2, 4, 10, 8)),  # of fewer rows than the planes
        (label(2, 2, 12, 10), (2, 4, 10, 8)),  # of two labels a pixel
        (label(1, 1, 12, 10), (2, 4, 10, 8)),
    ],
)
def test_maps_of_another_size_than_the_planes(given: Tensor, size: tuple[int, ...]) -> None:
    class Sized(Written):
        def forward(self, x: Tensor, like: Tensor) -> Tensor:  # type: ignore[override]
            return self.stem(torch.zeros(2, N, like.shape[2], 10).scatter_(1, x, 1.0))

    module = Sized(torch.relu, stem=stem())
    like = label(2, 1, 12, 10)
    expected = module(given, like)
    assert accelerate(module).replaced[0].what == KIND
    assert expected.shape == size
    assert torch.equal(module(given, like), expected)


def test_planes_of_another_dtype_are_refused_as_before() -> None:
    module = Written(lambda m, x: m.stem(scattered(x).double()), stem=stem())
    assert accelerate(module).replaced[0].what == KIND
    with pytest.raises(RuntimeError, match="should be the same"):
        module(label(2, 1, 12, 10))


@pytest.mark.parametrize("bad", [-1, N])
@pytest.mark.parametrize(("make", "message"), [(planes, "Class values must be"), (scattered, "out of bounds")])
def test_labels_of_no_class_are_refused_as_before(bad: int, make: Callable[[Tensor], Tensor], message: str) -> None:
    module = Written(lambda m, x: m.stem(make(x)), stem=stem())
    assert accelerate(module).replaced[0].what == KIND
    given = label() if make is planes else label(2, 1, 12, 10)
    given[0, 0, 0] = bad
    with pytest.raises(RuntimeError, match=message):
        module(given)


def test_a_padding_that_is_too_large_is_refused_as_before() -> None:
    module = Written(lambda m, x: m.stem(m.pad(planes(x))), stem=stem(), pad=nn.ReflectionPad2d(3))
    assert accelerate(module).replaced[0].what == KIND
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        module(label(1, 3, 9))


@pytest.mark.parametrize("make", [planes, scattered])
def test_compile_in_one_graph(make: Callable[[Tensor], Tensor]) -> None:
    module = Written(lambda m, x: m.stem(m.pad(make(x))), stem=stem(), pad=nn.ReflectionPad2d(1))
    given = label() if make is planes else label(2, 1, 12, 10)
    expected = module(given)
    assert accelerate(module).replaced[0].what == KIND
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(given), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [planes, scattered])
def test_autocast(make: Callable[[Tensor], Tensor]) -> None:
    module = Written(lambda m, x: m.stem(make(x)), stem=stem())
    given = label() if make is planes else label(2, 1, 12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(given)
        assert accelerate(module).replaced[0].what == KIND
        found = module(given)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
