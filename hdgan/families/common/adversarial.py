"""What the steps of all families with a discriminator share: its scores, and the game of both networks for them.

One forward pass of D over the generated picture serves both: its graph is walked once towards D, stopping before G, and
once towards G, skipping the gradients of D's weights. So both gradients are those of one and the same D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdgan.families.common.adversarial_model import AdversarialModel
from hdgan.families.common.batch import Objectives
from hdgan.families.common.pool import FakePool
from hdgan.losses import GanMode, Outputs, gan_loss


@dataclass(frozen=True)
class Judgement:
    """D's outputs on a micro batch."""

    real: Outputs
    fake: Outputs
    """On what G made, for G's objective."""
    shown: Outputs
    """On the fakes of D's own objective: the same, or from the pool."""


def judge(model: AdversarialModel, condition: Tensor, fake: Tensor, photo: Tensor, pool: FakePool) -> Judgement:
    """Run D on what G made of a condition, on the photo, and on the pool's fakes if there are any."""
    context = model.context(condition)
    on_fake = model.discriminate(context, fake)
    on_real = model.discriminate(context, photo)
    if not pool.size:
        return Judgement(on_real, on_fake, on_fake)
    old_condition, old_fake = pool.exchange(condition, fake)
    return Judgement(on_real, on_fake, model.discriminate(model.context(old_condition), old_fake))


def play(judgement: Judgement, mode: GanMode, terms: Sequence[Tensor] = ()) -> Objectives:
    """Both objectives of the game.

        min_G  L_GAN(G, D) + further terms        max_D  L_GAN(G, D) / 2

    Args:
        judgement: of D.
        mode: of the GAN loss.
        terms: of G's objective besides the GAN loss, with their weights.

    Returns:
        The objectives; their parts are g_gan, the terms, d_real and d_fake, these two before they are halved.
    """
    g_losses = [gan_loss(judgement.fake, real=True, mode=mode), *terms]
    d_losses = [gan_loss(judgement.real, real=True, mode=mode), gan_loss(judgement.shown, real=False, mode=mode)]
    return Objectives(
        generator=sum(g_losses[1:], g_losses[0]),
        discriminator=(d_losses[0] + d_losses[1]) / 2,
        parts=torch.stack([*g_losses, *d_losses]).detach(),
    )
