"""The step of pix2pix (Isola et al. 2017, sections 3.1 and 3.3).

    min_G  L_GAN(G, D) + lambda L1(G)        max_D  L_GAN(G, D) / 2

D is run once on the generated picture (`hdgan.families.common.adversarial`), so both gradients are those of the same
D, and both networks move together. Isola et al. alternate: there G steps against the D that has just been updated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from tyro.conf import Suppress

from hdgan.config.bounds import Weight
from hdgan.config.serialization import check_values
from hdgan.families.common.adversarial import judge, play
from hdgan.families.common.batch import Inputs, Objectives
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.perceptual import OnMissing
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pix.config import Pix2PixConfig
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.losses import GanMode, l1_distance


@dataclass(frozen=True)
class Pix2PixLoss:
    """Losses and their weights (Isola et al. 2017, section 3.1)."""

    family: Suppress[Literal["pix2pix"]] = "pix2pix"
    gan: GanMode = "vanilla"
    """The cross entropy of the original GAN, or least squares."""
    l1: Weight = 100.0
    """Weight of the L1 distance to the photo; 0 leaves it out."""

    def __post_init__(self) -> None:
        check_values(self, "loss")

    def check(self, model: ModelConfig) -> None:
        """Every model of the family can have these losses."""
        assert isinstance(model, Pix2PixConfig)


def load_perceptual(config: Pix2PixLoss, on_missing: OnMissing | None = None) -> nn.Module | None:
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
        condition = model.condition(batch.label, batch.ids, batch.picture)
        fake = model.generate(condition)
        judgement = judge(model, condition, fake, batch.photo, self.pool)

        terms = []
        if self.config.l1:
            terms.append(self.config.l1 * l1_distance(fake, batch.photo))
        return play(judgement, self.config.gan, terms)
