"""What the look-alikes share: layers of the originals that several projects have in common."""

from __future__ import annotations

from torch import Tensor, nn

SLOPE = 0.2
"""Of every LeakyReLU here."""


def norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=False)


def down_layers(channels: int, activation: nn.Module) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels * 2, kernel_size=3, stride=2, padding=1)
    return [conv, norm(channels * 2), activation]


def up_layers(channels: int, activation: nn.Module) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(channels, channels // 2, kernel_size=3, stride=2, padding=1, output_padding=1)
    return [conv, norm(channels // 2), activation]


def head_layers(channels: int, out: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(channels, out, kernel_size=7), nn.Tanh()]


class ForeignBlock(nn.Module):
    """The residual block of pix2pixHD and CycleGAN; dropout is CycleGAN's option."""

    def __init__(self, channels: int, activation: nn.Module, dropout: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm(channels), activation]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm(channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def patch_layers(channels: int, width: int, n_layers: int, padding: int, bias: bool = True) -> list[list[nn.Module]]:
    """The layers of a PatchGAN, in groups that end where features are taken."""
    first = nn.Conv2d(channels, width, 4, stride=2, padding=padding)
    groups: list[list[nn.Module]] = [[first, nn.LeakyReLU(SLOPE, True)]]
    for i in range(1, n_layers + 1):
        wider, stride = min(width * 2, 512), 1 if i == n_layers else 2
        conv = nn.Conv2d(width, wider, 4, stride=stride, padding=padding, bias=bias)
        groups.append([conv, norm(wider), nn.LeakyReLU(SLOPE, True)])
        width = wider
    return [*groups, [nn.Conv2d(width, 1, 4, padding=padding)]]
