"""The U-Net generator of pix2pix (Isola et al. 2017, section 3.2 and appendix 6.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import as_function, init_weights, is_plain
from hdgan.models.draws import draws
from hdgan.models.inputs import NetworkInput, first_conv, input_for, run_at_multiple
from hdgan.models.norms import NEGATIVE_SLOPE, make_norm
from hdgan.models.options import MOST_DOWNS, NormKind

_WIDEST = 8  # times ngf


class UNetGenerator(nn.Module):
    """4x4 convolutions that halve the resolution, and transposed ones that double it and see both what comes from
    below and what the encoder made at their resolution.

    Takes any size: inputs that 2^n_downs does not divide are padded and the output is cropped back. Dropout is the
    network's noise (section 3.1) and stays on at test time: `torch.manual_seed` repeats an image.

    Args:
        in_channels: of the condition.
        out_channels: of the image.
        ngf: channels of the first convolution; they double with each level up to 8 ngf.
        n_downs: levels, 2 or more.
        norm: "batch" or "instance", of all levels but the first convolution and the innermost, which may be a pixel.
        dropout_levels: decoder levels that drop half of their features, the innermost is 0: (0, 1, 2) in the paper, ()
            for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 64,
        n_downs: int = MOST_DOWNS,
        norm: NormKind = "batch",
        dropout_levels: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        super().__init__()
        widths = [ngf * min(2**i, _WIDEST) for i in range(n_downs)]
        bias = norm == "instance"  # dead in front of its norms, as in the checkpoints that others made
        self.downs = nn.ModuleList(
            nn.Conv2d(wide, wider, 4, stride=2, padding=1, bias=bias)
            for wide, wider in zip([in_channels, *widths], widths, strict=False)
        )
        self.down_norms = nn.ModuleList(make_norm(norm, width) for width in widths[1:-1])
        inputs = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]
        outputs = [*reversed(widths[:-1]), out_channels]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wider, wide, 4, stride=2, padding=1, bias=bias or i == n_downs - 1)
            for i, (wider, wide) in enumerate(zip(inputs, outputs, strict=True))
        )
        self.up_norms = nn.ModuleList(make_norm(norm, width) for width in outputs[:-1])
        self.in_channels, self.out_channels, self.ngf, self.norm = in_channels, out_channels, ngf, norm
        self.dropout_levels = dropout_levels
        self.multiple = 2**n_downs
        init_weights(self)

    def forward(self, x: NetworkInput) -> Tensor:
        """Map [B, in_channels, H, W] to an image [B, out_channels, H, W] in [-1, 1]."""
        return run_at_multiple(self._run, input_for(x, self.downs[:1]), self.multiple, least=1)

    def _run(self, x: NetworkInput) -> Tensor:
        outermost, *downs, innermost = self.downs
        # Hooks may keep what a convolution returns: it is theirs then, and not changed in place.
        h = F.leaky_relu(first_conv(outermost, x, bias=True), NEGATIVE_SLOPE, inplace=is_plain(outermost))
        skips = [h]
        for conv, norm in zip(downs, self.down_norms, strict=True):
            h = norm(as_function(conv)(h), "leaky_relu")
            skips.append(h)
        h = F.relu(as_function(innermost, bias=True)(h), inplace=is_plain(innermost))
        *ups, last = self.ups
        for level, (conv, norm) in enumerate(zip(ups, self.up_norms, strict=True)):
            h = norm(as_function(conv)(h), "relu")
            if level in self.dropout_levels:
                h = draws().dropout(h)
            # The ReLU of what the LeakyReLU left is that of the features themselves.
            h = torch.cat([F.relu(skips.pop()), h], dim=1)
        return torch.tanh(as_function(last, bias=True)(h))
