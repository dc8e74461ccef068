"""pix2pixHD written with PyTorch's modules only: padding, convolution with bias, norm and activation, one by one.

This is the eager implementation of the networks. It contains the convolutions of our networks, so both share weights.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from hdgan.models.blocks import ResidualBlock
from hdgan.models.discriminator import NEGATIVE_SLOPE, PatchDiscriminator
from hdgan.models.generator import STEM_PAD, Enhancer, Trunk
from hdgan.ops import InstanceIndex, instance_mean


def plain(network: nn.Module) -> nn.Module:
    """The same network made of plain modules, with the same parameters."""
    if isinstance(network, GlobalGenerator):
        return nn.Sequential(*_trunk(network.trunk), *_head(network.head))
    if isinstance(network, LocalEnhancer):
        return PlainEnhancers(network)
    if isinstance(network, MultiscaleDiscriminator):
        return PlainDiscriminator(network)
    if isinstance(network, FeatureEncoder):
        return PlainEncoder(network)
    assert isinstance(network, ResidualBlock)
    return PlainBlock(network)


class PlainBlock(nn.Module):
    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        first, second = _normalised(block.conv1), nn.InstanceNorm2d(block.conv2.out_channels)
        self.body = nn.Sequential(nn.ReflectionPad2d(1), *first, nn.ReflectionPad2d(1), block.conv2, second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PlainEnhancers(nn.Module):
    def __init__(self, network: LocalEnhancer) -> None:
        super().__init__()
        enhancers: list[Enhancer] = list(network.enhancers)  # type: ignore[arg-type]
        self.coarse = nn.Sequential(*_trunk(network.coarse))
        self.downs = nn.ModuleList(
            nn.Sequential(nn.ReflectionPad2d(STEM_PAD), *_normalised(e.stem), *_normalised(e.down)) for e in enhancers
        )
        self.ups = nn.ModuleList(
            nn.Sequential(*(PlainBlock(block) for block in e.blocks), *_normalised(e.up))  # type: ignore[arg-type]
            for e in enhancers
        )
        self.head = nn.Sequential(*_head(network.head))
        self.pool = _pool()

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [x]
        for _ in self.downs:
            pyramid.append(self.pool(pyramid[-1]))
        h = self.coarse(pyramid.pop())
        for down, up in zip(self.downs, self.ups, strict=True):
            h = up(down(pyramid.pop()) + h)
        return self.head(h)


class PlainDiscriminator(nn.Module):
    def __init__(self, network: MultiscaleDiscriminator) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_patch_gan(patch_gan) for patch_gan in network.scales)  # type: ignore[arg-type]
        self.pool = _pool()

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        outputs = []
        for i, layers in enumerate(self.scales):
            x = x if i == 0 else self.pool(x)
            features = [x]
            for layer in layers:  # type: ignore[attr-defined]
                features.append(layer(features[-1]))
            outputs.append(features[1:])
        return outputs


class PlainEncoder(nn.Module):
    def __init__(self, network: FeatureEncoder) -> None:
        super().__init__()
        self.body = nn.Sequential(*_trunk(network.trunk), *_head(network.head))

    def forward(self, photo: Tensor, index: InstanceIndex) -> Tensor:
        return instance_mean(self.body(photo), index, backend="eager")


def _normalised(conv: nn.Module, slope: float = 0.0) -> list[nn.Module]:
    norm = nn.InstanceNorm2d(conv.out_channels)  # type: ignore[arg-type]
    return [conv, norm, nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)]


def _trunk(trunk: Trunk) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.ReflectionPad2d(STEM_PAD)]
    for conv in (trunk.stem, *trunk.downs):
        layers += _normalised(conv)
    layers += [PlainBlock(block) for block in trunk.blocks]  # type: ignore[arg-type]
    for conv in trunk.ups:
        layers += _normalised(conv)
    return layers


def _head(conv: nn.Conv2d) -> list[nn.Module]:
    return [nn.ReflectionPad2d(STEM_PAD), conv, nn.Tanh()]


def _patch_gan(network: PatchDiscriminator) -> nn.ModuleList:
    first, *middle, last = network.convs
    layers = [nn.Sequential(first, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))]
    layers += [nn.Sequential(*_normalised(conv, NEGATIVE_SLOPE)) for conv in middle]
    return nn.ModuleList([*layers, last])


def _pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)


def wide_copy(network: nn.Module) -> nn.Module:
    """A copy of the network in float32 and NCHW."""
    return copy.deepcopy(network).to(torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
