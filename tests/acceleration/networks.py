"""Small networks as people write them, and how the tests compare them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.acceleration import Report, accelerate


class Block(nn.Module):
    """A residual block of CycleGAN's kind."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(True)),
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """A stem, two blocks, and a last convolution."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3), nn.InstanceNorm2d(channels, affine=True), nn.ReLU(True))
        self.blocks = nn.Sequential(Block(channels), Block(channels))
        self.last = nn.Conv2d(channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.blocks(self.stem(x))))


class Written(nn.Module):
    """Has the forward that a test writes, and a few layers for it.

    Args:
        function: the forward; it takes the module and a tensor.
        attributes: further attributes of the module.
    """

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4)
        self.act = nn.ReLU()
        for name, value in attributes.items():
            setattr(self, name, value)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise of this shape, [2, 3, 12, 10] unless one is given."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 12, 10), generator=generator, dtype=torch.float64).to(dtype)


def results(module: nn.Module, *arguments: Any) -> list[Tensor]:
    """Outputs, and gradients of the inputs and parameters, in float64, where every fault shows."""
    module = copy.deepcopy(module).double()
    inputs = [x.double().requires_grad_() if _is_float(x) else x for x in arguments]
    made = module(*[x.clone() if isinstance(x, Tensor) else x for x in inputs])
    outputs = list(made) if isinstance(made, list | tuple) else [made]
    sources = [x for x in (*inputs, *module.parameters()) if isinstance(x, Tensor) and x.requires_grad]
    loss = sum((y * image(*y.shape, seed=1, dtype=torch.float64)).sum() for y in outputs)
    gradients = torch.autograd.grad(loss, sources, allow_unused=True)
    return [*(y.detach() for y in outputs), *(torch.zeros(()) if g is None else g for g in gradients)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def assert_accelerated(module: nn.Module, *arguments: Any, example: Any = None) -> Report:
    """Accelerate a module, hold it to what it computed before, and return the report."""
    before = results(module, *arguments)
    report = accelerate(module, example)
    assert_same(results(module, *arguments), before)
    return report


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()
