"""The ResNet generator of pix2pix and CycleGAN (Johnson et al. 2016), with batch or instance norm.

With instance norm and without dropout it computes what `GlobalGenerator` does with two downsamplings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdgan.models.blocks import as_function, init_weights
from hdgan.models.draws import draws
from hdgan.models.inputs import NetworkInput, first_conv, input_for, run_at_multiple
from hdgan.models.norms import make_norm
from hdgan.models.options import NormKind
from hdgan.ops import pad2d

N_DOWNSAMPLE = 2
_STEM_PAD = 3


class ResNetBlock(nn.Module):
    """conv, norm, ReLU, optional dropout, conv, norm, add."""

    def __init__(self, channels: int, norm: NormKind, dropout: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, bias=bias) for _ in range(2))
        self.norm1, self.norm2 = (make_norm(norm, channels) for _ in range(2))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        h = self.norm1(as_function(self.conv1)(pad2d(x, 1, "reflect")), "relu")
        if self.dropout:
            h = draws().dropout(h)
        return x + self.norm2(as_function(self.conv2)(pad2d(h, 1, "reflect")))


class ResNetGenerator(nn.Module):
    """7x7 convolution, two downsamplings, residual blocks, two upsamplings, 7x7 convolution.

    Takes any size: inputs that 4 does not divide are padded and the output is cropped back.

    Args:
        in_channels: of the condition.
        out_channels: of the image.
        ngf: channels of the first convolution.
        n_blocks: residual blocks.
        norm: "batch" or "instance".
        dropout: drop half of the features inside each block as noise, in training and at test time.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 64,
        n_blocks: int = 9,
        norm: NormKind = "batch",
        dropout: bool = True,
    ) -> None:
        super().__init__()
        bias = norm == "instance"  # dead, as in the checkpoints that others made
        widths = [ngf * 2**i for i in range(N_DOWNSAMPLE + 1)]
        self.stem = nn.Conv2d(in_channels, ngf, 2 * _STEM_PAD + 1, bias=bias)
        self.downs = nn.ModuleList(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias) for width in widths[:-1]
        )
        self.down_norms = nn.ModuleList(make_norm(norm, width) for width in widths)
        self.blocks = nn.ModuleList(ResNetBlock(widths[-1], norm, dropout) for _ in range(n_blocks))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            for width in reversed(widths[1:])
        )
        self.up_norms = nn.ModuleList(make_norm(norm, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(ngf, out_channels, 2 * _STEM_PAD + 1)
        self.in_channels, self.out_channels, self.ngf, self.norm = in_channels, out_channels, ngf, norm
        self.dropout = dropout
        self.multiple = 2**N_DOWNSAMPLE
        init_weights(self)

    def forward(self, x: NetworkInput) -> Tensor:
        """Map [B, in_channels, H, W] to an image [B, out_channels, H, W] in [-1, 1]."""
        return run_at_multiple(self._run, input_for(x, [self.stem], _STEM_PAD), self.multiple)

    def _run(self, x: NetworkInput) -> Tensor:
        first, *norms = self.down_norms
        h = first(first_conv(self.stem, x, _STEM_PAD, "reflect"), "relu")
        for conv, norm in zip(self.downs, norms, strict=True):
            h = norm(as_function(conv)(h), "relu")
        for block in self.blocks:
            h = block(h)
        for conv, norm in zip(self.ups, self.up_norms, strict=True):
            h = norm(as_function(conv)(h), "relu")
        return torch.tanh(as_function(self.head, bias=True)(pad2d(h, _STEM_PAD, "reflect")))
