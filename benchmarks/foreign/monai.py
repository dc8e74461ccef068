"""A look-alike of MONAI's PatchDiscriminator, whose modules are all of an nn.Sequential of their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hdgan.benchmarks.foreign.layers import SLOPE, norm


class MonaiDiscriminator(nn.Sequential):
    """A PatchGAN that gives the outputs of all its children, with a dropout between norm and activation."""

    def __init__(self, channels: int, width: int, n_layers: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.add_module("initial_conv", _layer(channels, width, 2, dropout, normalised=False))
        for i in range(n_layers):
            self.add_module(f"{i}", _layer(width, width * 2, 1 if i == n_layers - 1 else 2, dropout))
            width *= 2
        last = nn.Sequential()
        last.add_module("conv", nn.Conv2d(width, 1, 4, padding=1))
        self.add_module("final_conv", last)

    def forward(self, x: Tensor) -> Any:
        outputs = [x]
        for child in self.children():
            outputs.append(child(outputs[-1]))
        return outputs[1:]


def _layer(channels: int, width: int, stride: int, dropout: float, normalised: bool = True) -> nn.Sequential:
    layer, after = nn.Sequential(), nn.Sequential()
    if normalised:
        after.add_module("N", norm(width))
    after.add_module("D", nn.Dropout(dropout))
    after.add_module("A", nn.LeakyReLU(SLOPE))
    layer.add_module("conv", nn.Conv2d(channels, width, 4, stride=stride, padding=1, bias=not normalised))
    layer.add_module("adn", after)
    return layer
