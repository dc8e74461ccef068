"""The losses of pix2pix (Isola et al. 2017, sections 3.1 and 3.3).

    min_G  L_GAN(G, D) + lambda L1(G)        max_D  L_GAN(G, D) / 2

D runs once on the fake (`hdgan.families.common.adversarial`), so both gradients are those of the same D, and both
networks are updated together. Isola et al. alternate: their G is updated against the D of the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from tyro.conf import Suppress

from hdgan.config.bounds import Weight
from hdgan.families.common.adversarial import adversarial_objectives, run_discriminator
from hdgan.families.common.alignment import aligned, shift_names
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import Penalty
from hdgan.families.common.penalty import R1LossConfig
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.losses import GanMode, l1_distance


@dataclass(frozen=True)
class Pix2PixLoss(R1LossConfig):
    """Losses and their weights (Isola et al. 2017, section 3.1)."""

    family: Suppress[Literal["pix2pix"]] = "pix2pix"
    gan: GanMode = "vanilla"
    """The cross entropy of the original GAN, least squares, or hinge."""
    l1: Weight = 100.0
    """Weight of the L1 distance to the photo; 0 leaves it out."""

    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> Pix2PixCriterion:
        return Pix2PixCriterion(self, pool, augmentation)


class Pix2PixCriterion:
    """The losses of a run with their weights.

    Args:
        config: the weights.
        pool: of earlier fakes.
        augmentation: of what D sees.
    """

    perceptual: nn.Module | None = None

    def __init__(self, config: Pix2PixLoss, pool: FakePool, augmentation: Augmentation) -> None:
        self.config = config
        self.pool = pool
        self.augmentation = augmentation
        self.penalty: Penalty | None = config.penalty(augmentation)
        of_g = ("g_gan", *(["g_l1"] if config.l1 else []))
        self.names = (*of_g, "d_real", "d_fake", *augmentation.names, *shift_names(config.max_shift))

    def __call__(self, model: Pix2Pix, batch: Batch) -> Objectives:
        """Run the networks on a micro batch and return both objectives; D's objective contains its losses halved."""
        condition = model.condition(batch.label, batch.ids, batch.source)
        fake = model.generate(condition)
        photo, shift = aligned(batch.photo, fake, self.config.max_shift)
        outputs = run_discriminator(model, condition, fake, photo, self.pool, self.augmentation)
        terms = [self.config.l1 * l1_distance(fake, photo)] if self.config.l1 else []
        objectives = adversarial_objectives(outputs, self.config.gan, terms, self.augmentation)
        return objectives.with_parts(shift)
