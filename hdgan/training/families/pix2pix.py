"""The step of pix2pix (Isola et al. 2017, sections 3.1 and 3.3).

    min_G  L_GAN(G, D) + lambda L1(G)        max_D  L_GAN(G, D) / 2

As in `hdgan.training.families.pix2pixhd`, one forward pass of D over the generated picture serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from tyro.conf import Suppress

from hdgan.losses import GanMode, gan_loss, l1_distance
from hdgan.models import Pix2Pix
from hdgan.models.config import ModelConfig, Pix2PixConfig, require
from hdgan.training.pool import FakePool
from hdgan.training.step import Inputs, Objectives


@dataclass(frozen=True)
class Pix2PixLoss:
    """Losses and their weights (Isola et al. 2017, section 3.1)."""

    family: Suppress[Literal["pix2pix"]] = "pix2pix"
    gan: GanMode = "vanilla"
    """The cross entropy of the original GAN, or least squares."""
    l1: float = 100.0
    """Weight of the L1 distance to the photo; 0 leaves it out."""

    def __post_init__(self) -> None:
        require("0 or more", {"loss.l1": self.l1}, lambda value: value >= 0)

    def check(self, model: ModelConfig) -> None:
        """Every model of the family can have these losses."""
        assert isinstance(model, Pix2PixConfig)


def load_perceptual(config: Pix2PixLoss) -> nn.Module | None:
    """None: there is no perceptual loss."""
    return None


class Criterion:
    """The losses of a run with their weights.

    Args:
        config: the weights.
        perceptual: None.
        pool: of earlier fakes.
    """

    def __init__(self, config: Pix2PixLoss, perceptual: nn.Module | None, pool: FakePool) -> None:
        self.config = config
        self.perceptual = perceptual
        self.pool = pool
        self.names = ("g_gan", *(["g_l1"] if config.l1 else []), "d_real", "d_fake")

    def __call__(self, model: Pix2Pix, batch: Inputs) -> Objectives:
        """Run the networks on a micro batch and return both objectives; D's losses enter its own halved."""
        photo, mode = batch.photo, self.config.gan
        condition = model.condition(batch.label, batch.ids, batch.picture)
        fake = model.generate(condition)

        context = model.context(condition)
        fake_outputs = model.discriminate(context, fake)
        real_outputs = model.discriminate(context, photo)
        d_fake_outputs = fake_outputs
        if self.pool.size:
            old_condition, old_fake = self.pool.exchange(condition, fake)
            d_fake_outputs = model.discriminate(model.context(old_condition), old_fake)

        g_losses = [gan_loss(fake_outputs, real=True, mode=mode)]
        if self.config.l1:
            g_losses.append(self.config.l1 * l1_distance(fake, photo))
        d_losses = [gan_loss(real_outputs, real=True, mode=mode), gan_loss(d_fake_outputs, real=False, mode=mode)]
        return Objectives(
            generator=sum(g_losses[1:], g_losses[0]),
            discriminator=(d_losses[0] + d_losses[1]) / 2,
            parts=torch.stack([*g_losses, *d_losses]).detach(),
        )
