"""What is replaced, and that the results stay the same in float64."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import Block, Generator, Written, assert_accelerated, assert_same, image, results

SLOPE = 0.2
PADDED = "instance norm + ReLU + reflect padding 1"
SUM = "instance norm + residual"

CHAINS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "norm alone": (lambda m, x: m.norm(m.conv(x)), "instance norm"),
    "relu": (lambda m, x: F.relu(m.norm(m.conv(x))), "instance norm + ReLU"),
    "relu in place": (lambda m, x: F.relu(m.norm(m.conv(x)), True), "instance norm + ReLU"),
    "method": (lambda m, x: m.norm(m.conv(x)).relu(), "instance norm + ReLU"),
    "method in place": (lambda m, x: m.norm(m.conv(x)).relu_(), "instance norm + ReLU"),
    "torch.relu": (lambda m, x: torch.relu(m.norm(m.conv(x))), "instance norm + ReLU"),
    "leaky": (lambda m, x: F.leaky_relu(m.norm(m.conv(x)), SLOPE), "instance norm + LeakyReLU"),
    "leaky by name": (lambda m, x: F.leaky_relu(m.norm(m.conv(x)), negative_slope=0.3), "instance norm + LeakyReLU"),
    "leaky by default": (lambda m, x: F.leaky_relu(m.norm(m.conv(x))), "instance norm + LeakyReLU"),
    "call": (lambda m, x: F.relu(F.instance_norm(m.conv(x), eps=0.1)), "instance norm + ReLU"),
    "call with parameters": (
        lambda m, x: F.instance_norm(m.conv(x), weight=m.conv.bias, bias=m.conv.bias),
        "instance norm",
    ),
    "reflect": (lambda m, x: F.pad(m.act(m.norm(m.conv(x))), (1, 1, 1, 1), mode="reflect"), PADDED),
    "zero": (lambda m, x: F.pad(m.norm(m.conv(x)), (2, 2, 2, 2)), "instance norm + zero padding 2"),
    "replicate": (
        lambda m, x: F.pad(m.norm(m.conv(x)), [1, 1, 1, 1], "replicate"),
        "instance norm + replicate padding 1",
    ),
    "unequal": (lambda m, x: F.pad(m.norm(m.conv(x)), (1, 1, 0, 0)), "instance norm"),
    "not zero": (lambda m, x: F.pad(m.norm(m.conv(x)), (1, 1, 1, 1), value=1.0), "instance norm"),
    "circular": (lambda m, x: F.pad(m.norm(m.conv(x)), (1, 1, 1, 1), "circular"), "instance norm"),
    "sum": (lambda m, x: m.conv(x) + m.act(m.norm(m.conv(x))), "instance norm + ReLU + residual"),
    "sum the other way": (lambda m, x: m.norm(m.conv(x)) + m.conv(x), SUM),
    "torch.add": (lambda m, x: torch.add(m.conv(x), m.norm(m.conv(x))), SUM),
    "method add": (lambda m, x: m.norm(m.conv(x)).add(m.conv(x)), SUM),
    "sum into the norm": (lambda m, x: operator.iadd(m.norm(m.conv(x)), m.conv(x)), SUM),
    "sum into the other": (lambda m, x: operator.iadd(m.conv(x), m.norm(m.conv(x))), "instance norm"),
    "sum with a factor": (lambda m, x: torch.add(m.conv(x), m.norm(m.conv(x)), alpha=2), "instance norm"),
    "sum with a number": (lambda m, x: m.norm(m.conv(x)) + 1, "instance norm"),
    "tanh": (lambda m, x: torch.tanh(m.norm(m.conv(x))), "instance norm"),
    "leaky beyond one": (lambda m, x: F.leaky_relu(m.norm(m.conv(x)), 1.5), "instance norm"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_becomes_one_op(name: str) -> None:
    function, what = CHAINS[name]
    report = assert_accelerated(Written(function), image())
    assert report.replaced[0].what == what


def test_blocks_pass_their_sums_on_padded() -> None:
    report = assert_accelerated(Generator(), image())
    assert {row.where: row.what for row in report.replaced} == {
        "stem.1": PADDED,
        "blocks.0.body.2": PADDED,
        "blocks.0.body.6": "instance norm + residual + reflect padding 1",
        "blocks.1.body.2": PADDED,
        "blocks.1.body.6": SUM,
    }
    assert report.modules == [""]
    assert report.kept == []


def test_a_sum_that_is_read_unpadded_stays_unpadded() -> None:
    class Features(Generator):
        def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
            first = self.blocks[0](self.stem(x))
            return [first, self.blocks[1](first)]

    report = assert_accelerated(Features(), image())
    assert {row.where: row.what for row in report.replaced}["blocks.0.body.6"] == SUM


@torch.no_grad()
def same_without_gradients(forward: Callable[[Any, Tensor], Any]) -> list[str]:
    """What is replaced in a forward that changes what autograd would need, with the same result."""
    module = Written(forward)
    expected = module(image())
    report = accelerate(module)
    torch.testing.assert_close(module(image()), expected)
    return [row.what for row in report.replaced]


def test_padding_is_kept_apart_where_the_padded_tensor_is_changed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.act(m.norm(m.conv(x)))
        padded = F.pad(y, (1, 1, 1, 1))
        padded.mul_(2)  # the residual below must not see it
        return (m.norm(m.conv(x)) + y) * padded[:, :, 1:-1, 1:-1]

    assert same_without_gradients(forward) == ["instance norm + ReLU", SUM]


def test_a_norm_whose_input_changes_before_the_sum_is_not_moved_there() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        n = m.norm(y)
        z = y.view(y.shape)
        z *= 3  # changes y
        return z + n

    def harmless(m: Any, x: Tensor) -> Tensor:
        n = m.norm(m.conv(x))
        z = m.conv(x)
        z *= 3
        return z + n

    assert same_without_gradients(forward) == ["instance norm"]
    assert same_without_gradients(harmless) == [SUM]


def test_changes_in_place_are_seen_by_other_names_of_the_tensor() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.conv(x))
        z = y
        z += 1
        return y * 2

    assert same_without_gradients(forward) == ["instance norm"]


def test_a_norm_that_is_read_twice_is_replaced_alone() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        n = m.norm(m.conv(x))
        return m.act(n) * torch.sigmoid(n)

    assert [row.what for row in assert_accelerated(Written(forward), image()).replaced] == ["instance norm"]


def test_layers_that_do_nothing_may_stand_between() -> None:
    network = nn.Sequential(
        *(
            nn.Conv2d(3, 4, 3),
            nn.InstanceNorm2d(4),
            nn.Identity(),
            nn.Dropout(0.0),
            nn.LeakyReLU(0.1),
            nn.Dropout2d(0.0),
        ),
        nn.ZeroPad2d(1),
    )
    report = assert_accelerated(network, image())
    assert [row.what for row in report.replaced] == ["instance norm + LeakyReLU + zero padding 1"]
    network[3].p = 1.0
    assert torch.equal(network(image()), torch.zeros(2, 4, 12, 10))


def test_dropout_is_not_passed_over() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Dropout(0.5), nn.ReLU()).eval()
    assert [row.what for row in assert_accelerated(network, image()).replaced] == ["instance norm"]


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (nn.InstanceNorm2d(4, track_running_stats=True), "running statistics"),
        (nn.InstanceNorm1d(4), "itself"),
        (type("Own", (nn.InstanceNorm2d,), {})(4), "itself"),
    ],
)
def test_norms_that_are_kept_are_reported(norm: nn.Module, reason: str) -> None:
    report = accelerate(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
    assert not report.replaced
    assert [row.where for row in report.kept] == ["1"]
    assert reason in report.kept[0].why


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("affine", [False, True])
def test_volumes(affine: bool, memory_format: torch.memory_format) -> None:
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=affine)
            self.alone = nn.Sequential(nn.InstanceNorm3d(4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.alone(y + F.leaky_relu(self.norm(y), 0.1))

    x = image(2, 2, 3, 6, 5).to(memory_format=memory_format)
    report = assert_accelerated(Volume(), x, example=x)
    assert [row.what for row in report.replaced] == ["instance norm + LeakyReLU + residual", "instance norm + ReLU"]
    norm = nn.InstanceNorm3d(2)
    expected = norm(x)
    assert accelerate(norm, x).modules == [""]
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x[0]), nn.InstanceNorm3d(2)(x[0]))
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        norm(image(1, 2, 1, 1, 1))


def test_calls_that_use_running_statistics_are_kept() -> None:
    mean, variance = nn.Parameter(torch.zeros(4), False), nn.Parameter(torch.ones(4), False)
    module = Written(lambda m, x: F.instance_norm(m.conv(x), m.mean, m.variance, use_input_stats=False))
    module.mean, module.variance = mean, variance
    report = assert_accelerated(module, image())
    assert [row.where for row in report.replaced] == ["norm"]  # which the forward does not use
    assert report.kept[0].why == "uses running statistics"


def pool() -> nn.Module:
    return nn.AvgPool2d(3, 2, [1, 1], count_include_pad=False)


def functional(m: Any, x: Tensor) -> list[Tensor]:
    half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    quarter = F.avg_pool2d(half, kernel_size=3, stride=2, padding=[1, 1], count_include_pad=False)
    return [half, quarter]


def between(m: Any, x: Tensor) -> Tensor:
    half = m.pool(x)
    return m.pool(half.mul_(2))


PYRAMIDS: dict[str, tuple[Callable[[Any, Tensor], Any], list[str]]] = {
    "chain": (lambda m, x: m.pool(m.pool(m.pool(x))), ["average pyramid, 3 levels"]),
    "calls": (functional, ["average pyramid, 2 levels"]),
    "changed between": (between, ["average pyramid, 1 level", "average pyramid, 1 level"]),
    "two images": (lambda m, x: [m.pool(x), m.pool(x * 2)], ["average pyramid, 1 level"] * 2),
    "other pooling": (lambda m, x: F.avg_pool2d(x, 3, 2, 1), []),
}


@pytest.mark.parametrize("name", PYRAMIDS)
def test_pyramids(name: str) -> None:
    function, what = PYRAMIDS[name]
    report = assert_accelerated(Written(function, pool=pool()), image())
    assert [row.what for row in report.replaced if row.where != "norm"] == what


def test_a_layer_that_is_called_twice_is_replaced_twice() -> None:
    module = Written(lambda m, x: m.act(m.norm(m.conv(x))) + m.norm(m.conv(x * 2)))
    report = assert_accelerated(module, image())
    assert [(row.where, row.what) for row in report.replaced] == [
        ("norm", "instance norm + ReLU + residual"),
        ("norm", "instance norm"),
    ]


def test_one_block_in_two_places_stays_one() -> None:
    block = Block(3)
    network = nn.Sequential(block, nn.Conv2d(3, 3, 1), block)
    expected = results(network, image())
    accelerate(network)
    assert_same(results(network, image()), expected)
    assert network[0] is network[2] is block


def added_in_place(m: Any, x: Tensor, other: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    y += other
    return y


def test_an_addition_in_place_keeps_the_dtype() -> None:
    class Two(Written):
        def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
            return added_in_place(self, x, y)

    module = Two(added_in_place)
    others = [image(2, 4, 12, 10, dtype=torch.float64), image(1, 4, 1, 1)]
    expected = [module(image(), other) for other in others]
    assert [row.what for row in accelerate(module).replaced] == ["instance norm + residual"]
    for other, value in zip(others, expected, strict=True):
        torch.testing.assert_close(module(image(), other), value)
    with pytest.raises(RuntimeError, match="shape"):
        module(image(1, 3, 12, 10), image(2, 4, 12, 10))
