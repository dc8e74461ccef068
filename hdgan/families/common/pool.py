"""A history of generated images for the discriminator (Shrivastava et al. 2017), as NVIDIA/pix2pixHD has it."""

from __future__ import annotations

import torch
from torch import Tensor


class FakePool:
    """Keeps `size` generated images with their conditions; half of D's fakes then come from the history.

    Draws from torch's CPU generator, which the training loop seeds for each step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []  # each [C, H, W]: condition and image

    def exchange(self, condition: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Add this step's fakes [B, C, H, W] with their conditions; return fakes for D's own loss, without gradient."""
        channels = [condition.shape[1], fake.shape[1]]
        images = self.query(torch.cat([condition, fake.detach().to(condition.dtype)], dim=1))
        condition, fake = images.split(channels, dim=1)
        return condition, fake

    def query(self, images: Tensor) -> Tensor:
        """Add new images [B, C, H, W] and return as many. Each is new or, once the pool is full, half of the time
        old."""
        returned = []
        for image in images:
            if self.images and self.images[0].shape != image.shape:
                self.images = []
            if len(self.images) < self.size:
                self.images.append(image.clone())  # a view would keep its whole batch
                returned.append(image)
            elif torch.rand(()) < 0.5:
                returned.append(image)
            else:
                slot = int(torch.randint(self.size, ()))
                returned.append(self.images[slot])
                self.images[slot] = image.clone()
        return torch.stack(returned)

    def state(self) -> list[Tensor]:
        return [image.cpu() for image in self.images]

    def load(self, images: list[Tensor], device: torch.device) -> None:
        self.images = [image.to(device) for image in images]
