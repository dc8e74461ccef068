"""A history of generated pictures for the discriminator (Shrivastava et al. 2017), as NVIDIA/pix2pixHD has it."""

from __future__ import annotations

import torch
from torch import Tensor


class FakePool:
    """Keeps `size` generated pictures with their conditions; half of D's fakes then come from the history.

    Draws from torch's CPU generator, which the training loop seeds for each step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []  # each [C, H, W]: condition and image

    def exchange(self, condition: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Put this step's fakes [B, C, H, W] with their conditions in; get fakes for D's own loss, without gradient."""
        channels = [condition.shape[1], fake.shape[1]]
        pictures = self.query(torch.cat([condition, fake.detach().to(condition.dtype)], dim=1))
        condition, fake = pictures.split(channels, dim=1)
        return condition, fake

    def query(self, pictures: Tensor) -> Tensor:
        """Put new pictures [B, C, H, W] in; get as many back, each new or, once the pool is full, half the time old."""
        returned = []
        for picture in pictures:
            if self.pictures and self.pictures[0].shape != picture.shape:
                self.pictures = []
            if len(self.pictures) < self.size:
                self.pictures.append(picture.clone())  # a view would keep its whole batch
                returned.append(picture)
            elif torch.rand(()) < 0.5:
                returned.append(picture)
            else:
                slot = int(torch.randint(self.size, ()))
                returned.append(self.pictures[slot])
                self.pictures[slot] = picture.clone()
        return torch.stack(returned)

    def state(self) -> list[Tensor]:
        return [picture.cpu() for picture in self.pictures]

    def load(self, pictures: list[Tensor], device: torch.device) -> None:
        self.pictures = [picture.to(device) for picture in pictures]
