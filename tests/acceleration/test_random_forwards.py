"""Random forwards, with many changes in place, compute what they computed before.

What a fused op reads must not have changed by the time at which it runs. These forwards read, change and view what they
have made, in any order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import assert_same, image

Step = Callable[[Any, Tensor, Tensor], Tensor]


def added(m: Any, x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


def padded_twice(m: Any, x: Tensor, y: Tensor) -> Tensor:
    padded = m.pad(x)
    padded.mul_(0.5)
    return m.valid(padded) + padded[:, :, 1:-1, 1:-1]


def pyramid(m: Any, x: Tensor, y: Tensor) -> Tensor:
    half = m.pool(x)
    quarter = m.pool(half)
    half.mul_(2.0)
    return m.up(half) + m.up(m.up(quarter + m.pool(half)))


STEPS: list[Step] = [
    *[lambda m, x, y: m.norm(x)] * 3,
    lambda m, x, y: m.norm(m.conv(x)),
    lambda m, x, y: m.relu(m.norm(m.conv(x))),
    lambda m, x, y: F.instance_norm(x),
    lambda m, x, y: m.relu(x),
    lambda m, x, y: F.leaky_relu(x, 0.3),
    *[lambda m, x, y: x + y] * 3,
    lambda m, x, y: x + m.norm(m.conv(y)),
    lambda m, x, y: m.conv(x),
    lambda m, x, y: m.valid(m.pad(x)),
    lambda m, x, y: m.valid(F.pad(x, (1, 1, 1, 1))),
    *[lambda m, x, y: x.mul_(0.9)] * 2,
    lambda m, x, y: x.view_as(x),
    lambda m, x, y: x,
    added,
    added,
    padded_twice,
    pyramid,
]


class Random(nn.Module):
    """Takes random steps, each on the last result or on one of the earlier ones.

    Args:
        seed: of the steps.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.conv, self.valid = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3)
        self.norm, self.relu = nn.InstanceNorm2d(3), nn.ReLU(True)
        self.pad, self.up = nn.ReflectionPad2d(1), nn.Upsample(scale_factor=2)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        generator = random.Random(seed)
        steps = [(generator.choice(STEPS), generator.random(), generator.random()) for _ in range(14)]
        self.run = partial(Random.steps, steps=steps)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.run(self, x)

    @staticmethod
    def steps(m: Any, x: Tensor, steps: list[tuple[Step, float, float]]) -> list[Tensor]:
        values = [m.conv(x)]
        for step, first, second in steps:
            operands = [
                values[-1] if where > 0.5 else values[int(2 * where * len(values))] for where in (first, second)
            ]
            values.append(step(m, *operands))
        return [values[-1], values[0], values[len(values) // 2]]


@torch.no_grad()  # autograd would refuse many of them
@pytest.mark.parametrize("seed", range(100))
def test_random_forwards(seed: int) -> None:
    module = Random(seed).double()
    x = image(1, 3, 8, 8, dtype=torch.float64)
    expected = module(x)
    assert accelerate(module).modules[0] == ""
    assert_same(module(x), expected)
