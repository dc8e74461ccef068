"""A history of generated pictures for the discriminator (Shrivastava et al. 2017), as NVIDIA/pix2pixHD has it."""

from __future__ import annotations

import torch
from torch import Tensor

from hdgan.models import Pix2PixHD


class FakePool:
    """Keeps `size` generated pictures with their conditions; half of D's fakes then come from the history.

    Draws from torch's CPU generator, which the training loop seeds for each step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []  # each [C, H, W]: condition and image

    def outputs(
        self, model: Pix2PixHD, condition: Tensor, fake: Tensor, fake_outputs: list[list[Tensor]]
    ) -> list[list[Tensor]]:
        """D's outputs for its own loss: those of this step's fakes, or with a pool those of what it returns."""
        if self.size == 0:
            return fake_outputs
        channels = [condition.shape[1], fake.shape[1]]
        pictures = self.query(torch.cat([condition, fake.detach().to(condition.dtype)], dim=1))
        condition, fake = pictures.split(channels, dim=1)
        return model.discriminate(model.context(condition), fake)

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
