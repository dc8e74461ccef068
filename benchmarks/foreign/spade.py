"""Look-alikes of SPADE's networks with instance norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from hdgan.benchmarks.foreign.layers import SLOPE, norm


class SpadeNorm(nn.Module):
    """A norm without parameters, whose output is scaled and shifted by convolutions of the label planes."""

    def __init__(self, channels: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.param_free_norm = norm(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        normalised = self.param_free_norm(x)
        planes = F.interpolate(planes, size=x.size()[2:], mode="nearest")
        hidden = self.mlp_shared(planes)
        return normalised * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeBlock(nn.Module):
    """Norm, LeakyReLU and a convolution with spectral norm, twice; a third convolution where the width changes."""

    def __init__(self, channels: int, out: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.learned_shortcut = channels != out
        middle = min(channels, out)
        self.conv_0 = spectral_norm(nn.Conv2d(channels, middle, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, out, 3, padding=1))
        self.norm_0 = SpadeNorm(channels, labels, hidden)
        self.norm_1 = SpadeNorm(middle, labels, hidden)
        if self.learned_shortcut:
            self.conv_s = spectral_norm(nn.Conv2d(channels, out, 1, bias=False))
            self.norm_s = SpadeNorm(channels, labels, hidden)

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, planes)) if self.learned_shortcut else x
        y = self.conv_0(F.leaky_relu(self.norm_0(x, planes), SLOPE))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, planes), SLOPE))
        return shortcut + y


class SpadeGenerator(nn.Module):
    """Starts from the label planes at `latent`, [height, width], and makes images 32 times as large."""

    def __init__(self, labels: int, width: int, latent: tuple[int, int], hidden: int = 128) -> None:
        super().__init__()
        self.latent = latent
        self.fc = nn.Conv2d(labels, 16 * width, 3, padding=1)
        self.head_0 = SpadeBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_0 = SpadeBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_1 = SpadeBlock(16 * width, 16 * width, labels, hidden)
        self.up_0 = SpadeBlock(16 * width, 8 * width, labels, hidden)
        self.up_1 = SpadeBlock(8 * width, 4 * width, labels, hidden)
        self.up_2 = SpadeBlock(4 * width, 2 * width, labels, hidden)
        self.up_3 = SpadeBlock(2 * width, width, labels, hidden)
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        y = self.head_0(self.fc(F.interpolate(x, size=self.latent)), x)
        y = self.G_middle_0(self.up(y), x)
        y = self.G_middle_1(y, x)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            y = block(self.up(y), x)
        return F.tanh(self.conv_img(F.leaky_relu(y, SLOPE)))


def _normalised(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution without bias, with spectral norm, and its instance norm: a module of its own."""
    conv.register_parameter("bias", None)
    return nn.Sequential(spectral_norm(conv), norm(conv.out_channels))


class SpadePatch(nn.Module):
    """A PatchGAN that gives the outputs of all its children."""

    def __init__(self, channels: int, width: int, n_layers: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(channels, width, 4, stride=2, padding=2), nn.LeakyReLU(SLOPE, False))]
        for i in range(1, n_layers):
            wider, stride = min(width * 2, 512), 1 if i == n_layers - 1 else 2
            conv = nn.Conv2d(width, wider, 4, stride=stride, padding=2)
            layers.append(nn.Sequential(_normalised(conv), nn.LeakyReLU(SLOPE, False)))
            width = wider
        layers.append(nn.Sequential(nn.Conv2d(width, 1, 4, padding=2)))
        for i, layer in enumerate(layers):
            self.add_module(f"model{i}", layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for child in self.children():
            outputs.append(child(outputs[-1]))
        return outputs[1:]


class SpadeDiscriminator(nn.Module):
    """A PatchGAN for each scale; the pooling is a function, and runs once more than its result is used."""

    def __init__(self, channels: int, width: int, n_layers: int = 4, n_scales: int = 2) -> None:
        super().__init__()
        for i in range(n_scales):
            self.add_module(f"discriminator_{i}", SpadePatch(channels, width, n_layers))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        results = []
        for _, scale in self.named_children():
            results.append(scale(x))
            x = F.avg_pool2d(x, kernel_size=3, stride=2, padding=[1, 1], count_include_pad=False)
        return results
