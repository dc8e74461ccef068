"""The comparison finds faults, and nothing but faults."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.acceleration import Parity, ParityError, accelerate
from hdgan.acceleration.parity import compare
from tests.acceleration.networks import Generator, Written, image


class Switched(nn.Module):
    """Runs one of two functions: the original, or what is compared with it."""

    def __init__(self, other: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(image(3, 1, 1))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.register_buffer("count", torch.zeros(()))
        self.other, self.original = other, False

    def forward(self, x: Tensor) -> Any:
        return self.right(x) if self.original else self.other(self, x)

    def right(self, x: Tensor) -> Any:
        return torch.relu(x * self.weight) * self.frozen

    def originally(self) -> Any:
        module = self

        class Context(nullcontext[None]):
            def __enter__(self) -> None:
                module.original = True

            def __exit__(self, *_: object) -> None:
                module.original = False

        return Context()


def compared(other: Callable[[Any, Tensor], Any]) -> list[Parity]:
    module = Switched(other)
    return compare(module, ((image(),), {}), module.originally)


FAULTS: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "a millionth": (lambda m, x: m.right(x) * (1 + 2e-6), r"output would differ \(train, float64: 2\.0e-06 of output"),
    "one pixel": (lambda m, x: m.right(x) + (torch.arange(10) == 3) * 1e-5, "output would differ"),
    "detached": (lambda m, x: torch.relu(x.detach() * m.weight), "only the original gives the gradient of input 0"),
    "gradient of the input": (
        lambda m, x: m.right(x) + (x - x.detach()) * 1e-4,
        "the gradient of input 0 would differ",
    ),
    "gradient of a weight": (
        lambda m, x: m.right(x) + (m.weight - m.weight.detach()) * 1e-4,
        "the gradient of weight would differ",
    ),
    "mode": (lambda m, x: m.right(x) if m.training else m.right(x) * 2, r"output would differ \(eval"),
    "shape": (lambda m, x: m.right(x)[:, :, 1:], r"float64 \(2, 3, 11, 10\) instead of float64 \(2, 3, 12, 10\)"),
    "dtype": (lambda m, x: m.right(x).bfloat16(), r"output is bfloat16 \(2, 3, 12, 10\) instead of float64"),
    "noise": (lambda m, x: m.right(x) + 1e-4 * torch.randn_like(x), "output would differ"),
    "not a number": (lambda m, x: m.right(x) * float("nan"), "output would differ"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str) -> None:
    other, what = FAULTS[name]
    with pytest.raises(ParityError, match=rf"^accelerate: Switched was left as it was, because .*{what}"):
        compared(other)


class Features(list[Tensor]):
    """A list of its own class."""


@dataclass(frozen=True)
class Result:
    """What a forward may give."""

    image: Tensor
    features: dict[str, Features]


class Plain:
    """An object that holds itself, beside a tensor."""

    def __init__(self, image: Tensor) -> None:
        self.image, self.own = image, self


class Wraps(Switched):
    """Gives its image in something.

    Args:
        wrap: makes what is given of an image and a mask.
    """

    def __init__(self, other: Callable[[Any, Tensor], Any], wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__(other)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(super().forward(x), x > 0)


WRAPS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "dataclass": (lambda y, mask: Result(y, {}), "output.image"),
    "list of its own class": (lambda y, mask: Features([y]), "output[0]"),
    "both": (lambda y, mask: Result(mask, {"deep": Features([mask, y])}), "output.features['deep'][1]"),
    "object": (lambda y, mask: Plain(y), "output.image"),
    "behind integers": (lambda y, mask: [mask, mask.int(), y], "output[2]"),
    "complex": (lambda y, mask: torch.complex(mask.to(y), y), "output"),
    "sparse": (lambda y, mask: y.to_sparse(), "output"),
}


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("factor", [1 + 1e-5, float("nan")])
def test_faults_are_found_in_what_holds_tensors(name: str, factor: float) -> None:
    wrap, what = WRAPS[name]
    same = Wraps(lambda m, x: m.right(x * 2) / 2, wrap)
    assert [one.passed and not one.note for one in compare(same, ((image(),), {}), same.originally)] == [True] * 4
    module = Wraps(lambda m, x: m.right(x) + m.right(x).detach() * (factor - 1), wrap)
    with pytest.raises(ParityError, match=rf"because {re.escape(what)} would differ"):
        compare(module, ((image(),), {}), module.originally)


def test_outputs_that_only_one_of_the_two_gives() -> None:
    more = Wraps(lambda m, x: m.right(x), lambda y, mask: [y])
    more.wrap = lambda y, mask: [y] if more.original else [y, y]
    with pytest.raises(ParityError, match=r"float64: only the accelerated module gives output\[1\]\); leave out"):
        compare(more, ((image(),), {}), more.originally)


def test_other_orders_of_summation_are_no_faults() -> None:
    assert [one.passed for one in compared(lambda m, x: torch.relu(m.weight * x * 3) / 3 * m.frozen)] == [True] * 4


def test_a_forward_that_float64_does_not_suit_is_compared_in_its_own_dtype() -> None:
    module = Written(lambda m, x: m.act(m.norm(m.conv(x.float()))))
    report = accelerate(module, image())
    notes = [one.note for one in report.comparisons or []]
    assert ["float64: the original raises" in note for note in notes] == [True, False, True, False]
    assert "train, not compared in float64" in str(report)


def test_an_error_of_the_accelerated_module() -> None:
    with pytest.raises(ParityError, match=r"^accelerate: Switched was left as it was: it would raise no such thing$"):
        compared(lambda m, x: (_ for _ in ()).throw(ValueError("no such thing\nat all")))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.norm(m.conv(x)) / 0, "output of the original is not finite"),
        (lambda m, x: x.shape[2] * len(m.conv(x)), "in what the original gives, of the type int, is no tensor"),
    ],
)
def test_what_cannot_be_compared_is_not_replaced(forward: Callable[[Any, Tensor], Any], reason: str) -> None:
    module = Written(forward)
    with pytest.raises(ParityError, match=rf"was left as it was, because in eval, not compared: {reason}"):
        accelerate(module, image())
    assert type(module) is Written


def test_dropout_in_channels_last() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3)
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    report = accelerate(network, image().to(memory_format=torch.channels_last))
    assert [one.passed and not one.note for one in report.comparisons or []] == [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_correct_networks_pass(seed: int) -> None:
    torch.manual_seed(seed)
    report = accelerate(Generator(4 + seed % 5), image(1, 3, 16 + seed, 30 - seed, seed=seed))
    assert len(report.replaced) == 5
