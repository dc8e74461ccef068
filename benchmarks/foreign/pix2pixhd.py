"""Look-alikes of the networks of NVIDIA/pix2pixHD."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from hdgan.benchmarks.foreign.layers import ForeignBlock, down_layers, head_layers, norm, patch_layers, up_layers


class Pix2PixHDGenerator(nn.Module):
    """pix2pixHD's G1. One ReLU object serves all layers."""

    def __init__(self, channels: int, width: int, n_downs: int = 3, n_blocks: int = 9, out: int = 3) -> None:
        super().__init__()
        relu = nn.ReLU(True)
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), norm(width), relu]
        for _ in range(n_downs):
            layers += down_layers(width, relu)
            width *= 2
        layers += [ForeignBlock(width, relu) for _ in range(n_blocks)]
        for _ in range(n_downs):
            layers += up_layers(width, relu)
            width //= 2
        self.model = nn.Sequential(*layers, *head_layers(width, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Pix2PixHDEnhancer(nn.Module):
    """pix2pixHD's G2: levels by number through getattr, each of which adds the output of the level below."""

    def __init__(self, channels: int, width: int, n_levels: int = 1, n_blocks_local: int = 3, **trunk: Any) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.model = Pix2PixHDGenerator(channels, width * 2**n_levels, **trunk).model[:-3]
        for level in range(1, n_levels + 1):
            w = width * 2 ** (n_levels - level)
            stem = [nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7), norm(w), nn.ReLU(True)]
            blocks = [ForeignBlock(w * 2, nn.ReLU(True)) for _ in range(n_blocks_local)]
            head = head_layers(w, 3) if level == n_levels else []
            setattr(self, f"model{level}_1", nn.Sequential(*stem, *down_layers(w, nn.ReLU(True))))
            setattr(self, f"model{level}_2", nn.Sequential(*blocks, *up_layers(w * 2, nn.ReLU(True)), *head))
        self.downsample = nn.AvgPool2d(3, stride=2, padding=[1, 1], count_include_pad=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [x]
        for _ in range(self.n_levels):
            pyramid.append(self.downsample(pyramid[-1]))
        y = self.model(pyramid[-1])
        for level in range(1, self.n_levels + 1):
            down, up = (getattr(self, f"model{level}_{half}") for half in (1, 2))
            y = up(down(pyramid[self.n_levels - level]) + y)
        return y


class Pix2PixHDEncoder(nn.Module):
    """pix2pixHD's E: the mean of every instance, by a loop over the instances, the images and the channels."""

    def __init__(self, channels: int, width: int, n_downs: int = 4, out: int = 3) -> None:
        super().__init__()
        self.output_nc = out
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), norm(width), nn.ReLU(True)]
        for _ in range(n_downs):
            layers += down_layers(width, nn.ReLU(True))
            width *= 2
        for _ in range(n_downs):
            layers += up_layers(width, nn.ReLU(True))
            width //= 2
        self.model = nn.Sequential(*layers, *head_layers(width, out))

    def forward(self, x: Tensor, inst: Tensor) -> Tensor:
        features = self.model(x)
        means = features.clone()
        for label in np.unique(inst.cpu().numpy().astype(int)):
            for b in range(x.size(0)):
                where = (inst[b : b + 1] == int(label)).nonzero()  # [pixels, 4]
                for c in range(self.output_nc):
                    index = where[:, 0] + b, where[:, 1] + c, where[:, 2], where[:, 3]
                    picked = features[index]
                    means[index] = picked.mean().expand_as(picked)
        return means


class Pix2PixHDDiscriminator(nn.Module):
    """pix2pixHD's D: a PatchGAN for each scale, whole or, to give its features, layer by layer."""

    def __init__(self, channels: int, width: int, features: bool = True, n_layers: int = 3, n_scales: int = 2) -> None:
        super().__init__()
        self.features, self.n_scales, self.depth = features, n_scales, n_layers + 2
        for i in range(n_scales):
            groups = patch_layers(channels, width, n_layers, padding=2)
            if features:
                for j, group in enumerate(groups):
                    setattr(self, f"scale{i}_layer{j}", nn.Sequential(*group))
            else:
                setattr(self, f"layer{i}", nn.Sequential(*(layer for group in groups for layer in group)))
        self.downsample = nn.AvgPool2d(3, stride=2, padding=[1, 1], count_include_pad=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        results = []
        for i in reversed(range(self.n_scales)):
            if self.features:
                outputs = [x]
                for j in range(self.depth):
                    outputs.append(getattr(self, f"scale{i}_layer{j}")(outputs[-1]))
                results.append(outputs[1:])
            else:
                results.append([getattr(self, f"layer{i}")(x)])
            if i > 0:
                x = self.downsample(x)
        return results
