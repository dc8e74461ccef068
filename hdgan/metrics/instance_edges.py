"""Edges between touching objects of one class: whether images show where one object ends and the next begins.

A label map does not tell two parked cars apart; the boundaries of the instance map do (paper section 3.3, figure 4). No
score of recognised classes can see the difference.

Of four pixels in a row, the first two belong to one object and the others to its neighbour. Their total variation, the
sum of the absolute differences from pixel to pixel, is high at an outline as well as at a step of colour, and does not
depend on how sharp a step is. That of the four pixels beside them, within either object, is texture and noise, and is
subtracted. What remains is divided by the same of the photos.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LENGTH = 4
"""Pixels of a row."""


class InstanceEdges:
    """Adds up the total variation across boundaries between objects of one class, and beside them.

    Args:
        dontcare: label of pixels that have no class.
    """

    def __init__(self, dontcare: int | None) -> None:
        self.dontcare = dontcare
        self._sums = torch.zeros(3, 2, dtype=torch.float64)  # of the images, of the photos, rows; across, within

    @torch.inference_mode()
    def measure(self, image: Tensor, photo: Tensor, label: Tensor, ids: Tensor) -> Tensor:
        """Measure an image and its photo, horizontally and vertically; adds nothing.

        Args:
            image: [1, C, H, W] float in [0, 1].
            photo: the same.
            label: [1, H, W] integer.
            ids: [1, H, W] integer, the instance of each pixel.

        Returns:
            [3, 2] float64 on the CPU: total variations of the image and of the photo, and the number of rows of pixels;
            across boundaries and within objects.
        """
        images, known = torch.cat([image, photo]).float(), label.long()
        if self.dontcare is not None:
            known = torch.where(known == self.dontcare, -1, known)
        sums = _row_sums(images, known[0], ids[0].long())
        return (sums + _row_sums(images.mT, known[0].mT, ids[0].long().mT)).cpu()

    def add(self, sums: Tensor) -> None:
        """Add what was measured of an image."""
        self._sums += sums

    def score(self) -> float | None:
        """How strong the edges of the images are: 1 as those of the photos, 0 if there are none, and below 0 if images
        are plainer across boundaries than beside them.

        None if no two objects of one class touch, or if the photos have no edges between them.
        """
        rows = self._sums[2]
        if not bool((rows > 0).all()):
            return None
        across, within = (self._sums[:2] / rows).T
        image, photo = (across - within).tolist()
        return float(image / photo) if photo > 0 else None


def _row_sums(images: Tensor, label: Tensor, ids: Tensor) -> Tensor:
    """The sums of `InstanceEdges.measure` over the horizontal rows of pixels.

    Args:
        images: [2, C, H, W], the image and the photo.
        label: [H, W], -1 for pixels without a class.
        ids: [H, W].
    """
    if ids.shape[1] < _LENGTH:
        return torch.zeros(3, 2, dtype=torch.float64, device=images.device)
    steps = images.diff(dim=3).abs().mean(1)
    variation = steps.unfold(2, _LENGTH - 1, 1).sum(3).double()  # [2, H, rows]
    changes = (ids[:, 1:] != ids[:, :-1]).unfold(1, _LENGTH - 1, 1)  # [H, rows, steps]
    of_one_class = (label[:, 1:] == label[:, :-1]).unfold(1, _LENGTH - 1, 1).all(2) & (label >= 0)[:, : 1 - _LENGTH]
    across = of_one_class & ~changes[..., 0] & changes[..., 1] & ~changes[..., 2]
    inside = of_one_class & ~changes.any(2)
    beside = _LENGTH - 1  # A row that begins or ends so far from one across a boundary shares its outer pixel.
    within = torch.zeros_like(variation[0])
    within[:, :-beside] += inside[:, :-beside] & across[:, beside:]
    within[:, beside:] += inside[:, beside:] & across[:, :-beside]
    weights = torch.stack([across.double(), within], dim=-1)  # [H, rows, 2]
    sums = torch.einsum("nhr,hrk->nk", variation, weights)
    return torch.cat([sums, weights.sum((0, 1))[None]])
