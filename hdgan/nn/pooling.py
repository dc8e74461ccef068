"""AvgPyramid and InstanceMean: the two poolings of pix2pixHD."""

from __future__ import annotations

from torch import Tensor, nn

from hdgan.ops import InstanceIndex, avg_pyramid, instance_mean


class AvgPyramid(nn.Module):
    """The image pyramid of a multi-scale discriminator: 3×3 average pooling that does not count its padding.

    It computes what nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False) does, applied `levels` times, and
    reads the image once for two levels.

    Args:
        levels: number of smaller levels; 0 returns the image alone.

    Shape:
        x: [B, C, H, W], of any floating-point dtype.
        Result: a list of levels + 1 tensors. The first is x, and level k is [B, C, ⌈H / 2^k⌉, ⌈W / 2^k⌉] in the dtype
        and the memory format of x.

    Raises:
        TypeError, ValueError: levels < 0, or x is not such a tensor when called.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if not isinstance(levels, int) or levels < 0:
            raise ValueError(f"AvgPyramid: expected levels to be a number of levels >= 0, got {levels!r}")
        self.levels = levels

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, C, H, W] and its smaller levels, finest first."""
        return avg_pyramid(x, self.levels)

    def extra_repr(self) -> str:
        """The number of smaller levels."""
        return f"levels={self.levels}"


class InstanceMean(nn.Module):
    """The instance-wise average pooling of pix2pixHD's encoder (paper section 3.4).

    Every pixel gets the mean of its instance in its own image. It takes the place of NVIDIA's loop over the ids of each
    image, which writes into the output of the network.

    Shape:
        x: [B, C, H, W], of any floating-point dtype. Sums are taken in float32 at least.
        ids: [B, H, W] or [B, 1, H, W] of any integer dtype; or their `hdgan.ops.instance_index`, which several calls
            may share. Computing it waits for a GPU.
        Result: that of x, in its dtype and memory format.

    Raises:
        TypeError, ValueError: x or ids are not such tensors, or are not of the same size or device.
    """

    def forward(self, x: Tensor, ids: Tensor | InstanceIndex) -> Tensor:
        """The mean of each pixel's instance: x [B, C, H, W] and ids [B, H, W] give [B, C, H, W]."""
        return instance_mean(x, ids)
