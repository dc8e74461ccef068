"""Photos that do not lie exactly on their label maps: each is compared where it fits best.

Two cameras, or a photo and a map from another source, are often a few pixels apart. Losses of pixels and features then
ask for the mean of all shifts, which is blurred. With a largest shift, every loss sees the photo moved by whole pixels
to where it is nearest to the image that G makes at present.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.wording import count

NEARNESS = 0.01
"""How much nearer the image must be for each pixel of a shift. Without it, all images could drift in one direction, and
the photos with them."""


def aligned(photo: Tensor, fake: Tensor, max_shift: int) -> tuple[Tensor, list[Tensor]]:
    """Shift each photo to where it is nearest to a generated image.

    Where the shifted photo has no pixels it is mirrored. Nothing here waits for a GPU.

    Args:
        photo: [B, C, H, W].
        fake: [B, C, H, W]; gets no gradient.
        max_shift: pixels, in both directions; 0 returns the photo itself.

    Returns:
        The photos [B, C, H, W] in their memory format; and for the log the mean length of the shifts in pixels, a
        scalar float32, or nothing if max_shift is 0.
    """
    if not max_shift:
        return photo, []
    with torch.no_grad(), torch.autocast(photo.device.type, enabled=False):
        shifts = best_shifts(photo, fake, max_shift)
        return _moved(photo, shifts, max_shift), [shifts.float().norm(dim=1).mean()]


def best_shifts(photo: Tensor, fake: Tensor, max_shift: int) -> Tensor:
    """The rows and columns [B, 2] int64, from -max_shift to max_shift, by which `aligned` moves each photo.

    Pixel (y, x) of the moved photo is pixel (y + row, x + column) of the photo. The distance is the mean absolute
    difference over the pixels that all shifts have in common, times 1 + `NEARNESS` (|row| + |column|).
    """
    n, (height, width) = max_shift, photo.shape[2:]
    inside = fake.detach()[..., n : height - n, n : width - n].float()
    rows, columns = inside.shape[2:]
    distances = torch.stack(
        [
            (photo[..., n + row : n + row + rows, n + column : n + column + columns] - inside).abs().mean((1, 2, 3))
            * (1 + NEARNESS * (abs(row) + abs(column)))
            for row in range(-n, n + 1)
            for column in range(-n, n + 1)
        ]
    )  # [(2 n + 1)^2, B]
    best = distances.argmin(0)
    return torch.stack([best // (2 * n + 1), best % (2 * n + 1)], dim=1) - n


def shift_names(max_shift: int) -> tuple[str, ...]:
    """The name in the log of what `aligned` returns for it."""
    return ("photo_shift",) if max_shift else ()


def check_side(max_shift: int, side: int) -> None:
    """Make sure that training images are large enough for a largest shift.

    Args:
        max_shift: of the options.
        side: shortest side of the training images, in pixels.

    Raises:
        ConfigError: all shifts have no pixel in common.
    """
    if side <= 2 * max_shift:
        raise ConfigError(
            f"{option('loss.max_shift')} is {max_shift}, but some training images have a side of "
            f"{count(side, 'pixel')}: give at most {(side - 1) // 2}, or train at a larger size"
        )


def _moved(photo: Tensor, shifts: Tensor, max_shift: int) -> Tensor:
    height, width = photo.shape[2:]
    padded = F.pad(photo, (max_shift,) * 4, mode="reflect")
    rows, columns = (
        torch.arange(side, device=photo.device) + max_shift + shift[:, None]
        for side, shift in ((height, shifts[:, 0]), (width, shifts[:, 1]))
    )  # [B, H] and [B, W]
    picture, channel = (torch.arange(size, device=photo.device) for size in photo.shape[:2])
    moved = padded[picture[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]
    return torch.empty_like(photo).copy_(moved)  # in its memory format
